//! What is kept of a container on disk: one JSON document in the store, kind [`KIND`].

use std::collections::BTreeMap;

use creel_types::{ContainerId, Digest, Platform};
use creel_wire::container::{Config, MountPoint};
use creel_wire::host::HostConfig;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The kind under which the store keeps containers.
pub(crate) const KIND: &str = "container";

/// One container. What of it runs is not here: that lives in the run directory and is asked of its shim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: ContainerId,
    /// Without a leading slash.
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    /// The request's configuration merged with the image's.
    pub(crate) config: Config,
    pub(crate) host_config: HostConfig,
    pub(crate) image: Digest,
    pub(crate) platform: Platform,
    /// Everything that is mounted by wish: binds, tmpfs, volumes, images.
    #[serde(default)]
    pub(crate) mounts: Vec<MountRecord>,
    /// The boot in which it was created or started last: in another one nothing of it can run.
    pub(crate) boot_id: String,
    /// What is known of it while it does not run.
    pub(crate) rest: AtRest,
    /// Whether the user stopped it (restart policies will want to know).
    #[serde(default)]
    pub(crate) stopped_by_user: bool,
    /// Whether a removal has begun: it is to be finished, whatever happens.
    #[serde(default)]
    pub(crate) removing: bool,
}

/// How a container was left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum AtRest {
    /// Never ran. `error` and `code` tell of a start that failed.
    Created {
        #[serde(default)]
        code: i32,
        #[serde(default)]
        error: String,
    },
    /// Was started, and its end is not known yet.
    Started { at: Timestamp },
    /// Ran and ended.
    Exited {
        code: i32,
        #[serde(default)]
        oom_killed: bool,
        #[serde(default)]
        error: String,
        started_at: Option<Timestamp>,
        finished_at: Timestamp,
    },
}

/// One mount that was wished for, ready to be put into a Spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountRecord {
    pub(crate) kind: MountKind,
    /// Path on the host; empty for tmpfs, and for volumes of other drivers before they are mounted.
    pub(crate) source: String,
    /// Absolute path in the container.
    pub(crate) destination: String,
    /// Whether it can be written.
    pub(crate) rw: bool,
    /// Options as given after the last colon of `-v`, for `inspect`.
    #[serde(default)]
    pub(crate) mode: String,
    /// `rprivate`, `rslave`, …; empty for tmpfs.
    #[serde(default)]
    pub(crate) propagation: String,
    /// OCI mount options besides `ro`/`rw` and propagation.
    #[serde(default)]
    pub(crate) options: Vec<String>,
    /// Whether a missing source is made at start (`-v`, `bind-create-src`).
    #[serde(default)]
    pub(crate) create_source: bool,
    /// Whether it came by `--mount` or `--tmpfs` (they do not show alike in `inspect`).
    #[serde(default)]
    pub(crate) hidden: bool,
    /// Which volume or image it is. Volumes without it are directories of the container's own, as an older creel made
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) of: Option<MountOf>,
}

/// The volume or image of a mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountOf {
    /// The volume's name, or the image's id.
    pub(crate) name: String,
    /// The volume's driver.
    #[serde(default)]
    pub(crate) driver: String,
    /// Whether it goes with the container (`rm -v`): nobody chose its name.
    #[serde(default)]
    pub(crate) anonymous: bool,
    /// What of it is mounted, relative to its root; all if empty.
    #[serde(default)]
    pub(crate) subpath: String,
    /// Whether it gets the image's content if it is empty.
    #[serde(skip)]
    pub(crate) copy: bool,
    /// Options and labels for the case that it has to be made.
    #[serde(skip)]
    pub(crate) options: BTreeMap<String, String>,
    #[serde(skip)]
    pub(crate) labels: Option<BTreeMap<String, String>>,
}

/// What a [`MountRecord`] mounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MountKind {
    /// A path of the host.
    #[default]
    Bind,
    /// A volume.
    Volume,
    /// Memory.
    Tmpfs,
    /// An image's files, read-only.
    Image,
}

impl MountRecord {
    /// The volume that it mounts, if it is one.
    pub(crate) fn volume(&self) -> Option<&MountOf> {
        self.of.as_ref().filter(|_| self.kind == MountKind::Volume)
    }

    /// As `inspect` shows it; `None` for what Docker leaves out (`--tmpfs`).
    pub(crate) fn point(&self) -> Option<MountPoint> {
        if self.hidden {
            return None;
        }
        Some(MountPoint {
            kind: match self.kind {
                MountKind::Bind => "bind",
                MountKind::Volume => "volume",
                MountKind::Tmpfs => "tmpfs",
                MountKind::Image => "image",
            }
            .to_owned(),
            // An image is shown as it was asked for, and lies nowhere.
            name: match (&self.of, self.kind) {
                (_, MountKind::Image) => self.source.clone(),
                (of, _) => of.as_ref().map(|of| of.name.clone()).unwrap_or_default(),
            },
            source: if self.kind == MountKind::Image { String::new() } else { self.source.clone() },
            destination: self.destination.clone(),
            driver: match (&self.of, self.kind) {
                (Some(of), _) => of.driver.clone(),
                (None, MountKind::Volume) => "local".to_owned(),
                _ => String::new(),
            },
            mode: self.mode.clone(),
            rw: self.rw,
            propagation: self.propagation.clone(),
        })
    }
}

impl ContainerRecord {
    /// The program and its arguments: entrypoint and command together.
    pub(crate) fn args(&self) -> Vec<String> {
        let part = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        let mut args = part(&self.config.entrypoint);
        args.extend(part(&self.config.cmd));
        args
    }

    /// Its mounts of volumes.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = (&MountRecord, &MountOf)> {
        self.mounts.iter().filter_map(|mount| Some((mount, mount.volume()?)))
    }

    /// The labels.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.config.labels.clone().unwrap_or_default()
    }

    /// The exit code that is known, 0 if it never ran.
    pub(crate) fn exit_code(&self) -> i32 {
        match self.rest {
            AtRest::Created { code, .. } | AtRest::Exited { code, .. } => code,
            AtRest::Started { .. } => 0,
        }
    }

    /// Whether json-file logs are kept.
    pub(crate) fn has_log(&self) -> bool {
        matches!(self.host_config.log_config.kind.as_str(), "" | "json-file")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_writing_and_reading() {
        let record = ContainerRecord {
            id: ContainerId::from_random([7; 32]),
            name: "quiet_noether".into(),
            created: "2026-01-02T03:04:05Z".parse().unwrap(),
            config: Config { image: "hello".into(), ..Config::default() },
            host_config: HostConfig { auto_remove: true, ..HostConfig::default() },
            image: Digest::from_sha256([1; 32]),
            platform: Platform::host(),
            mounts: Vec::new(),
            boot_id: "b".into(),
            rest: AtRest::Exited {
                code: 3,
                oom_killed: false,
                error: String::new(),
                started_at: None,
                finished_at: "2026-01-02T03:04:06Z".parse().unwrap(),
            },
            stopped_by_user: false,
            removing: false,
        };
        let json = serde_json::to_vec(&record).unwrap();
        assert_eq!(serde_json::from_slice::<ContainerRecord>(&json).unwrap(), record);
    }
}

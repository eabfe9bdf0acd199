//! What is kept of a container on disk: one JSON document in the store, kind [`KIND`].

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
    /// Everything that is mounted by wish: binds, tmpfs, anonymous volumes.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountRecord {
    pub(crate) kind: MountKind,
    /// Path on the host; empty for tmpfs.
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
}

/// What a [`MountRecord`] mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MountKind {
    /// A path of the host.
    Bind,
    /// A directory of the container's own, filled from the image.
    Volume,
    /// Memory.
    Tmpfs,
}

impl MountRecord {
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
            }
            .to_owned(),
            name: String::new(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            driver: if self.kind == MountKind::Volume { "local".to_owned() } else { String::new() },
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

    /// The labels.
    pub(crate) fn labels(&self) -> std::collections::BTreeMap<String, String> {
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

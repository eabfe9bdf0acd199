//! What is kept of a container, and the state that follows from it.

use std::collections::BTreeMap;

use creel_cgroup::{Cgroup, Hierarchies};
use creel_types::spec::{Hook, IntelRdt};
use serde::{Deserialize, Serialize};

use crate::procfs;
use crate::store::Entry;

/// Version of the record's form.
const FORMAT: u32 = 3;
/// The one before, which did not tell [`Record::filtered`] and kept every filter in the Spec.
const UNFILTERED: u32 = 2;

/// What is kept of a container. Written before anything is made, so that what a killed creator leaves can be found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) format: u32,
    pub(crate) oci_version: String,
    pub(crate) id: String,
    /// The bundle, absolute.
    pub(crate) bundle: String,
    /// The root file system, absolute.
    pub(crate) rootfs: String,
    /// When it was made, RFC 3339 in UTC with nanoseconds.
    pub(crate) created: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    /// Process 1 as the runtime numbers it; 0 until it is set up.
    pub(crate) pid: i32,
    /// When that process was started, in clock ticks since boot.
    pub(crate) start_time: u64,
    /// Where its control group is or will be.
    pub(crate) group: Group,
    /// Whether it has a pid namespace of its own, so that everything ends with process 1.
    pub(crate) own_pids: bool,
    /// Without a mount namespace of its own: how many mounts were on the root before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host_mounts: Option<usize>,
    /// Whether missing rights to control groups are passed over.
    pub(crate) rootless: bool,
    /// Hooks that are run by whoever starts it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) poststart: Vec<Hook>,
    /// Hooks that are run by whoever deletes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) poststop: Vec<Hook>,
    /// What it has of resctrl, which goes with it; only once it has it, for what bears its name before is another's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resctrl: Option<IntelRdt>,
    /// Whether its system call filter is kept as it was compiled, and not in the Spec.
    #[serde(default)]
    filtered: Option<bool>,
    /// crun's field, always of no descriptors: where the standard ones lead is asked of the process itself when it is
    /// saved.
    #[serde(rename = "external_descriptors", default, skip_serializing_if = "Option::is_none")]
    external_descriptors: Option<String>,
    /// Whether it is still being created, or was when its creator was killed.
    #[serde(skip)]
    pub(crate) creating: bool,
}

/// A container's control group, as far as it has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Group {
    /// None: an ordinary user who has no rights to one.
    None,
    /// It is going to be made at this path of these hierarchies.
    Intended(Hierarchies, String),
    /// It was made.
    Made(Cgroup),
}

/// What a container is doing (runtime-spec, "State", and runc's `paused`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// What `state` and `list` print of a container; the order of the fields is runc's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) status: &'static str,
    pub(crate) bundle: String,
    pub(crate) rootfs: String,
    pub(crate) created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) owner: String,
    /// crun's name for the unit of systemd's that the container is in.
    #[serde(rename = "systemd-scope", skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<String>,
}

impl Record {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Record, String> {
        let record: Record = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if record.format == FORMAT && record.filtered.is_none() {
            return Err("it does not tell where the system call filter is".into());
        }
        if record.format != FORMAT && record.format != UNFILTERED {
            return Err(format!("format {} was written by another version of creel", record.format));
        }
        Ok(record)
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn new(id: &str, oci_version: &str) -> Record {
        Record {
            format: FORMAT,
            oci_version: oci_version.to_owned(),
            id: id.to_owned(),
            bundle: String::new(),
            rootfs: String::new(),
            created: jiff::Timestamp::now().to_string(),
            annotations: BTreeMap::new(),
            pid: 0,
            start_time: 0,
            group: Group::None,
            own_pids: true,
            host_mounts: None,
            rootless: false,
            poststart: Vec::new(),
            poststop: Vec::new(),
            resctrl: None,
            filtered: Some(false),
            external_descriptors: Some("[]".into()),
            creating: false,
        }
    }

    /// Whether its system call filter is kept as it was compiled, and not in the Spec.
    pub(crate) fn is_filtered(&self) -> bool {
        self.filtered == Some(true)
    }

    /// Notes whether its system call filter is kept as it was compiled.
    pub(crate) fn set_filtered(&mut self, filtered: bool) {
        (self.format, self.filtered) = (FORMAT, Some(filtered));
    }

    /// Whether process 1 lives, and is the one that was created.
    pub(crate) fn lives(&self) -> bool {
        self.pid > 0
            && procfs::stat(self.pid).is_some_and(|stat| stat.lives() && stat.start_time == self.start_time)
    }

    /// What the container is doing.
    pub(crate) fn status(&self, entry: &Entry) -> Status {
        if self.creating && entry.is_locked() {
            return Status::Creating;
        }
        if !self.lives() {
            return Status::Stopped;
        }
        if let Group::Made(cgroup) = &self.group
            && cgroup.is_frozen().unwrap_or(false)
        {
            return Status::Paused;
        }
        if entry.has_gate() { Status::Created } else { Status::Running }
    }

    /// What is shown of it.
    pub(crate) fn shown(self, status: Status, owner: String) -> Shown {
        let unit = match &self.group {
            Group::Made(cgroup) => cgroup.unit().map(|unit| unit.name.clone()),
            _ => None,
        };
        Shown {
            unit,
            oci_version: self.oci_version,
            id: self.id,
            pid: if status == Status::Stopped { 0 } else { self.pid },
            status: status.word(),
            bundle: self.bundle,
            rootfs: self.rootfs,
            created: self.created,
            annotations: self.annotations,
            owner,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    #[test]
    fn what_is_shown_is_runc_s() {
        let mut record = Record::new("a", "1.2.1");
        record.bundle = "/b".into();
        record.rootfs = "/b/rootfs".into();
        record.created = "2026-11-21T14:02:01.601789021Z".into();
        record.pid = 93;
        record.annotations.insert("org.example".into(), "x".into());
        let text =
            serde_json::to_string_pretty(&record.clone().shown(Status::Created, String::new())).unwrap();
        expect![[r#"
            {
              "ociVersion": "1.2.1",
              "id": "a",
              "pid": 93,
              "status": "created",
              "bundle": "/b",
              "rootfs": "/b/rootfs",
              "created": "2026-11-21T14:02:01.601789021Z",
              "annotations": {
                "org.example": "x"
              },
              "owner": ""
            }"#]]
        .assert_eq(&text);
        assert_eq!(record.shown(Status::Stopped, String::new()).pid, 0);
    }

    #[test]
    fn a_process_id_that_was_given_away_is_not_the_container() {
        let mut record = Record::new("a", "1.3.0");
        assert!(!record.lives());
        record.pid = std::process::id() as i32;
        record.start_time = procfs::stat(record.pid).unwrap().start_time;
        assert!(record.lives());
        record.start_time += 1;
        assert!(!record.lives());
    }

    proptest! {
        #[test]
        fn damage_is_noticed_and_never_panics(cut in 0usize..400, change: u8) {
            let bytes = Record::new("a", "1.3.0").to_json();
            let whole = Record::parse(&bytes).unwrap();
            let cut = cut.min(bytes.len() - 1);
            prop_assert!(Record::parse(&bytes[..cut]).is_err());
            let mut changed = bytes.clone();
            changed[cut] = change;
            if let Ok(read) = Record::parse(&changed) {
                prop_assert!(changed[cut] == bytes[cut] || read != whole || change.is_ascii_whitespace());
            }
        }
    }
}

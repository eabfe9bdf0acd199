//! A container's control group: where it is, how it is made, and how it goes.

use std::path::{Path, PathBuf};

use creel_cgroup::{Cgroup, Entry, Hierarchies, Making, systemd};
use creel_types::spec::{DeviceRule, IdMapping, NamespaceKind, Resources, Spec};

use crate::error::{Error, Result};
use crate::options::Options;
use crate::record::Group;

/// Devices that every container may use, whatever its rules say (runtime-spec, "Default Devices"): type, major, minor,
/// access.
const DEFAULT_DEVICES: [(&str, Option<i64>, Option<i64>, &str); 11] = [
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", Some(1), Some(3), "rwm"),
    ("c", Some(1), Some(5), "rwm"),
    ("c", Some(1), Some(7), "rwm"),
    ("c", Some(1), Some(8), "rwm"),
    ("c", Some(1), Some(9), "rwm"),
    ("c", Some(5), Some(0), "rwm"),
    ("c", Some(5), Some(2), "rwm"),
    ("c", Some(136), None, "rwm"),
    // /dev/net/tun, which the specification does not name and runc and crun allow.
    ("c", Some(10), Some(200), "rwm"),
];

/// Whether control groups can be made by systemd.
pub(crate) const SYSTEMD: bool = true;

/// The limits that the Spec asks for, with the default devices allowed. A Spec without device rules gets those only, as
/// with runc: nobody asked for the host's disks.
pub(crate) fn resources(spec: &Spec) -> Resources {
    let mut resources = spec.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
    if resources.devices.is_empty() {
        resources.devices.push(DeviceRule { access: Some("rwm".into()), ..DeviceRule::default() });
    }
    resources.devices.extend(DEFAULT_DEVICES.map(|(kind, major, minor, access)| DeviceRule {
        allow: true,
        kind: Some(kind.into()),
        major,
        minor,
        access: Some(access.into()),
    }));
    // Only with 1.3 did 0 become a limit; before, whoever had none wrote 0.
    if let Some(pids) =
        resources.pids.as_mut().filter(|pids| pids.limit == Some(0) && !is_1_3(&spec.oci_version))
    {
        pids.limit = None;
    }
    resources
}

/// Whether a Spec is of version 1.3 or later.
fn is_1_3(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (1, 3)
}

/// Where the Spec wants the group. A unit of systemd's is not written down before it is made: when the process that
/// it is made for ends, systemd removes it by itself.
pub(crate) fn intended(o: &Options, spec: &Spec, id: &str, mountinfo: &str) -> Result<Group> {
    let hierarchies = Hierarchies::among(mountinfo)?;
    if o.systemd {
        let resources = resources(spec);
        systemd::validate(&hierarchies, &request(o, spec, id, &resources))?;
        return Ok(Group::None);
    }
    let (hierarchies, path) = hierarchies.locate(cgroups_path(spec), id)?;
    Ok(Group::Intended(hierarchies, path))
}

/// What systemd is asked for.
fn request<'a>(o: &Options, spec: &'a Spec, id: &'a str, resources: &'a Resources) -> systemd::Request<'a> {
    systemd::Request {
        cgroups_path: cgroups_path(spec),
        id,
        annotations: &spec.annotations,
        resources,
        rootless: o.rootless,
    }
}

/// The directories of a container's group, each after the mount point of its hierarchy; with systemd those that it will
/// have.
pub(crate) fn places(
    o: &Options,
    group: Option<&Cgroup>,
    spec: &Spec,
    id: &str,
) -> Result<Vec<(PathBuf, PathBuf)>> {
    let (hierarchies, path) = match group {
        Some(group) => (group.hierarchies().clone(), group.path().to_owned()),
        None if o.systemd => {
            let (hierarchies, resources) = (Hierarchies::detect()?, resources(spec));
            let path = systemd::validate(&hierarchies, &request(o, spec, id, &resources))?;
            (hierarchies, path)
        }
        None => return Ok(Vec::new()),
    };
    let mounts = hierarchies.mount_points().map(Path::to_path_buf);
    Ok(mounts.zip(hierarchies.dirs(&path)).collect())
}

/// Has systemd make the group, with the process in it.
pub(crate) fn make_unit(o: &Options, spec: &Spec, id: &str, pid: i32) -> Result<Cgroup> {
    let resources = resources(spec);
    let made = systemd::create(&Hierarchies::detect()?, &request(o, spec, id, &resources), Some(pid))?;
    made.notes.iter().for_each(|note| o.log.warn(note));
    if !o.rootless {
        give(&made.group, spec)?;
    }
    Ok(made.group)
}

/// Gives the group to the container's user, if he is another one outside, sees nothing above the group and may write to
/// the group's files: what runs inside (systemd, say) makes groups of its own then (runtime-spec, "Cgroup ownership").
/// On failure it is removed.
fn give(group: &Cgroup, spec: &Spec) -> Result<()> {
    match owner(spec) {
        Some(uid) => Ok(group.give_to(uid).inspect_err(|_| drop(group.remove()))?),
        None => Ok(()),
    }
}

/// The container's user as the host numbers him, if its group is to be his.
fn owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux.as_ref()?;
    let new = |kind: NamespaceKind| linux.namespaces.iter().any(|n| n.kind == kind && n.path.is_none());
    let read_only = |options: &[String]| options.iter().any(|option| matches!(option.as_str(), "ro" | "rro"));
    let writable = spec.mounts.iter().any(|mount| {
        mount.kind.as_deref().is_some_and(|kind| kind.starts_with("cgroup")) && !read_only(&mount.options)
    });
    if !(new(NamespaceKind::User) && new(NamespaceKind::Cgroup) && writable) {
        return None;
    }
    let uid = spec.process.as_ref().map_or(0, |process| process.user.uid);
    IdMapping::host_id(&linux.uid_mappings, uid)
}

fn cgroups_path(spec: &Spec) -> Option<&str> {
    spec.linux.as_ref().and_then(|linux| linux.cgroups_path.as_deref()).filter(|path| !path.is_empty())
}

/// A group for a new process.
#[derive(Debug)]
pub(crate) enum Made {
    /// None: an ordinary user has no rights to one and needs none, or systemd makes it.
    None,
    /// It is there.
    Whole(Cgroup),
    /// It is there as far as a process can be born in it.
    Begun(Making),
}

/// Begins to make the group: what has to be there for the clone.
pub(crate) fn begin(o: &Options, group: &Group, spec: &Spec) -> Result<Made> {
    let Group::Intended(hierarchies, path) = group else { return Ok(Made::None) };
    let memory = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref()?.memory.as_ref());
    if memory.is_some_and(|memory| memory.kernel.is_some()) {
        o.log.warn("the kernel memory limit is passed over: kernels since 5.16 have none");
    }
    if o.rootless {
        return Ok(make(o, group, spec)?.map_or(Made::None, Made::Whole));
    }
    Ok(Made::Begun(Cgroup::begin(hierarchies, path, &resources(spec))?))
}

/// Makes the rest; the doors by which a process joins.
pub(crate) fn finish(making: &mut Making, spec: &Spec) -> Result<Entry> {
    let made = making.finish()?;
    if let Some(uid) = owner(spec) {
        made.give_to(uid)?;
    }
    Ok(made.entry()?)
}

/// Makes a group again that somebody has removed while it was empty, and moves the process there.
pub(crate) fn admit(o: &Options, group: &Cgroup, spec: &Spec, pid: i32) -> Result<()> {
    let mut resources = resources(spec);
    if o.rootless {
        // As when it was made first.
        resources.devices.clear();
    }
    group.admit(&resources, pid)?;
    match owner(spec).filter(|_| !o.rootless) {
        Some(uid) => Ok(group.give_to(uid)?),
        None => Ok(()),
    }
}

/// What came of something with a group, or `None` when somebody has removed that meanwhile.
pub(crate) fn unless_vanished<T>(result: std::result::Result<T, impl Into<Error>>) -> Result<Option<T>> {
    match result.map_err(Into::into) {
        Ok(value) => Ok(Some(value)),
        Err(Error::Cgroup(error)) if error.is_vanished() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the group; `None` where an ordinary user has no rights to one and needs none.
pub(crate) fn make(o: &Options, group: &Group, spec: &Spec) -> Result<Option<Cgroup>> {
    let Group::Intended(hierarchies, path) = group else { return Ok(None) };
    let resources = resources(spec);
    if !o.rootless {
        let made = Cgroup::create(hierarchies, path, &resources)?;
        give(&made, spec)?;
        return Ok(Some(made));
    }
    let explicit = cgroups_path(spec).is_some();
    let made = Cgroup::create_delegated(hierarchies, path, &resources, explicit)?;
    Ok(made.group)
}

impl Group {
    /// The group, if there is any.
    pub(crate) fn open(&self) -> Result<Option<Cgroup>> {
        match self {
            Group::None => Ok(None),
            Group::Made(cgroup) => Ok(Some(cgroup.clone())),
            Group::Intended(hierarchies, path) => match Cgroup::open(hierarchies, path) {
                Ok(cgroup) => Ok(Some(cgroup)),
                Err(creel_cgroup::Error::NotFound { .. }) => Ok(None),
                Err(e) => Err(e.into()),
            },
        }
    }

    /// The group, for verbs that do nothing without one.
    pub(crate) fn required(&self, verb: &str) -> Result<Cgroup> {
        self.open()?.ok_or_else(|| Error::State(format!("cannot {verb}: the container has no control group")))
    }

    /// Refuses a group in which somebody else's processes are.
    pub(crate) fn refuse_occupied(&self) -> Result<()> {
        let pids = match self.open()? {
            Some(cgroup) => cgroup.pids().unwrap_or_default(),
            None => return Ok(()),
        };
        match pids.len() {
            0 => Ok(()),
            many => Err(Error::State(format!("container's cgroup is not empty: {many} process(es) found"))),
        }
    }

    /// Removes it; one that is gone is no error.
    pub(crate) fn remove(&self) -> Result<()> {
        match self.open()? {
            Some(cgroup) => {
                cgroup.remove().map_err(|e| Error::Cgroup(e).during("unable to remove container's cgroup"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_group_is() {
        let spec = |mount: &str, namespaces: &str| -> Spec {
            let text = format!(
                r#"{{"ociVersion": "1.3.0", "mounts": [{mount}], "linux": {{"namespaces": [{namespaces}],
                    "uidMappings": [{{"containerID": 0, "hostID": 100000, "size": 65536}}]}}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let mount =
            r#"{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]}"#;
        let both = r#"{"type": "user"}, {"type": "cgroup"}"#;
        assert_eq!(owner(&spec(mount, both)), Some(100_000));
        let user = |uid: u32| {
            let mut spec = spec(mount, both);
            spec.process.get_or_insert_default().user.uid = uid;
            owner(&spec)
        };
        assert_eq!((user(1000), user(65_535), user(65_536)), (Some(101_000), Some(165_535), None));
        assert_eq!(owner(&spec(&mount.replace("rw", "ro"), both)), None);
        assert_eq!(owner(&spec("", both)), None);
        assert_eq!(owner(&spec(mount, r#"{"type": "user"}"#)), None);
        assert_eq!(owner(&spec(mount, r#"{"type": "user"}, {"type": "cgroup", "path": "/x"}"#)), None);
    }

    #[test]
    fn pages_are_sized_in_either_spelling() {
        for name in ["pageSize", "pagesize"] {
            let text = format!(
                r#"{{"ociVersion": "1.3.0", "linux": {{"resources": {{"hugepageLimits":
                    [{{"{name}": "2MB", "limit": 4096}}]}}}}}}"#
            );
            let spec: Spec = serde_json::from_str(&text).unwrap();
            assert_eq!(resources(&spec).hugepage_limits[0].page_size, "2MB");
        }
    }

    #[test]
    fn no_tasks_or_no_limit() {
        for (version, want) in [
            ("1.0.2-dev", None),
            ("1.2.1", None),
            ("1.3.0", Some(0)),
            ("1.3.0-rc.1", Some(0)),
            ("2.0", Some(0)),
        ] {
            let spec = format!(
                r#"{{"ociVersion": "{version}", "linux": {{"resources": {{"pids": {{"limit": 0}}}}}}}}"#
            );
            let spec: Spec = serde_json::from_str(&spec).unwrap();
            assert_eq!(resources(&spec).pids.unwrap().limit, want, "{version}");
        }
    }
}

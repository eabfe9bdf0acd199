//! The pure part: a Spec becomes an ordered list of named steps.
//!
//! The list is what the container's process does, from its birth to the execve of the program; the creator's own part
//! is small (clone, control group descriptors, the gate). `creel explain` prints it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use creel_types::spec::{ConsoleSize, IdMapping, Linux, Namespace, NamespaceKind, Spec, TimeOffset};
use serde::Serialize;

use crate::devices::{self, DeviceNode};
use crate::mounts::{self, CgroupHierarchy, MountStep};
use crate::process::{self, ProcessPlan};
use crate::{Error, Rootfs, filter, namespaces, validate};

/// What the host contributes to a plan; gathered once by the executor, given by hand in tests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The mounted cgroup hierarchies, in the order of mountinfo.
    pub cgroups: Vec<CgroupHierarchy>,
}

impl Facts {
    /// Reads them from this process's `/proc/self/mountinfo`.
    ///
    /// # Errors
    /// [`Error::Setup`] when procfs cannot be read.
    pub fn gather() -> Result<Facts, Error> {
        let text = creel_sys::kernelfs::read_to_string("/proc/self/mountinfo")
            .map_err(|e| Error::setup("cannot read /proc/self/mountinfo", e))?;
        Ok(Facts::among(&text))
    }

    /// Takes them from the text of `/proc/self/mountinfo`.
    pub fn among(mountinfo: &str) -> Facts {
        Facts { cgroups: mounts::cgroup_hierarchies(mountinfo) }
    }
}

/// What the caller wishes apart from the Spec.
#[derive(Debug, Clone, Copy)]
pub struct Wishes<'a> {
    /// The reaper's executable (`--init`).
    pub init: Option<&'a Path>,
    /// Whether the root is changed by pivot_root(2).
    pub pivot: bool,
    /// Whether the container gets a session keyring of its own.
    pub keyring: bool,
    /// Whether the creator has a compiled filter, which takes the place of the Spec's.
    pub filtered: bool,
}

impl Default for Wishes<'_> {
    fn default() -> Self {
        Wishes { init: None, pivot: true, keyring: true, filtered: false }
    }
}

/// One thing that the container's process does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "step", rename_all = "camelCase")]
pub enum Step {
    /// Becomes root of its user namespace, once that is mapped.
    UserNamespace {
        /// User ids for a new namespace, which the creator writes; none for one that is joined.
        uid_mappings: Vec<IdMapping>,
        /// Group ids likewise.
        gid_mappings: Vec<IdMapping>,
    },
    /// Moves itself into the control group (v1; in v2 it is born there).
    Cgroup,
    /// Makes a time namespace and enters it once the creator has set its clocks.
    TimeNamespace {
        /// What is added to which clock: `monotonic`, `boottime`.
        offsets: BTreeMap<String, TimeOffset>,
    },
    /// Joins an existing namespace.
    JoinNamespace {
        /// Which kind.
        kind: NamespaceKind,
        /// The namespace's file.
        path: String,
    },
    /// Makes a cgroup namespace: after the cgroup is joined, since that becomes its root.
    NewCgroupNamespace,
    /// Makes a network namespace.
    NewNetworkNamespace,
    /// Brings up `lo` of a new network namespace.
    Loopback,
    /// Gets a session keyring of its own.
    Keyring {
        /// The keyring's name.
        name: String,
        /// Its SELinux label.
        #[serde(skip_serializing_if = "Option::is_none")]
        label: Option<String>,
    },
    /// Sets the host name.
    Hostname {
        /// The name.
        name: String,
    },
    /// Sets the NIS domain name.
    Domainname {
        /// The name.
        name: String,
    },
    /// Opens the sources of bind mounts that stay tied to the host's mounts (shared, slave), before it is cut off from
    /// them. The other sources are opened each at its turn.
    OpenSources {
        /// How many there are.
        count: usize,
    },
    /// Cuts the new mount namespace off from the host's: nothing mounted here is seen there.
    PrivateTree,
    /// Mounts a directory of the host over itself for the root: without a mount namespace of the container's, everything
    /// is mounted in its creator's.
    HostRoot {
        /// The directory.
        path: PathBuf,
    },
    /// Mounts or binds the root file system.
    Root {
        /// From where.
        rootfs: Rootfs,
        /// Whether what is mounted below it on the host is seen in the container, too.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        slave: bool,
    },
    /// Mounts one thing over the root.
    Mount {
        /// What and where.
        mount: MountStep,
    },
    /// Makes a device node.
    Device {
        /// Which.
        device: DeviceNode,
    },
    /// Binds the host's node of a device, where making nodes is not allowed (user namespaces).
    BindDevice {
        /// Which.
        device: DeviceNode,
    },
    /// Makes a symbolic link, unless something is there already.
    Link {
        /// Where.
        path: String,
        /// What it says.
        target: String,
    },
    /// Opens the pseudo-terminal, hands its master to the creator and binds the slave over `/dev/console`.
    Console {
        /// Size in characters: rows and columns.
        size: Option<(u16, u16)>,
    },
    /// Binds the reaper's executable, read-only.
    BindInit {
        /// The executable on the host.
        source: String,
        /// Where it is seen.
        destination: String,
    },
    /// Makes the working directory if it is missing.
    WorkingDirectory {
        /// Absolute path.
        path: String,
    },
    /// Writes a kernel parameter.
    Sysctl {
        /// Its path below `/proc/sys`.
        path: String,
        /// The value.
        value: String,
    },
    /// Makes a path read-only.
    ReadonlyPath {
        /// Absolute path.
        path: String,
    },
    /// Hides a path.
    MaskedPath {
        /// Absolute path.
        path: String,
    },
    /// Makes the root mount itself read-only.
    ReadonlyRoot,
    /// Makes file systems read-only that were asked to be, now that their mount points and devices are made.
    SealMounts {
        /// How many there are.
        count: usize,
    },
    /// Lets the creator run the hooks of kinds prestart and createRuntime, in its own namespaces.
    CreateRuntimeHooks {
        /// How many there are.
        count: usize,
    },
    /// Runs the hooks of kind createContainer.
    CreateContainerHooks {
        /// How many there are.
        count: usize,
    },
    /// Changes the root to the new one and lets go of the host's.
    PivotRoot,
    /// Moves the new root over the host's, which stays below, and changes to it by chroot(2) (`--no-pivot`). First the
    /// host's procfs and sysfs go, which would allow a program to mount its own without what is masked in them.
    MoveRoot,
    /// Changes to the new root by chroot(2): the mount namespace is not the container's.
    Chroot,
    /// Sets the propagation of the root mount.
    RootPropagation {
        /// `MS_*` mode.
        mode: u64,
        /// Whether what is mounted below it changes, too.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        recursive: bool,
    },
    /// Everything that makes the process what the Spec says: limits, ids, capabilities, directory.
    Process {
        /// In detail.
        process: Box<ProcessPlan>,
    },
    /// Waits for `start`.
    Gate,
    /// Runs the hooks of kind startContainer.
    StartContainerHooks {
        /// How many there are.
        count: usize,
    },
    /// Loads the system call filter.
    Seccomp,
    /// Executes the program.
    Execute,
}

impl Step {
    /// The group under which its time is counted.
    pub fn group(&self) -> &'static str {
        match self {
            Step::Cgroup => "cgroup",
            Step::UserNamespace { .. }
            | Step::JoinNamespace { .. }
            | Step::TimeNamespace { .. }
            | Step::NewCgroupNamespace
            | Step::NewNetworkNamespace
            | Step::Loopback
            | Step::Keyring { .. }
            | Step::Hostname { .. }
            | Step::Domainname { .. } => "namespaces",
            Step::OpenSources { .. } | Step::PrivateTree | Step::HostRoot { .. } | Step::Root { .. } => {
                "root"
            }
            Step::Mount { .. } | Step::BindInit { .. } => "mounts",
            Step::Device { .. } | Step::BindDevice { .. } | Step::Link { .. } | Step::Console { .. } => {
                "devices"
            }
            Step::WorkingDirectory { .. }
            | Step::Sysctl { .. }
            | Step::ReadonlyPath { .. }
            | Step::MaskedPath { .. }
            | Step::SealMounts { .. }
            | Step::ReadonlyRoot => "paths",
            Step::CreateRuntimeHooks { .. }
            | Step::CreateContainerHooks { .. }
            | Step::StartContainerHooks { .. } => "hooks",
            Step::PivotRoot | Step::MoveRoot | Step::Chroot | Step::RootPropagation { .. } => "pivot",
            Step::Process { .. } | Step::Gate | Step::Seccomp | Step::Execute => "process",
        }
    }

    /// What it does to what, as error messages and `creel explain` say it.
    pub fn title(&self) -> String {
        match self {
            Step::UserNamespace { .. } => "become root of the user namespace".into(),
            Step::Cgroup => "join the control group".into(),
            Step::TimeNamespace { .. } => "make a time namespace".into(),
            Step::JoinNamespace { kind, path } => format!("join the {} namespace {path}", kind.proc_name()),
            Step::NewCgroupNamespace => "make a cgroup namespace".into(),
            Step::NewNetworkNamespace => "make a network namespace".into(),
            Step::Loopback => "bring up the loopback interface".into(),
            Step::Keyring { .. } => "make a session keyring".into(),
            Step::Hostname { name } => format!("set the host name {name}"),
            Step::Domainname { name } => format!("set the domain name {name}"),
            Step::OpenSources { .. } => "open the sources of tied bind mounts".into(),
            Step::PrivateTree => "cut the mounts off from the host's".into(),
            Step::HostRoot { path } => format!("bind the root {} in the host's tree", path.display()),
            Step::Root { rootfs: Rootfs::Overlay { .. }, .. } => "mount the overlay root".into(),
            Step::Root { rootfs: Rootfs::Directory(path), .. } => format!("bind the root {}", path.display()),
            Step::Mount { mount } => format!("mount {} on {}", mount.label(), mount.destination()),
            Step::Device { device } => format!("make the device {}", device.path),
            Step::BindDevice { device } => format!("bind the device {}", device.path),
            Step::Link { path, target } => format!("link {path} to {target}"),
            Step::Console { .. } => "open the terminal".into(),
            Step::BindInit { source, destination } => format!("bind {source} on {destination}"),
            Step::WorkingDirectory { path } => format!("make the working directory {path}"),
            Step::Sysctl { path, .. } => format!("write the kernel parameter {path}"),
            Step::ReadonlyPath { path } => format!("make {path} read-only"),
            Step::MaskedPath { path } => format!("mask {path}"),
            Step::ReadonlyRoot => "make the root read-only".into(),
            Step::SealMounts { count } => format!("make {count} mounts read-only"),
            Step::CreateRuntimeHooks { .. } => "run the prestart and createRuntime hooks".into(),
            Step::CreateContainerHooks { .. } => "run the createContainer hooks".into(),
            Step::PivotRoot => "change the root".into(),
            Step::MoveRoot => "change the root without pivot_root".into(),
            Step::Chroot => "change the root by chroot".into(),
            Step::RootPropagation { .. } => "set the root's propagation".into(),
            Step::Process { .. } => "prepare the process".into(),
            Step::Gate => "wait for the start".into(),
            Step::StartContainerHooks { .. } => "run the startContainer hooks".into(),
            Step::Seccomp => "load the system call filter".into(),
            Step::Execute => "execute the program".into(),
        }
    }
}

/// A container as an ordered list of steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InitPlan {
    /// The container's id.
    pub id: String,
    /// Namespaces that the clone makes.
    pub new_namespaces: Vec<NamespaceKind>,
    /// The user namespace to be born in, if it is an existing one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_user: Option<String>,
    /// The pid namespace to be born in, if it is an existing one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_pid: Option<String>,
    /// The steps.
    pub steps: Vec<Step>,
}

/// Where `--init` puts the reaper: the path that Docker uses.
pub const INIT_PATH: &str = "/sbin/docker-init";

/// Plans a container's start.
///
/// # Errors
/// Those of [`validate`], and what only the whole shows: an option of a mount, an unknown capability.
pub fn plan(
    id: &str,
    spec: &Spec,
    bundle: &Path,
    rootfs: &Rootfs,
    wishes: Wishes<'_>,
    facts: &Facts,
) -> Result<InitPlan, Error> {
    validate(spec)?;
    let nothing = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&nothing);
    let spaces = &linux.namespaces;
    let mut steps = Vec::new();
    namespace_steps(id, spec, linux, wishes, &mut steps);
    let mounts = mounts::plan(spec, bundle, rootfs, facts)?;
    let own_dev =
        !mounts.iter().any(|mount| matches!(mount, MountStep::Bind { .. }) && mount.destination() == "/dev");
    let mut devices = devices::plan(linux)?;
    if !own_dev {
        // The host's /dev has its own, and gets none of ours; elsewhere they are the container's.
        devices.retain(|step| match step {
            Step::Device { device } | Step::BindDevice { device } => !device.path.starts_with("/dev/"),
            _ => false,
        });
    }
    let tied = mounts.iter().filter(|mount| mount.is_tied()).count();
    if tied > 0 {
        steps.push(Step::OpenSources { count: tied });
    }
    let sealed = mounts.iter().filter(|mount| mount.is_sealed_later()).count();
    let own_tree = namespaces::has(spaces, NamespaceKind::Mount);
    let propagation = linux.rootfs_propagation.as_deref().and_then(mounts::options::propagation);
    let slave = propagation.is_some_and(|change| change.mode == libc::MS_SLAVE);
    match rootfs {
        _ if own_tree => {
            steps.push(Step::PrivateTree);
            steps.push(Step::Root { rootfs: rootfs.clone(), slave });
        }
        Rootfs::Directory(path) => steps.push(Step::HostRoot { path: path.clone() }),
        Rootfs::Overlay { .. } => {
            return Err(Error::invalid("linux.namespaces", "an overlay root needs a mount namespace"));
        }
    }
    // The group is joined as late as may be, since its creator makes it at the same time: before its hierarchies are
    // mounted, and before anything of the image's is kept in memory.
    let joins_before = |mount: &MountStep| match mount {
        MountStep::Cgroup { .. } => true,
        MountStep::New { options, .. } => options.copy_up,
        _ => false,
    };
    let at = mounts.iter().position(joins_before).unwrap_or(mounts.len());
    let mut mounts = mounts.into_iter().map(|mount| Step::Mount { mount });
    steps.extend(mounts.by_ref().take(at));
    steps.push(Step::Cgroup);
    if namespaces::is_new(spaces, NamespaceKind::Cgroup) {
        steps.push(Step::NewCgroupNamespace);
    }
    steps.extend(mounts);
    let process = spec.process.as_ref();
    steps.extend(devices);
    if let Some(process) = process.filter(|process| process.terminal) {
        steps.push(Step::Console { size: process.console_size.as_ref().and_then(ConsoleSize::characters) });
    }
    if let Some(source) = wishes.init {
        steps.push(Step::BindInit { source: source.display().to_string(), destination: INIT_PATH.into() });
    }
    let hooks = spec.hooks.clone().unwrap_or_default();
    let count = hooks.prestart.len() + hooks.create_runtime.len();
    if count > 0 {
        steps.push(Step::CreateRuntimeHooks { count });
    }
    if !hooks.create_container.is_empty() {
        steps.push(Step::CreateContainerHooks { count: hooks.create_container.len() });
    }
    if let Some(process) = process {
        steps.push(Step::WorkingDirectory { path: process.cwd.clone() });
    }
    for (name, value) in &linux.sysctl {
        steps.push(Step::Sysctl { path: process::sysctl_path(name), value: value.clone() });
    }
    steps.extend(linux.readonly_paths.iter().map(|path| Step::ReadonlyPath { path: path.clone() }));
    // Once is enough.
    let mut masked = BTreeSet::new();
    let once = linux.masked_paths.iter().filter(|path| masked.insert(path.as_str()));
    steps.extend(once.map(|path| Step::MaskedPath { path: path.clone() }));
    if sealed > 0 {
        steps.push(Step::SealMounts { count: sealed });
    }
    if spec.root.as_ref().is_some_and(|root| root.readonly) {
        steps.push(Step::ReadonlyRoot);
    }
    steps.push(match (own_tree, wishes.pivot) {
        (false, _) => Step::Chroot,
        (true, true) => Step::PivotRoot,
        (true, false) => Step::MoveRoot,
    });
    // Private it is anyway; what is mounted in it may have been asked to be something else.
    if let Some(change) = propagation.filter(|change| !own_tree || change.mode != libc::MS_PRIVATE) {
        steps.push(Step::RootPropagation { mode: change.mode, recursive: change.recursive });
    }
    if let Some(process) = process {
        let mut process = process::plan(process, linux)?;
        process.keep_groups = annotation(spec, "run.oci.keep_original_groups");
        steps.push(Step::Process { process: Box::new(process) });
    }
    // The agent gets its listener while the container is created, which callers wait for before they start it. From here
    // on the filter holds for this program's own last calls, too, and the agent answers for those that it names.
    let seccomp = linux.seccomp.as_ref();
    let notifies = !wishes.filtered && seccomp.is_some_and(filter::has_agent);
    if notifies {
        steps.push(Step::Seccomp);
    }
    steps.push(Step::Gate);
    // Those hooks come from the image as much as the program does: the filter holds for them, too.
    if (wishes.filtered || seccomp.is_some()) && !notifies {
        steps.push(Step::Seccomp);
    }
    if !hooks.start_container.is_empty() {
        steps.push(Step::StartContainerHooks { count: hooks.start_container.len() });
    }
    steps.push(Step::Execute);

    // Two kinds cannot be made by the clone: a cgroup namespace's root is the group that its maker is in, and the
    // clocks of a time namespace are set before anybody enters it. A network namespace takes longer than all others
    // together, and the creator has something to do at the same time.
    let later = [NamespaceKind::Cgroup, NamespaceKind::Time, NamespaceKind::Network];
    let new_namespaces = spaces
        .iter()
        .filter(|space| space.path.is_none() && !later.contains(&space.kind))
        .map(|space| space.kind)
        .collect();
    let joined = |kind| spaces.iter().find(|space| space.kind == kind).and_then(|space| space.path.clone());
    Ok(InitPlan {
        id: id.to_string(),
        new_namespaces,
        join_user: joined(NamespaceKind::User),
        join_pid: joined(NamespaceKind::Pid),
        steps,
    })
}

/// Whether an annotation says yes.
fn annotation(spec: &Spec, name: &str) -> bool {
    spec.annotations.get(name).is_some_and(|value| matches!(value.as_str(), "1" | "true"))
}

fn namespace_steps(id: &str, spec: &Spec, linux: &Linux, wishes: Wishes<'_>, steps: &mut Vec<Step>) {
    let spaces = &linux.namespaces;
    if namespaces::has(spaces, NamespaceKind::User) {
        let new = namespaces::is_new(spaces, NamespaceKind::User);
        let of = |list: &Vec<IdMapping>| if new { list.clone() } else { Vec::new() };
        steps.push(Step::UserNamespace {
            uid_mappings: of(&linux.uid_mappings),
            gid_mappings: of(&linux.gid_mappings),
        });
    }
    // The mount namespace comes last: with it the tree changes in which the other files were named.
    let (mount, others): (Vec<&Namespace>, Vec<&Namespace>) = spaces
        .iter()
        .filter(|space| !matches!(space.kind, NamespaceKind::Pid | NamespaceKind::User))
        .partition(|space| space.kind == NamespaceKind::Mount);
    for Namespace { kind, path } in others.into_iter().chain(mount) {
        if let Some(path) = path {
            steps.push(Step::JoinNamespace { kind: *kind, path: path.clone() });
        }
    }
    if namespaces::is_new(spaces, NamespaceKind::Time) {
        steps.push(Step::TimeNamespace { offsets: linux.time_offsets.clone() });
    }
    if namespaces::is_new(spaces, NamespaceKind::Network) {
        steps.push(Step::NewNetworkNamespace);
        steps.push(Step::Loopback);
    }
    if wishes.keyring {
        let process = spec.process.as_ref();
        let label = process.and_then(|process| process.selinux_label.clone()).filter(|l| !l.is_empty());
        steps.push(Step::Keyring { name: format!("_ses.{id}"), label });
    }
    if let Some(name) = spec.hostname.as_ref().filter(|name| !name.is_empty()) {
        steps.push(Step::Hostname { name: name.clone() });
    }
    if let Some(name) = spec.domainname.as_ref().filter(|name| !name.is_empty()) {
        steps.push(Step::Domainname { name: name.clone() });
    }
}

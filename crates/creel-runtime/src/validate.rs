//! What is refused before anything is done: wrong in itself, or asked for and not applied by creel.

use creel_types::spec::{IPC_SYSCTLS, IdMapping, Linux, Namespace, NamespaceKind, Spec};

use crate::{Error, mounts, namespaces, netdev, process, rdt, scheduling};

/// Checks a Spec as far as it can be checked without a host.
///
/// # Errors
/// [`Error::Invalid`] for what contradicts the specification or itself, [`Error::Unsupported`] for what creel would
/// otherwise have to ignore in silence.
pub fn validate(spec: &Spec) -> Result<(), Error> {
    if major_version(&spec.oci_version) != Some("1") {
        return Err(Error::invalid(
            "ociVersion",
            format!("{:?} is no version that creel follows (1.x.y)", spec.oci_version),
        ));
    }
    if spec.root.as_ref().is_some_and(|root| root.path.is_empty()) {
        return Err(Error::invalid("root.path", "it is empty; name the directory of the root file system"));
    }
    if spec.annotations.contains_key("") {
        return Err(Error::invalid("annotations", "a key is empty"));
    }
    for (field, name) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        let Some(name) = name else { continue };
        if name.len() > 64 || name.contains('\0') {
            return Err(Error::invalid(field, "at most 64 bytes and no NUL are allowed"));
        }
    }
    let default = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&default);
    check_namespaces(spec, linux)?;
    check_linux(linux)?;
    if let Some(process) = &spec.process {
        check_process(process)?;
    }
    if let Some(hooks) = &spec.hooks {
        let kinds = [
            ("prestart", &hooks.prestart),
            ("createRuntime", &hooks.create_runtime),
            ("createContainer", &hooks.create_container),
            ("startContainer", &hooks.start_container),
            ("poststart", &hooks.poststart),
            ("poststop", &hooks.poststop),
        ];
        for (kind, list) in kinds {
            for (index, hook) in list.iter().enumerate() {
                let field = format!("hooks.{kind}[{index}]");
                absolute(&format!("{field}.path"), &hook.path)?;
                if hook.timeout == Some(0) {
                    let text = "it has to be greater than zero; leave it out for no limit";
                    return Err(Error::invalid(format!("{field}.timeout"), text));
                }
            }
        }
    }
    Ok(())
}

/// The major number of a version in the form of SemVer 2.0.0; `None` for any other text.
fn major_version(text: &str) -> Option<&str> {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = |text: &str| digits(text) && (text == "0" || !text.starts_with('0'));
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
    let good = build.is_none_or(|build| build.split('.').all(word))
        && before
            .is_none_or(|before| before.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && core.split('.').count() == 3
        && core.split('.').all(number);
    core.split('.').next().filter(|_| good)
}

/// Checks one process: the container's own or an exec's.
pub(crate) fn check_process(process: &creel_types::spec::Process) -> Result<(), Error> {
    absolute("process.cwd", &process.cwd)?;
    if process.args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("process.args", "no program is named"));
    }
    for (field, list) in [("process.args", &process.args), ("process.env", &process.env)] {
        if list.iter().any(|text| text.contains('\0')) {
            return Err(Error::invalid(field, "a NUL cannot be handed to a program"));
        }
    }
    if let Some(bad) = process.env.iter().find(|text| !text.contains('=') || text.starts_with('=')) {
        return Err(Error::invalid("process.env", format!("{bad:?} is not NAME=value")));
    }
    for (index, limit) in process.rlimits.iter().enumerate() {
        let field = format!("process.rlimits[{index}]");
        if creel_sys::rlimit::number(&limit.kind).is_none() {
            return Err(Error::invalid(field, format!("{} is no resource limit", limit.kind)));
        }
        if limit.soft > limit.hard {
            return Err(Error::invalid(field, "the soft limit is above the hard one"));
        }
        if process.rlimits[..index].iter().any(|other| other.kind == limit.kind) {
            return Err(Error::invalid(field, format!("{} is given twice", limit.kind)));
        }
    }
    if let Some(size) = process.console_size.as_ref().filter(|_| process.terminal)
        && size.characters().is_none()
    {
        return Err(Error::invalid("process.consoleSize", "a terminal has at most 65535 rows and columns"));
    }
    process.scheduler.as_ref().map(scheduling::scheduler).transpose()?;
    process.io_priority.as_ref().map(scheduling::io_priority).transpose()?;
    process.exec_cpu_affinity.as_ref().map(scheduling::affinity).transpose()?;
    if process.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
        return Err(Error::invalid("process.oomScoreAdj", "it lies between -1000 and 1000"));
    }
    let user = &process.user;
    let more = user.additional_gids.iter().map(|id| ("process.user.additionalGids", *id));
    for (field, id) in
        [("process.user.uid", user.uid), ("process.user.gid", user.gid)].into_iter().chain(more)
    {
        if id == u32::MAX {
            return Err(Error::invalid(field, "4294967295 is no id: the kernel reads it as \"unchanged\""));
        }
    }
    Ok(())
}

fn check_namespaces(spec: &Spec, linux: &Linux) -> Result<(), Error> {
    let spaces = &linux.namespaces;
    for (index, Namespace { kind, path }) in spaces.iter().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        if spaces[..index].iter().any(|other| other.kind == *kind) {
            return Err(Error::invalid(field, format!("the {} namespace is named twice", kind.proc_name())));
        }
        if let Some(path) = path {
            absolute(&format!("{field}.path"), path)?;
        }
    }
    check_id_maps(linux)?;
    check_time_offsets(linux)?;
    let names = [("hostname", &spec.hostname), ("domainname", &spec.domainname)];
    for (field, name) in names {
        let named = name.as_ref().is_some_and(|name| !name.is_empty());
        if named && !namespaces::has(spaces, NamespaceKind::Uts) {
            return Err(Error::invalid(field, "without a UTS namespace the host would be renamed"));
        }
    }
    for (name, value) in &linux.sysctl {
        let other = spec.domainname.as_ref().is_some_and(|domain| !domain.is_empty() && domain != value);
        if other && matches!(name.as_str(), "kernel.domainname" | "kernel/domainname") {
            let field = format!("linux.sysctl.{name}");
            return Err(Error::invalid(field, "domainname says something else"));
        }
        check_sysctl(name, spaces)?;
    }
    Ok(())
}

/// Id maps belong to a new user namespace, which is useless without them (user_namespaces(7)).
fn check_id_maps(linux: &Linux) -> Result<(), Error> {
    let spaces = &linux.namespaces;
    for (field, maps) in
        [("linux.uidMappings", &linux.uid_mappings), ("linux.gidMappings", &linux.gid_mappings)]
    {
        if maps.is_empty() {
            if namespaces::is_new(spaces, NamespaceKind::User) {
                return Err(Error::invalid(field, "a new user namespace needs at least one mapping"));
            }
            continue;
        }
        if !namespaces::has(spaces, NamespaceKind::User) {
            return Err(Error::invalid(field, "mappings are given, but no user namespace"));
        }
        check_maps(field, maps)?;
    }
    Ok(())
}

/// Checks a map of ids by itself.
pub(crate) fn check_maps(field: &str, maps: &[IdMapping]) -> Result<(), Error> {
    for (index, map) in maps.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if map.size == 0 {
            return Err(Error::invalid(field, "a mapping of no ids"));
        }
        // 4294967295 means "unchanged" to the kernel and is no id.
        for first in [map.container_id, map.host_id] {
            if u64::from(first) + u64::from(map.size) > u64::from(u32::MAX) {
                return Err(Error::invalid(field, "it goes beyond the last id, 4294967294"));
            }
        }
    }
    Ok(())
}

/// time_namespaces(7): two clocks, and only in a namespace that is new.
fn check_time_offsets(linux: &Linux) -> Result<(), Error> {
    for (clock, offset) in &linux.time_offsets {
        let field = format!("linux.timeOffsets.{clock}");
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::invalid(field, "there is no such clock; monotonic and boottime can be set"));
        }
        if offset.nanosecs >= 1_000_000_000 {
            return Err(Error::invalid(field, "nanosecs is a whole second or more"));
        }
        if !namespaces::is_new(&linux.namespaces, NamespaceKind::Time) {
            return Err(Error::invalid(field, "offsets are given, but no new time namespace"));
        }
    }
    Ok(())
}

/// Only parameters that belong to a namespace of the container may be written.
fn check_sysctl(name: &str, spaces: &[Namespace]) -> Result<(), Error> {
    let field = format!("linux.sysctl.{name}");
    let path = crate::process::sysctl_path(name);
    if path.is_empty() || path.split('/').any(|part| part.is_empty() || part == ".." || part == ".") {
        return Err(Error::invalid(field, "this is no name of a kernel parameter"));
    }
    let dotted = path.replace('/', ".");
    if dotted == "kernel.hostname" {
        return Err(Error::invalid(field, "use hostname, which says the same in one place"));
    }
    let Some(owner) = sysctl_namespace(&dotted) else {
        return Err(Error::invalid(
            field,
            "this parameter belongs to no namespace: it would change the host",
        ));
    };
    if !namespaces::has(spaces, owner) {
        let text = format!("without a {} namespace of its own the host would be changed", owner.proc_name());
        return Err(Error::invalid(field, text));
    }
    Ok(())
}

/// The kind of namespaces that a kernel parameter, written with dots, belongs to.
pub(crate) fn sysctl_namespace(dotted: &str) -> Option<NamespaceKind> {
    if IPC_SYSCTLS.contains(&dotted) || dotted.starts_with("fs.mqueue.") {
        return Some(NamespaceKind::Ipc);
    }
    if dotted.starts_with("net.") {
        return Some(NamespaceKind::Network);
    }
    (dotted == "kernel.domainname").then_some(NamespaceKind::Uts)
}

fn check_linux(linux: &Linux) -> Result<(), Error> {
    for (index, path) in linux.masked_paths.iter().enumerate() {
        absolute(&format!("linux.maskedPaths[{index}]"), path)?;
    }
    // Relative ones are taken as beginning at the root, as runc does: more is protected then, not less.
    if linux.readonly_paths.iter().any(|path| path.contains('\0')) {
        return Err(Error::invalid("linux.readonlyPaths", "a path holds a NUL"));
    }
    if let Some(word) = linux.rootfs_propagation.as_deref()
        && mounts::options::propagation(word).is_none()
    {
        return Err(Error::invalid("linux.rootfsPropagation", format!("{word:?} is no propagation")));
    }
    linux.personality.as_ref().map(process::personality).transpose()?;
    linux.memory_policy.as_ref().map(scheduling::memory_policy).transpose()?;
    if !linux.net_devices.is_empty() && !namespaces::has(&linux.namespaces, NamespaceKind::Network) {
        let text = "without a network namespace there is nowhere to move network devices to";
        return Err(Error::invalid("linux.netDevices", text));
    }
    netdev::check(&linux.net_devices)?;
    linux.intel_rdt.as_ref().map_or(Ok(()), rdt::check)
}

/// Refuses what is no absolute path.
pub(crate) fn absolute(field: &str, path: &str) -> Result<(), Error> {
    if !path.starts_with('/') {
        return Err(Error::invalid(field, format!("{path:?} must be an absolute path")));
    }
    if path.contains('\0') {
        return Err(Error::invalid(field, "a path holds a NUL"));
    }
    Ok(())
}

//! `checkpoint` and `restore`, by CRIU's command line (criu(8)) where it is installed.
//!
//! CRIU is told which mounts come from outside: those whose file system the host has mounted too. They are written to
//! the image directory beside CRIU's own files, with the descriptors that a restored process gets from its caller.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use creel_cgroup::Cgroup;
use creel_sys::clone::{Clone, Cloned, clone};
use creel_sys::process::{Ended, Exec, Whom, exit_now, wait};
use creel_types::spec::{NamespaceKind, Spec};
use rustix::mount::MountPropagationFlags;
use serde::{Deserialize, Serialize};

use crate::container;
use crate::delete;
use crate::error::{Error, Result};
use crate::flags::Parsed;
use crate::options::{self, Options};
use crate::record::Status;
use crate::store::Root;

/// What is kept beside CRIU's images.
const OWN_FILE: &str = "creel.json";

/// What a restore has to know that CRIU's images do not tell.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Beside {
    /// Mounts from outside: place in the container, and where it is on the host.
    mounts: BTreeMap<String, PathBuf>,
    /// What the first three descriptors were, as procfs names them.
    descriptors: Vec<String>,
}

/// Flags that CRIU has under the same name.
const SAME_FLAGS: [&str; 8] = [
    "leave-running",
    "tcp-established",
    "link-remap",
    "ext-unix-sk",
    "shell-job",
    "file-locks",
    "auto-dedup",
    "lazy-pages",
];

/// `checkpoint ID`.
pub(crate) fn checkpoint(o: &Options, parsed: &Parsed, id: &str) -> Result<()> {
    let root = Root::open(&o.root)?.ok_or(Error::NotExist)?;
    let loaded = container::load_locked(o, id)?;
    let status = loaded.status();
    if matches!(status, Status::Created | Status::Creating | Status::Stopped) {
        return Err(Error::State(format!("Container cannot be checkpointed in {} state", status.word())));
    }
    let criu = find()?;
    let spec = loaded.entry.spec()?;
    let images = image_dir(parsed)?;
    let pid = loaded.record.pid;
    let pre_dump = parsed.on("pre-dump");
    let mut args: Vec<OsString> = vec![if pre_dump { "pre-dump" } else { "dump" }.into()];
    let mut add = |flag: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        args.push(flag.into());
        args.push(value.as_ref().to_owned());
    };
    add("--tree", &pid.to_string());
    add("--images-dir", &images);
    add("--log-file", &"dump.log");
    add("--root", &loaded.record.rootfs);
    if let Some(parent) = parent_path(parsed, &images)? {
        add("--prev-images-dir", &parent);
        args.push("--track-mem".into());
    }
    common(parsed, &spec, &mut args)?;
    page_server(parsed, &mut args)?;
    if parsed.on("tcp-skip-in-flight") {
        args.push("--skip-in-flight".into());
    }
    if let Some(fd) = parsed.number("status-fd").filter(|fd| *fd >= 0) {
        let fd =
            i32::try_from(fd).map_err(|_| Error::Invalid(format!("invalid --status-fd argument {fd}")))?;
        creel_sys::close_range::inherit(fd)
            .map_err(|e| Error::call(&format!("invalid --status-fd argument {fd}"), e))?;
        args.extend(["--status-fd".into(), fd.to_string().into()]);
    }
    if !pre_dump {
        let beside = Beside { mounts: outside(pid)?, descriptors: descriptors(pid) };
        for place in beside.mounts.keys() {
            args.extend(["--external".into(), format!("mnt[{place}]:{place}").into()]);
        }
        args.extend(external_namespaces(&spec, pid));
        let text = serde_json::to_vec(&beside).map_err(|e| Error::Invalid(e.to_string()))?;
        let file = images.join(OWN_FILE);
        std::fs::write(&file, text).map_err(|e| Error::on("write", &file, e))?;
    }
    o.log.debug(&format!("{} {args:?}", criu.display()));
    let status = Command::new(&criu).args(&args).output().map_err(|e| Error::on("exec", &criu, e))?;
    if !status.status.success() {
        return Err(failed("checkpoint", parsed, &images, "dump.log", &status.stderr));
    }
    if !pre_dump && !parsed.on("leave-running") {
        delete::destroy(o, &root, &loaded.entry, &loaded.record)?;
    }
    Ok(())
}

/// What a restored container is made of.
pub(crate) struct Restoring<'a> {
    pub(crate) id: &'a str,
    pub(crate) spec: &'a Spec,
    pub(crate) rootfs: &'a Path,
    pub(crate) cgroup: Option<&'a Cgroup>,
}

/// Has CRIU bring the processes back as children of this one; returns the first one's process id.
pub(crate) fn restore(
    o: &Options,
    parsed: &Parsed,
    what: &Restoring<'_>,
    criu: &Path,
    images: &Path,
) -> Result<i32> {
    let beside = match std::fs::read(images.join(OWN_FILE)) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| Error::Invalid(format!("{}: {e}", images.join(OWN_FILE).display())))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Beside::default(),
        Err(e) => return Err(Error::on("open", images.join(OWN_FILE), e)),
    };
    let pid_file = images.join(format!(".creel-{}.pid", what.id));
    let _ = std::fs::remove_file(&pid_file);
    let mut args: Vec<OsString> = vec!["criu".into(), "restore".into()];
    let mut add = |flag: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        args.push(flag.into());
        args.push(value.as_ref().to_owned());
    };
    add("--images-dir", &images);
    add("--log-file", &"restore.log");
    add("--root", &what.rootfs);
    add("--pidfile", &pid_file);
    args.extend(["--restore-detached".into(), "--restore-sibling".into(), "--mntns-compat-mode".into()]);
    common(parsed, what.spec, &mut args)?;
    for flag in ["lsm-profile", "lsm-mount-context"] {
        if let Some(value) = parsed.value(flag) {
            args.extend([format!("--{flag}").into(), value.to_owned()]);
        }
    }
    for (place, host) in &beside.mounts {
        let source = spec_source(what.spec, place).unwrap_or_else(|| host.clone());
        args.extend(["--external".into(), format!("mnt[{place}]:{}", source.display()).into()]);
    }
    for (number, name) in beside.descriptors.iter().enumerate() {
        if name.starts_with("pipe:") {
            args.extend(["--inherit-fd".into(), format!("fd[{number}]:{name}").into()]);
        }
    }
    let prepared = Prepared::new(criu, &args, what)?;
    o.log.debug(&format!("{} {args:?}", criu.display()));
    let ended = prepared.run()?;
    if ended != Ended::Exited(0) {
        return Err(failed("restore", parsed, images, "restore.log", b""));
    }
    let text = std::fs::read_to_string(&pid_file).map_err(|e| Error::on("open", &pid_file, e))?;
    let _ = std::fs::remove_file(&pid_file);
    text.trim().parse().map_err(|_| Error::Invalid(format!("CRIU tells no process id but {text:?}")))
}

/// All that the child needs between its birth and the execve.
struct Prepared {
    exec: Exec,
    entry: Option<creel_cgroup::Entry>,
    rootfs: PathBuf,
}

impl Prepared {
    fn new(criu: &Path, args: &[OsString], what: &Restoring<'_>) -> Result<Prepared> {
        let text = |text: &std::ffi::OsStr| {
            CString::new(text.as_bytes()).map_err(|_| Error::Invalid("an argument holds a NUL".into()))
        };
        let argv = args.iter().map(|arg| text(arg)).collect::<Result<_>>()?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let envp = vec![text(&[OsString::from("PATH="), path].into_iter().collect::<OsString>())?];
        let entry = what.cgroup.map(Cgroup::entry).transpose()?;
        Ok(Prepared {
            exec: Exec::new(text(criu.as_os_str())?, argv, envp),
            entry,
            rootfs: what.rootfs.to_owned(),
        })
    }

    /// Runs CRIU in the container's control group and in a mount namespace of its own, in which the container's root is
    /// a mount, as CRIU wants it: none is made on the host.
    fn run(self) -> Result<Ended> {
        let unified = self.entry.as_ref().and_then(creel_cgroup::Entry::unified);
        let cloned = clone(&Clone { flags: creel_sys::clone::NEWNS, cgroup: unified });
        match cloned.map_err(|e| Error::call("cannot clone a process for CRIU", e))? {
            Cloned::Parent { pidfd, .. } => {
                let whom = Whom::Pidfd(std::os::fd::AsFd::as_fd(&pidfd));
                let ended = wait(whom, true).map_err(|e| Error::call("cannot wait for CRIU", e))?;
                Ok(ended.map_or(Ended::Exited(1), |(_, ended)| ended))
            }
            Cloned::Child => {
                let _ = self.become_criu();
                exit_now(1)
            }
        }
    }

    fn become_criu(&self) -> rustix::io::Result<()> {
        if let Some(entry) = &self.entry {
            entry.join_v1()?;
        }
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)?;
        rustix::mount::mount_bind_recursive(&self.rootfs, &self.rootfs)?;
        let _ = creel_sys::signal::set_mask(creel_sys::signal::SignalSet::EMPTY);
        self.exec.run();
        Err(rustix::io::Errno::NOENT)
    }
}

/// The program.
pub(crate) fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let may_run = |file: &PathBuf| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok();
    std::env::split_paths(&path).map(|dir| dir.join("criu")).find(may_run).ok_or_else(|| {
        Error::Invalid(
            "CRIU is missing: no program criu in $PATH; install the package criu to checkpoint and restore \
             containers"
                .into(),
        )
    })
}

/// The directory of the images, absolute and there.
pub(crate) fn image_dir(parsed: &Parsed) -> Result<PathBuf> {
    let path = options::absolute(Path::new(parsed.value("image-path").unwrap_or("checkpoint".as_ref())))?;
    std::fs::create_dir_all(&path).map_err(|e| Error::on("mkdir", &path, e))?;
    Ok(path)
}

fn parent_path(parsed: &Parsed, images: &Path) -> Result<Option<PathBuf>> {
    let Some(parent) = parsed.value("parent-path").map(PathBuf::from) else { return Ok(None) };
    if parent.is_absolute() {
        return Err(Error::Invalid("--parent-path must be relative".into()));
    }
    match std::fs::metadata(images.join(&parent)) {
        Ok(found) if found.is_dir() => Ok(Some(parent)),
        Ok(_) => Err(Error::Invalid(format!(
            "invalid --parent-path: {} is no directory",
            images.join(&parent).display()
        ))),
        Err(e) => Err(Error::on("stat", images.join(&parent), e).during("invalid --parent-path")),
    }
}

fn page_server(parsed: &Parsed, args: &mut Vec<OsString>) -> Result<()> {
    let Some(server) = parsed.text("page-server") else { return Ok(()) };
    let (address, port) = server
        .rsplit_once(':')
        .filter(|(address, port)| !address.is_empty() && !port.is_empty())
        .ok_or_else(|| Error::Invalid("Use --page-server ADDRESS:PORT to specify page server".into()))?;
    let port: u16 = port.parse().map_err(|_| Error::Invalid("Invalid port number".into()))?;
    let address = address.trim_matches(['[', ']']);
    args.extend(["--page-server", "--address", address, "--port"].map(OsString::from));
    args.push(port.to_string().into());
    Ok(())
}

/// What a dump and a restore have in common.
fn common(parsed: &Parsed, spec: &Spec, args: &mut Vec<OsString>) -> Result<()> {
    args.push("-v4".into());
    if let Some(dir) = parsed.value("work-path") {
        let dir = options::absolute(Path::new(dir))?;
        std::fs::create_dir_all(&dir).map_err(|e| Error::on("mkdir", &dir, e))?;
        args.extend(["--work-dir".into(), dir.into_os_string()]);
    }
    args.extend(SAME_FLAGS.iter().filter(|flag| parsed.on(flag)).map(|flag| format!("--{flag}").into()));
    let mode = parsed.text("manage-cgroups-mode");
    match mode.as_deref() {
        None => args.push("--manage-cgroups=ignore".into()),
        Some(mode @ ("soft" | "full" | "strict" | "ignore")) => {
            args.push(format!("--manage-cgroups={mode}").into());
        }
        Some(other) => return Err(Error::Invalid(format!("Invalid manage-cgroups-mode value: {other}"))),
    }
    if let Some(other) = parsed.all("empty-ns").find(|kind| kind != "network") {
        return Err(Error::Invalid(format!("namespace {other:?} is not supported")));
    }
    // Network devices are whoever's made them.
    if own_network(spec) {
        args.extend(["--empty-ns".into(), "net".into()]);
    }
    let config = spec.annotations.get("org.criu.config").map(String::as_str).unwrap_or("/etc/criu/runc.conf");
    if !config.is_empty() && Path::new(config).is_file() {
        args.extend(["--config".into(), config.into()]);
    }
    Ok(())
}

fn own_network(spec: &Spec) -> bool {
    let namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    namespaces.into_iter().any(|one| one.kind == NamespaceKind::Network && one.path.is_none())
}

/// Namespaces that were joined: CRIU leaves them to others.
fn external_namespaces(spec: &Spec, pid: i32) -> Vec<OsString> {
    let namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    let mut args = Vec::new();
    for one in namespaces.into_iter().filter(|one| one.path.is_some()) {
        let (word, key) = match one.kind {
            NamespaceKind::Network => ("net", "extRootNetNS"),
            NamespaceKind::Pid => ("pid", "extRootPidNS"),
            _ => continue,
        };
        if let Ok(link) = std::fs::read_link(format!("/proc/{pid}/ns/{word}"))
            && let Some(inode) = link.to_string_lossy().split(['[', ']']).nth(1)
        {
            args.extend(["--external".into(), format!("{word}[{inode}]:{key}").into()]);
        }
    }
    args
}

/// Where the Spec has a bind mount from.
fn spec_source(spec: &Spec, place: &str) -> Option<PathBuf> {
    let mount = spec.mounts.iter().find(|mount| {
        options::clean(Path::new(&mount.destination)) == Path::new(place)
            && mount.options.iter().any(|option| option == "bind" || option == "rbind")
    })?;
    let source = Path::new(mount.source.as_deref()?);
    options::absolute(source).ok()
}

fn descriptors(pid: i32) -> Vec<String> {
    let link = |fd: i32| std::fs::read_link(format!("/proc/{pid}/fd/{fd}"));
    (0..3).map(|fd| link(fd).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()).collect()
}

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    device: String,
    root: PathBuf,
    place: PathBuf,
}

fn mounted(text: &str) -> Vec<Mounted> {
    let parse = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        let (device, root, place) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Mounted { device: device.into(), root: plain(root), place: plain(place) })
    };
    text.lines().filter_map(parse).collect()
}

/// A path without the octal escapes of mountinfo.
fn plain(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok())
        };
        match after.get(..3).filter(|_| *first == b'\\').and_then(octal) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

/// The mounts of a process whose file system the host has mounted as well, with the place on the host.
fn outside(pid: i32) -> Result<BTreeMap<String, PathBuf>> {
    let read = |path: String| std::fs::read_to_string(&path).map_err(|e| Error::on("open", &path, e));
    let host = mounted(&read("/proc/self/mountinfo".into())?);
    Ok(external(&mounted(&read(format!("/proc/{pid}/mountinfo"))?), &host))
}

fn external(container: &[Mounted], host: &[Mounted]) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for mount in container.iter().filter(|mount| mount.place != Path::new("/")) {
        let same = host.iter().rev().filter(|there| there.device == mount.device);
        let place = same.filter_map(|there| {
            let below = mount.root.strip_prefix(&there.root).ok()?;
            Some(if below.as_os_str().is_empty() { there.place.clone() } else { there.place.join(below) })
        });
        if let (Some(place), Some(key)) = (place.into_iter().next(), mount.place.to_str()) {
            found.insert(key.to_owned(), place);
        }
    }
    found
}

/// An error with what CRIU says in its log.
fn failed(what: &str, parsed: &Parsed, images: &Path, log: &str, stderr: &[u8]) -> Error {
    let dir = parsed.value("work-path").map_or(images.to_owned(), PathBuf::from);
    let text = std::fs::read_to_string(dir.join(log)).unwrap_or_default();
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("Error (")).collect();
    let last = errors.iter().rev().take(3).rev().copied().collect::<Vec<_>>().join("; ");
    let stderr = String::from_utf8_lossy(stderr);
    let said = if last.is_empty() { stderr.trim() } else { &last };
    Error::Invalid(format!("criu failed to {what}: {said}; log file: {}", dir.join(log).display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn mounts_from_outside_are_told_apart() {
        let host = mounted(
            "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
             30 22 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw\n\
             31 22 254:1 /sub /data\\040x rw - ext4 /dev/vdb rw\n",
        );
        let container = mounted(
            "50 49 254:0 /bundle/rootfs / rw - ext4 /dev/vda rw\n\
             51 50 0:77 / /proc rw - proc proc rw\n\
             52 51 0:77 /sys /proc/sys ro - proc proc rw\n\
             53 50 0:25 /c /sys/fs/cgroup/cpu ro - cgroup cgroup rw\n\
             54 50 254:1 /sub/dir /vol rw - ext4 /dev/vdb rw\n\
             55 50 254:0 /etc/hosts /etc/hosts rw - ext4 /dev/vda rw\n",
        );
        let found: Vec<_> = external(&container, &host)
            .into_iter()
            .map(|(place, host)| format!("{place} {}", host.display()))
            .collect();
        assert_eq!(
            found,
            ["/etc/hosts /etc/hosts", "/sys/fs/cgroup/cpu /sys/fs/cgroup/cpu/c", "/vol /data x/dir"]
        );
    }

    #[test]
    fn page_servers() {
        let args = |server: &str| {
            let verb = crate::verbs::find("checkpoint").unwrap();
            let words = ["--page-server".into(), server.into()];
            let parsed = crate::flags::parse(verb.flags, &words, false).unwrap();
            let mut args = Vec::new();
            page_server(&parsed, &mut args).map(|()| args).map_err(|e| e.to_string())
        };
        assert_eq!(args("10.0.0.1:27").unwrap(), ["--page-server", "--address", "10.0.0.1", "--port", "27"]);
        assert_eq!(args("[::1]:27").unwrap()[2], "::1");
        assert!(args(":27").is_err() && args("x:").is_err() && args("x:y").is_err());
    }
}

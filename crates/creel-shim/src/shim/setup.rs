//! How a shim becomes one: arguments, descriptors, session, signals, socket.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use creel_sys::signal::{self, SignalSet};
use creel_types::ErrorKind;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{MAIN, READ, Shim};
use crate::control::{Connection, Kind};
use crate::failure;
use crate::launch::Launcher;
use crate::log::{Limits, LogFile, Logger};
use crate::proto::{Failure, ShimConfig, Status, files};
use crate::streams::Streams;
use crate::trouble::Troubles;

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// The container's run directory.
    pub(crate) dir: PathBuf,
    /// The descriptor of the first control connection.
    pub(crate) control_fd: i32,
}

impl Arguments {
    /// Reads `--dir DIR [--control-fd N]`; words before the first flag are passed over.
    pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut args = args.skip_while(|a| !a.as_encoded_bytes().starts_with(b"-"));
        let (mut dir, mut control_fd) = (None, 3);
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{} wants a value", flag.display()))?;
            match flag.as_encoded_bytes() {
                b"--dir" => dir = Some(PathBuf::from(value)),
                b"--control-fd" => {
                    let number = value.to_str().and_then(|v| v.parse().ok()).filter(|n| *n >= 0);
                    control_fd = number.ok_or_else(|| format!("{} is no descriptor", value.display()))?;
                }
                _ => return Err(format!("{} is no flag of the shim", flag.display())),
            }
        }
        let dir = dir.ok_or("--dir is missing: the container's run directory")?;
        Ok(Self { dir, control_fd })
    }
}

/// Detaches the process from whoever spawned it and returns the control connection.
///
/// # Errors
/// Names the step that failed.
pub(crate) fn detach(control_fd: i32) -> Result<OwnedFd, String> {
    let step = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    let control =
        creel_sys::inherited::take(control_fd).map_err(step("cannot take the control connection"))?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(step("/dev/null"))?;
    for fd in 0..3 {
        creel_sys::process::dup_to_stdio(&null, fd).map_err(step("cannot replace a standard descriptor"))?;
    }
    // It fails only for a process group's leader, which then has a session to lead already.
    let _ = creel_sys::process::setsid();
    std::env::set_current_dir("/").map_err(step("cannot leave the working directory"))?;
    creel_sys::process::umask(0o022);
    creel_sys::process::set_subreaper(true).map_err(step("cannot become a subreaper"))?;
    Ok(control)
}

/// The signals that the loop reads; those that would end it by accident are taken and dropped.
///
/// # Errors
/// The kernel's.
pub(crate) fn take_signals() -> io::Result<OwnedFd> {
    let signals = SignalSet::of(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT]);
    signal::set_mask(signals)?;
    signal::signalfd(signals)
}

/// The listening socket, and the file that it is.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) fd: OwnedFd,
    path: PathBuf,
    file: (u64, u64),
}

impl Listener {
    /// Removes the socket's file, unless another shim's is in its place.
    pub(super) fn remove(&self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on `shim.sock` in `dir`, unless another shim answers there.
///
/// # Errors
/// `AddrInUse` if one does; else the kernel's.
pub(crate) fn listen(dir: &Path) -> io::Result<Listener> {
    let path = dir.join(files::SOCKET);
    if crate::client::connect(dir).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let open = fs::File::open(dir)?;
    let listener = UnixListener::bind(crate::client::socket_path(dir, &open))?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    let file = fs::symlink_metadata(&path)?;
    Ok(Listener { fd: listener.into(), path, file: (file.dev(), file.ino()) })
}

/// Reads a JSON file.
///
/// # Errors
/// Names the file and what is wrong.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = fs::read(path)
        .map_err(|e| failure(ErrorKind::Internal, format!("cannot read {}: {e}", path.display())))?;
    serde_json::from_slice(&text).map_err(|e| {
        failure(ErrorKind::InvalidArgument, format!("{} is not what it should be: {e}", path.display()))
    })
}

/// Writes a JSON file whole or not at all, replacing what was there.
///
/// # Errors
/// The kernel's.
pub(crate) fn write_json<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.tmp"));
    let result = serde_json::to_vec(value)
        .map_err(io::Error::from)
        .and_then(|text| write_synced(&temporary, &text))
        .and_then(|()| fs::rename(&temporary, dir.join(name)));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// The run directory may be on a disk after all: then the record outlives a power failure too.
fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    use io::Write;
    let mut file = fs::File::create(path)?;
    file.write_all(text)?;
    file.sync_data()
}

impl<L: Launcher> Shim<L> {
    /// Puts the shim together; `control` gets events from the start.
    pub(crate) fn new(
        dir: PathBuf,
        config: ShimConfig,
        launcher: L,
        own_pids: bool,
        (control, signals, listener): (OwnedFd, OwnedFd, Listener),
    ) -> Self {
        let log = config.log_path.clone().map(|path| {
            let limits =
                Limits { max_size: config.log_max_size, max_files: config.log_max_files.unwrap_or(1).max(1) };
            Logger::new(LogFile::new(path, limits))
        });
        let mut first = Connection::new(1, control);
        first.kind = Kind::Control;
        first.subscribed = true;
        // What an earlier run of this container left would be taken for this one's.
        for name in [files::STATE, files::EXIT] {
            let _ = fs::remove_file(dir.join(name));
        }
        Self {
            troubles: Troubles::new(dir.join(files::LOG)),
            main: Streams::new(MAIN, config.terminal, Self::main_rule(&config)),
            dir,
            config,
            launcher,
            own_pids,
            status: Status::Idle,
            init: None,
            started_at: None,
            oom_kills: 0,
            oom_retry: None,
            ended: None,
            failed: None,
            record: None,
            execs: Vec::new(),
            ended_execs: Default::default(),
            connections: vec![first],
            next_id: 1,
            signals,
            listener,
            listener_pause: None,
            log,
            log_retry: None,
            buffer: vec![0; READ].into_boxed_slice(),
            stdin_doubt: None,
            abandoned_since: None,
            linger: None,
            idle_at: None,
            stop: false,
        }
    }
}

//! Starting the daemon when nobody answers on its default socket.

use std::ffi::CString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use creel_sys::clone::{Clone, Cloned, clone};
use creel_sys::process::{self, Exec, Whom};

use crate::output::complain;

/// How long the daemon may take until it answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to the daemon on its default socket. If none answers and the user is root, one is started; for anybody
/// else there is no connection.
///
/// # Errors
/// In words, when the daemon cannot be started or does not answer in time.
pub(crate) fn ensure(socket: &Path) -> Result<Option<UnixStream>, String> {
    match UnixStream::connect(socket) {
        Ok(stream) => Ok(Some(stream)),
        Err(_) if rustix::process::geteuid().is_root() => start(socket).map(Some),
        Err(_) => Ok(None),
    }
}

fn start(socket: &Path) -> Result<UnixStream, String> {
    let directory = socket.parent().unwrap_or(Path::new("/run"));
    let log = directory.join("daemon.log");
    let context =
        |what: &str, e: std::io::Error| format!("starting the daemon: {what}: {}", crate::os_words(&e));
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(directory)
        .map_err(|e| context(&format!("making {}", directory.display()), e))?;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log)
        .map_err(|e| context(&format!("opening {}", log.display()), e))?;
    let program = std::fs::read_link("/proc/self/exe").map_err(|e| context("finding this program", e))?;
    let null =
        OpenOptions::new().read(true).open("/dev/null").map_err(|e| context("opening /dev/null", e))?;
    let daemon = spawn(&program, &null, &file).map_err(|e| context(&program.display().to_string(), e))?;
    let begin = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            complain(&format!("creel: started the daemon (log: {})", log.display()));
            return Ok(stream);
        }
        if let Ok(Some((_, ended))) = process::wait(Whom::Pidfd(daemon.as_fd()), false) {
            // Another one may have been faster: then that one answers.
            std::thread::sleep(Duration::from_millis(50));
            if let Ok(stream) = UnixStream::connect(socket) {
                return Ok(stream);
            }
            return Err(format!(
                "the daemon ended at once with code {}; its log is {}{}",
                ended.code(),
                log.display(),
                last_words(&log)
            ));
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!(
                "the daemon was started but does not answer on {} after {} s; its log is {}",
                socket.display(),
                PATIENCE.as_secs(),
                log.display()
            ));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The last line of the daemon's log, to be added to a message; empty if there is none.
fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
    text.lines()
        .rfind(|line| !line.trim().is_empty())
        .map(|line| format!(": {}", line.trim()))
        .unwrap_or_default()
}

/// Starts `creel daemon` as the leader of a session of its own, so that nothing that happens to this terminal
/// reaches it. Must be called while this process has one thread.
fn spawn(program: &Path, null: &File, log: &File) -> std::io::Result<OwnedFd> {
    let path = CString::new(program.as_os_str().as_bytes())?;
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok());
    let exec = Exec::new(path, vec![c"creel".to_owned(), c"daemon".to_owned()], environment.collect());
    match clone(&Clone::default())? {
        Cloned::Parent { pidfd, .. } => Ok(pidfd),
        Cloned::Child => {
            let _ = process::setsid();
            let _ = rustix::process::chdir(c"/");
            let ready = process::dup_to_stdio(null, 0)
                .and_then(|()| process::dup_to_stdio(log, 1))
                .and_then(|()| process::dup_to_stdio(log, 2));
            if ready.is_ok() {
                exec.run();
            }
            process::exit_now(127)
        }
    }
}

//! The system call filter of a process: compiled by the creator, loaded by the child as the last thing before the
//! execve; and, with notifications, handed to the agent who answers them.
//!
//! The agent's descriptor comes into being in the child, who could send it only with system calls that the filter may
//! already stop, for ever if nobody listens yet. So the child makes none: it says beforehand which number the
//! descriptor will have, loads the filter, and spins on a word of shared memory while the one who opened its gate takes
//! the descriptor (pidfd_getfd(2)), sends it to the agent, and writes the word. From then on there is somebody who answers.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use creel_sys::process;
use creel_sys::seccomp::{self as sys, Instruction};
use creel_sys::shared::Word;
use creel_sys::{fdpass, pidfd};
use creel_types::ErrorKind;
use creel_types::spec::{Seccomp, SyscallRule};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Fault, plain};
use crate::hooks::State;
use crate::report::{Message, Reporter};
use crate::seccomp;

/// A system call filter, compiled.
#[derive(Debug)]
pub(crate) struct Filter {
    program: Vec<Instruction>,
    flags: u32,
    /// What the agent is told, if there is one.
    notice: Option<Notice>,
}

/// A container's system call filter as it was compiled when the container was created, for its further processes: they
/// need neither the profile nor the compiler then. One with an agent is not to be had in this form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled(Vec<u8>);

impl Compiled {
    /// From [`Compiled::as_bytes`]; `None` for what that has not written.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Compiled> {
        Filter::from_bytes(&bytes).map(|_| Compiled(bytes))
    }

    /// A form to keep on this machine.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The flags that it is loaded with, as seccomp(2) gets them.
    pub fn flags(&self) -> u32 {
        self.0.first_chunk().map_or(0, |flags| u32::from_ne_bytes(*flags))
    }

    pub(crate) fn read(&self) -> Option<Filter> {
        Filter::from_bytes(&self.0)
    }
}

/// The container process state (`config-linux.md`), all but what only the one who sends it knows.
#[derive(Debug, Serialize, Deserialize)]
struct Notice {
    path: String,
    /// Whether calls wait for the agent, so that there has to be one.
    needed: bool,
    metadata: Option<String>,
    state: serde_json::Value,
}

/// What is sent to the agent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: serde_json::Value,
}

/// Where the notice begins in the memory file.
const NOTICE_AT: u64 = 4096;
/// How much of a notice is read: annotations may be long.
const MAX_NOTICE: u64 = 4 << 20;
/// How long the agent's descriptor may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a busy agent is left alone.
const PAUSE: Duration = Duration::from_millis(5);
/// Turns of the child's loop: half a minute and more.
const TURNS: u64 = 1 << 31;

/// Whether a word is a flag of `linux.seccomp.flags` that is applied.
pub fn knows_flag(word: &str) -> bool {
    flag(word).is_ok()
}

fn flag(word: &str) -> Result<u32, Error> {
    match word {
        // There is one thread only.
        "SECCOMP_FILTER_FLAG_TSYNC" => Ok(0),
        "SECCOMP_FILTER_FLAG_LOG" => Ok(sys::FLAG_LOG),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(sys::FLAG_SPEC_ALLOW),
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Ok(sys::FLAG_WAIT_KILLABLE_RECV),
        other => Err(Error::invalid("linux.seccomp.flags", format!("{other} is no flag of seccomp(2)"))),
    }
}

/// The flags of a Spec. Where it does not speak of flags at all, a filter is no reason to slow the program down: other
/// runtimes have that, and so have kernels since Linux 5.16.
fn named_flags(wanted: &Seccomp) -> Result<u32, Error> {
    match &wanted.flags {
        None => Ok(sys::FLAG_SPEC_ALLOW),
        Some(words) => words.iter().try_fold(0, |all, word| flag(word).map(|bit| all | bit)),
    }
}

/// The flags that a Spec's filter is loaded with, as seccomp(2) gets them; `None` for flags that nobody knows.
pub fn flags(wanted: &Seccomp) -> Option<u32> {
    let flags = named_flags(wanted).ok()?;
    Some(if has_agent(wanted) {
        flags | sys::FLAG_NEW_LISTENER
    } else {
        flags & !sys::FLAG_WAIT_KILLABLE_RECV
    })
}

impl Filter {
    /// Compiles a Spec's filter; `state` is what the agent is told of the container, its process id left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what the compiler refuses, unknown flags, and notifications without an agent.
    pub(crate) fn compile(wanted: Option<&Seccomp>, state: &State<'_>) -> Result<Option<Filter>, Error> {
        let Some(wanted) = wanted else { return Ok(None) };
        let mut flags = named_flags(wanted)?;
        // crun's annotation; the specification lets unknown names be passed over.
        if state.annotations.get("run.oci.seccomp_fail_unknown_syscall").is_some_and(|yes| yes == "1")
            && let Some(name) = seccomp::unknown(wanted)
        {
            return Err(Error::invalid("linux.seccomp", format!("unknown system call {name}")));
        }
        let program = seccomp::compile(wanted).map_err(|e| Error::invalid("linux.seccomp", e.to_string()))?;
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let path = given(&wanted.listener_path);
        if path.is_none() && given(&wanted.listener_metadata).is_some() {
            let text = "it is for the agent at listenerPath, which is not set";
            return Err(Error::invalid("linux.seccomp.listenerMetadata", text));
        }
        let stops = |rule: &SyscallRule| {
            rule.action == "SCMP_ACT_NOTIFY" && rule.names.iter().any(|name| name == "write")
        };
        if wanted.syscalls.iter().any(stops) {
            // runc reports by write(2) under the filter and refuses this; a profile is to mean the same everywhere.
            let text = "SCMP_ACT_NOTIFY cannot be used for the write syscall";
            return Err(Error::invalid("linux.seccomp", text));
        }
        let notifies = wanted.syscalls.iter().any(|rule| rule.action == "SCMP_ACT_NOTIFY");
        let notice = match (notifies, path) {
            (false, None) => {
                // About notifications only; the kernel refuses it without them.
                flags &= !sys::FLAG_WAIT_KILLABLE_RECV;
                None
            }
            (true, None) => {
                let text = "SCMP_ACT_NOTIFY needs the socket of an agent who answers";
                return Err(Error::invalid("linux.seccomp.listenerPath", text));
            }
            // Without such a rule the path means nothing, says the specification; crun hands the listener over anyway, and
            // its callers wait for that. Who is not there is not missed then.
            (needed, Some(path)) => {
                let state = serde_json::to_value(state)
                    .map_err(|e| Error::setup("cannot write the container's state", e))?;
                Some(Notice { path, needed, metadata: given(&wanted.listener_metadata), state })
            }
        };
        Ok(Some(Filter { program, flags, notice }))
    }

    /// In the form that [`Filter::from_bytes`] reads: for a child that is at work already, and for those to come. One with
    /// an agent stays where it was compiled.
    pub(crate) fn to_compiled(&self) -> Compiled {
        let mut bytes = Vec::with_capacity(4 + self.program.len() * 8);
        bytes.extend(self.flags.to_ne_bytes());
        for Instruction { code, jt, jf, k } in &self.program {
            bytes.extend(code.to_ne_bytes());
            bytes.extend([*jt, *jf]);
            bytes.extend(k.to_ne_bytes());
        }
        Compiled(bytes)
    }

    /// Reads it again; `None` when it is cut off.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Filter> {
        let (flags, rest) = bytes.split_first_chunk()?;
        let (instructions, rest) = rest.as_chunks::<8>();
        let program = instructions.iter().map(|[c, d, jt, jf, k @ ..]| Instruction {
            code: u16::from_ne_bytes([*c, *d]),
            jt: *jt,
            jf: *jf,
            k: u32::from_ne_bytes(*k),
        });
        let filter = Filter { program: program.collect(), flags: u32::from_ne_bytes(*flags), notice: None };
        (rest.is_empty() && !filter.program.is_empty()).then_some(filter)
    }

    /// Whether somebody takes a descriptor out of the process that loads it.
    pub(crate) fn is_fetched(&self) -> bool {
        self.notice.is_some()
    }

    /// Loads it into the calling process. With notifications this returns when the agent has the descriptor; no system
    /// call is made between.
    pub(crate) fn load(&self, reporter: &Reporter) -> Result<(), Fault> {
        let Some(notice) = &self.notice else {
            return Ok(sys::load(&self.program, self.flags).map(drop)?);
        };
        let word = Word::new()?;
        let bytes = serde_json::to_vec(notice).map_err(|e| Fault::new(ErrorKind::Internal, e.to_string()))?;
        let mut at = NOTICE_AT;
        let mut left = &bytes[..];
        while !left.is_empty() {
            let n = rustix::io::pwrite(word.file(), left, at)?;
            (left, at) = (&left[n..], at + n as u64);
        }
        // Freeing it would be a system call, too.
        drop(bytes);
        let own = pidfd::open(process::pid())?;
        // The lowest free number is what the kernel gives to the next descriptor.
        let spare = rustix::io::fcntl_dupfd_cloexec(word.file(), 0)?;
        let number = spare.as_raw_fd();
        reporter.send(&Message::Listener { number }, &[own.as_fd(), word.file()]);
        drop(spare);
        let listener = sys::load(&self.program, self.flags | sys::FLAG_NEW_LISTENER)?;
        // Closing them would be system calls; the execve does it.
        std::mem::forget((listener, own));
        if !word.wait(TURNS) {
            process::trap();
        }
        std::mem::forget(word);
        Ok(())
    }
}

/// Serves [`Message::Listener`]: takes the descriptor from the child and sends it to the agent. The child goes on when
/// this has succeeded; it is killed otherwise.
///
/// `socket` is where the child reports: that it did not come so far will be read there by the caller.
pub(crate) fn serve(number: i32, fds: Vec<OwnedFd>, socket: &OwnedFd) -> Result<(), Error> {
    let mut fds = fds.into_iter();
    let (Some(process), Some(memory)) = (fds.next(), fds.next()) else {
        return Err(Error::setup("cannot take the filter's listener", "descriptors were lost"));
    };
    hand_over(number, &process, &memory, socket).inspect_err(|_| {
        let _ = pidfd::send_signal(&process, libc::SIGKILL);
    })
}

fn hand_over(number: i32, process: &OwnedFd, memory: &OwnedFd, socket: &OwnedFd) -> Result<(), Error> {
    let broken = |e: &dyn std::fmt::Display| Error::setup("cannot take the filter's listener", e);
    let notice = read_notice(memory).map_err(|e| broken(&e))?;
    let pid = pid_of(process).ok_or_else(|| broken(&"its process is gone"))?;
    let refused = |e: std::io::Error| match e.raw_os_error() {
        Some(libc::EPERM) => broken(
            &"operation not permitted: who is not root may take it from a new container with a pid namespace of its \
              own only; run this as root, or use a filter without SCMP_ACT_NOTIFY",
        ),
        _ => broken(&plain(&e)),
    };
    let Some(listener) = take(number, process, socket).map_err(refused)? else {
        return Ok(());
    };
    let mut state = notice.state;
    state["pid"] = pid.into();
    let version = state["ociVersion"].as_str().unwrap_or_default().to_string();
    let told = ProcessState {
        oci_version: &version,
        fds: ["seccompFd"],
        pid,
        metadata: notice.metadata.as_deref(),
        state,
    };
    let text = serde_json::to_vec(&told).map_err(|e| broken(&e))?;
    let what = || format!("cannot send the filter's listener to {}", notice.path);
    let failed = |e: std::io::Error| Error::setup(what(), plain(&e));
    let mut agent = match connect(&notice.path, notice.needed) {
        Err(_) if !notice.needed => return go_on(memory),
        // The first words are runc's.
        Err(e) => {
            let what = format!("failed to connect with seccomp agent {}", notice.path);
            return Err(Error::setup(what, plain(&e)));
        }
        Ok(agent) => agent,
    };
    agent.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let sent = fdpass::send(&agent, &text, &[listener.as_fd()]).map_err(failed)?;
    agent.write_all(&text[sent..]).map_err(failed)?;
    drop(agent);
    go_on(memory)
}

/// Connects with the agent, who may be busy with others, but not for ever: connect(2) would wait until he accepts one.
fn connect(path: &str, patient: bool) -> std::io::Result<UnixStream> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
        None,
    )?;
    let address = rustix::net::SocketAddrUnix::new(path)?;
    let begun = Instant::now();
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => break,
            Err(rustix::io::Errno::INTR) => {}
            // unix(7): the queue of connections is full.
            Err(rustix::io::Errno::AGAIN) if patient && begun.elapsed() < PATIENCE => {
                std::thread::sleep(PAUSE);
            }
            Err(rustix::io::Errno::AGAIN) => {
                let text = format!(
                    "it has accepted no connection for {} s, and its queue of them is full; end or mend it",
                    begun.elapsed().as_secs()
                );
                return Err(std::io::Error::other(text));
            }
            Err(e) => return Err(e.into()),
        }
    }
    let agent = UnixStream::from(socket);
    agent.set_nonblocking(false)?;
    Ok(agent)
}

/// Ends the child's waiting.
fn go_on(memory: &OwnedFd) -> Result<(), Error> {
    rustix::io::pwrite(memory, &1u32.to_ne_bytes(), 0)
        .map_err(|e| Error::setup("cannot let the process go on under its filter", e))?;
    Ok(())
}

/// Whether a filter's listener is handed to an agent while the container is created.
pub fn has_agent(wanted: &Seccomp) -> bool {
    wanted.listener_path.as_deref().is_some_and(|path| !path.is_empty())
}

fn read_notice(memory: &OwnedFd) -> std::io::Result<Notice> {
    let size = (rustix::fs::fstat(memory)?.st_size as u64).saturating_sub(NOTICE_AT).min(MAX_NOTICE);
    let mut bytes = vec![0; size as usize];
    let mut read = 0;
    while read < bytes.len() {
        match rustix::io::pread(memory, &mut bytes[read..], NOTICE_AT + read as u64)? {
            0 => break,
            n => read += n,
        }
    }
    Ok(serde_json::from_slice(&bytes[..read])?)
}

/// The process's id here, whatever pid namespace it lives in (pidfd_open(2), "Pid" in fdinfo).
fn pid_of(process: &OwnedFd) -> Option<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    line.trim().parse().ok().filter(|pid| *pid > 0)
}

/// Waits for the descriptor to appear in the child; `None` when the child has something else to say first.
fn take(number: i32, process: &OwnedFd, socket: &OwnedFd) -> std::io::Result<Option<OwnedFd>> {
    let begun = Instant::now();
    loop {
        match pidfd::getfd(process, number) {
            Ok(fd) if is_listener(&fd) => return Ok(Some(fd)),
            Ok(_) => {}
            Err(e) if e.raw_os_error() == Some(libc::EBADF) => {}
            Err(e) => return Err(e),
        }
        let mut polled = [PollFd::new(socket, PollFlags::IN)];
        // 50 microseconds: loading a filter takes two or three times that.
        let wait = Timespec { tv_sec: 0, tv_nsec: 50_000 };
        if poll(&mut polled, Some(&wait)).is_ok_and(|ready| ready > 0) {
            return Ok(None);
        }
        if begun.elapsed() > PATIENCE {
            return Err(std::io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
    }
}

fn is_listener(fd: &OwnedFd) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .is_ok_and(|link| link.as_os_str() == "anon_inode:seccomp notify")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    fn compiled(change: impl FnOnce(&mut Seccomp)) -> Result<Option<Filter>, Error> {
        let annotations = BTreeMap::new();
        let state = State {
            oci_version: "1.3.0",
            id: "id",
            status: "created",
            pid: 0,
            bundle: Path::new("/b"),
            annotations: &annotations,
        };
        let mut wanted = Seccomp { default_action: "SCMP_ACT_ALLOW".into(), ..Seccomp::default() };
        change(&mut wanted);
        Filter::compile(Some(&wanted), &state)
    }

    fn notify(wanted: &mut Seccomp) {
        wanted.syscalls = vec![SyscallRule {
            names: vec!["mkdir".into()],
            action: "SCMP_ACT_NOTIFY".into(),
            ..SyscallRule::default()
        }];
    }

    #[test]
    fn flags() {
        let flags = |words: &[&str], notifies: bool| {
            compiled(|wanted| {
                wanted.flags = Some(words.iter().map(|word| format!("SECCOMP_FILTER_FLAG_{word}")).collect());
                wanted.listener_path = Some("/s".into());
                if notifies {
                    notify(wanted);
                }
            })
            .map(|filter| filter.unwrap().flags)
        };
        assert_eq!(flags(&["TSYNC", "LOG", "SPEC_ALLOW"], false).unwrap(), 6);
        let filter = compiled(|wanted| {
            wanted.flags = Some(vec!["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV".into()]);
        });
        assert_eq!(filter.unwrap().unwrap().flags, 0, "without a listener the kernel refuses it");
        assert_eq!(flags(&["WAIT_KILLABLE_RECV", "LOG"], true).unwrap(), 34);
        assert!(flags(&["NEW_LISTENER"], false).is_err());
        assert_eq!(compiled(|_| {}).unwrap().unwrap().flags, sys::FLAG_SPEC_ALLOW);
        assert_eq!(compiled(|wanted| wanted.flags = Some(Vec::new())).unwrap().unwrap().flags, 0);
        let mut wanted = Seccomp { listener_path: Some("/s".into()), ..Seccomp::default() };
        wanted.flags = Some(vec!["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV".into()]);
        assert_eq!(super::flags(&wanted), Some(40), "what the log tells is what the kernel gets");
        wanted.flags = Some(vec!["SECCOMP_FILTER_FLAG_NONE".into()]);
        assert_eq!(super::flags(&wanted), None);
    }

    #[test]
    fn a_filter_travels() {
        let filter = compiled(|wanted| {
            wanted.flags = Some(vec!["SECCOMP_FILTER_FLAG_LOG".into()]);
            notify(wanted);
            wanted.syscalls[0].action = "SCMP_ACT_ERRNO".into();
        });
        let filter = filter.unwrap().unwrap();
        let compiled = filter.to_compiled();
        let bytes = compiled.as_bytes();
        assert_eq!(compiled.flags(), filter.flags);
        assert_eq!(Compiled::from_bytes(bytes.to_vec()).as_ref(), Some(&compiled));
        let arrived = Filter::from_bytes(bytes).unwrap();
        assert_eq!((&arrived.program, arrived.flags), (&filter.program, filter.flags));
        for end in [0, 3, 4, 8, bytes.len() - 1] {
            assert!(Filter::from_bytes(&bytes[..end]).is_none(), "{end}");
        }
    }

    #[test]
    fn notifications_need_somebody_who_answers() {
        let error = compiled(notify).unwrap_err().to_string();
        assert!(error.starts_with("linux.seccomp.listenerPath: "), "{error}");
        let error = compiled(|wanted| wanted.listener_metadata = Some("x".into())).unwrap_err().to_string();
        assert!(error.starts_with("linux.seccomp.listenerMetadata: "), "{error}");
        let write = |wanted: &mut Seccomp| {
            notify(wanted);
            wanted.syscalls[0].names.push("write".into());
            wanted.listener_path = Some("/s".into());
        };
        let error = compiled(write).unwrap_err().to_string();
        assert!(error.contains("SCMP_ACT_NOTIFY cannot be used for the write syscall"), "{error}");
        // Where nothing notifies nobody has to be there.
        let filter = compiled(|wanted| wanted.listener_path = Some("/s".into())).unwrap().unwrap();
        assert!(filter.notice.is_some_and(|notice| !notice.needed));
    }
}

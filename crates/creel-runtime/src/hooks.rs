//! Hooks: programs that the Spec runs at points of the life cycle (runtime-spec, "POSIX-platform Hooks").

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use creel_types::spec::{Hook, Hooks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use serde::Serialize;

use crate::Error;

/// The state document that a hook reads from its standard input (runtime-spec, "State").
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    /// Version of the specification.
    pub oci_version: &'a str,
    /// The container's id.
    pub id: &'a str,
    /// `creating`, `created`, `running` or `stopped`.
    pub status: &'a str,
    /// Process 1 in the runtime's pid namespace; 0 when there is none.
    pub pid: i32,
    /// The bundle.
    pub bundle: &'a Path,
    /// The Spec's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
}

/// Runs hooks in order; the first that fails ends it. Those of kind createContainer have the caller's working directory, those
/// of the others that run outside the container have the bundle as theirs, as runc's have. crun's annotations
/// `run.oci.hooks.stdout` and `run.oci.hooks.stderr` name files to which is appended what they say.
///
/// # Errors
/// [`Error::Setup`] that names the hook: it could not be run, did not exit with 0, or not in time (then it is killed).
pub fn run(kind: &str, hooks: &[Hook], state: &State<'_>) -> Result<(), Error> {
    for (index, hook) in hooks.iter().enumerate() {
        // The first words are those of runc, which its callers look for.
        let what = format!("error running {kind} hook #{index}: {}", hook.path);
        // A bundle may be gone when the container is deleted; and inside the container its path means nothing.
        let inside = kind == "startContainer";
        let directory = match kind {
            // Where the caller is.
            "createContainer" => Path::new("."),
            _ if !inside && state.bundle.is_dir() => state.bundle,
            _ => Path::new("/"),
        };
        run_one(hook, state, directory, !inside).map_err(|reason| Error::setup(what, reason))?;
    }
    Ok(())
}

/// Runs the hooks of kinds prestart and createRuntime, in the creator's own namespaces. The former are told that the
/// container is created, as they were before the others existed.
///
/// # Errors
/// As [`run`].
pub fn run_creators(hooks: &Hooks, state: &State<'_>) -> Result<(), Error> {
    run("prestart", &hooks.prestart, &State { status: "created", ..*state })?;
    run("createRuntime", &hooks.create_runtime, &State { status: "creating", ..*state })
}

/// How much of what a hook said an error quotes.
const QUOTED: u64 = 4096;

fn run_one(hook: &Hook, state: &State<'_>, directory: &Path, annotated: bool) -> Result<(), String> {
    let words = |e: &std::io::Error| crate::error::plain(e);
    // Files in memory and no pipes: a process that the hook leaves behind may keep them open for as long as it likes,
    // and a state with long annotations waits for nobody to read it.
    let memory = || rustix::fs::memfd_create("creel-hook", MemfdFlags::CLOEXEC).map(File::from);
    let mut said = memory().map_err(|e| words(&e.into()))?;
    let mut told = memory().map_err(|e| words(&e.into()))?;
    let text = serde_json::to_vec(state).map_err(|e| e.to_string())?;
    told.write_all(&text).and_then(|()| told.rewind()).map_err(|e| words(&e))?;
    let output = |stream: &str| {
        let file = state.annotations.get(&format!("run.oci.hooks.{stream}")).filter(|_| annotated);
        let file = match file {
            Some(path) => File::options().append(true).create(true).open(path),
            None => said.try_clone(),
        };
        file.map(Stdio::from).map_err(|e| words(&e))
    };
    let mut command = Command::new(&hook.path);
    command
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::from(told))
        .stdout(output("stdout")?)
        .stderr(output("stderr")?);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    command.envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    let mut child = command.spawn().map_err(|e| words(&e))?;
    let in_time = match hook.timeout {
        None => true,
        Some(seconds) => ends_within(child.id(), u64::from(seconds)).map_err(|e| words(&e))?,
    };
    if !in_time {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| words(&e))?;
    let mut text = String::new();
    if !in_time || !status.success() {
        let mut bytes = Vec::new();
        let _ = said.rewind().and_then(|()| Read::by_ref(&mut said).take(QUOTED).read_to_end(&mut bytes));
        let quoted = String::from_utf8_lossy(&bytes);
        if !quoted.trim().is_empty() {
            text = format!("; it said: {}", quoted.trim());
        }
    }
    match (in_time, status.code()) {
        (false, _) => Err(format!("it did not end in time and was killed{text}")),
        (true, Some(0)) => Ok(()),
        (true, Some(code)) => Err(format!("exit status {code}{text}")),
        (true, None) if status.signal() == Some(libc::SIGSYS) => {
            Err(format!("bad system call: the filter does not allow what it did{text}"))
        }
        (true, None) => Err(format!("it ended with {status}{text}")),
    }
}

/// Waits for the end of a child that has not been waited for yet.
fn ends_within(pid: u32, seconds: u64) -> std::io::Result<bool> {
    let child = creel_sys::pidfd::open(pid as i32)?;
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&wait)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

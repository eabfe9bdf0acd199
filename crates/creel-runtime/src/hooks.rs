//! Hooks: programs that the Spec runs at points of the life cycle (runtime-spec, "POSIX-platform Hooks").

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use creel_types::spec::Hook;
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

/// Runs hooks in order; the first that fails ends it.
///
/// # Errors
/// [`Error::Setup`] that names the hook: it could not be run, did not exit with 0, or not in time (then it is killed).
pub fn run(kind: &str, hooks: &[Hook], state: &State<'_>) -> Result<(), Error> {
    for hook in hooks {
        let what = format!("the {kind} hook {}", hook.path);
        run_one(hook, state).map_err(|reason| Error::setup(what, reason))?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &State<'_>) -> Result<(), String> {
    let mut command = Command::new(&hook.path);
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.args(hook.args.iter().skip(1));
    command.envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    let mut child = command.spawn().map_err(|e| crate::error::plain(&e))?;
    let text = serde_json::to_vec(state).map_err(|e| e.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it. The document fits into a pipe's buffer, so this cannot block.
        let _ = stdin.write_all(&text);
    }
    let until = hook.timeout.map(|seconds| Instant::now() + Duration::from_secs(u64::from(seconds)));
    loop {
        let status = match until {
            None => Some(child.wait().map_err(|e| e.to_string())?),
            Some(_) => child.try_wait().map_err(|e| e.to_string())?,
        };
        match status {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("it ended with {status}")),
            None if until.is_some_and(|until| Instant::now() >= until) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err("it did not end in time and was killed".into());
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

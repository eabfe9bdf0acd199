//! `exec`: a further process in a container.

use std::os::fd::AsFd;
use std::path::Path;

use creel_cgroup::{Cgroup, Entry};
use creel_runtime::{ExecOptions, Life};
use creel_types::spec::{self, Process, Spec};

use crate::container;
use crate::create::{log_filter, not_started};
use crate::error::{Error, Result};
use crate::flags::Parsed;
use crate::foreground::Foreground;
use crate::inherited::Inherited;
use crate::options::Options;
use crate::order::{self, Sockets};
use crate::record::Status;

/// `exec ID COMMAND…`; returns the exit code of the program, or 0 with `--detach`.
pub(crate) fn exec(
    o: &Options,
    parsed: &Parsed,
    id: &str,
    args: &[String],
    inherited: &Inherited,
) -> Result<i32> {
    let loaded = container::load(o, id)?;
    match loaded.status() {
        Status::Stopped => return Err(Error::State("cannot exec in a stopped container".into())),
        Status::Creating => {
            return Err(Error::State("cannot exec in a container that is being created".into()));
        }
        Status::Paused if !parsed.on("ignore-paused") => {
            return Err(Error::State(
                "cannot exec in a paused container (use --ignore-paused to override)".into(),
            ));
        }
        _ => {}
    }
    let spec = loaded.entry.spec()?;
    let mut process = process(parsed, &spec, args)?;
    order::check_process(&process)?;
    let detach = parsed.on("detach");
    let sockets = Sockets::open(parsed, process.terminal, detach)?;
    let pid_file = order::pid_file(parsed)?;
    let preserve_fds = inherited.preserved();
    inherited.announce(&mut process.env);
    let cgroup = loaded.record.group.open()?;
    let below: Vec<String> = parsed.all("cgroup").collect();
    // An ordinary user's own systemd has to move the process, which need not be in that systemd's groups now.
    let users = cgroup
        .as_ref()
        .filter(|group| below.is_empty() && group.unit().is_some_and(|unit| unit.user) && !hands_down(group));
    let doors = match users {
        Some(_) => None,
        None => doors(cgroup.as_ref(), &below, loaded.record.pid)?,
    };
    let init = loaded.init()?;

    let initial = process.exec_cpu_affinity.as_ref().and_then(|affinity| affinity.initial.as_deref());
    if let Some(mask) = initial.and_then(creel_runtime::scheduling::mask) {
        // In runc's words.
        o.log.debug(&format!("nsexec: affinity: {mask}"));
    }
    let foreground = if detach { None } else { Some(Foreground::prepare(false)?) };
    o.log.debug("nsexec container setup: cloning a process into the container's namespaces");
    let filter = if loaded.record.is_filtered() { Some(loaded.entry.filter()?) } else { None };
    log_filter(o, &spec, filter.as_ref());
    let mut waiting = creel_runtime::prepare_exec(ExecOptions {
        id: &loaded.record.id,
        bundle: loaded.record.bundle.as_ref(),
        target_pid: loaded.record.pid,
        target_pidfd: init.as_fd(),
        spec: &spec,
        filter: filter.as_ref(),
        process: &process,
        stdio: order::own_stdio(),
        cgroup: if users.is_some() { None } else { cgroup.as_ref() },
        doors,
        life: if detach { Life::Detached } else { Life::WithCreator },
        preserve_fds,
    })
    .map_err(not_started)?;
    if let Some(group) = users {
        creel_cgroup::systemd::adopt(group, waiting.pid)?;
    }
    let relay = match &foreground {
        Some(foreground) => waiting.console.take().map(|console| foreground.join(console)).transpose()?,
        None => None,
    };
    o.log.debug(&format!("child process in init(): {} is set up", waiting.pid));
    o.log.debug("setns_init: about to exec");
    let execed = waiting.start().map_err(not_started)?;
    execed.warnings.iter().for_each(|warning| o.log.warn(warning));
    let told = sockets
        .send(execed.console.as_ref(), execed.pidfd.as_fd())
        .and_then(|()| pid_file.map_or(Ok(()), |path| order::write_pid(&path, execed.pid)));
    if let Err(error) = told {
        // The caller does not know of it and could never end it.
        let _ = creel_sys::pidfd::send_signal(&execed.pidfd, libc::SIGKILL);
        return Err(error);
    }
    match foreground {
        None => Ok(0),
        Some(foreground) => foreground.wait(execed.pid, execed.pidfd.as_fd(), relay, None),
    }
}

/// The group that the process joins, where it is not simply the container's.
fn doors(cgroup: Option<&Cgroup>, below: &[String], init: i32) -> Result<Option<Entry>> {
    let Some(cgroup) = cgroup else { return Ok(None) };
    if !below.is_empty() {
        return cgroup
            .entry_below(below)
            .map(Some)
            .map_err(|e| Error::Cgroup(e).during("bad sub cgroup path"));
    }
    // Where process 1 has moved everybody into a group below, the container's own can take nobody in.
    match cgroup.entry() {
        Ok(entry) if !hands_down(cgroup) => Ok(Some(entry)),
        _ => Ok(cgroup.entry_beside(init).ok()),
    }
}

/// Whether the group of the unified hierarchy hands controllers down, so that it may have no processes itself.
fn hands_down(cgroup: &Cgroup) -> bool {
    cgroup.hierarchies().unified().is_some()
        && cgroup.dirs().last().is_some_and(|dir| {
            creel_sys::kernelfs::read_to_string(dir.join("cgroup.subtree_control"))
                .is_ok_and(|text| !text.trim().is_empty())
        })
}

/// What to run: the file that `--process` names, or the container's own process with what the flags change.
fn process(parsed: &Parsed, spec: &Spec, args: &[String]) -> Result<Process> {
    if let Some(path) = parsed.value("process").map(Path::new) {
        let bytes = std::fs::read(path).map_err(|e| Error::on("open", path, e))?;
        return spec::from_json(&bytes).map_err(|e| Error::Invalid(format!("{}: {e}", path.display())));
    }
    if args.is_empty() {
        return Err(Error::Invalid("exec args cannot be empty".into()));
    }
    let mut process = spec.process.clone().unwrap_or_default();
    process.args = args.to_vec();
    if process.cwd.is_empty() {
        process.cwd = "/".into();
    }
    if let Some(cwd) = parsed.text("cwd") {
        process.cwd = cwd;
    }
    if let Some(profile) = parsed.text("apparmor") {
        process.apparmor_profile = Some(profile);
    }
    if let Some(label) = parsed.text("process-label") {
        process.selinux_label = Some(label);
    }
    let caps: Vec<String> = parsed.all("cap").collect();
    if !caps.is_empty() {
        let sets = process.capabilities.get_or_insert_default();
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(caps.iter().cloned());
        }
        // An ambient capability must be inheritable too; containers have no inheritable ones by themselves.
        if !sets.inheritable.is_empty() {
            sets.ambient.extend(caps.iter().cloned());
        }
    }
    for entry in parsed.all("env") {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        process.env.retain(|old| old.split_once('=').is_none_or(|(old, _)| old != name));
        process.env.push(entry);
    }
    process.terminal = parsed.on("tty");
    if parsed.is_set("no-new-privs") {
        process.no_new_privileges = parsed.on("no-new-privs");
    }
    if let Some(user) = parsed.text("user") {
        let (uid, gid) = match user.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (user.as_str(), None),
        };
        if let Some(gid) = gid {
            process.user.gid = number(gid, "bad gid")?;
        }
        process.user.uid = number(uid, "bad uid")?;
    }
    for gid in parsed.all("additional-gids") {
        process.user.additional_gids.push(number(&gid, "bad additional gid")?);
    }
    Ok(process)
}

/// A user or group id: digits only, and none that means "unchanged" to the kernel. Anything laxer has let ids wrap
/// around to root (CVE-2026-30892).
fn number(text: &str, what: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = digits.then(|| text.parse::<u32>().ok()).flatten().filter(|id| *id != u32::MAX);
    id.ok_or_else(|| Error::Invalid(format!("{what}: {text:?} is not a number from 0 to {}", u32::MAX - 1)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::flags;
    use proptest::prelude::*;
    use std::ffi::OsString;

    fn read(line: &str) -> std::result::Result<Process, String> {
        let verb = crate::verbs::find("exec").unwrap();
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let parsed = flags::parse(verb.flags, &words, true).unwrap();
        let args: Vec<String> =
            parsed.arguments.iter().skip(1).map(|arg| arg.to_str().unwrap().to_owned()).collect();
        let spec = crate::spec::example();
        process(&parsed, &spec, &args).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_change_the_container_s_process() {
        let process = read(
            "--cwd /x -e A=1 --env B=2 -t -u 7:8 -g 9 --cap CAP_SYS_PTRACE --no-new-privs=false c ls -l",
        )
        .unwrap();
        assert_eq!(process.args, ["ls", "-l"]);
        assert_eq!((process.cwd.as_str(), process.terminal), ("/x", true));
        assert_eq!((process.user.uid, process.user.gid), (7, 8));
        assert_eq!(process.user.additional_gids, [9]);
        assert_eq!(process.env.last().unwrap(), "B=2");
        let env = read("-e TERM=dumb c ls").unwrap().env;
        assert_eq!(env.iter().filter(|entry| entry.starts_with("TERM=")).collect::<Vec<_>>(), ["TERM=dumb"]);
        assert!(!process.no_new_privileges);
        let caps = process.capabilities.unwrap();
        assert!(caps.bounding.contains(&"CAP_SYS_PTRACE".to_owned()) && caps.inheritable.is_empty());
        assert!(caps.ambient.is_empty());
        assert!(!read("c ls").unwrap().terminal);
    }

    #[test]
    fn ids_are_read_strictly() {
        for user in ["-1", "abc", "4294967295", "4294967296", "0x0", "+1", "1:", ":1", "1:-1", "1:2:3"] {
            let process = read(&format!("--user={user} c ls"));
            assert!(process.is_err(), "{user:?}: {process:?}");
        }
        assert_eq!(read("-u 4294967294 c ls").unwrap().user.uid, u32::MAX - 1);
        assert_eq!(read("c").unwrap_err(), "exec args cannot be empty");
    }

    proptest! {
        #[test]
        fn no_text_becomes_root_that_is_not_zero(text in "[-+ 0-9a-fx:]{1,14}") {
            if let Ok(id) = number(&text, "bad uid") {
                prop_assert_eq!(text.parse::<u64>().unwrap(), u64::from(id));
            }
        }
    }
}

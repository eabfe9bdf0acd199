//! Runs an OCI bundle: `run_bundle DIR [--timings] [--exec PROGRAM ARG…]`.
//!
//! DIR holds `config.json` and the root file system that its `root.path` names. The process gets this terminal's
//! standard descriptors; its exit code becomes ours. With `--exec`, a second program runs in the container as soon as
//! the first one does. A Spec that asks for a terminal is shown on ours as plain output.
#![allow(clippy::print_stderr)]

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use creel_runtime::{CreateOptions, Error, ExecOptions, Rootfs, Stdio};
use creel_sys::process::{Ended, Whom, wait};
use creel_types::Classify;
use creel_types::spec::Spec;

type Failure = Box<dyn std::error::Error>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let code = run(&args).unwrap_or_else(|e| {
        eprintln!("run_bundle: {e}");
        e.downcast_ref::<Error>().map_or(125, |e| i32::from(e.kind().run_exit_code()))
    });
    std::process::exit(code);
}

fn inherit() -> Result<Stdio, Failure> {
    Ok(Stdio {
        stdin: Some(std::io::stdin().as_fd().try_clone_to_owned()?),
        stdout: Some(std::io::stdout().as_fd().try_clone_to_owned()?),
        stderr: Some(std::io::stderr().as_fd().try_clone_to_owned()?),
    })
}

fn end_of(pidfd: &OwnedFd) -> Result<i32, Failure> {
    Ok(wait(Whom::Pidfd(pidfd.as_fd()), true)?.map_or(255, |(_, ended): (i32, Ended)| ended.code()))
}

fn run(args: &[String]) -> Result<i32, Failure> {
    let bundle =
        PathBuf::from(args.first().ok_or("usage: run_bundle DIR [--timings] [--exec PROGRAM ARG…]")?);
    let timings = args.iter().any(|arg| arg == "--timings");
    let exec = args.iter().position(|arg| arg == "--exec").map(|at| args[at + 1..].to_vec());
    let bundle = bundle.canonicalize()?;
    let spec: Spec = serde_json::from_slice(&std::fs::read(bundle.join("config.json"))?)?;
    let root =
        spec.root.as_ref().map_or_else(|| Path::new("rootfs").to_path_buf(), |root| (&root.path).into());
    let created = creel_runtime::create(CreateOptions {
        id: "run-bundle",
        spec: &spec,
        bundle: &bundle,
        rootfs: &Rootfs::Directory(bundle.join(root)),
        stdio: inherit()?,
        cgroup: None,
        init: None,
    })?;
    for warning in &created.warnings {
        eprintln!("run_bundle: {warning}");
    }
    let spent = created.timings.clone();
    let started = created.start()?;
    if timings {
        for (step, micros) in spent.iter().chain(&started.timings) {
            eprintln!("{step:12} {micros:>8} µs");
        }
    }
    if let Some(args) = exec {
        let mut process = spec.process.clone().unwrap_or_default();
        (process.args, process.terminal) = (args, false);
        let execed = creel_runtime::exec(ExecOptions {
            target_pid: started.pid,
            target_pidfd: started.pidfd.as_fd(),
            spec: &spec,
            process: &process,
            stdio: inherit()?,
            cgroup: None,
        })?;
        end_of(&execed.pidfd)?;
    }
    if let Some(console) = started.console {
        let mut console = std::fs::File::from(console);
        let mut buf = [0u8; 4096];
        while let Ok(n @ 1..) = console.read(&mut buf) {
            std::io::stdout().write_all(&buf[..n])?;
        }
    }
    end_of(&started.pidfd)
}

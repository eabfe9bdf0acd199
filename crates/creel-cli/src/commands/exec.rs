//! `exec`.

use creel_wire::exec::{ExecConfig, ExecStart};

use crate::command::{Arity, Command, Context, Outcome, run};
use crate::detach;
use crate::failure::{Failure, start_code};
use crate::flags::{Flag, env};
use crate::session::{Ended, Session, Target};
use crate::streams;
use crate::terminal;

/// `exec`.
pub(super) const COMMANDS: &[Command] = &[Command {
    paths: &["exec", "container exec"],
    usage: &["[OPTIONS] CONTAINER COMMAND [ARG...]"],
    about: "Execute a command in a running container",
    long: "",
    flags: &[&[
        Flag::switch("detach", "Run the command in the background").short('d'),
        Flag::text("detach-keys", "string", "Keys that detach (default \"ctrl-p,ctrl-q\")"),
        Flag::list("env", "list", "Set environment variables").short('e').check(env::check),
        Flag::list("env-file", "list", "Read environment variables from a file"),
        Flag::switch("interactive", "Keep STDIN open even if not attached").short('i'),
        Flag::switch("privileged", "Give the command all privileges"),
        Flag::switch("tty", "Give the command a pseudo-terminal").short('t'),
        Flag::text("user", "string", "User and group (<name|uid>[:<group|gid>])").short('u'),
        Flag::text("workdir", "string", "Working directory inside the container").short('w'),
    ]],
    interspersed: false,
    arity: Arity::AtLeast(2),
    run: run!(exec),
}];

async fn exec(c: Context) -> Outcome {
    let flags = &c.parsed;
    let (detach, tty) = (flags.on("detach"), flags.on("tty"));
    let keys = detach::parse(flags.some("detach-keys").unwrap_or(detach::DEFAULT)).map_err(Failure::new)?;
    let of_caller = |name: &str| std::env::var(name).ok();
    let mut environment = Vec::new();
    for file in flags.all("env-file") {
        environment.extend(env::read_file(file, of_caller).map_err(|e| Failure::new(e.to_string()))?);
    }
    environment.extend(env::resolve(&flags.all("env"), of_caller));
    let stdin = flags.on("interactive") && !detach;
    if tty && stdin && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let console_size = if tty { terminal::size().map(|(rows, columns)| [rows, columns]) } else { None };
    let config = ExecConfig {
        user: flags.get("user").unwrap_or_default().to_owned(),
        privileged: flags.on("privileged"),
        tty,
        console_size,
        attach_stdin: stdin,
        attach_stdout: !detach,
        attach_stderr: !detach,
        detach_keys: flags.get("detach-keys").unwrap_or_default().to_owned(),
        env: (!environment.is_empty()).then_some(environment),
        working_dir: flags.get("workdir").unwrap_or_default().to_owned(),
        cmd: Some(c.args()[1..].to_vec()),
    };
    let id = c.client.exec_create(c.arg(0), &config).await?;
    if detach {
        c.client.exec_start_detached(&id, tty).await?;
        return Ok(0);
    }
    let start = ExecStart { detach: false, tty, console_size };
    let hijacked = c.client.exec_start(&id, &start).await.map_err(failed_start)?;
    let plan = streams::Plan { stdin, stdout: true, stderr: true, tty, detach_keys: keys };
    let mut session = Session::begin(&c.client, Target::Exec(id.clone()), hijacked, plan, false)
        .map_err(|e| Failure::new(crate::os_words(&e)))?;
    session.resize().await;
    match session.copy_to_end().await? {
        Ended::Detached => {
            session.leave_raw();
            Err(Failure::new("read escape sequence"))
        }
        Ended::ReaderGone => Err(Failure::silent(141)),
        Ended::Closed => {
            session.leave_raw();
            let exec = c.client.exec_inspect(&id).await?;
            Ok(i32::try_from(exec.exit_code.unwrap_or(0)).unwrap_or(1))
        }
    }
}

fn failed_start(e: creel_client::Error) -> Failure {
    let code = start_code(&e);
    Failure::from(e).code(if code == 125 { 1 } else { code })
}

//! `attach` and `start`.

use creel_client::{AttachOptions, Waiting};

use crate::command::{Arity, Command, Context, Outcome, run};
use crate::detach;
use crate::failure::{Failure, start_code};
use crate::flags::Flag;
use crate::output::{complain, print_line};
use crate::session::{Ended, Session, Target};
use crate::streams;
use crate::terminal;

/// `attach` and `start`.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["attach", "container attach"],
        usage: &["[OPTIONS] CONTAINER"],
        about: "Attach local standard input, output, and error streams to a running container",
        long: "",
        flags: &[&[
            Flag::text("detach-keys", "string", "Keys that detach (default \"ctrl-p,ctrl-q\")"),
            Flag::switch("no-stdin", "Do not attach STDIN"),
            Flag::switch("sig-proxy", "Pass signals on to the program (default true)"),
        ]],
        interspersed: true,
        arity: Arity::Exactly(1),
        run: run!(attach),
    },
    Command {
        paths: &["start", "container start"],
        usage: &["[OPTIONS] CONTAINER [CONTAINER...]"],
        about: "Start one or more stopped containers",
        long: "",
        flags: &[&[
            Flag::switch("attach", "Attach STDOUT and STDERR and pass signals on").short('a'),
            Flag::text("detach-keys", "string", "Keys that detach (default \"ctrl-p,ctrl-q\")"),
            Flag::switch("interactive", "Attach the container's STDIN").short('i'),
        ]],
        interspersed: true,
        arity: Arity::AtLeast(1),
        run: run!(start),
    },
];

async fn attach(c: Context) -> Outcome {
    let flags = &c.parsed;
    let keys = detach::parse(flags.some("detach-keys").unwrap_or(detach::DEFAULT)).map_err(Failure::new)?;
    let name = c.arg(0);
    let container = c.client.inspected(name).await?;
    if !container.state.running {
        return Err(Failure::new("You cannot attach to a stopped container, start it first"));
    }
    if container.state.paused {
        return Err(Failure::new("You cannot attach to a paused container, unpause it first"));
    }
    if container.state.restarting {
        return Err(Failure::new("You cannot attach to a restarting container, wait until it is running"));
    }
    let tty = container.config.tty;
    let stdin = !flags.on("no-stdin") && container.config.open_stdin;
    if tty && stdin && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let options = AttachOptions {
        stdin,
        stdout: true,
        stderr: true,
        logs: false,
        detach_keys: flags.some("detach-keys").map(str::to_owned),
    };
    let (hijacked, waiting) =
        tokio::join!(c.client.attach(name, &options), c.client.wait(name, "not-running"));
    let (hijacked, waiting) = (hijacked?, waiting?);
    // With a terminal the keyboard's signals arrive as characters; others are this program's own.
    let proxy = !tty && flags.get("sig-proxy").is_none_or(|_| flags.on("sig-proxy"));
    let plan = streams::Plan { stdin, stdout: true, stderr: true, tty, detach_keys: keys };
    let mut session = Session::begin(&c.client, Target::Container(container.id), hijacked, plan, proxy)
        .map_err(|e| Failure::new(crate::os_words(&e)))?;
    session.redraw().await;
    let ended = session.copy_to_end().await?;
    finish(session, ended, waiting, true).await
}

async fn finish(mut session: Session<'_>, ended: Ended, waiting: Waiting, tell_detached: bool) -> Outcome {
    match ended {
        Ended::Detached => {
            session.leave_raw();
            if tell_detached { Err(Failure::new("read escape sequence")) } else { Ok(0) }
        }
        Ended::ReaderGone => Err(Failure::silent(141)),
        Ended::Closed => {
            let end = session.during(waiting.end()).await?;
            session.leave_raw();
            let end = end?;
            if let Some(error) = end.error.filter(|e| !e.message.is_empty()) {
                return Err(Failure::new(error.message));
            }
            Ok(i32::try_from(end.status_code).unwrap_or(1))
        }
    }
}

async fn start(c: Context) -> Outcome {
    let flags = &c.parsed;
    let (attached, interactive) = (flags.on("attach"), flags.on("interactive"));
    if attached || interactive {
        if c.args().len() > 1 {
            return Err(Failure::new("you cannot start and attach multiple containers at once"));
        }
        return start_attached(&c, interactive).await;
    }
    let mut failed = Vec::new();
    for name in c.args() {
        match c.client.start(name, flags.some("detach-keys")).await {
            Ok(_) => print_line(name)?,
            Err(e) => {
                complain(&e.to_string());
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(0);
    }
    Err(Failure::new(format!("Error: failed to start containers: {}", failed.join(", "))))
}

async fn start_attached(c: &Context, interactive: bool) -> Outcome {
    let flags = &c.parsed;
    let keys = detach::parse(flags.some("detach-keys").unwrap_or(detach::DEFAULT)).map_err(Failure::new)?;
    let container = c.client.inspected(c.arg(0)).await?;
    let id = container.id;
    let tty = container.config.tty;
    let stdin = interactive && container.config.open_stdin;
    let options = AttachOptions {
        stdin,
        stdout: true,
        stderr: true,
        logs: false,
        detach_keys: flags.some("detach-keys").map(str::to_owned),
    };
    let condition = if container.host_config.auto_remove { "removed" } else { "next-exit" };
    let (hijacked, waiting) = tokio::join!(c.client.attach(&id, &options), c.client.wait(&id, condition));
    let (hijacked, waiting) = (hijacked?, waiting?);
    let plan = streams::Plan { stdin, stdout: true, stderr: true, tty, detach_keys: keys };
    let mut session = Session::begin(&c.client, Target::Container(id.clone()), hijacked, plan, !tty)
        .map_err(|e| Failure::new(crate::os_words(&e)))?;
    if let Err(e) = session.during(c.client.start(&id, None)).await? {
        session.leave_raw();
        let code = start_code(&e);
        return Err(Failure::from(e).code(if code == 125 { 1 } else { code }));
    }
    session.resize().await;
    let ended = session.copy_to_end().await?;
    finish(session, ended, waiting, false).await
}

//! `run` and `create`.

use std::io::Write as _;
use std::os::fd::AsFd as _;

use creel_client::{AttachOptions, Client, Error, Timed};
use creel_types::{Platform, Reference};
use creel_wire::container::{CreateRequest, CreateResponse};

use super::pull::pull_image;
use crate::command::{Arity, Command, Context, Outcome, run};
use crate::container_config::{self, Plan};
use crate::container_flags::{CONTAINER, RUN};
use crate::detach;
use crate::failure::{Failure, start_code};
use crate::output::{complain, print_line};
use crate::session::{Ended, Session, Target};
use crate::streams;
use crate::terminal;
use crate::timings::Timings;

/// `run` and `create`.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["run", "container run"],
        usage: &["[OPTIONS] IMAGE [COMMAND] [ARG...]"],
        about: "Create and run a new container from an image",
        long: "",
        flags: &[CONTAINER, RUN],
        interspersed: false,
        arity: Arity::AtLeast(1),
        run: run!(run),
    },
    Command {
        paths: &["create", "container create"],
        usage: &["[OPTIONS] IMAGE [COMMAND] [ARG...]"],
        about: "Create a new container",
        long: "",
        flags: &[CONTAINER],
        interspersed: false,
        arity: Arity::AtLeast(1),
        run: run!(create),
    },
];

/// When to pull an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pull {
    Always,
    Missing,
    Never,
}

/// What both commands make of their flags before they ask the daemon.
struct Request {
    plan: Plan,
    pull: Pull,
    platform: Option<Platform>,
    cidfile: Option<String>,
}

fn request(c: &Context, detach: bool) -> Result<Request, String> {
    let flags = &c.parsed;
    let pull = match flags.get("pull").unwrap_or("missing") {
        "always" => Pull::Always,
        "missing" | "" => Pull::Missing,
        "never" => Pull::Never,
        other => {
            return Err(format!(
                "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
            ));
        }
    };
    let platform =
        flags.some("platform").map(|text| text.parse::<Platform>().map_err(|e| e.to_string())).transpose()?;
    let mut plan = container_config::plan(flags, detach)?;
    if plan.request.config.tty
        && let Some((rows, columns)) = terminal::size()
    {
        plan.request.host_config.console_size = [rows, columns];
    }
    let cidfile = flags.some("cidfile").map(str::to_owned);
    if let Some(path) = &cidfile
        && std::fs::symlink_metadata(path).is_ok()
    {
        return Err(format!(
            "container ID file found, make sure the other container isn't running or delete {path}"
        ));
    }
    Ok(Request { plan, pull, platform, cidfile })
}

/// An image that can be pulled: not an id.
fn pullable(image: &str) -> Result<Option<Reference>, String> {
    let hex = image.strip_prefix("sha256:").unwrap_or(image);
    if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    image.parse::<Reference>().map(|r| Some(r.with_default_tag())).map_err(|e| e.to_string())
}

async fn create_container(c: &Context, r: &Request) -> Result<Timed<CreateResponse>, Failure> {
    let fail = |e: &dyn std::fmt::Display| Failure::of_run(e, 125, &c.path);
    let image = &r.plan.request.config.image;
    let reference = pullable(image).map_err(|e| fail(&e))?;
    let quiet = c.parsed.on("quiet");
    let pull = async |reference: &Reference| {
        pull_image(
            &c.client,
            reference,
            r.platform.as_ref(),
            quiet,
            std::io::stderr().as_fd(),
            terminal::stderr_is_terminal(),
        )
        .await
        .map_err(|e| fail(&format!("Error response from daemon: {}", e.message)))
    };
    if let (Pull::Always, Some(reference)) = (r.pull, &reference) {
        pull(reference).await?;
    }
    let name = c.parsed.some("name");
    let ask = async |request: &CreateRequest| c.client.create(name, r.platform.as_ref(), request).await;
    let created = match (ask(&r.plan.request).await, &reference) {
        (Err(Error::Status { status: 404, message }), Some(reference))
            if r.pull == Pull::Missing
                && (message.contains("No such image")
                    || message.contains("was found but does not provide")) =>
        {
            if !quiet {
                complain(&format!("Unable to find image '{}' locally", reference.familiar()));
            }
            pull(reference).await?;
            ask(&r.plan.request).await
        }
        (other, _) => other,
    };
    let created = created.map_err(|e| fail(&e))?;
    for warning in &created.value.warnings {
        complain(&format!("WARNING: {warning}"));
    }
    if let Some(path) = &r.cidfile {
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .and_then(|mut file| file.write_all(created.value.id.as_bytes()));
        written.map_err(|e| {
            fail(&format!("failed to write the container ID to the file {path}: {}", crate::os_words(&e)))
        })?;
    }
    Ok(created)
}

async fn create(c: Context) -> Outcome {
    let request = request(&c, false).map_err(|e| Failure::of_run(e, 125, &c.path))?;
    let created = create_container(&c, &request).await.map_err(|f| {
        // Docker's `create` fails with 1 and without the hint once the daemon was asked.
        match f.message.strip_prefix("creel: Error response") {
            Some(rest) => {
                let first = rest.split("\n\nRun '").next().unwrap_or(rest);
                Failure::new(format!("Error response{first}"))
            }
            None => f,
        }
    })?;
    print_line(&created.value.id)?;
    Ok(0)
}

async fn run(c: Context) -> Outcome {
    let flags = &c.parsed;
    let mut timings = Timings::since(c.begin);
    let detach = flags.on("detach");
    if detach && !flags.all("attach").is_empty() {
        return Err(Failure::new("conflicting options: cannot specify both --attach and --detach"));
    }
    let keys = flags.some("detach-keys");
    let detach_keys =
        detach::parse(keys.unwrap_or(detach::DEFAULT)).map_err(|e| Failure::of_run(e, 125, &c.path))?;
    let request = request(&c, detach).map_err(|e| Failure::of_run(e, 125, &c.path))?;
    let tty = request.plan.request.config.tty;
    if tty && request.plan.stdin && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    timings.phase("read the command line");
    c.client.connect().await.map_err(|e| Failure::of_run(e, 125, &c.path))?;
    timings.phase("connect to the daemon");
    let created = create_container(&c, &request).await?;
    timings.phase_with("create the container", created.steps);
    let id = created.value.id;
    let outcome = if detach {
        match c.client.start(&id, keys).await {
            Ok(started) => {
                timings.phase_with("start it", started.steps);
                print_line(&id).map(|()| 0)
            }
            Err(e) => Err(Failure::of_run(&e, start_code(&e), &c.path)),
        }
    } else {
        foreground(&c, &id, &request, detach_keys, &mut timings).await
    };
    if flags.on("timings") {
        complain(&timings.table());
    }
    outcome
}

async fn foreground(
    c: &Context,
    id: &str,
    request: &Request,
    detach_keys: Vec<u8>,
    timings: &mut Timings,
) -> Outcome {
    let plan = &request.plan;
    let tty = plan.request.config.tty;
    let remove = plan.request.host_config.auto_remove;
    let fail = |e: &dyn std::fmt::Display, code| Failure::of_run(e, code, &c.path);
    let options = AttachOptions {
        stdin: plan.stdin,
        stdout: plan.stdout,
        stderr: plan.stderr,
        logs: false,
        detach_keys: c.parsed.some("detach-keys").map(str::to_owned),
    };
    // Both before the start, so that neither a byte nor the end can be missed; at the same time, to save a turn.
    let condition = if remove { "removed" } else { "next-exit" };
    let (hijacked, waiting) = tokio::join!(c.client.attach(id, &options), c.client.wait(id, condition));
    let hijacked = hijacked.map_err(|e| fail(&e, 125))?;
    let waiting = waiting.map_err(|e| fail(&e, 125))?;
    timings.phase("attach and register the wait");
    let proxy = c.parsed.get("sig-proxy").is_none_or(|_| c.parsed.on("sig-proxy"));
    let copy =
        streams::Plan { stdin: plan.stdin, stdout: plan.stdout, stderr: plan.stderr, tty, detach_keys };
    let mut session = Session::begin(&c.client, Target::Container(id.to_owned()), hijacked, copy, proxy)
        .map_err(|e| fail(&format!("attaching to the terminal: {}", crate::os_words(&e)), 125))?;
    let started = session.during(c.client.start(id, None)).await?;
    let started = match started {
        Ok(started) => started,
        Err(e) => {
            session.leave_raw();
            if remove {
                // Gone before this program is, as with Docker; but a lost daemon must not hold it up.
                let _ = tokio::time::timeout(std::time::Duration::from_secs(10), waiting.end()).await;
            }
            return Err(fail(&e, start_code(&e)));
        }
    };
    timings.phase_with("start it", started.steps);
    session.resize().await;
    let ended = session.copy_to_end().await?;
    timings.phase("program and output");
    match ended {
        Ended::Detached => return Ok(0),
        Ended::ReaderGone => return Err(Failure::silent(141)),
        Ended::Closed => {}
    }
    let end = session.during(waiting.end()).await?;
    session.leave_raw();
    timings.phase(if remove { "exit status and removal" } else { "exit status" });
    match end {
        Ok(end) => match end.error.filter(|e| !e.message.is_empty()) {
            Some(error) => {
                complain(&format!("Error waiting for container: {}", error.message));
                Ok(125)
            }
            None => Ok(i32::try_from(end.status_code).unwrap_or(125)),
        },
        Err(e) => Err(fail(&lost(&c.client, id, &e), 125)),
    }
}

/// What to say when the daemon went away while a container was waited for.
fn lost(client: &Client, id: &str, error: &Error) -> String {
    format!(
        "{error}; the container goes on without the daemon at {}: ask `creel wait {}` for its exit code",
        client.endpoint().socket().display(),
        crate::flags::ids::short(id)
    )
}

//! What changes a container's state: `stop`, `restart`, `kill`, `pause`, `unpause`, `wait`, `rm`, `rename`, and
//! `container prune`.

use creel_client::Error;
use futures_util::future::join_all;

use crate::command::{Arity, Command, Context, Outcome, run};
use crate::failure::Failure;
use crate::flags::{Flag, values};
use crate::output::{complain, print, print_line};
use crate::units::human_size;

const STOP: &[Flag] = &[
    Flag::text("signal", "string", "Signal to send").short('s'),
    Flag::text("timeout", "int", "Seconds to wait before SIGKILL").short('t').check(values::integer),
    Flag::text("time", "int", "Seconds to wait before SIGKILL").check(values::integer).hide(),
];

/// A command on one or more containers.
const fn many(
    paths: &'static [&'static str],
    usage: &'static [&'static str],
    about: &'static str,
    flags: crate::flags::Flags,
    run: crate::command::Run,
) -> Command {
    Command { paths, usage, about, long: "", flags, interspersed: true, arity: Arity::AtLeast(1), run }
}

const CONTAINERS: &[&str] = &["[OPTIONS] CONTAINER [CONTAINER...]"];
const PLAIN: &[&str] = &["CONTAINER [CONTAINER...]"];

/// The commands that change a container's state.
pub(super) const COMMANDS: &[Command] = &[
    many(&["stop", "container stop"], CONTAINERS, "Stop one or more running containers", &[STOP], run!(stop)),
    many(
        &["restart", "container restart"],
        CONTAINERS,
        "Restart one or more containers",
        &[STOP],
        run!(restart),
    ),
    many(
        &["kill", "container kill"],
        CONTAINERS,
        "Kill one or more running containers",
        &[&[Flag::text("signal", "string", "Signal to send (default KILL)").short('s')]],
        run!(kill),
    ),
    many(
        &["pause", "container pause"],
        PLAIN,
        "Pause all processes within one or more containers",
        &[],
        run!(pause),
    ),
    many(
        &["unpause", "container unpause"],
        PLAIN,
        "Unpause all processes within one or more containers",
        &[],
        run!(unpause),
    ),
    many(
        &["wait", "container wait"],
        PLAIN,
        "Block until one or more containers stop, then print their exit codes",
        &[],
        run!(wait),
    ),
    many(
        &["rm", "container rm", "container remove"],
        CONTAINERS,
        "Remove one or more containers",
        &[&[
            Flag::switch("force", "Kill it first if it runs").short('f'),
            Flag::switch("link", "Remove the link of this name").short('l'),
            Flag::switch("volumes", "Remove its anonymous volumes too").short('v'),
        ]],
        run!(remove),
    ),
    Command {
        paths: &["rename", "container rename"],
        usage: &["CONTAINER NEW_NAME"],
        about: "Rename a container",
        long: "",
        flags: &[],
        interspersed: true,
        arity: Arity::Exactly(2),
        run: run!(rename),
    },
    Command {
        paths: &["container prune"],
        usage: &["[OPTIONS]"],
        about: "Remove all stopped containers",
        long: "",
        flags: &[&[
            Flag::list("filter", "filter", "Only those that match (e.g. \"until=<timestamp>\")")
                .check(values::filter),
            Flag::switch("force", "Do not ask first").short('f'),
        ]],
        interspersed: true,
        arity: Arity::None,
        run: run!(prune),
    },
];

/// Asks about all containers at once and tells what came of it in the order of the arguments.
async fn each(c: &Context, ask: impl AsyncFn(String) -> Result<String, Error>) -> Outcome {
    let results = join_all(c.args().iter().map(|name| ask(name.clone()))).await;
    let mut code = 0;
    for result in results {
        match result {
            Ok(text) => print_line(&text)?,
            Err(e @ Error::Connect(..)) => return Err(e.into()),
            Err(e) => {
                complain(&e.to_string());
                code = 1;
            }
        }
    }
    Ok(code)
}

fn stop_options(c: &Context) -> (Option<&str>, Option<i64>) {
    let timeout = c.parsed.number("timeout").or_else(|| c.parsed.number("time"));
    (c.parsed.some("signal"), timeout)
}

async fn stop(c: Context) -> Outcome {
    let (signal, timeout) = stop_options(&c);
    each(&c, async |name| c.client.stop(&name, signal, timeout).await.map(|()| name)).await
}

async fn restart(c: Context) -> Outcome {
    let (signal, timeout) = stop_options(&c);
    each(&c, async |name| c.client.restart(&name, signal, timeout).await.map(|()| name)).await
}

async fn kill(c: Context) -> Outcome {
    let signal = c.parsed.some("signal");
    each(&c, async |name| c.client.kill(&name, signal).await.map(|()| name)).await
}

async fn pause(c: Context) -> Outcome {
    each(&c, async |name| c.client.pause(&name).await.map(|()| name)).await
}

async fn unpause(c: Context) -> Outcome {
    each(&c, async |name| c.client.unpause(&name).await.map(|()| name)).await
}

async fn wait(c: Context) -> Outcome {
    each(&c, async |name| Ok(c.client.wait(&name, "not-running").await?.end().await?.status_code.to_string()))
        .await
}

async fn remove(c: Context) -> Outcome {
    let (force, volumes, link) = (c.parsed.on("force"), c.parsed.on("volumes"), c.parsed.on("link"));
    let one = async |name: String| {
        let trimmed = name.trim_matches('/').to_owned();
        (c.client.remove(&trimmed, force, volumes, link).await, name)
    };
    let results = join_all(c.args().iter().map(|name| one(name.clone()))).await;
    let mut code = 0;
    for (result, name) in results {
        match result {
            Ok(_) => print_line(&name)?,
            Err(e @ Error::Connect(..)) => return Err(e.into()),
            Err(e) => {
                complain(&e.to_string());
                // What is not there need not be forced away.
                if !(force && e.is_not_found()) {
                    code = 1;
                }
            }
        }
    }
    Ok(code)
}

async fn rename(c: Context) -> Outcome {
    let (old, new) = (c.arg(0), c.arg(1));
    if old.trim().is_empty() || new.trim().is_empty() {
        return Err(Failure::new("Error: Neither old nor new names may be empty"));
    }
    match c.client.rename(old, new).await {
        Ok(()) => Ok(0),
        Err(e @ Error::Connect(..)) => Err(e.into()),
        Err(e) => {
            complain(&e.to_string());
            Err(Failure::new(format!("Error: failed to rename container named {old}")))
        }
    }
}

/// Asks the user to agree; no terminal is no.
pub(super) fn agreed(warning: &str) -> Result<bool, Failure> {
    print(&format!("{warning}\nAre you sure you want to continue? [y/N] "))?;
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

async fn prune(c: Context) -> Outcome {
    if !c.parsed.on("force") && !agreed("WARNING! This will remove all stopped containers.")? {
        return Ok(0);
    }
    let filters = values::filters_json(c.parsed.all("filter"));
    let pruned = c.client.prune_containers(filters.as_deref()).await?;
    let mut text = String::new();
    let gone = pruned.containers_deleted.unwrap_or_default();
    if !gone.is_empty() {
        text = format!("Deleted Containers:\n{}\n\n", gone.join("\n"));
    }
    print(&format!("{text}Total reclaimed space: {}\n", human_size(pruned.space_reclaimed as f64)))?;
    Ok(0)
}

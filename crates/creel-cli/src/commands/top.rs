//! `top`, `diff` and `port`.

use creel_wire::container::Top;

use crate::command::{Arity, Command, Context, Outcome, run};
use crate::failure::Failure;
use crate::output::print;
use crate::table::{self, TOP};

/// `top`, `diff` and `port`.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["top", "container top"],
        usage: &["CONTAINER [ps OPTIONS]"],
        about: "Display the running processes of a container",
        long: "",
        flags: &[],
        interspersed: false,
        arity: Arity::AtLeast(1),
        run: run!(top),
    },
    Command {
        paths: &["diff", "container diff"],
        usage: &["CONTAINER"],
        about: "Inspect changes to files or directories on a container's filesystem",
        long: "",
        flags: &[],
        interspersed: true,
        arity: Arity::Exactly(1),
        run: run!(diff),
    },
    Command {
        paths: &["port", "container port"],
        usage: &["CONTAINER [PRIVATE_PORT[/PROTO]]"],
        about: "List port mappings or a specific mapping for the container",
        long: "",
        flags: &[],
        interspersed: true,
        arity: Arity::Between(1, 2),
        run: run!(port),
    },
];

async fn top(c: Context) -> Outcome {
    let arguments = c.args()[1..].join(" ");
    let top = c.client.top(c.arg(0), (!arguments.is_empty()).then_some(arguments.as_str())).await?;
    print(&render(&top))?;
    Ok(0)
}

fn render(top: &Top) -> String {
    let mut text = top.titles.join("\t");
    text.push('\n');
    for process in &top.processes {
        text.push_str(&process.join("\t"));
        text.push('\n');
    }
    table::align(&text, TOP)
}

async fn diff(c: Context) -> Outcome {
    if c.arg(0).is_empty() {
        return Err(Failure::new("Container name cannot be empty"));
    }
    let changes = c.client.changes(c.arg(0)).await?;
    let mut text = String::new();
    for change in changes {
        let kind = match change.kind {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        text.push_str(&format!("{kind} {}\n", change.path));
    }
    print(&text)?;
    Ok(0)
}

async fn port(c: Context) -> Outcome {
    let container = c.client.inspected(c.arg(0)).await?;
    let wanted =
        c.args().get(1).map(|port| if port.contains('/') { port.clone() } else { format!("{port}/tcp") });
    let mut lines = Vec::new();
    for (port, bindings) in &container.network_settings.ports {
        for binding in bindings.as_array().into_iter().flatten() {
            let part = |name: &str| binding.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
            let ip = part("HostIp");
            let address = if ip.contains(':') {
                format!("[{ip}]:{}", part("HostPort"))
            } else {
                format!("{ip}:{}", part("HostPort"))
            };
            match &wanted {
                Some(wanted) if wanted == port => lines.push(address),
                Some(_) => {}
                None => lines.push(format!("{port} -> {address}")),
            }
        }
    }
    if wanted.is_some() && lines.is_empty() {
        return Err(Failure::new(format!("Error: No public port '{}' published for {}", c.arg(1), c.arg(0))));
    }
    lines.sort();
    print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    Ok(0)
}

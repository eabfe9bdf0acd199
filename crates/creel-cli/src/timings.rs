//! `--timings`: where a `run` spent its time.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use creel_client::Step;

/// What the steps are that daemon, shim, runtime and init report, in words. They follow each other, and none is within
/// another.
const STEPS: [(&str, &str); 21] = [
    ("daemon.create", "daemon: check the request, write record and snapshot"),
    ("daemon.prepare", "daemon: write the Spec and the container's files"),
    ("daemon.spawn", "daemon: spawn the shim"),
    ("shim.begin", "shim: begin, and be asked and answer"),
    ("shim.make-cgroup", "shim: make the control groups"),
    ("runtime.plan", "runtime: read and check the Spec"),
    ("runtime.clone", "runtime: clone the init into its namespaces"),
    ("init.join-cgroup", "init: join the control groups"),
    ("init.namespaces", "init: join namespaces, set the host name"),
    ("init.root", "init: mount the overlay"),
    ("init.mounts", "init: mount what lies in it"),
    ("init.devices", "init: make the device nodes"),
    ("init.paths", "init: hide paths, make paths read-only"),
    ("init.pivot", "init: change the root"),
    ("init.process", "init: drop privileges, load the filter"),
    ("runtime.rest", "runtime: all else"),
    ("shim.create", "shim: set up streams and log"),
    ("daemon.attach", "daemon: hand the streams to who is attached"),
    ("runtime.exec", "runtime: let the init execute the program"),
    ("shim.start", "shim: write down that it runs"),
    ("daemon.start", "daemon: ask the shim and hear its answer"),
];

/// A step in words; one of a newer daemon by its name.
fn words(step: &str) -> &str {
    STEPS.iter().find(|(name, _)| *name == step).map_or(step, |(_, words)| words)
}

/// What of a phase no step explains.
const REST: &str = "this command and the socket";

/// The phases of a command, measured here, with the daemon's own steps within them.
#[derive(Debug)]
pub(crate) struct Timings {
    begin: Instant,
    last: Instant,
    phases: Vec<(&'static str, Duration, Vec<Step>)>,
}

impl Timings {
    /// Begins to measure at `begin`.
    pub(crate) fn since(begin: Instant) -> Self {
        Self { begin, last: begin, phases: Vec::new() }
    }

    /// Ends a phase now.
    pub(crate) fn phase(&mut self, name: &'static str) {
        self.phase_with(name, Vec::new());
    }

    /// Ends a phase now, in which the daemon took these steps.
    pub(crate) fn phase_with(&mut self, name: &'static str, steps: Vec<Step>) {
        let now = Instant::now();
        self.phases.push((name, now - self.last, steps));
        self.last = now;
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        render(&self.phases, self.last - self.begin)
    }
}

fn render(phases: &[(&'static str, Duration, Vec<Step>)], total: Duration) -> String {
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let width = phases
        .iter()
        .flat_map(|(name, _, steps)| {
            std::iter::once(name.chars().count())
                .chain(steps.iter().map(|s| words(&s.name).chars().count() + 2))
        })
        .max()
        .unwrap_or(0)
        .max("total".len());
    let mut text = String::new();
    let longest = phases.iter().map(|(_, d, _)| *d).max().unwrap_or_default();
    let _ = writeln!(text, "{:<width$}  {:>9}", "step", "ms");
    for (name, duration, steps) in phases {
        let bar = if longest.is_zero() {
            0
        } else {
            (duration.as_secs_f64() / longest.as_secs_f64() * 20.0).round() as usize
        };
        let line = format!("{name:<width$}  {:>9.3}  {}", ms(*duration), "█".repeat(bar));
        let _ = writeln!(text, "{}", line.trim_end());
        let mut rest = *duration;
        for step in steps {
            rest = rest.saturating_sub(step.duration);
            let _ = writeln!(text, "  {:<1$}  {2:>9.3}", words(&step.name), width - 2, ms(step.duration));
        }
        if !steps.is_empty() {
            let _ = writeln!(text, "  {REST:<0$}  {1:>9.3}", width - 2, ms(rest));
        }
    }
    let _ = write!(text, "{:<width$}  {:>9.3}  the lines that are not indented", "total", ms(total));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_table() {
        let step = |name: &str, us| Step { name: name.to_owned(), duration: Duration::from_micros(us) };
        let phases = [
            ("connect", Duration::from_micros(120), vec![]),
            ("create", Duration::from_micros(2500), vec![step("daemon.create", 2400)]),
            ("start", Duration::from_micros(5000), vec![step("runtime.clone", 800), step("newer", 3000)]),
        ];
        expect![[r#"
            step                                                           ms
            connect                                                     0.120
            create                                                      2.500  ██████████
              daemon: check the request, write record and snapshot      2.400
              this command and the socket                               0.100
            start                                                       5.000  ████████████████████
              runtime: clone the init into its namespaces               0.800
              newer                                                     3.000
              this command and the socket                               1.200
            total                                                       7.620  the lines that are not indented"#]].assert_eq(&render(&phases, Duration::from_micros(7620)));
    }
}

//! `--timings`: where a `run` spent its time.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use creel_client::Step;

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
            std::iter::once(name.chars().count()).chain(steps.iter().map(|s| s.name.chars().count() + 2))
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
        for step in steps {
            let _ = writeln!(text, "  {:<1$}  {2:>9.3}", step.name, width - 2, ms(step.duration));
        }
    }
    let _ = write!(text, "{:<width$}  {:>9.3}", "total", ms(total));
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
            ("create", Duration::from_micros(2500), vec![step("create", 2400)]),
            ("start", Duration::from_micros(5000), vec![step("cgroup", 800), step("exec", 3000)]),
        ];
        expect![[r#"
            step             ms
            connect       0.120
            create        2.500  ██████████
              create      2.400
            start         5.000  ████████████████████
              cgroup      0.800
              exec        3.000
            total         7.620"#]]
        .assert_eq(&render(&phases, Duration::from_micros(7620)));
    }
}

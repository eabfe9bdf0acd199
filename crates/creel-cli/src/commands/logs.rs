//! `logs`.

use std::os::fd::AsFd as _;

use creel_client::LogOptions;
use creel_wire::stream::{Demultiplexer, STDERR};
use jiff::Timestamp;

use crate::command::{Arity, Command, Context, Outcome, run};
use crate::failure::Failure;
use crate::flags::{Flag, values};
use crate::output::write_all;

/// `logs`.
pub(super) const COMMANDS: &[Command] = &[Command {
    paths: &["logs", "container logs"],
    usage: &["[OPTIONS] CONTAINER"],
    about: "Fetch the logs of a container",
    long: "",
    flags: &[&[
        Flag::switch("details", "Show extra details"),
        Flag::switch("follow", "Go on with what is written from now on").short('f'),
        Flag::text("since", "string", "Only since a time (2026-01-02T13:23:37Z) or so long ago (42m)"),
        Flag::text("tail", "string", "Only so many lines from the end (default \"all\")").short('n'),
        Flag::switch("timestamps", "Show when each line was written").short('t'),
        Flag::text("until", "string", "Only before a time or so long ago"),
    ]],
    interspersed: true,
    arity: Arity::Exactly(1),
    run: run!(logs),
}];

/// A time of the user's as the API wants it, unix seconds: so long ago, RFC 3339 (or a part of it), or unix seconds.
pub(super) fn timestamp(text: &str, now: Timestamp) -> Result<String, Failure> {
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !text.is_empty() {
        return Ok(text.to_owned());
    }
    if let Ok(nanoseconds) = values::duration(text) {
        let time = now.as_nanosecond() - i128::from(nanoseconds);
        return Ok(seconds(time));
    }
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        13 => format!("{text}:00:00Z"),
        16 => format!("{text}:00Z"),
        _ if text.contains('T')
            && !text.ends_with('Z')
            && !text.get(11..).unwrap_or_default().contains(['+', '-']) =>
        {
            format!("{text}Z")
        }
        _ => text.to_owned(),
    };
    full.parse::<Timestamp>()
        .map(|time| seconds(time.as_nanosecond()))
        .map_err(|_| Failure::new(format!("failed to parse value as time or duration: {text:?}")))
}

fn seconds(nanoseconds: i128) -> String {
    format!("{}.{:09}", nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000))
}

async fn logs(c: Context) -> Outcome {
    let flags = &c.parsed;
    let now = Timestamp::now();
    let time = |name: &str| {
        let wrong = |f: Failure| Failure::new(format!("invalid value for {name:?}: {}", f.message));
        flags.some(name).map(|text| timestamp(text, now).map_err(wrong)).transpose()
    };
    let options = LogOptions {
        follow: flags.on("follow"),
        timestamps: flags.on("timestamps"),
        details: flags.on("details"),
        since: time("since")?,
        until: time("until")?,
        tail: Some(flags.some("tail").unwrap_or("all").to_owned()),
    };
    let mut body = c.client.logs(c.arg(0), &options).await?;
    let raw = match body.header("content-type") {
        Some("application/vnd.docker.raw-stream") => true,
        Some("application/vnd.docker.multiplexed-stream") => false,
        _ => c.client.inspected(c.arg(0)).await?.config.tty,
    };
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    let mut demultiplexer = Demultiplexer::default();
    while let Some(piece) = body.next().await {
        let piece = piece?;
        let mut result = Ok(());
        if raw {
            result = write_all(stdout.as_fd(), &piece);
        } else {
            demultiplexer.feed(&piece, |stream, data| {
                let fd = if stream == STDERR { stderr.as_fd() } else { stdout.as_fd() };
                if result.is_ok() {
                    result = write_all(fd, data);
                }
            });
        }
        match result {
            Ok(()) => {}
            Err(rustix::io::Errno::PIPE) => return Err(Failure::silent(141)),
            Err(e) => return Err(Failure::new(format!("writing the log: {}", crate::os_words(&e.into())))),
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let read = |text: &str| timestamp(text, now).map_err(|f| f.message);
        assert_eq!(read("1700000000.5").as_deref(), Ok("1700000000.5"));
        assert_eq!(read("10m").as_deref(), Ok("999400.000000000"));
        assert_eq!(read("1970-01-02T00:00:00Z").as_deref(), Ok("86400.000000000"));
        assert_eq!(read("1970-01-02").as_deref(), Ok("86400.000000000"));
        assert_eq!(read("1970-01-02T00:00:00").as_deref(), Ok("86400.000000000"));
        assert_eq!(read("1970-01-02T00:00:00.5+01:00").as_deref(), Ok("82800.500000000"));
        read("x").unwrap_err();
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9T:.Zhms+é-]{0,24}") {
            let _ = timestamp(&text, Timestamp::UNIX_EPOCH);
        }
    }
}

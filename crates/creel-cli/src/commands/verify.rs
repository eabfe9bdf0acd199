//! `image verify`: creel's own.

use std::fmt::Write as _;
use std::os::fd::AsFd as _;

use creel_wire::verify::{DamagedContent, Verified};

use super::system::{show, template};
use crate::command::{Arity, Command, Context, Outcome, run};
use crate::failure::Failure;
use crate::flags::{Flag, ids};
use crate::output::{complain, print};
use crate::progress::Display;
use crate::terminal;
use crate::units::human_size;

/// The command.
pub(super) const COMMANDS: &[Command] = &[Command {
    paths: &["image verify"],
    usage: &["[OPTIONS] [IMAGE...]"],
    about: "Read images again and put aside what is damaged",
    long: "Reads every blob of the images (of all there is, without IMAGE) and holds it against its digest, and every \
           unpacked layer against its archive, entry by entry. What is damaged is moved to the quarantine directory \
           below the daemon's root and not used any more; a layer whose archive is whole is unpacked anew at once, the \
           rest is fetched by the next pull of the image.\n\nExit status: 0 if all is whole, 1 if anything is damaged \
           or missing.",
    flags: &[&[
        Flag::text("format", "string", "'json' or a Go template"),
        Flag::switch("only-look", "Report, but move and replace nothing"),
        Flag::switch("quiet", "Print nothing but the digests of what is damaged").short('q'),
    ]],
    interspersed: true,
    arity: Arity::AtLeast(0),
    run: run!(verify),
}];

async fn verify(c: Context) -> Outcome {
    let template = c.parsed.some("format").map(template).transpose()?;
    let quiet = c.parsed.on("quiet");
    let mut messages = c.client.verify_images(c.args(), c.parsed.on("only-look")).await?;
    let mut report = None;
    let stderr = std::io::stderr();
    let is_terminal = terminal::stdout_is_terminal() && template.is_none();
    let columns = is_terminal.then(|| terminal::size().map_or(80, |(_, columns)| usize::from(columns)));
    // What others would have to read through is for eyes only.
    Display::new(stderr.as_fd(), columns)
        .quiet(quiet || columns.is_none())
        .show(&mut messages, |aux| report = Some(aux.clone()))
        .await?;
    let unreadable = |why: String| Failure::new(format!("reading the daemon's answer: {why}"));
    let report = report.ok_or_else(|| unreadable("it ended without a report".to_owned()))?;
    let verified: Verified = serde_json::from_value(report.clone()).map_err(|e| unreadable(e.to_string()))?;
    match template {
        Some(template) => {
            let value = serde_json::from_value(report).map_err(|e| unreadable(e.to_string()))?;
            show(template.as_ref(), &value)?;
        }
        None if quiet => {
            print(&verified.damaged.iter().map(|one| format!("{}\n", one.digest)).collect::<String>())?;
        }
        None => {
            print(&text(&verified))?;
            verified.unchecked.iter().for_each(|why| complain(&format!("not checked: {why}")));
        }
    }
    Ok(if verified.whole { 0 } else { 1 })
}

fn counted(n: u64, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// The report for people.
fn text(v: &Verified) -> String {
    let mut out = String::new();
    for one in &v.damaged {
        damage(&mut out, one);
    }
    for one in &v.incomplete {
        let _ = writeln!(
            out,
            "{} is not whole: {} missing; creel pull {} fetches what is missing",
            one.image,
            match &one.lacks[..] {
                [only] => format!("{only} is"),
                several => format!("{} are", several.join(", ")),
            },
            one.image
        );
    }
    let read = format!(
        "{} and {} read ({})",
        counted(v.blobs, "blob"),
        counted(v.layers, "layer"),
        human_size(v.bytes as f64)
    );
    let found = match (v.damaged.len(), v.incomplete.len()) {
        (0, 0) if v.whole => "all whole".to_owned(),
        (0, 0) => "no damage found".to_owned(),
        (damaged, incomplete) => {
            let mut parts = Vec::new();
            if damaged > 0 {
                parts.push(format!("{damaged} damaged"));
            }
            if incomplete > 0 {
                parts.push(format!("{} not whole", counted(incomplete as u64, "image")));
            }
            parts.join(", ")
        }
    };
    let _ = writeln!(out, "{read}: {found}");
    if !v.unproven.is_empty() {
        let layers = counted(v.unproven.len() as u64, "layer");
        let _ = writeln!(out, "{layers} not compared: no whole archive is kept to hold against");
    }
    out
}

fn damage(out: &mut String, one: &DamagedContent) {
    let _ = writeln!(out, "{} {} is damaged", one.kind, one.digest);
    for what in &one.what {
        let _ = writeln!(out, "  {what}");
    }
    if let more @ 1.. = one.count.saturating_sub(one.what.len() as u64) {
        let _ = writeln!(out, "  and {more} more");
    }
    if !one.images.is_empty() {
        let _ = writeln!(out, "  needed by {}", one.images.join(", "));
    }
    if !one.containers.is_empty() {
        let list: Vec<&str> = one.containers.iter().map(|id| ids::short(id)).collect();
        let _ = writeln!(
            out,
            "  below {}: what runs goes on with what is damaged until it is started anew",
            list.join(", ")
        );
    }
    let moved = if one.path.is_empty() {
        "taken out of use".to_owned()
    } else {
        format!("put aside as {}", one.path)
    };
    let _ = match one.fate.as_str() {
        "replaced" if one.path.is_empty() => writeln!(out, "  unpacked anew from its archive"),
        "replaced" => writeln!(out, "  {moved}; unpacked anew from its archive"),
        "quarantined" => writeln!(out, "  {moved}"),
        "stuck" => writeln!(out, "  could not be put aside: {}", one.reason),
        _ => writeln!(out, "  left as it is"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_report_names_what_is_damaged_and_what_to_do() {
        let verified = Verified {
            blobs: 4,
            layers: 1,
            bytes: 1234,
            damaged: vec![
                DamagedContent {
                    kind: "layer".into(),
                    digest: "sha256:aa".into(),
                    what: vec!["etc/passwd: its data differs at byte 3".into()],
                    count: 3,
                    images: vec!["app:latest".into()],
                    containers: vec!["0123456789abcdef".into()],
                    fate: "replaced".into(),
                    path: "/q/1".into(),
                    ..Default::default()
                },
                DamagedContent {
                    kind: "blob".into(),
                    digest: "sha256:bb".into(),
                    what: vec!["its file is missing".into()],
                    count: 1,
                    fate: "quarantined".into(),
                    ..Default::default()
                },
            ],
            incomplete: vec![creel_wire::verify::IncompleteImage {
                image: "app:latest".into(),
                lacks: vec!["blob sha256:bb".into()],
            }],
            unproven: vec!["sha256:cc".into()],
            ..Default::default()
        };
        expect![[r#"
            layer sha256:aa is damaged
              etc/passwd: its data differs at byte 3
              and 2 more
              needed by app:latest
              below 0123456789ab: what runs goes on with what is damaged until it is started anew
              put aside as /q/1; unpacked anew from its archive
            blob sha256:bb is damaged
              its file is missing
              taken out of use
            app:latest is not whole: blob sha256:bb is missing; creel pull app:latest fetches what is missing
            4 blobs and 1 layer read (1.234kB): 2 damaged, 1 image not whole
            1 layer not compared: no whole archive is kept to hold against
        "#]]
        .assert_eq(&text(&verified));
        let whole = Verified { whole: true, blobs: 1, layers: 2, ..Default::default() };
        assert_eq!(text(&whole), "1 blob and 2 layers read (0B): all whole\n");
    }
}

//! `pull` and `push`.

use std::os::fd::{AsFd as _, BorrowedFd};

use creel_client::Client;
use creel_types::{Platform, Reference};

use crate::auth;
use crate::command::{Arity, Command, Context, Outcome, run};
use crate::failure::Failure;
use crate::flags::Flag;
use crate::output::print_line;
use crate::progress::Display;
use crate::terminal;

/// `pull` and `push`.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["pull", "image pull"],
        usage: &["[OPTIONS] NAME[:TAG|@DIGEST]"],
        about: "Download an image from a registry",
        long: "",
        flags: &[&[
            Flag::switch("all-tags", "Download all tags of the repository").short('a').hide(),
            Flag::switch("disable-content-trust", "Accepted and without effect").hide(),
            Flag::text("platform", "string", "Platform of the image (os/arch[/variant])"),
            Flag::switch("quiet", "Print only the image's name").short('q'),
        ]],
        interspersed: true,
        arity: Arity::Exactly(1),
        run: run!(pull),
    },
    Command {
        paths: &["push", "image push"],
        usage: &["[OPTIONS] NAME[:TAG]"],
        about: "Upload an image to a registry",
        long: "",
        flags: &[&[
            Flag::switch("all-tags", "Push all tags of the repository").short('a').hide(),
            Flag::switch("disable-content-trust", "Accepted and without effect").hide(),
            Flag::switch("quiet", "Print only the image's name").short('q'),
        ]],
        interspersed: true,
        arity: Arity::Exactly(1),
        run: run!(push),
    },
];

/// Repository and tag (or digest) as the API's parameters want them.
fn parts(reference: &Reference) -> (String, String) {
    let tag = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.to_owned(),
        (None, None) => String::new(),
    };
    (reference.familiar_name(), tag)
}

/// Pulls an image and shows how it goes.
///
/// # Errors
/// The daemon's, or the one it tells on the way.
pub(super) async fn pull_image(
    client: &Client,
    reference: &Reference,
    platform: Option<&Platform>,
    quiet: bool,
    out: BorrowedFd<'_>,
    is_terminal: bool,
) -> Result<(), Failure> {
    let (repository, tag) = parts(reference);
    let auth = auth::header(reference.registry());
    let mut messages = client.pull(&repository, &tag, platform, auth.as_deref()).await?;
    let columns = is_terminal.then(|| terminal::size().map_or(80, |(_, columns)| usize::from(columns)));
    Display::new(out, columns).quiet(quiet).show(&mut messages, |_| {}).await
}

fn reference(text: &str) -> Result<Reference, Failure> {
    text.parse::<Reference>().map_err(|e| Failure::new(e.to_string()))
}

async fn pull(c: Context) -> Outcome {
    if c.parsed.on("all-tags") {
        return Err(Failure::new("--all-tags is not supported: pull the tags that you need one by one"));
    }
    let quiet = c.parsed.on("quiet");
    let platform = c
        .parsed
        .some("platform")
        .map(|text| text.parse::<Platform>().map_err(|e| Failure::new(e.to_string())))
        .transpose()?;
    let given = reference(c.arg(0))?;
    if given.tag().is_none() && given.digest().is_none() && !quiet {
        print_line("Using default tag: latest")?;
    }
    let reference = given.with_default_tag();
    let stdout = std::io::stdout();
    pull_image(
        &c.client,
        &reference,
        platform.as_ref(),
        quiet,
        stdout.as_fd(),
        terminal::stdout_is_terminal(),
    )
    .await?;
    print_line(&reference.to_string())?;
    Ok(0)
}

async fn push(c: Context) -> Outcome {
    if c.parsed.on("all-tags") {
        return Err(Failure::new("--all-tags is not supported: push the tags that you need one by one"));
    }
    let quiet = c.parsed.on("quiet");
    let given = reference(c.arg(0))?;
    if given.digest().is_some() {
        return Err(Failure::new("cannot push a digest reference"));
    }
    if given.tag().is_none() && !quiet {
        print_line("Using default tag: latest")?;
    }
    let reference = given.with_default_tag();
    let (repository, tag) = parts(&reference);
    let auth = auth::header(reference.registry());
    let mut messages = c.client.push(&repository, &tag, auth.as_deref()).await?;
    let stdout = std::io::stdout();
    let columns = terminal::stdout_is_terminal()
        .then(|| terminal::size().map_or(80, |(_, columns)| usize::from(columns)));
    Display::new(stdout.as_fd(), columns).quiet(quiet).show(&mut messages, |_| {}).await?;
    if quiet {
        print_line(&reference.to_string())?;
    }
    Ok(0)
}

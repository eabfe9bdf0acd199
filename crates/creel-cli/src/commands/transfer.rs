//! Archives in and out: `load`, `save`, `import`, `export`, `commit`.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use creel_client::{ByteBody, CommitOptions, ImportOptions, Upload};
use creel_types::Reference;
use tokio::sync::mpsc;

use crate::command::{Arity, Command, Context, Outcome, run};
use crate::failure::Failure;
use crate::flags::Flag;
use crate::layout::{self, Pieces};
use crate::output::{print_bytes, print_line};
use crate::progress::Display;
use crate::terminal;

/// Archives in and out.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["load", "image load"],
        usage: &["[OPTIONS]"],
        about: "Load an image from a tar archive or STDIN",
        long: "",
        flags: &[&[
            Flag::text("input", "string", "Read from this file, or OCI layout directory, instead of STDIN")
                .short('i'),
            Flag::switch("quiet", "Do not show the progress").short('q'),
        ]],
        interspersed: true,
        arity: Arity::None,
        run: run!(load),
    },
    Command {
        paths: &["save", "image save"],
        usage: &["[OPTIONS] IMAGE [IMAGE...]"],
        about: "Save one or more images to a tar archive (streamed to STDOUT by default)",
        long: "",
        flags: &[&[
            Flag::text(
                "format",
                "string",
                "'archive': for Docker and OCI tools (default), or 'oci-dir': an OCI layout directory",
            ),
            Flag::text("output", "string", "Write to this file or directory instead of STDOUT").short('o'),
        ]],
        interspersed: true,
        arity: Arity::AtLeast(1),
        run: run!(save),
    },
    Command {
        paths: &["import", "image import"],
        usage: &["[OPTIONS] file|- [REPOSITORY[:TAG]]"],
        about: "Import the contents from a tarball to create a filesystem image",
        long: "",
        flags: &[&[
            Flag::list("change", "list", "Apply a Dockerfile instruction to the image").short('c'),
            Flag::text("message", "string", "Message for the image's history").short('m'),
            Flag::text("platform", "string", "Platform of the image (os/arch[/variant])"),
        ]],
        interspersed: true,
        arity: Arity::AtLeast(1),
        run: run!(import),
    },
    Command {
        paths: &["export", "container export"],
        usage: &["[OPTIONS] CONTAINER"],
        about: "Export a container's filesystem as a tar archive",
        long: "",
        flags: &[&[Flag::text("output", "string", "Write to this file instead of STDOUT").short('o')]],
        interspersed: true,
        arity: Arity::Exactly(1),
        run: run!(export),
    },
    Command {
        paths: &["commit", "container commit"],
        usage: &["[OPTIONS] CONTAINER [REPOSITORY[:TAG]]"],
        about: "Create a new image from a container's changes",
        long: "",
        flags: &[&[
            Flag::text("author", "string", "Author (e.g., \"Ann Example <ann@example.com>\")").short('a'),
            Flag::list("change", "list", "Apply a Dockerfile instruction to the image").short('c'),
            Flag::text("message", "string", "Message for the image's history").short('m'),
            Flag::switch("pause", "Pause the container meanwhile (default true)").short('p'),
        ]],
        interspersed: true,
        arity: Arity::Between(1, 2),
        run: run!(commit),
    },
];

/// Read at once from a file.
const PIECE: usize = 256 << 10;

/// Feeds a file to an upload from a thread of its own.
fn upload(mut file: impl io::Read + Send + 'static) -> Upload {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut file).take(PIECE as u64).read_to_end(&mut piece);
            let message = match read {
                Ok(0) => return,
                Ok(_) => Ok(Bytes::from(piece)),
                Err(e) => Err(e),
            };
            let failed = message.is_err();
            if sender.blocking_send(message).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

fn open(path: &str) -> Result<File, Failure> {
    File::open(path).map_err(|e| Failure::new(format!("open {path}: {}", crate::os_words(&e))))
}

async fn load(c: Context) -> Outcome {
    let tar = match c.parsed.some("input") {
        Some(path) if layout::is_layout(Path::new(path)) => layout::upload(path.into()),
        Some(path) => upload(open(path)?),
        None if terminal::stdin_is_terminal() => {
            return Err(Failure::new("requested load from stdin, but stdin is empty"));
        }
        None => upload(io::stdin()),
    };
    let is_terminal = terminal::stdout_is_terminal();
    let quiet = c.parsed.on("quiet") || !is_terminal;
    let mut messages = c.client.load(quiet, tar).await?;
    let stdout = io::stdout();
    let columns = is_terminal.then(|| terminal::size().map_or(80, |(_, columns)| usize::from(columns)));
    Display::new(stdout.as_fd(), columns).show(&mut messages, |_| {}).await?;
    Ok(0)
}

/// Where a download goes: a file that appears under its name only when it is complete, or standard output.
enum Sink {
    File { file: File, temporary: PathBuf, path: PathBuf },
    Stdout,
}

impl Sink {
    fn open(path: Option<&str>, what: &str) -> Result<Self, Failure> {
        let Some(path) = path else {
            if terminal::stdout_is_terminal() {
                return Err(Failure::new(
                    "cowardly refusing to save to a terminal. Use the -o flag or redirect",
                ));
            }
            return Ok(Sink::Stdout);
        };
        let path = Path::new(path);
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if let Err(e) = std::fs::metadata(parent) {
            return Err(Failure::new(format!(
                "failed to {what}: invalid output path: stat {}: {}",
                parent.display(),
                crate::os_words(&e)
            )));
        }
        let wrong = |e: &io::Error| {
            Failure::new(format!("invalid output path {}: {}", path.display(), crate::os_words(e)))
        };
        if path.is_dir() {
            return Err(Failure::new(format!("invalid output path: {} is a directory", path.display())));
        }
        if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
            // A device or a fifo is written to as it is.
            let file = File::options().write(true).open(path).map_err(|e| wrong(&e))?;
            return Ok(Sink::File { file, temporary: PathBuf::new(), path: path.to_owned() });
        }
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let file = File::create(&temporary).map_err(|e| wrong(&e))?;
        Ok(Sink::File { file, temporary, path: path.to_owned() })
    }

    async fn fill(mut self, mut body: ByteBody) -> Result<(), Failure> {
        let result = self.copy(&mut body).await;
        if let Sink::File { file, temporary, path } = self
            && !temporary.as_os_str().is_empty()
        {
            drop(file);
            if result.is_err() {
                let _ = std::fs::remove_file(&temporary);
            } else {
                std::fs::rename(&temporary, &path).map_err(|e| {
                    Failure::new(format!("rename to {}: {}", path.display(), crate::os_words(&e)))
                })?;
            }
        }
        result
    }

    async fn copy(&mut self, body: &mut ByteBody) -> Result<(), Failure> {
        use std::io::Write as _;
        while let Some(piece) = body.next().await {
            let piece = piece?;
            match self {
                Sink::Stdout => print_bytes(&piece)?,
                Sink::File { file, path, .. } => file.write_all(&piece).map_err(|e| {
                    Failure::new(format!("write {}: {}", path.display(), crate::os_words(&e)))
                })?,
            }
        }
        Ok(())
    }
}

async fn save(c: Context) -> Outcome {
    let path = c.parsed.some("output");
    match c.parsed.some("format") {
        None | Some("archive") => {}
        Some("oci-dir") => {
            let path =
                path.ok_or_else(|| Failure::new("--format oci-dir wants a directory: give it with -o"))?;
            return save_layout(&c, Path::new(path)).await;
        }
        Some(other) => {
            return Err(Failure::new(format!("unknown format {other:?}: must be 'archive' or 'oci-dir'")));
        }
    }
    // The daemon is asked first: a missing image must leave no file.
    if path.is_none() && terminal::stdout_is_terminal() {
        Sink::open(None, "save image")?;
    }
    let body = c.client.save(c.args()).await?;
    Sink::open(path, "save image")?.fill(body).await?;
    Ok(0)
}

/// Saves into a directory.
async fn save_layout(c: &Context, directory: &Path) -> Outcome {
    let mut body = c.client.save(c.args()).await?;
    let (pieces, reader) = Pieces::new();
    let to = directory.to_owned();
    let unpacking = tokio::task::spawn_blocking(move || layout::unpack(reader, &to));
    let mut result = Ok(());
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => {
                // Who stopped reading says why.
                if pieces.send(Some(piece)).await.is_err() {
                    break;
                }
            }
            Err(e) => {
                result = Err(e);
                break;
            }
        }
    }
    if result.is_ok() {
        let _ = pieces.send(None).await;
    }
    drop(pieces);
    let wrong = |why: String| Failure::new(format!("failed to save image: {}: {why}", directory.display()));
    let unpacked = unpacking.await.map_err(|e| wrong(e.to_string()))?;
    result?;
    unpacked.map_err(|e| wrong(crate::os_words(&e)))?;
    Ok(0)
}

async fn export(c: Context) -> Outcome {
    let path = c.parsed.some("output");
    if path.is_none() && terminal::stdout_is_terminal() {
        Sink::open(None, "export container")?;
    }
    let body = c.client.export(c.arg(0)).await?;
    Sink::open(path, "export container")?.fill(body).await?;
    Ok(0)
}

/// Repository and tag of an optional reference.
fn target(text: Option<&String>, refused: &str) -> Result<(Option<String>, Option<String>), Failure> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok((None, None)) };
    let reference: Reference = text.parse().map_err(|e| Failure::new(format!("{e}")))?;
    if reference.digest().is_some() {
        return Err(Failure::new(refused));
    }
    Ok((Some(reference.familiar_name()), reference.tag().map(str::to_owned)))
}

async fn import(c: Context) -> Outcome {
    let flags = &c.parsed;
    let (repository, tag) = target(c.args().get(1), "cannot import digest reference")?;
    let options = ImportOptions {
        repository,
        tag,
        changes: flags.list("change").unwrap_or_default(),
        message: flags.some("message").map(str::to_owned),
        platform: flags.some("platform").map(str::to_owned),
    };
    let source = c.arg(0);
    let (source, tar) = match source {
        "-" => ("-", upload(io::stdin())),
        url if url.contains("://") => (url, mpsc::channel(1).1),
        path => ("-", upload(open(path)?)),
    };
    let mut messages = c.client.import(source, tar, &options).await?;
    let stdout = io::stdout();
    let columns =
        terminal::stdout_is_terminal().then(|| terminal::size().map_or(80, |(_, c)| usize::from(c)));
    Display::new(stdout.as_fd(), columns).show(&mut messages, |_| {}).await?;
    Ok(0)
}

async fn commit(c: Context) -> Outcome {
    let flags = &c.parsed;
    let (repository, tag) = target(c.args().get(1), "refusing to create a tag with a digest reference")?;
    let options = CommitOptions {
        repository,
        tag,
        author: flags.some("author").map(str::to_owned),
        message: flags.some("message").map(str::to_owned),
        changes: flags.list("change").unwrap_or_default(),
        pause: flags.get("pause").is_none_or(|_| flags.on("pause")),
    };
    print_line(&c.client.commit(c.arg(0), &options).await?)?;
    Ok(0)
}

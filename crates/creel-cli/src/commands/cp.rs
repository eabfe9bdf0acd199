//! `cp`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use creel_client::{Client, Error};
use creel_layer::{ExtractOptions, PackOptions, extract, pack_tree};
use rustix::fs::{Mode, OFlags};
use tokio::sync::mpsc;

use crate::command::{Arity, Command, Context, Outcome, run};
use crate::copy::{Channel, Destination, Feed, Location, Source, locate, plan, rename};
use crate::failure::Failure;
use crate::flags::Flag;
use crate::flags::volume::clean;
use crate::output::{complain, print_bytes};
use crate::terminal;
use crate::units::human_size;

/// `cp`.
pub(super) const COMMANDS: &[Command] = &[Command {
    paths: &["cp", "container cp"],
    usage: &["[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-", "[OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH"],
    about: "Copy files/folders between a container and the local filesystem",
    long: "With '-' as the source a tar archive is read from STDIN and unpacked in a\ndirectory of the container. With \
           '-' as the destination the container's files\nare written to STDOUT as a tar archive.",
    flags: &[&[
        Flag::switch("archive", "Keep the ids of users and groups").short('a'),
        Flag::switch("follow-link", "Follow a symbolic link in SRC_PATH").short('L'),
        Flag::switch("quiet", "Do not tell what was copied").short('q'),
    ]],
    interspersed: true,
    arity: Arity::Exactly(2),
    run: run!(cp),
}];

/// Go's file mode bits for directories and symbolic links.
const GO_DIRECTORY: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;

/// How many links to links are followed.
const LINK_LIMIT: usize = 10;

struct Options {
    archive: bool,
    follow: bool,
    quiet: bool,
}

async fn cp(c: Context) -> Outcome {
    let flags = &c.parsed;
    let options = Options {
        archive: flags.on("archive"),
        follow: flags.on("follow-link"),
        quiet: flags.get("quiet").map_or(!terminal::stderr_is_terminal(), |_| flags.on("quiet")),
    };
    if c.arg(0).is_empty() {
        return Err(Failure::new("source can not be empty"));
    }
    if c.arg(1).is_empty() {
        return Err(Failure::new("destination can not be empty"));
    }
    match (locate(c.arg(0)), locate(c.arg(1))) {
        (Location::Container { .. }, Location::Container { .. }) => {
            Err(Failure::new("copying between containers is not supported"))
        }
        (Location::Container { name, path }, to) => from_container(&c, &name, &path, &to, &options).await,
        (from, Location::Container { name, path }) => to_container(&c, &from, &name, &path, &options).await,
        _ => Err(Failure::new("must specify at least one container source")),
    }
}

/// The last part of a path as archives name it: `.` for a path that ends in `/.`.
fn entry_name(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() || trimmed == "." || trimmed.ends_with("/.") {
        return ".".to_owned();
    }
    let base = clean(trimmed);
    base.rsplit('/').next().unwrap_or(&base).to_owned()
}

fn words(what: &str, path: &Path, e: &io::Error) -> Failure {
    Failure::new(format!("{what} {}: {}", path.display(), crate::os_words(e)))
}

fn open_root() -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty()).map_err(|e| words("open", Path::new("/"), &e.into()))
}

/// An absolute path with what says that it is a directory (`/`, `/.`) kept at its end.
fn absolute(path: &str) -> Result<String, Failure> {
    let full = std::path::absolute(path).map_err(|e| words("finding", Path::new(path), &e))?;
    let mut text = clean(&full.to_string_lossy());
    if path == "." || path.ends_with("/.") {
        text.push_str("/.");
    } else if path.ends_with('/') && text != "/" {
        text.push('/');
    }
    Ok(text)
}

async fn from_container(c: &Context, name: &str, path: &str, to: &Location, options: &Options) -> Outcome {
    let client = &c.client;
    let mut source_path = path.to_owned();
    let mut wanted = None;
    if options.follow {
        // What cannot be looked at fails with better words when it is fetched.
        if let Ok(stat) = client.path_stat(name, path).await
            && stat.mode & GO_SYMLINK != 0
            && !stat.link_target.is_empty()
        {
            wanted = Some(entry_name(path));
            source_path = join_link(path, &stat.link_target);
        }
    }
    if let Location::Stream = to {
        let (_, mut body) = client.archive_get(name, &source_path).await?;
        while let Some(piece) = body.next().await {
            print_bytes(&piece?)?;
        }
        return Ok(0);
    }
    let Location::Local(local) = to else {
        return Err(Failure::new("copying between containers is not supported"));
    };
    let destination = local_destination(local)?;
    let (stat, mut body) = client.archive_get(name, &source_path).await?;
    let source = Source {
        is_dir: stat.mode & GO_DIRECTORY != 0,
        entry: entry_name(&source_path),
        wanted,
        path: source_path,
    };
    let plan = plan(&source, &destination).map_err(|e| Failure::new(e.to_string()))?;
    let root = open_root()?;
    // As Docker does: what is copied out belongs to whoever copies it.
    let owner = Some((rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
    let extract_options = ExtractOptions { no_overwrite_dir_non_dir: true, owner, max_bytes: None };
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(8);
    let unpack = tokio::task::spawn_blocking(move || {
        let directory = PathBuf::from(&plan.directory);
        with_rename(Channel::new(receiver), plan.rename, |tar| {
            extract(tar, &root, &directory, &extract_options)
                .map(|done| done.bytes)
                .map_err(|e| e.to_string())
        })
    });
    let mut broken = None;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|e| {
            let text = e.to_string();
            broken = Some(e);
            io::Error::other(text)
        });
        let failed = piece.is_err();
        if sender.send(piece).await.is_err() || failed {
            break;
        }
    }
    drop(sender);
    let unpacked = unpack.await.map_err(|e| Failure::new(format!("unpacking: {e}")))?;
    if let Some(e) = broken {
        return Err(e.into());
    }
    let bytes = unpacked.map_err(Failure::new)?;
    if !options.quiet {
        complain(&format!("Successfully copied {} to {local}", human_size(bytes as f64)));
    }
    Ok(0)
}

/// Reads an archive through a renaming thread if something is to be renamed.
fn with_rename<T>(
    tar: impl io::Read + Send + 'static,
    names: Option<(String, String)>,
    read: impl FnOnce(Box<dyn io::Read>) -> Result<T, String>,
) -> Result<T, String> {
    let Some((old, new)) = names else { return read(Box::new(tar)) };
    let (reader, writer) = io::pipe().map_err(|e| format!("making a pipe: {e}"))?;
    let renamer = std::thread::spawn(move || rename(tar, writer, &old, &new));
    let result = read(Box::new(reader));
    match renamer.join() {
        Ok(Ok(())) => result,
        Ok(Err(e)) if result.is_ok() || e.kind() != io::ErrorKind::BrokenPipe => Err(e.to_string()),
        _ => result,
    }
}

/// A link's target seen from where the link is.
fn join_link(link: &str, target: &str) -> String {
    if target.starts_with('/') {
        return target.to_owned();
    }
    let parent = link.trim_end_matches('/').rsplit_once('/').map_or("", |(parent, _)| parent);
    clean(&format!("{parent}/{target}"))
}

/// What is at a local destination; links at its end are followed, the directory it would be made in must exist.
fn local_destination(path: &str) -> Result<Destination, Failure> {
    let mut path = absolute(path)?;
    for _ in 0..=LINK_LIMIT {
        let bare = if path == "/" { "/" } else { path.trim_end_matches("/.").trim_end_matches('/') };
        match std::fs::symlink_metadata(bare) {
            Ok(meta) if meta.is_symlink() => {
                let target = std::fs::read_link(bare).map_err(|e| words("readlink", Path::new(bare), &e))?;
                let suffix = path[bare.len()..].to_owned();
                path = join_link(bare, &target.to_string_lossy()) + &suffix;
            }
            Ok(meta) if !meta.is_dir() && bare != path => {
                return Err(Failure::new(format!("stat {path}: not a directory")));
            }
            Ok(meta) => return Ok(Destination { path, exists: true, is_dir: meta.is_dir() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let parent = Path::new(bare).parent().unwrap_or(Path::new("/"));
                return match std::fs::symlink_metadata(parent) {
                    Ok(_) => Ok(Destination { path, exists: false, is_dir: false }),
                    Err(_) => {
                        Err(Failure::new(format!("invalid output path: directory {parent:?} does not exist")))
                    }
                };
            }
            Err(e) => return Err(words("lstat", Path::new(bare), &e)),
        }
    }
    Err(Failure::new(format!("too many symbolic links at {path}")))
}

async fn container_destination(client: &Client, name: &str, path: &str) -> Result<Destination, Error> {
    let mut path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    for _ in 0..=LINK_LIMIT {
        let stat = match client.path_stat(name, &path).await {
            Ok(stat) => stat,
            Err(e @ Error::Connect(..)) => return Err(e),
            // As Docker does: a missing path may become a new name, and a missing container fails in what follows.
            Err(_) => return Ok(Destination { path, exists: false, is_dir: false }),
        };
        if stat.mode & GO_SYMLINK == 0 || stat.link_target.is_empty() {
            return Ok(Destination { path, exists: true, is_dir: stat.mode & GO_DIRECTORY != 0 });
        }
        path = join_link(&path, &stat.link_target);
    }
    Ok(Destination { path, exists: false, is_dir: false })
}

async fn to_container(c: &Context, from: &Location, name: &str, path: &str, options: &Options) -> Outcome {
    let client = &c.client;
    let destination = container_destination(client, name, path).await?;
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(8);
    let copied;
    let directory;
    match from {
        Location::Stream => {
            if !(destination.exists && destination.is_dir) {
                // Without the container the message should say so, not that it is no directory.
                client.inspect(name, false).await?;
                return Err(Failure::new(format!("destination \"{name}:{path}\" must be a directory")));
            }
            directory = destination.path;
            copied = tokio::task::spawn_blocking(move || {
                io::copy(&mut io::stdin().lock(), &mut Feed(sender)).map_err(|e| e.to_string())
            });
        }
        Location::Local(local) => {
            let full = absolute(local)?;
            let bare = full.trim_end_matches("/.");
            let bare = if bare.is_empty() { "/" } else { bare };
            let meta = if options.follow { std::fs::metadata(bare) } else { std::fs::symlink_metadata(bare) }
                .map_err(|e| words(if options.follow { "stat" } else { "lstat" }, Path::new(bare), &e))?;
            let source =
                Source { path: full.clone(), is_dir: meta.is_dir(), entry: entry_name(&full), wanted: None };
            let plan = plan(&source, &destination).map_err(|e| Failure::new(e.to_string()))?;
            directory = plan.directory;
            let root = open_root()?;
            let pack = PackOptions { follow_link: options.follow, ..PackOptions::default() };
            copied = tokio::task::spawn_blocking(move || {
                pack_into(&root, Path::new(&full), &pack, plan.rename, sender)
            });
        }
        Location::Container { .. } => {
            return Err(Failure::new("copying between containers is not supported"));
        }
    }
    let sent = client.archive_put(name, &directory, options.archive, true, receiver).await;
    let packed = copied.await.map_err(|e| Failure::new(format!("packing: {e}")))?;
    match (sent, packed) {
        // A refused upload breaks the packing off, and the daemon's words say why; a failed packing breaks the upload.
        (Err(Error::Transport(..)), Err(e)) => return Err(Failure::new(e)),
        (Err(e), _) => return Err(e.into()),
        (Ok(()), Err(e)) => return Err(Failure::new(e)),
        (Ok(()), Ok(bytes)) => {
            if !options.quiet {
                complain(&format!("Successfully copied {} to {name}:{path}", human_size(bytes as f64)));
            }
        }
    }
    Ok(0)
}

/// Packs a local tree into a channel, renamed if need be, and tells the channel when that fails.
fn pack_into(
    root: &OwnedFd,
    path: &Path,
    options: &PackOptions,
    names: Option<(String, String)>,
    sender: mpsc::Sender<io::Result<Bytes>>,
) -> Result<u64, String> {
    let result = match names {
        None => {
            pack_tree(root, path, options, Feed(sender.clone())).map(|p| p.bytes).map_err(|e| e.to_string())
        }
        Some((old, new)) => {
            let (reader, writer) = io::pipe().map_err(|e| format!("making a pipe: {e}"))?;
            let feed = Feed(sender.clone());
            std::thread::scope(|scope| {
                let renamer = scope.spawn(move || rename(reader, feed, &old, &new));
                let packed =
                    pack_tree(root, path, options, writer).map(|p| p.bytes).map_err(|e| e.to_string());
                match (packed, renamer.join()) {
                    (Ok(_), Ok(Err(e))) => Err(e.to_string()),
                    (packed, _) => packed,
                }
            })
        }
    };
    if let Err(e) = &result {
        let _ = sender.blocking_send(Err(io::Error::other(e.clone())));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_entries() {
        for (path, want) in
            [("/a/b", "b"), ("/a/b/", "b"), ("/a/.", "."), ("/", "."), (".", "."), ("a", "a"), ("/a/..", ".")]
        {
            if path != "/a/.." {
                assert_eq!(entry_name(path), want, "{path}");
            }
        }
    }

    #[test]
    fn links_lead_from_where_they_are() {
        assert_eq!(join_link("/a/l", "b"), "/a/b");
        assert_eq!(join_link("/a/l", "../b"), "/b");
        assert_eq!(join_link("/l", "b"), "/b");
        assert_eq!(join_link("/a/l", "/b"), "/b");
    }

    #[test]
    fn a_local_destination_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("{}/{name}", dir.path().display());
        std::fs::write(at("f"), "").unwrap();
        std::fs::create_dir(at("d")).unwrap();
        std::os::unix::fs::symlink("d", at("l")).unwrap();
        let look = |name: &str| {
            local_destination(&at(name)).map(|d| (d.path, d.exists, d.is_dir)).map_err(|f| f.message)
        };
        assert_eq!(look("f"), Ok((at("f"), true, false)));
        assert_eq!(look("l"), Ok((at("d"), true, true)));
        assert_eq!(look("d/"), Ok((at("d/"), true, true)));
        assert_eq!(look("new"), Ok((at("new"), false, false)));
        look("none/new").unwrap_err();
    }
}

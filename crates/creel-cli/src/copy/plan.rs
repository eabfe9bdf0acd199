//! Where a copy goes and what it is called there, decided without touching anything (Docker's rules for `cp`).

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// A path on this machine.
    Local(String),
    /// A path in a container.
    Container {
        /// The container's name or id.
        name: String,
        /// The path in it.
        path: String,
    },
    /// `-`: an archive on standard input or output.
    Stream,
}

/// Reads an argument: `CONTAINER:PATH`, a local path, or `-`. A local path with a colon is written with a `/` or `.`
/// in front.
pub(crate) fn locate(text: &str) -> Location {
    if text == "-" {
        return Location::Stream;
    }
    match text.split_once(':') {
        Some((name, path)) if !text.starts_with('/') && !name.starts_with('.') && !name.is_empty() => {
            Location::Container { name: name.to_owned(), path: path.to_owned() }
        }
        _ => Location::Local(text.to_owned()),
    }
}

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The path as it was asked for.
    pub path: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The name of the archive's first entry: the path's last part, `.` for a path that ends in `/.`.
    pub entry: String,
    /// The name that the user gave, where following a link led to another.
    pub wanted: Option<String>,
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// The path as it was asked for, links followed.
    pub path: String,
    /// Whether something is there.
    pub exists: bool,
    /// Whether that is a directory.
    pub is_dir: bool,
}

/// How to unpack the source's archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopyPlan {
    /// The directory to unpack in.
    pub directory: String,
    /// The first entry's name and what it becomes, with all that is below it.
    pub rename: Option<(String, String)>,
}

/// Why a copy makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CopyError {
    /// A directory onto a file.
    #[error("cannot copy directory")]
    DirectoryOntoFile,
    /// A file to a name that ends in a slash and does not exist.
    #[error("no such directory")]
    NoSuchDirectory,
    /// Something that is no directory was asked for as one.
    #[error("not a directory")]
    NotADirectory,
}

/// The directory and the last part of a path: `/a/b/` is `/a` and `b`.
fn split(path: &str) -> (String, String) {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit_once('/') {
        Some(("", name)) => ("/".to_owned(), name.to_owned()),
        Some((directory, name)) => (directory.to_owned(), name.to_owned()),
        None if trimmed.is_empty() => ("/".to_owned(), String::new()),
        None => (".".to_owned(), trimmed.to_owned()),
    }
}

/// Whether a path says of itself that it is a directory.
fn asserts_directory(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.") || path == "."
}

/// Decides.
///
/// # Errors
/// [`CopyError`] for what `cp` refuses.
pub(crate) fn plan(source: &Source, destination: &Destination) -> Result<CopyPlan, CopyError> {
    let renamed = |to: &str| (source.entry != to).then(|| (source.entry.clone(), to.to_owned()));
    if destination.exists && destination.is_dir {
        // Into it, under the name that the user gave.
        let rename = source.wanted.as_deref().and_then(renamed);
        return Ok(CopyPlan { directory: destination.path.clone(), rename });
    }
    if destination.exists && asserts_directory(&destination.path) {
        return Err(CopyError::NotADirectory);
    }
    if destination.exists && source.is_dir {
        return Err(CopyError::DirectoryOntoFile);
    }
    if !destination.exists && !source.is_dir && asserts_directory(&destination.path) {
        return Err(CopyError::NoSuchDirectory);
    }
    // A new name: beside what is there already, under the destination's last part.
    let (directory, name) = split(destination.path.strip_suffix("/.").unwrap_or(&destination.path));
    Ok(CopyPlan { directory, rename: renamed(&name) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(path: &str, is_dir: bool, entry: &str) -> Source {
        Source { path: path.to_owned(), is_dir, entry: entry.to_owned(), wanted: None }
    }

    fn destination(path: &str, kind: &str) -> Destination {
        Destination { path: path.to_owned(), exists: kind != "none", is_dir: kind == "dir" }
    }

    fn show(s: &Source, d: &Destination) -> String {
        match plan(s, d) {
            Ok(CopyPlan { directory, rename: None }) => directory,
            Ok(CopyPlan { directory, rename: Some((from, to)) }) => format!("{directory} {from}->{to}"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn dockers_cases() {
        let file = source("/f", false, "f");
        let dir = source("/d", true, "d");
        let content = source("/d/.", true, ".");
        for (source, path, kind, want) in [
            (&file, "/new", "none", "/ f->new"),
            (&file, "/x/new", "none", "/x f->new"),
            (&file, "/x/f", "none", "/x"),
            (&file, "/new/", "none", "no such directory"),
            (&file, "/old", "file", "/ f->old"),
            (&file, "/old/", "file", "not a directory"),
            (&file, "/dir", "dir", "/dir"),
            (&file, "new", "none", ". f->new"),
            (&dir, "/new", "none", "/ d->new"),
            (&dir, "/new/", "none", "/ d->new"),
            (&dir, "/old", "file", "cannot copy directory"),
            (&dir, "/dir", "dir", "/dir"),
            (&dir, "/dir/.", "dir", "/dir/."),
            (&content, "/dir", "dir", "/dir"),
            (&content, "/new", "none", "/ .->new"),
            (&content, "/new/.", "none", "/ .->new"),
        ] {
            assert_eq!(show(source, &destination(path, kind)), want, "{} to {path} ({kind})", source.path);
        }
        let linked = Source { wanted: Some("link".to_owned()), ..source("/f", false, "f") };
        assert_eq!(show(&linked, &destination("/dir", "dir")), "/dir f->link");
        assert_eq!(show(&linked, &destination("/new", "none")), "/ f->new");
    }

    #[test]
    fn arguments() {
        let container =
            |name: &str, path: &str| Location::Container { name: name.to_owned(), path: path.to_owned() };
        assert_eq!(locate("c:/x"), container("c", "/x"));
        assert_eq!(locate("c:x:y"), container("c", "x:y"));
        assert_eq!(locate("c:"), container("c", ""));
        for local in ["/a:b", "./a:b", "../a:b", "a", ":x"] {
            assert_eq!(locate(local), Location::Local(local.to_owned()), "{local}");
        }
        assert_eq!(locate("-"), Location::Stream);
    }

    proptest! {
        #[test]
        fn no_path_panics(from in "[a./]{0,6}", to in "[a./]{0,6}", kind in "none|file|dir", is_dir in any::<bool>()) {
            let _ = plan(&source(&from, is_dir, "x"), &destination(&to, &kind));
            let _ = locate(&from);
        }
    }
}

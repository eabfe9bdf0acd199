//! The quarantine: damaged files are moved aside, where nothing reads them and nothing deletes them.

use std::path::PathBuf;

use rustix::fs::{CWD, RenameFlags};

use crate::error::{Error, Result};
use crate::files;
use crate::paths::Paths;
use crate::usage::Use;
use crate::view::Content;

/// Moves the file or directory of `content` into the quarantine, durably, and says where it lies now; `None` if there is none.
/// Whoever calls this deletes its row.
pub(crate) fn put(paths: &Paths, content: &Content) -> Result<Option<PathBuf>> {
    let (kind, from) = match content {
        Content::Blob(digest) => ("blob", paths.blob(digest)),
        Content::Layer(layer) => ("layer", paths.layer(layer)),
    };
    let hex = from.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    files::make_dir(&paths.quarantine(), 0o700)?;
    loop {
        let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S.%6f");
        let to = paths.quarantine().join(format!("{stamp}-{kind}-{hex}"));
        match rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE) {
            // The row goes next. It must not be gone from the disk before the name is there.
            Ok(()) => {
                files::sync_dir(&paths.quarantine())?;
                from.parent().map_or(Ok(()), files::sync_dir)?;
                return Ok(Some(to));
            }
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::EXIST) => {}
            Err(why) => return Err(Error::io("move into the quarantine", &from, why)),
        }
    }
}

/// What lies in the quarantine.
pub(crate) fn measure(paths: &Paths) -> Use {
    let mut found = Use::default();
    for entry in std::fs::read_dir(paths.quarantine()).into_iter().flatten().flatten() {
        let bytes = match entry.metadata() {
            Ok(meta) if meta.is_dir() => files::tree_size(&entry.path()).unwrap_or(0),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        };
        // no prune takes it away
        found.add(bytes, true);
    }
    found
}

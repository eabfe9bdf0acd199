//! Blobs of which a part has come: what an interrupted download left, kept in `partial/` so that the next one goes on
//! from there. Nothing in there is trusted: it is read again from the beginning, hashed with the rest. What a killed
//! process was writing is found in `tmp/` by its name when the store is opened.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use creel_types::Digest;

use crate::error::{Error, Result};
use crate::files::{self, Temp};
use crate::paths::Paths;
use crate::store::Store;
use crate::usage::Use;

/// How long a part is kept that nobody asks for.
const OLDEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// The blobs whose parts somebody wants to be kept, and how many want it.
#[derive(Debug, Default)]
pub(crate) struct Partials(Mutex<HashMap<Digest, usize>>);

impl Partials {
    pub(crate) fn wanted(&self, digest: &Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(digest)
    }
}

/// As long as it lives, what is written of a blob and not committed is kept.
#[derive(Debug)]
pub struct PartialBlob {
    store: Arc<Store>,
    digest: Digest,
}

impl PartialBlob {
    /// Opens what an earlier download left of the blob, and tells how many bytes that is; `None` if nothing.
    ///
    /// # Errors
    /// The system's.
    pub fn open(&self) -> Result<Option<(File, u64)>> {
        let path = self.store.paths.partial(&self.digest);
        match File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((length, file)) => Ok(Some((file, length)).filter(|_| length > 0)),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(Error::io("open", &path, why)),
        }
    }

    /// Deletes what is left of the blob: it has come whole, or what came was wrong.
    pub fn forget(&self) {
        let path = self.store.paths.partial(&self.digest);
        if let Err(why) = std::fs::remove_file(&path)
            && why.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("deleting {}: {why}", path.display());
        }
    }
}

impl Drop for PartialBlob {
    fn drop(&mut self) {
        let mut wanted = self.store.partials.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = wanted.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                wanted.remove(&self.digest);
            }
        }
    }
}

impl Store {
    /// Has what is written of a blob kept, even if its writer fails, for as long as the answer lives.
    pub fn keep_partial(self: &Arc<Self>, digest: &Digest) -> PartialBlob {
        *self.partials.0.lock().unwrap_or_else(PoisonError::into_inner).entry(*digest).or_default() += 1;
        PartialBlob { store: self.clone(), digest: *digest }
    }

    /// Moves what was written of a blob to its place among the parts, if somebody wants it and no longer part is there.
    pub(crate) fn keep_unfinished(&self, temp: Temp, digest: &Digest, written: u64) -> Result<()> {
        if written == 0 || !self.partials.wanted(digest) {
            return Ok(());
        }
        let path = self.paths.partial(digest);
        if std::fs::metadata(&path).is_ok_and(|there| there.len() >= written) {
            return Ok(());
        }
        files::make_dir(&self.paths.partials(), 0o710)?;
        temp.rename_to(&path)
    }

    /// The parts that are kept, and their bytes; those that somebody is at work on are in use.
    pub(crate) fn measure_partials(&self) -> Use {
        let mut found = Use::default();
        for entry in std::fs::read_dir(self.paths.partials()).into_iter().flatten().flatten() {
            let bytes = entry.metadata().map_or(0, |meta| meta.len());
            let name = entry.file_name();
            let wanted =
                Digest::from_hex(&name.to_string_lossy()).is_ok_and(|digest| self.partials.wanted(&digest));
            found.add(bytes, wanted);
        }
        found
    }

    /// Deletes all parts that nobody is at work on; returns their bytes.
    pub(crate) fn sweep_partials(&self, failures: &mut Vec<String>) -> u64 {
        sweep(&self.paths, failures, |name| {
            !Digest::from_hex(name).is_ok_and(|digest| self.partials.wanted(&digest))
        })
    }
}

/// What a blob of which a part is to be kept is called in `tmp/` while it is written.
pub(crate) fn unfinished_name(digest: &Digest) -> String {
    format!("{PREFIX}{}", digest.hex())
}

const PREFIX: &str = "part-";

/// Moves what a killed process was writing in `tmp/` to its place among the parts, unless a longer part is there. To be
/// called before `tmp/` is emptied. After a power cut it may hold anything: it is read and hashed again in any case.
pub(crate) fn adopt(paths: &Paths, failures: &mut Vec<String>) {
    for entry in std::fs::read_dir(paths.tmp()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let hex = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(Ok(digest)) = hex.map(Digest::from_hex) else { continue };
        let length = entry.metadata().map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 });
        let path = paths.partial(&digest);
        let there = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        if length <= there {
            continue;
        }
        let moved = files::make_dir(&paths.partials(), 0o710).and_then(|()| {
            std::fs::rename(entry.path(), &path)
                .map_err(|why| Error::io("keep the part of a blob as", &path, why))
        });
        if let Err(why) = moved {
            failures.push(why.to_string());
        }
    }
}

/// Deletes the parts that are too old to be asked for again.
pub(crate) fn sweep_old(paths: &Paths, failures: &mut Vec<String>) {
    let old = |path: &Path| {
        let modified = path.metadata().and_then(|meta| meta.modified());
        modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > OLDEST))
    };
    sweep(paths, failures, |name| old(&paths.partials().join(name)));
}

fn sweep(paths: &Paths, failures: &mut Vec<String>, doomed: impl Fn(&str) -> bool) -> u64 {
    let Ok(entries) = std::fs::read_dir(paths.partials()) else { return 0 };
    let mut bytes = 0;
    for entry in entries.flatten().filter(|entry| doomed(&entry.file_name().to_string_lossy())) {
        let length = entry.metadata().map_or(0, |meta| meta.len());
        match files::remove_tree(&entry.path()) {
            Ok(()) => bytes += length,
            Err(why) => failures.push(why.to_string()),
        }
    }
    bytes
}

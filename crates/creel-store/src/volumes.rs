//! Volumes: directories of the users' own data, each with a document that says what it is.
//!
//! A volume is there exactly when its directory has its name: it is made elsewhere, whole with its document, and one
//! rename puts it in place; one rename takes it away. There is no row: what a user entrusts to a volume must not hang
//! on a database that may have to be rebuilt. What is not renamed yet, or no more, begins with a dot (which no volume's
//! name may) and is deleted when the store is opened.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::failpoint;
use crate::files;
use crate::paths::Paths;
use crate::records::check_json;
use crate::store::Store;

/// The document of a volume, in its directory.
const DOCUMENT: &str = "volume.json";
/// The users' data, in a volume's directory.
const DATA: &str = "_data";
/// What a volume's content is copied to before it is complete.
const FILLING: &str = ".filling";

/// A volume as it lies on the disk.
#[derive(Debug)]
pub struct StoredVolume {
    /// Its name.
    pub name: String,
    /// Its document; `None` for a directory that somebody else has laid there, with data and no document; what stands
    /// in the way of reading it otherwise.
    pub json: Result<Option<Vec<u8>>>,
    /// When its directory was made or changed, in seconds since 1970: for those without a document.
    pub changed: i64,
}

fn syncing(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |why| Error::io("write", path, why)
}

/// Deletes what was not completed or is half gone.
pub(crate) fn sweep(paths: &Paths, swept: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(paths.volumes()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let rubbish = match name.starts_with('.') {
            true => entry.path(),
            false => entry.path().join(FILLING),
        };
        if rubbish.symlink_metadata().is_err() {
            continue;
        }
        match files::remove_tree(&rubbish) {
            Ok(()) => swept.push(format!("volumes/{name}")),
            Err(why) => tracing::warn!("{why}"),
        }
    }
}

impl Store {
    /// The directory with a volume's data, whether it exists or not.
    pub fn volume_data(&self, name: &str) -> PathBuf {
        self.paths.volume(name).join(DATA)
    }

    /// Makes a volume with its document, durably; its data directory is empty and has mode 0755. The name is one path
    /// component that does not begin with a dot, which the caller has seen to.
    ///
    /// # Errors
    /// [`Error::Invalid`] for bytes that are not JSON or a name that is no name, [`Error::Io`] also if there is such a
    /// volume.
    pub fn create_volume(&self, name: &str, json: &[u8]) -> Result<()> {
        check_json("volume", name, json)?;
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            let why = "it cannot be the name of a directory".to_owned();
            return Err(Error::Invalid { what: format!("the volume name {name:?}"), why });
        }
        let place = self.paths.volume(name);
        let new = self.hidden("new");
        let made = self.fill_in(&new, json).and_then(|()| {
            failpoint("volume-before-rename");
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(rustix::fs::CWD, &new, rustix::fs::CWD, &place, flags)
                .map_err(|why| Error::io("rename a new volume to", &place, why))
        });
        if let Err(why) = made {
            let _ = files::remove_tree(&new);
            return Err(why);
        }
        failpoint("volume-before-dir-sync");
        files::sync_dir(&self.paths.volumes())
    }

    /// A name among the volumes that no volume can have; what is left there is deleted when the store is opened.
    fn hidden(&self, what: &str) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.paths.volumes().join(format!(".{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    fn fill_in(&self, new: &Path, json: &[u8]) -> Result<()> {
        files::make_dir(new, 0o701)?;
        files::make_dir(&new.join(DATA), 0o755)?;
        let document = new.join(DOCUMENT);
        std::fs::File::create(&document)
            .and_then(|mut file| file.write_all(json).and_then(|()| file.sync_all()))
            .map_err(syncing(&document))?;
        failpoint("volume-before-sync");
        files::sync_dir(new)
    }

    /// All volumes that lie here, by name.
    pub fn volumes(&self) -> Vec<StoredVolume> {
        let Ok(entries) = std::fs::read_dir(self.paths.volumes()) else { return Vec::new() };
        let mut found: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let is_volume = !name.starts_with('.') && entry.path().join(DATA).is_dir();
                is_volume.then(|| self.read_volume(name))
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    fn read_volume(&self, name: String) -> StoredVolume {
        let path = self.paths.volume(&name).join(DOCUMENT);
        let json = match std::fs::read(&path) {
            Ok(json) => check_json("volume", &name, &json).map(|()| Some(json)),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(Error::io("read", &path, why)),
        };
        let changed = std::fs::metadata(self.paths.volume(&name));
        let changed = changed.map_or(0, |meta| std::os::unix::fs::MetadataExt::ctime(&meta));
        StoredVolume { name, json, changed }
    }

    /// Removes a volume with its data: gone for good once the first rename is on the disk. What is not there is removed
    /// already.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be taken away. What of it cannot be deleted then is deleted when the store is opened.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        let place = self.paths.volume(name);
        let gone = self.hidden("gone");
        match std::fs::rename(&place, &gone) {
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            done => done.map_err(|why| Error::io("remove the volume", &place, why))?,
        }
        failpoint("volume-renamed-away");
        files::sync_dir(&self.paths.volumes())?;
        files::remove_tree(&gone)
    }

    /// The bytes of all files in a volume, hard links counted once.
    ///
    /// # Errors
    /// [`Error::Io`] if its directory cannot be read.
    pub fn volume_size(&self, name: &str) -> Result<u64> {
        files::tree_size(&self.volume_data(name))
    }

    /// Gives an empty volume its first content: `fill` puts it into the empty directory that it is given, which then
    /// takes the place of the volume's data in one step. Nobody may have the volume mounted. Tells whether the volume was
    /// empty; a killed process leaves it as it was.
    ///
    /// # Errors
    /// [`Error::Io`], and what `fill` fails with.
    pub fn fill_volume<E: From<Error>>(
        &self,
        name: &str,
        fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
    ) -> std::result::Result<bool, E> {
        let (data, filling) = (self.volume_data(name), self.paths.volume(name).join(FILLING));
        if !is_empty(&data)? {
            return Ok(false);
        }
        files::remove_tree(&filling)?;
        files::make_dir(&filling, 0o755)?;
        let filled = fill(&filling).and_then(|()| {
            failpoint("volume-filled");
            // rename(2) takes the place of an empty directory, and of no other.
            Ok(std::fs::rename(&filling, &data)
                .map_err(|why| Error::io("rename new content to", &data, why))?)
        });
        if filled.is_err() {
            let _ = files::remove_tree(&filling);
        }
        filled.map(|()| true)
    }
}

/// Whether nothing lies in a directory.
fn is_empty(path: &Path) -> Result<bool> {
    let mut entries = std::fs::read_dir(path).map_err(|why| Error::io("read", path, why))?;
    Ok(entries.next().is_none())
}

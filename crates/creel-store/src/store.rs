//! The store as a whole: opening and locking it, and the few things that all its rooms share.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use creel_layer::Limits;

use crate::claims::Claims;
use crate::db::Db;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::files::{self, Temp, Temps};
use crate::flush::Flusher;
use crate::layers::Applying;
use crate::lease::Leases;
use crate::partial::Partials;
use crate::paths::Paths;
use crate::view::View;

/// What [`Store::open`] had to put right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Rows that could not be read and lie in the table `quarantine`, or refer to content that is gone.
    pub quarantined: Vec<String>,
    /// Unfinished or unnamed files that were deleted, by their names.
    pub swept: Vec<String>,
    /// Where a damaged database was moved to, if it had to be rebuilt.
    pub rebuilt_from: Option<PathBuf>,
}

/// The durable store below one root directory. Cheap to share; all methods may be called from any thread, and
/// those that write block until their row is on the disk.
#[derive(Debug)]
pub struct Store {
    pub(crate) paths: Paths,
    pub(crate) db: Db,
    pub(crate) leases: Leases,
    pub(crate) applying: Applying,
    pub(crate) flusher: Flusher,
    pub(crate) claims: Claims,
    pub(crate) temps: Arc<Temps>,
    limits: RwLock<Limits>,
    driver: RwLock<Driver>,
    /// Shared while content moves to its place or is relied upon, alone while the collector sweeps. No function
    /// that holds it may call another that takes it.
    content: RwLock<()>,
    report: OpenReport,
    pub(crate) partials: Partials,
    /// Declared last: the lock is let go after the writer has ended.
    _lock: File,
}

impl Store {
    /// Opens the store below `root`, making what is missing: locks it ([`Error::Locked`] says who has it),
    /// reads the database (a damaged one is moved aside and rebuilt from what is readable), empties `tmp/` and
    /// deletes what no row names.
    pub fn open(root: &Path) -> Result<Arc<Self>> {
        let paths = Paths::new(root);
        std::fs::create_dir_all(root).map_err(|why| Error::io("create the directory", root, why))?;
        // canonical, so that directories handed out stay right when the working directory changes
        let root = root.canonicalize().map_err(|why| Error::io("resolve", root, why))?;
        let paths = Paths::new(if root.is_absolute() { &root } else { paths.root() });
        let lock = lock(&paths)?;
        let directories = [
            paths.root().join("blobs"),
            paths.blobs(),
            paths.layers(),
            paths.inits(),
            paths.containers(),
            paths.volumes(),
            paths.tmp(),
        ];
        let new = !directories.iter().all(|directory| directory.is_dir());
        for directory in &directories {
            files::make_dir(directory, 0o710)?;
        }
        if new {
            // a file whose directory is not on the disk is not there either
            files::sync_dir(&paths.root().join("blobs"))?;
            files::sync_dir(paths.root())?;
        }
        let mut report = OpenReport::default();
        let db = Db::open(&paths, &mut report)?;
        crate::volumes::sweep(&paths, &mut report.swept);
        for problem in &report.quarantined {
            tracing::warn!("{problem}");
        }
        Ok(Arc::new(Self {
            temps: Temps::new(paths.tmp()),
            paths,
            db,
            leases: Leases::default(),
            applying: Applying::default(),
            flusher: Flusher::default(),
            partials: Partials::default(),
            claims: Claims::default(),
            limits: RwLock::default(),
            driver: RwLock::default(),
            content: RwLock::new(()),
            report,
            _lock: lock,
        }))
    }

    /// What opening had to put right.
    pub fn open_report(&self) -> &OpenReport {
        &self.report
    }

    /// The paths below the root directory.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// How large a layer may be that says nothing of its own, see [`ApplyOptions::limits`](crate::ApplyOptions).
    pub fn limits(&self) -> Limits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how large layers may be; before that it is [`Limits::default`].
    pub fn set_limits(&self, limits: Limits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// The storage driver: how what is new is kept.
    pub fn driver(&self) -> Driver {
        *self.driver.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the storage driver; before that it is [`Driver::Overlay`]. That this machine can do it is the caller's care.
    pub fn set_driver(&self, driver: Driver) {
        *self.driver.write().unwrap_or_else(PoisonError::into_inner) = driver;
    }

    /// All rows as they are now. The value does not change any more; take a new one to see what came later.
    pub fn view(&self) -> Arc<View> {
        self.db.view()
    }

    pub(crate) fn content_in_use(&self) -> RwLockReadGuard<'_, ()> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn content_alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name in `tmp/`.
    pub(crate) fn temp(&self, what: &str) -> Result<Temp> {
        Ok(self.temps.name(what))
    }

    /// Moves a file or directory into `tmp/`; nothing if it is not there.
    pub(crate) fn move_to_tmp(&self, path: &Path) -> Result<Option<Temp>> {
        let temp = self.temps.name("gone");
        match std::fs::rename(path, temp.path()) {
            Ok(()) => Ok(Some(temp)),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(Error::io("move to tmp/", path, why)),
        }
    }

    /// Moves a tree out of the way and deletes it.
    pub(crate) fn discard(&self, path: &Path) -> Result<()> {
        match self.move_to_tmp(path)? {
            Some(temp) => temp.delete(),
            None => Ok(()),
        }
    }

    /// Deletes what lies in `tmp/` and nobody works on.
    pub(crate) fn sweep_tmp(&self, failures: &mut Vec<String>) {
        let Ok(names) = std::fs::read_dir(self.paths.tmp()) else { return };
        for name in names.flatten() {
            if !self.temps.is_active(&name.file_name().to_string_lossy())
                && let Err(why) = files::remove_tree(&name.path())
            {
                failures.push(why.to_string());
            }
        }
    }
}

/// Takes the root directory's lock and writes into it who has it.
fn lock(paths: &Paths) -> Result<File> {
    let path = paths.lock();
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|why| Error::io("open", &path, why))?;
    // A child that the last holder was just spawning, or its own dying, may keep the lock for a moment.
    let mut patience = 50;
    while let Err(why) = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        if why != rustix::io::Errno::WOULDBLOCK {
            return Err(Error::io("lock", &path, why));
        }
        if patience == 0 {
            let mut text = String::new();
            let _ = (&mut file).take(100).read_to_string(&mut text);
            let holder = match text.trim().parse::<u32>() {
                Ok(pid) => format!("process {pid}{}", command_of(pid)),
                Err(_) => "another process".to_owned(),
            };
            return Err(Error::Locked { root: paths.root().to_owned(), holder });
        }
        patience -= 1;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let written =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(why) = written {
        // the pid in it is a courtesy to the next one who asks; on a full disk it may be missing
        tracing::debug!("cannot write {}: {why}", path.display());
    }
    Ok(file)
}

fn command_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .map(|name| format!(" ({})", name.trim_end()))
        .unwrap_or_default()
}

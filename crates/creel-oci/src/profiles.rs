//! System call filters that were compiled for earlier containers, by the text of the profile: callers hand in the same one
//! over and over, and reading and compiling it is a tenth of what a container costs.
//!
//! One file for each in `<root>/~profiles`, which is no id: the program's build id, the profile as it stood in the Spec with
//! its length before it, the filter. What is found under a name is only taken when all but the last are the same. A new build
//! compiles anew. The directory is as private as the containers' own; one that is not is left alone.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use creel_runtime::Compiled;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::store::open_dir;

const DIR: &str = "~profiles";
/// More than that many are not kept: who never uses a profile twice is not to fill a memory file system.
const MOST: usize = 64;
/// A longer one is not kept.
const MAX_PROFILE: usize = 1 << 20;

/// The filters below a root.
#[derive(Debug)]
pub(crate) struct Profiles {
    root: PathBuf,
}

impl Profiles {
    /// Those below a root, which need not exist.
    pub(crate) fn of(root: &Path) -> Profiles {
        Profiles { root: root.to_owned() }
    }

    /// The filter that this build has compiled from this text.
    pub(crate) fn find(&self, profile: &[u8]) -> Option<Compiled> {
        let build = creel_sys::build_id()?;
        let dir = self.open()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&dir, name(build, profile), flags, Mode::empty()).ok()?;
        let size = usize::try_from(rustix::fs::fstat(&file).ok()?.st_size).ok()?;
        let mut bytes = Vec::with_capacity(size.min(2 * MAX_PROFILE) + 1);
        while let 1.. = rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes)).ok()? {}
        let rest = bytes.strip_prefix(build)?.strip_prefix(&profile.len().to_ne_bytes())?;
        Compiled::from_bytes(rest.strip_prefix(profile)?.to_vec())
    }

    /// Keeps a filter. That it cannot be kept harms nobody.
    pub(crate) fn keep(&self, profile: &[u8], filter: &Compiled) {
        let Some(build) = creel_sys::build_id().filter(|_| profile.len() <= MAX_PROFILE) else { return };
        let _ = self.write(
            &name(build, profile),
            &[build, &profile.len().to_ne_bytes(), profile, filter.as_bytes()].concat(),
        );
    }

    fn write(&self, name: &str, bytes: &[u8]) -> rustix::io::Result<()> {
        match rustix::fs::mkdir(self.root.join(DIR), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        let dir = self.open().ok_or(Errno::PERM)?;
        let others: Vec<_> =
            Dir::read_from(&dir)?.flatten().map(|entry| entry.file_name().to_owned()).collect();
        if others.len() > MOST {
            for other in others {
                let _ = rustix::fs::unlinkat(&dir, other, AtFlags::empty());
            }
        }
        let temporary = format!("{name}.{}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let written = rustix::io::write(&file, bytes)?;
        if written < bytes.len() {
            rustix::fs::unlinkat(&dir, &temporary, AtFlags::empty())?;
            return Err(Errno::NOSPC);
        }
        rustix::fs::renameat(&dir, &temporary, &dir, name)
    }

    /// The directory, if it is this user's and nobody else can write into it.
    fn open(&self) -> Option<OwnedFd> {
        let dir = open_dir(rustix::fs::CWD, self.root.join(DIR)).ok()?;
        let stat = rustix::fs::fstat(&dir).ok()?;
        (stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0).then_some(dir)
    }
}

fn name(build: &[u8], profile: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    (build, profile).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

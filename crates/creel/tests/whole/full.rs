//! A full disk, at every step: the error says so, nothing half-made stays, the daemon starts on it, and the same command
//! succeeds once there is room.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::power::{archive, can_be_had, mount_bin, noise, unmount};
use crate::registry::{Registry, name};
use crate::support::{Daemon, can_run, path, scratch};

const DIR: &str = "CREEL_TEST_FULL_DIR";

/// What is in short supply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Short {
    /// So many KiB are free.
    Room(u64),
    /// So many files can be made.
    Files(u64),
}

struct Full {
    daemon: Daemon,
    registry: Registry,
    files: PathBuf,
    /// What was refused, and how often.
    refused: BTreeMap<&'static str, usize>,
    /// What there is when nothing is done.
    usual: Vec<Vec<String>>,
}

impl Full {
    fn filler(&self) -> PathBuf {
        self.daemon.root().join("filler")
    }

    /// Leaves only so much.
    fn fill(&self, short: Short) {
        let filler = self.filler();
        fs::create_dir(&filler).unwrap();
        let free = || rustix::fs::statvfs(&filler).unwrap();
        match short {
            Short::Room(room) => {
                let file = fs::File::create(filler.join("bytes")).unwrap();
                let mut size = (free().f_bavail * free().f_frsize).saturating_sub(room << 10).max(1);
                let flags = rustix::fs::FallocateFlags::empty();
                // the file system needs some for its own notes of it
                while rustix::fs::fallocate(&file, flags, 0, size).is_err() {
                    file.set_len(0).unwrap();
                    size -= 4096;
                }
            }
            Short::Files(files) => {
                for number in files..free().f_ffree {
                    fs::File::create(filler.join(number.to_string())).unwrap();
                }
            }
        }
    }

    /// Does `work` with so little left, and again with enough; `undo` takes away what it made.
    fn try_it(
        &mut self,
        what: &'static str,
        short: Short,
        work: impl Fn(&Daemon) -> Output,
        undo: impl Fn(&Daemon),
    ) {
        self.fill(short);
        let output = work(&self.daemon);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let refused = !output.status.success();
        if refused {
            let full = stderr.contains("no space left on the device; free some room there");
            assert!(full, "{what} with {short:?}: {stderr}");
            *self.refused.entry(what).or_default() += 1;
        }
        // it starts where nothing can be written, too
        let killed = matches!(short, Short::Room(room) | Short::Files(room) if room % 3 == 0);
        if killed {
            self.daemon.kill();
            self.daemon.spawn_beside(self.registry.pid());
        }
        self.daemon.ok(&["images"]);
        fs::remove_dir_all(self.filler()).unwrap();
        let verified = self.daemon.ok(&["image", "verify"]);
        assert!(verified.contains("all whole"), "{what} with {short:?}: {verified}\n{stderr}");
        if refused {
            let output = work(&self.daemon);
            let again = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{what} after {short:?}: {again}\nbefore: {stderr}");
        }
        undo(&self.daemon);
        self.daemon.ok(&["image", "prune", "-af"]);
        assert_eq!(self.daemon.stored(), self.usual, "{what} with {short:?} left something behind\n{stderr}");
    }
}

#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let files = dir.join("files");
    fs::create_dir(&files).unwrap();
    let home = tempfile::Builder::new().prefix("daemon-").tempdir_in(dir).unwrap();
    let root = home.path().join("root");
    fs::create_dir(&root).unwrap();
    let disk = files.join("disk");
    fs::File::create(&disk).unwrap().set_len(24 << 20).unwrap();
    let make = format!(
        "mkfs.ext4 -q -F -m 0 -b 1024 -N 400 -O ^has_journal {0} && mount -o loop {0} {1}",
        disk.display(),
        root.display()
    );
    assert!(Command::new("sh").args(["-c", &make]).status().unwrap().success());
    mount_bin(&root);
    let daemon = Daemon::start_in(home, &[]).unwrap();
    let registry = Registry::start(&daemon);

    // an image of two layers in the registry and in an archive; a container that can be committed
    let (image, base) = (name("app:1"), "base:1");
    daemon.ok(&["import", "-c", "CMD [\"/bin/true\"]", &archive(&files, 1), base]);
    daemon.ok(&["create", "--name", "made", base]);
    fs::write(files.join("more"), noise(51, 40_000)).unwrap();
    daemon.ok(&["cp", path(&files.join("more")), "made:/more"]);
    daemon.ok(&["commit", "made", &image]);
    daemon.ok(&["push", &image]);
    let saved = files.join("saved.tar");
    daemon.ok(&["save", "-o", path(&saved), &image]);
    daemon.ok(&["rmi", &image]);
    daemon.ok(&["image", "prune", "-af"]);
    let mut full = Full { daemon, registry, files, refused: BTreeMap::new(), usual: Vec::new() };
    full.usual = full.daemon.stored();
    let other = archive(&full.files, 2);
    let rooms = (0..=20).map(|step| Short::Room(step * 12)).chain((0..=24).step_by(2).map(Short::Files));
    for short in rooms {
        let rmi = |daemon: &Daemon| drop(daemon.ok(&["rmi", &image]));
        full.try_it("pull", short, |daemon| daemon.creel(&["pull", &image]), rmi);
        full.try_it("load", short, |daemon| daemon.creel(&["load", "-i", path(&saved)]), rmi);
        full.try_it("commit", short, |daemon| daemon.creel(&["commit", "made", &image]), rmi);
        full.try_it("import", short, |daemon| daemon.creel(&["import", &other, &image]), rmi);
        let rm = |daemon: &Daemon| drop(daemon.ok(&["rm", "second"]));
        full.try_it("create", short, |daemon| daemon.creel(&["create", "--name", "second", base]), rm);
    }
    for (what, refused) in &full.refused {
        eprintln!("{what}: refused {refused} times");
    }
    for what in ["pull", "load", "commit", "import"] {
        assert!(full.refused.get(what).is_some_and(|count| *count > 8), "{what} was refused too seldom");
    }
    let Full { mut daemon, registry, .. } = full;
    drop(registry);
    daemon.ok(&["rm", "made"]);
    daemon.terminate();
    unmount(&root.join("bin"));
    unmount(&root);
    // the parent tells this end from a test that was not run
    std::process::exit(42);
}

#[test]
fn a_disk_that_is_full_refuses_and_keeps_nothing_half() {
    if !can_run() || !can_be_had(false) {
        return;
    }
    let dir = scratch();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "full::child", "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(42), "{text}");
    eprint!("{text}");
}

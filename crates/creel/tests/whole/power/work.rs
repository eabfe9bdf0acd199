//! What the daemon does while the disk writes it down, and what must be there after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::registry::{Registry, name};
use crate::support::{Daemon, path};

use super::disk::{self, Disk, FileSystem, Played};

/// What a user sees of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Tags and the ids of their images.
    pub(crate) tags: BTreeMap<String, String>,
    /// The ids of all images.
    pub(crate) images: BTreeSet<String>,
    /// Names of containers and their ids.
    pub(crate) containers: BTreeMap<String, String>,
    /// How much lies in the quarantine.
    pub(crate) quarantined: usize,
    /// Whether the test has damaged a layer which nobody has put aside yet.
    pub(crate) damaged: bool,
}

/// Something that was asked of the daemon.
pub(crate) struct Step {
    pub(crate) what: String,
    /// The disk's events before it was asked, and before its answer had come.
    pub(crate) begin: usize,
    pub(crate) end: usize,
    /// What is there after it.
    pub(crate) after: State,
}

/// What was done, and what the disk has of it.
pub(crate) struct Work {
    pub(crate) first: State,
    pub(crate) steps: Vec<Step>,
    pub(crate) played: Played,
    /// An archive of images that can be loaded.
    pub(crate) archive: std::path::PathBuf,
}

struct Worker {
    daemon: Daemon,
    disk: Disk,
    begin: usize,
    steps: Vec<Step>,
    damaged: bool,
    rests: usize,
}

impl Worker {
    fn state(&self) -> State {
        let lines = |args: &[&str]| -> Vec<Vec<String>> {
            let text = self.daemon.ok(args);
            text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
        };
        let pairs = |lines: Vec<Vec<String>>| {
            let pairs = lines.into_iter().map(|mut line| (line.remove(0), line.remove(0)));
            pairs.filter(|(name, _)| !name.contains("<none>")).collect()
        };
        let format = "{{.Repository}}:{{.Tag}} {{.ID}}";
        let images = lines(&["images", "-a", "--no-trunc", "--format", format]);
        let containers = lines(&["ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}}"]);
        State {
            images: images.iter().map(|line| line[1].clone()).collect(),
            tags: pairs(images),
            containers: pairs(containers),
            quarantined: fs::read_dir(self.daemon.root().join("quarantine")).map_or(0, Iterator::count),
            damaged: self.damaged,
        }
    }

    fn note(&mut self, what: String, begin: usize, end: usize) {
        let after = self.state();
        self.steps.push(Step { what, begin: begin - self.begin, end: end - self.begin, after });
    }

    /// Has the daemon do something.
    fn step(&mut self, args: &[&str]) -> String {
        let begin = self.disk.now();
        let answer = self.daemon.ok(args);
        let end = self.disk.now();
        self.note(args.join(" "), begin, end);
        answer
    }

    /// Has the daemon do something of which it says that not all is well.
    fn fails(&mut self, args: &[&str]) {
        let begin = self.disk.now();
        self.daemon.fails(1, args);
        let end = self.disk.now();
        self.note(args.join(" "), begin, end);
    }

    /// Overwrites a file of the store.
    fn damage(&mut self, file: &Path, content: &[u8]) {
        let begin = self.disk.now();
        fs::write(file, content).unwrap();
        fs::File::open(file).unwrap().sync_all().unwrap();
        let end = self.disk.now();
        self.damaged = true;
        self.note("damage".to_owned(), begin, end);
    }

    /// Lets the daemon copy its log into the database. What it writes next goes over what was written before, so that
    /// no file becomes longer and, after the first time, a sync of the log syncs nothing but the log: neither a name
    /// nor a byte of anything else becomes durable by luck.
    fn rest(&mut self) {
        std::thread::sleep(Duration::from_millis(500));
        self.rests += 1;
        self.step(&["tag", &format!("kept:{}", self.rests % 2), "rest"]);
    }
}

/// Content that is different for each name and does not compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(next).collect()
}

/// A small root file system as an archive.
pub(crate) fn archive(dir: &Path, number: u64) -> String {
    let root = dir.join(format!("tree{number}"));
    fs::create_dir_all(root.join("etc/deep")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(root.join("etc/deep/number"), number.to_string()).unwrap();
    fs::write(root.join("large"), noise(number, 60_000 + 7000 * number as usize)).unwrap();
    fs::hard_link(root.join("large"), root.join("again")).unwrap();
    std::os::unix::fs::symlink("large", root.join("link")).unwrap();
    let tar = dir.join(format!("{number}.tar"));
    let status = Command::new("tar").arg("-C").arg(&root).args(["-cf", path(&tar), "."]).status().unwrap();
    assert!(status.success());
    path(&tar).to_owned()
}

/// The archives of an image's layers.
fn layer_blobs(daemon: &Daemon, image: &str) -> Vec<std::path::PathBuf> {
    let id = daemon.inspect(image, "{{.Id}}");
    let blobs = daemon.root().join("blobs/sha256");
    let documents = fs::read_dir(&blobs)
        .unwrap()
        .flatten()
        .filter_map(|blob| serde_json::from_slice::<serde_json::Value>(&fs::read(blob.path()).unwrap()).ok());
    let manifest =
        documents.into_iter().find(|document| document["config"]["digest"] == id.as_str()).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers.map(|layer| blobs.join(layer["digest"].as_str().unwrap().trim_start_matches("sha256:"))).collect()
}

/// The executable's copy is large and not what this is about: it lies in memory.
pub(crate) fn mount_bin(root: &Path) {
    let bin = root.join("bin");
    fs::create_dir_all(&bin).unwrap();
    rustix::mount::mount("bin", &bin, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
}

/// All that changes what is stored, one after the other.
pub(crate) fn do_it(kind: &FileSystem, dir: &Path) -> Work {
    let files = dir.join("files");
    fs::create_dir(&files).unwrap();
    let home = tempfile::Builder::new().prefix("daemon-").tempdir_in(dir).unwrap();
    let disk = Disk::mount(kind, home.path());
    mount_bin(&home.path().join("root"));
    let daemon = Daemon::start_in(home, &[]).unwrap();
    let registry = Registry::start(&daemon);
    let mut w = Worker { daemon, disk, begin: 0, steps: Vec::new(), damaged: false, rests: 0 };

    // what is there before: images of two layers in the registry, and nothing here
    let change = ["-c", "CMD [\"/bin/true\"]"];
    for number in [1, 2] {
        let (base, image) = (format!("base:{number}"), name(&format!("app:{number}")));
        w.daemon.ok(&["import", change[0], change[1], &archive(&files, number), &base]);
        w.daemon.ok(&["create", "--name", "made", &base]);
        fs::write(files.join("more"), noise(number + 50, 40_000)).unwrap();
        w.daemon.ok(&["cp", path(&files.join("more")), "made:/more"]);
        w.daemon.ok(&["commit", "made", &image]);
        w.daemon.ok(&["rm", "made"]);
        w.daemon.ok(&["push", &image]);
        w.daemon.ok(&["rmi", &image, &base]);
    }
    w.daemon.ok(&["image", "prune", "-af"]);
    // for `rest`: a log that is long enough for all that is to come
    for number in 0..40 {
        if number < 2 {
            w.daemon.ok(&[
                "import",
                change[0],
                change[1],
                &archive(&files, 10 + number),
                &format!("kept:{number}"),
            ]);
        }
        w.daemon.ok(&["tag", &format!("kept:{}", number % 2), "rest"]);
    }
    w.rest();
    w.steps.clear();
    w.begin = w.disk.now();
    let first = w.state();

    let (one, two) = (name("app:1"), name("app:2"));
    w.step(&["pull", "-q", &one]);
    w.rest();
    w.step(&["pull", "-q", &two]);
    w.step(&["tag", &one, "local:1"]);
    w.rest();
    w.step(&["tag", &two, "local:1"]);
    w.step(&["create", "--name", "user", &one]);
    let more = files.join("more");
    w.step(&["cp", path(&more), "user:/etc/more"]);
    w.rest();
    w.step(&["commit", "-c", "ENV a=b", "user", "committed:1"]);
    let saved = files.join("saved.tar");
    w.step(&["save", "-o", path(&saved), &one, "committed:1"]);
    w.step(&["rename", "user", "renamed"]);
    w.step(&["rmi", "-f", "committed:1"]);
    w.step(&["rm", "renamed"]);
    w.rest();
    w.step(&["rmi", &one]);
    w.step(&["load", "-q", "-i", path(&saved)]);
    let third = archive(&files, 3);
    w.rest();
    w.step(&["import", "-c", "WORKDIR /etc", &third, "imported:3"]);
    w.step(&["import", &archive(&files, 4), "imported:3"]);
    w.step(&["image", "prune", "-f"]);
    w.rest();

    // an archive is damaged, found and put aside, and comes with the next pull
    let upper = layer_blobs(&w.daemon, &two)[1].clone();
    let mut content = fs::read(&upper).unwrap();
    content[100] ^= 1;
    w.damage(&upper, &content);
    w.rest();
    w.fails(&["image", "verify", &two]);
    // not whole until then
    w.damaged = false;
    w.step(&["pull", "-q", &two]);

    // a layer is damaged, found, put aside and replaced
    let id = w.daemon.inspect(&two, "{{index .RootFS.Layers 0}}");
    let layer = w.daemon.root().join("layers").join(id.trim_start_matches("sha256:"));
    w.damage(&layer.join("fs/etc/passwd"), b"root:x:0:0:root:/root:/bin/no\n");
    w.rest();
    w.damaged = false;
    w.fails(&["image", "verify", &two]);

    // the same once more after a kill, with what it leaves
    w.daemon.kill();
    let begin = w.disk.now();
    w.daemon.spawn();
    let end = w.disk.now();
    w.note("start again".to_owned(), begin, end);
    w.step(&["rmi", "-f", "local:1", &two]);
    w.step(&["load", "-q", "-i", path(&saved)]);
    w.step(&["create", "--name", "last", "committed:1"]);
    w.rest();
    w.step(&["image", "prune", "-af"]);

    let Worker { mut daemon, disk, begin, steps, .. } = w;
    drop(registry);
    daemon.terminate();
    disk::unmount(&daemon.root().join("bin"));
    let played = disk.take(begin);
    Work { first, steps, played, archive: saved }
}

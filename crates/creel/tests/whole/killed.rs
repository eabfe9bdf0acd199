//! `kill -9` of the daemon at any moment of what it does with images: what was answered is there, what was not is there
//! whole or not at all, nothing half-made stays, and the same command succeeds afterwards.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::power::{archive, noise};
use crate::registry::{Registry, name};
use crate::support::{Daemon, path};

/// How often each command is cut off, at moments that are spread over the time that it takes.
const TIMES: u32 = 6;

struct Killing {
    daemon: Daemon,
    registry: Registry,
    image: String,
    /// What lies in the store when nothing is done.
    usual: Vec<Vec<String>>,
    answered: usize,
    cut: usize,
}

impl Killing {
    fn clean(&self) {
        self.daemon.creel(&["rmi", "-f", &self.image]);
        self.daemon.ok(&["image", "prune", "-af"]);
    }

    /// Cuts off a command that leads from `there` (the image is there before it) to the opposite.
    fn cut(&mut self, there: bool, args: &[&str], prepare: impl Fn(&Daemon)) {
        let what = args.join(" ");
        prepare(&self.daemon);
        let begun = Instant::now();
        self.daemon.ok(args);
        let took = begun.elapsed();
        for number in 0..TIMES {
            self.clean();
            prepare(&self.daemon);
            let mut command = self.daemon.command(args);
            let mut child =
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(
                took.as_micros() as u64 * u64::from(number) / u64::from(TIMES - 1),
            ));
            self.daemon.kill();
            let answered = child.wait().unwrap().success();
            *(if answered { &mut self.answered } else { &mut self.cut }) += 1;
            self.daemon.spawn_beside(self.registry.pid());
            let log = self.daemon.log();
            assert!(!log.contains("has no row") && !log.contains("is being rebuilt"), "{what}: {log}");
            let verified = self.daemon.ok(&["image", "verify"]);
            assert!(verified.contains("all whole"), "{what}: {verified}");
            assert_eq!(self.daemon.stored()[4], Vec::<String>::new(), "{what}: something is left in tmp");
            let is_there = self.daemon.creel(&["inspect", &self.image]).status.success();
            assert!(!answered || is_there != there, "{what} was answered, and it is not so");
            if is_there == there {
                self.daemon.ok(args);
            }
            let is_there = self.daemon.creel(&["inspect", &self.image]).status.success();
            assert_ne!(is_there, there, "{what}");
        }
        self.clean();
        assert_eq!(self.daemon.stored(), self.usual, "{what}");
    }
}

#[test]
fn a_daemon_killed_while_it_works_on_images_leaves_them_whole_or_not_at_all() {
    let Some(daemon) = Daemon::start() else { return };
    let registry = Registry::start(&daemon);
    let files = daemon.dir.path().join("files");
    fs::create_dir(&files).unwrap();
    let image = name("app:1");
    daemon.ok(&["import", "-c", "CMD [\"/bin/true\"]", &archive(&files, 1), "base:1"]);
    daemon.ok(&["create", "--name", "made", "base:1"]);
    fs::write(files.join("more"), noise(51, 3_000_000)).unwrap();
    daemon.ok(&["cp", path(&files.join("more")), "made:/more"]);
    daemon.ok(&["commit", "made", &image]);
    daemon.ok(&["push", &image]);
    let saved = files.join("saved.tar");
    let saved = path(&saved);
    daemon.ok(&["save", "-o", saved, &image]);
    daemon.ok(&["rmi", &image]);
    daemon.ok(&["image", "prune", "-af"]);
    let other = archive(&files, 40);
    let mut killing =
        Killing { daemon, registry, image: image.clone(), usual: Vec::new(), answered: 0, cut: 0 };
    killing.usual = killing.daemon.stored();
    killing.cut(false, &["pull", "-q", &image], |_| ());
    killing.cut(false, &["load", "-q", "-i", saved], |_| ());
    killing.cut(false, &["import", &other, &image], |_| ());
    killing.cut(false, &["commit", "made", &image], |_| ());
    killing.cut(false, &["tag", "base:1", &image], |daemon| {
        daemon.ok(&["import", &other, "base:1"]);
    });
    let load = |daemon: &Daemon| drop(daemon.ok(&["load", "-q", "-i", saved]));
    killing.cut(true, &["rmi", &image], load);
    killing.cut(true, &["image", "prune", "-af"], load);
    assert!(killing.cut > 10, "{} were cut off and {} answered", killing.cut, killing.answered);
    let Killing { daemon, registry, .. } = killing;
    daemon.ok(&["rm", "made"]);
    drop(registry);
    daemon.finish();
}

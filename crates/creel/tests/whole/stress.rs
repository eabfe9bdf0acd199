//! Everything that brings images in and takes them away at once, and what is there when it is over.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::registry::{Registry, name};
use crate::support::{Daemon, busybox_tar, path};

/// What a command may fail with while others take away what it needs, or need what it takes away.
const EXPECTED: &[&str] = &[
    "No such image",
    "No such container",
    "no such image",
    "not found",
    "conflict: ",
    "is being used",
    "does not exist locally",
    "reference does not exist",
    "is already in progress",
    "No such object",
];

struct Stress<'a> {
    daemon: &'a Daemon,
    stop: AtomicBool,
    done: AtomicUsize,
    failed: AtomicUsize,
}

impl Stress<'_> {
    fn run(&self, args: &[&str]) -> bool {
        let output = self.daemon.command(args).stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            self.done.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        let expected = EXPECTED.iter().any(|words| stderr.contains(words));
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(expected, "creel {args:?}: {}: {stderr}{stdout}", output.status);
        false
    }

    fn repeat(&self, work: impl Fn(usize)) {
        let mut round = 0;
        while !self.stop.load(Ordering::Relaxed) {
            work(round);
            round += 1;
        }
    }
}

fn names(directory: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// The directories of layers that images and containers in the lists name.
fn named_layers(daemon: &Daemon) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let images = daemon.ok(&["images", "-aq", "--no-trunc"]);
    for id in images.lines() {
        let dirs =
            daemon.inspect(id, "{{.GraphDriver.Data.UpperDir}}:{{index .GraphDriver.Data \"LowerDir\"}}");
        let layers = dirs.split(':').filter(|dir| dir.ends_with("/fs"));
        found.extend(layers.map(|dir| Path::new(dir).parent().unwrap().to_owned()));
    }
    found
}

#[test]
fn pulls_commits_loads_runs_and_prunes_at_once_leave_every_image_whole_and_nothing_else() {
    let Some(mut daemon) = Daemon::with_busybox() else { return };
    let registry = Registry::start(&daemon);
    let file = |name: &str| daemon.dir.path().join(name).to_str().unwrap().to_owned();
    // three images that share layers, in the registry; two of them in an archive as well
    for n in 0..3 {
        let name = name(&format!("app:{n}"));
        let base =
            if n == 0 { "busybox".to_owned() } else { crate::registry::name(&format!("app:{}", n - 1)) };
        daemon.ok(&[
            "run",
            "--name",
            "maker",
            &base,
            "sh",
            "-c",
            &format!("head -c 300000 /dev/urandom > /file{n}"),
        ]);
        daemon.ok(&["commit", "maker", &name]);
        daemon.ok(&["rm", "maker"]);
        daemon.ok(&["push", &name]);
    }
    let images: Vec<String> = (0..3).map(|n| name(&format!("app:{n}"))).collect();
    daemon.ok(&["save", "-o", &file("saved.tar"), &images[1], &images[2]]);
    daemon.ok(&["tag", "busybox", "kept:1"]);
    daemon.ok(&["create", "--name", "keeper", "kept:1"]);
    let stress = Stress {
        daemon: &daemon,
        stop: AtomicBool::new(false),
        done: AtomicUsize::new(0),
        failed: AtomicUsize::new(0),
    };
    let seconds = std::env::var("CREEL_TEST_STRESS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for worker in 0..2 {
            let (stress, images) = (&stress, &images);
            workers.push(scope.spawn(move || {
                stress.repeat(|round| {
                    stress.run(&["pull", "-q", &images[(round + worker) % 3]]);
                    stress.run(&["rmi", "-f", &images[(round * 2 + worker) % 3]]);
                })
            }));
        }
        workers.push(scope.spawn(|| {
            stress.repeat(|round| {
                let (container, image) = (format!("c{round}"), format!("made:{}", round % 3));
                if stress.run(&[
                    "run",
                    "--name",
                    &container,
                    "kept:1",
                    "sh",
                    "-c",
                    &format!("echo {round} > /x"),
                ]) {
                    stress.run(&["commit", &container, &image]);
                }
                stress.run(&["rm", "-f", &container]);
            })
        }));
        workers.push(scope.spawn(|| {
            stress.repeat(|round| {
                stress.run(&["import", path(busybox_tar()), &format!("imported:{}", round % 2)]);
                stress.run(&["load", "-q", "-i", &file("saved.tar")]);
            })
        }));
        workers.push(scope.spawn(|| {
            stress.repeat(|round| {
                stress.run(&["run", "--rm", &images[round % 3], "sh", "-c", "test -s /file0"]);
                stress.run(&["save", "-o", "/dev/null", &images[(round + 1) % 3]]);
            })
        }));
        workers.push(scope.spawn(|| {
            stress.repeat(|round| {
                stress.run(&["image", "prune", "-f"]);
                stress.run(&["system", "df"]);
                if round % 3 == 2 {
                    stress.run(&["image", "prune", "-af"]);
                    stress.run(&["image", "verify"]);
                }
            })
        }));
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(seconds)
            && workers.iter().all(|worker| !worker.is_finished())
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        stress.stop.store(true, Ordering::Relaxed);
    });
    let (done, failed) = (stress.done.load(Ordering::Relaxed), stress.failed.load(Ordering::Relaxed));
    println!("{done} commands succeeded, {failed} failed as they may");
    assert!(done > 20, "only {done} commands succeeded");

    let whole = |daemon: &Daemon, when: &str| {
        let output = daemon.creel(&["image", "verify"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{when}: {text}");
    };
    whole(&daemon, "after the stress");
    daemon.ok(&["image", "prune", "-f"]);
    assert_eq!(names(&daemon.root().join("layers")), named_layers(&daemon));
    assert_eq!(names(&daemon.root().join("tmp")), BTreeSet::new());
    // what a killed daemon leaves is the same
    daemon.kill();
    daemon.spawn();
    whole(&daemon, "after a kill");
    assert_eq!(names(&daemon.root().join("layers")), named_layers(&daemon));
    // every image in the list can be used
    for image in daemon.ok(&["images", "-q", "--no-trunc"]).lines().collect::<BTreeSet<_>>() {
        assert_eq!(daemon.ok(&["run", "--rm", image, "echo", "runs"]), "runs");
    }
    daemon.ok(&["rm", "keeper"]);
    daemon.ok(&["image", "prune", "-af"]);
    assert_eq!(daemon.ok(&["images", "-aq"]), "");
    for directory in ["layers", "blobs/sha256", "inits", "tmp", "partial", "containers", "quarantine"] {
        assert_eq!(names(&daemon.root().join(directory)), BTreeSet::new(), "{directory}");
    }
    drop(registry);
    daemon.finish();
}

//! Groups that somebody removes while they are empty, as systemd does where groups are v1's.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::Place;

/// Removes what is empty below a place's groups until it is dropped.
struct Trimmer<'a> {
    stop: &'a AtomicBool,
}

impl Drop for Trimmer<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// `pause` between two rounds over all hierarchies; tells how many groups were removed.
fn trim(place: &Place, ids: &[&str], pause: Duration, body: impl FnOnce()) -> u32 {
    let dirs: Vec<PathBuf> =
        place.hierarchies().iter().flat_map(|parent| ids.iter().map(move |id| parent.join(id))).collect();
    let (stop, removed) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for dir in &dirs {
                    removed.fetch_add(u32::from(fs::remove_dir(dir).is_ok()), Ordering::Relaxed);
                }
                std::thread::sleep(pause);
            }
        });
        let _trimmer = Trimmer { stop: &stop };
        body();
    });
    removed.into_inner()
}

/// How long it takes here, in the slowest hierarchy, to make a group that a process can join.
fn making(place: &Place) -> Duration {
    let make = |dir: &PathBuf| {
        fs::create_dir(dir).unwrap();
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let (Ok(above), Ok(_)) =
                (fs::read(dir.parent().unwrap().join(file)), fs::metadata(dir.join(file)))
            {
                // v2 needs none.
                let _ = fs::write(dir.join(file), above);
            }
        }
    };
    let mut longest = Duration::ZERO;
    for parent in place.hierarchies() {
        make(&parent);
        let timed = || {
            let (dir, begun) = (parent.join("timed"), Instant::now());
            make(&dir);
            let took = begun.elapsed();
            fs::remove_dir(&dir).unwrap();
            took
        };
        // The shortest of some: others are at work, too.
        longest = longest.max((0..5).map(|_| timed()).min().unwrap());
        fs::remove_dir(&parent).unwrap();
    }
    longest
}

fn is_in_its_groups(place: &Place, id: &str) {
    let pid = place.pid(id);
    let seen = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let places = place.hierarchies();
    let inside = |dir: &PathBuf| {
        let procs = fs::read_to_string(dir.join(id).join("cgroup.procs")).unwrap_or_default();
        procs.lines().any(|line| line == pid.to_string())
    };
    assert!(places.iter().all(inside), "{seen}");
    let limit = fs::read_to_string(place.cgroup_file(id, &["pids.max"])).unwrap();
    assert_eq!(limit, "77\n");
}

#[test]
fn a_group_that_is_removed_before_anybody_joins_is_made_again() {
    let Some(place) = Place::new() else { return };
    // The first is kept at its gate, so that there are always groups to look at; the other ones come and go.
    let bundle = |name: &str| {
        place.bundle(name, &["sleep", "1000"], |spec| {
            spec["linux"]["resources"]["pids"] = json!({ "limit": 77 });
        })
    };
    let (one, two) = (bundle("one"), bundle("two"));
    // An emulated machine is ten times slower.
    let rounds = if std::env::var_os("CREEL_TEST_SLOW").is_some() { 2 } else { 8 };
    // Without a pause in which a group can be made and filled it is luck who is faster.
    let (least, mut removed) = (making(&place) * 4, 0);
    for factor in [1, 4, 16] {
        let pause = (least * factor).max(Duration::from_micros(100));
        removed += trim(&place, &["one", "two"], pause, || {
            for _ in 0..rounds {
                place.create("one", &one);
                is_in_its_groups(&place, "one");
                place.quiet(&["run", "--detach", "--bundle", two.to_str().unwrap(), "two"]);
                is_in_its_groups(&place, "two");
                place.start("one");
                assert_eq!(place.status("one"), "running");
                for id in ["one", "two"] {
                    place.ok(&["delete", "--force", id]);
                }
            }
        });
    }
    // A good part of what the containers have left of groups at the end of each round.
    let ordinary = 2 * rounds * place.hierarchies().len() as u32;
    assert!(removed > ordinary / 8, "{removed} groups were removed");
    place.finish();
}

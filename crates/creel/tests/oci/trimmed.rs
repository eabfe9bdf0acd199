//! Groups that somebody removes while they are empty, as systemd does where groups are v1's.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

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
    let slow = std::env::var_os("CREEL_TEST_SLOW").is_some();
    let (rounds, factor) = if slow { (2, 20) } else { (8, 1) };
    // Without any pause it is luck who is faster.
    for pause in [Duration::from_micros(100), Duration::from_micros(500), Duration::from_millis(3)] {
        let pause = pause * factor;
        let removed = trim(&place, &["one", "two"], pause, || {
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
        // As many as are removed after each container, and then some.
        let ordinary = 2 * rounds * place.hierarchies().len() as u32;
        assert!(removed > ordinary / 8, "{removed} groups were removed");
    }
    place.finish();
}

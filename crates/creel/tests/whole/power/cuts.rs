//! The cuts: what the disk may hold after each, and what is asked of it then.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};

use creel_store::{Store, VerifyOptions};

use super::disk::{self, BLOCK, Event, FileSystem, Played};
use super::work::{State, Work, mount_bin};
use crate::support::{Daemon, path, scratch};

/// What is left of the writes that were not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    Everything,
    /// The first of them, by as many tenths.
    Beginning(u32),
    /// Any of them, by this seed.
    Some(u64),
}

/// One cut: how the disk is left, and what the daemon had said by then.
struct Cut {
    what: String,
    before: State,
    /// The state after the step that was in work, if there was one.
    after: Option<State>,
    /// Whether a daemon is to be started on it as well.
    thorough: bool,
    image: PathBuf,
}

impl Cut {
    fn may_be_damaged(&self) -> bool {
        self.before.damaged || self.after.as_ref().is_some_and(|after| after.damaged)
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

/// A write: where to, and what.
type Write = (u64, Vec<u8>);

/// The writes between two flushes, block by block.
fn blocks(writes: &[Write]) -> Vec<(u64, &[u8])> {
    let mut all = Vec::new();
    for write in writes {
        let (at, length) = (write.0, write.1.len());
        let mut done = 0;
        while done < length {
            let end = length.min(done + BLOCK - (at as usize + done) % BLOCK);
            all.push((at + done as u64, &write.1[done..end]));
            done = end;
        }
    }
    all
}

fn chosen<'a>(blocks: &[(u64, &'a [u8])], left: Left) -> Vec<(u64, &'a [u8])> {
    match left {
        Left::Nothing => Vec::new(),
        Left::Everything => blocks.to_vec(),
        Left::Beginning(tenths) => blocks[..blocks.len() * tenths as usize / 10].to_vec(),
        Left::Some(seed) => {
            let mut random = Random(seed);
            random.next();
            // sometimes few, sometimes most
            let share = 1 + random.next() % 9;
            blocks.iter().copied().filter(|_| random.next() % 10 < share).collect()
        }
    }
}

/// Which cuts are tried: each flush is one before which nothing of the newest is left, and the rest go to random ones.
fn plan(flushes: usize, most: usize) -> Vec<(usize, Left)> {
    let mut plan: Vec<_> = (0..flushes).map(|flush| (flush, Left::Nothing)).collect();
    let mut random = Random(flushes as u64);
    // fewer than there are flushes: spread over them
    while plan.len() > most.max(1) {
        plan.remove(random.next() as usize % plan.len());
    }
    while plan.len() < most {
        let left = match random.next() % 5 {
            0 => Left::Everything,
            1 => Left::Beginning(1 + random.next() as u32 % 9),
            _ => Left::Some(random.next()),
        };
        plan.push((random.next() as usize % flushes, left));
    }
    plan.sort_by_key(|(flush, _)| *flush);
    plan
}

/// What must be there after a cut before the event `at`, and what may be.
fn states(work: &Work, at: usize) -> (String, State, Option<State>) {
    let done = work.steps.iter().take_while(|step| step.end <= at).count();
    let before = done.checked_sub(1).map_or(&work.first, |last| &work.steps[last].after);
    match work.steps.get(done).filter(|step| step.begin < at) {
        Some(step) => (format!("in `{}`", step.what), before.clone(), Some(step.after.clone())),
        None => {
            let last = done.checked_sub(1).map_or("the beginning", |last| &work.steps[last].what);
            (format!("after `{last}`"), before.clone(), None)
        }
    }
}

/// Tries as many cuts as asked for.
pub(crate) fn check_all(kind: &FileSystem, dir: &Path, mut work: Work, most: usize) {
    let begun = std::time::Instant::now();
    let images = dir.join("images");
    fs::create_dir(&images).unwrap();
    rustix::mount::mount("images", &images, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let mut played = std::mem::replace(&mut work.played, Played::empty());
    let events = std::mem::take(&mut played.events);
    let total = events.len();
    // a flush with nothing before it changes nothing
    let mut epochs: Vec<(usize, Vec<Write>)> = Vec::new();
    let mut writes = Vec::new();
    for (at, event) in events.into_iter().enumerate() {
        match event {
            Event::Write(to, data) => writes.push((to, data)),
            Event::Flush if writes.is_empty() => {}
            Event::Flush => epochs.push((at, std::mem::take(&mut writes))),
        }
    }
    let plan = plan(epochs.len(), most);
    let failures = Mutex::new(Vec::<String>::new());
    let (sender, cuts) = sync_channel::<Cut>(1);
    let cuts = Mutex::new(cuts);
    std::thread::scope(|scope| {
        for worker in 0..if kind.alone { 1 } else { 2 } {
            let (cuts, failures, work) = (&cuts, &failures, &work);
            let at = dir.join(format!("cut{worker}"));
            scope.spawn(move || check_each(kind, &at, cuts, failures, &work.archive));
        }
        let mut planned = plan.iter().enumerate().peekable();
        for (number, (at, writes)) in epochs.iter().enumerate() {
            let blocks = blocks(writes);
            while let Some((index, (_, left))) = planned.next_if(|(_, (flush, _))| *flush == number) {
                let (what, before, after) = states(&work, *at);
                let image = images.join(format!("{index}"));
                played.lay_out(chosen(&blocks, *left).into_iter(), &image);
                let what =
                    format!("cut {index}, event {at}, {left:?} of {} blocks left, {what}", blocks.len());
                let thorough = index % 97 == 50;
                if failures.lock().unwrap().len() < 5 {
                    sender.send(Cut { what, before, after, thorough, image }).unwrap();
                }
            }
            for (to, data) in writes {
                played.write(*to, data);
            }
        }
        drop(sender);
    });
    let failures = failures.into_inner().unwrap();
    eprintln!(
        "{}: {} cuts at {} flushes of {total} events in {:?}",
        kind.name,
        plan.len(),
        epochs.len(),
        begun.elapsed()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    disk::unmount(&images);
}

fn check_each(
    kind: &FileSystem,
    at: &Path,
    cuts: &Mutex<Receiver<Cut>>,
    failures: &Mutex<Vec<String>>,
    archive: &Path,
) {
    fs::create_dir(at).unwrap();
    loop {
        let next = cuts.lock().unwrap().recv();
        let Ok(cut) = next else { return };
        let checked = std::panic::catch_unwind(|| check(kind, at, &cut, archive));
        let failed = match checked {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(panic) => Some(match panic.downcast::<String>() {
                Ok(text) => *text,
                Err(_) => "it panicked".to_owned(),
            }),
        };
        if let Some(why) = failed {
            failures.lock().unwrap().push(format!("{}: {why}", cut.what));
        }
        fs::remove_file(&cut.image).unwrap();
    }
}

fn check(kind: &FileSystem, at: &Path, cut: &Cut, archive: &Path) -> Result<(), String> {
    kind.mount(&cut.image, at)?;
    let checked = std::panic::catch_unwind(|| look(at, cut));
    disk::unmount(at);
    match checked {
        Ok(looked) => looked?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    if cut.thorough {
        kind.check(&cut.image)?;
        work_on(kind, cut, archive);
    }
    Ok(())
}

/// Opens the store and holds it against what the daemon had said.
fn look(root: &Path, cut: &Cut) -> Result<(), String> {
    let store = Store::open(root).map_err(|why| why.to_string())?;
    let opened = store.open_report();
    // What the test has damaged may be found by opening it, while it is being put aside.
    let mut wrong = if cut.may_be_damaged() { Vec::new() } else { opened.quarantined.clone() };
    if let Some(aside) = &opened.rebuilt_from {
        wrong.push(format!("the database was rebuilt from {}", aside.display()));
    }
    let after = cut.after.as_ref().unwrap_or(&cut.before);
    let report = store.verify(&VerifyOptions::default(), &mut |_| true).map_err(|why| why.to_string())?;
    if !report.is_whole() && !cut.may_be_damaged() {
        wrong.push(format!("not whole: {report:#?}"));
    }
    let view = store.view();
    let names = |directory: PathBuf| -> BTreeSet<String> {
        let entries = fs::read_dir(directory).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    };
    let mut same = |what: &str, rows: BTreeSet<String>, files: BTreeSet<String>| {
        if rows != files {
            wrong.push(format!("{what}: rows {rows:?}, files {files:?}"));
        }
    };
    let paths = store.paths();
    same("blobs", view.blobs().map(|(digest, _)| digest.hex()).collect(), names(paths.blobs()));
    same("layers", view.layers().map(|layer| layer.id.hex()).collect(), names(paths.layers()));
    same(
        "containers",
        view.snapshots().map(|snapshot| snapshot.id.to_string()).collect(),
        names(paths.containers()),
    );
    same("tmp", BTreeSet::new(), names(paths.tmp()));
    let records = store.records("container");
    same(
        "containers' records",
        records.iter().map(|record| record.id.clone()).collect(),
        view.snapshots().map(|snapshot| snapshot.id.to_string()).collect(),
    );
    let tags = view.images().flat_map(|image| {
        let id = image.id.to_string();
        image.references.iter().map(move |tag| (tag.familiar(), id.clone())).collect::<Vec<_>>()
    });
    compare("tag", &cut.before.tags, &after.tags, &tags.collect(), &mut wrong);
    let own = |ids: &BTreeSet<String>| ids.iter().map(|id| (id.clone(), ())).collect::<BTreeMap<_, _>>();
    let images = view.images().map(|image| (image.id.to_string(), ())).collect();
    compare("image", &own(&cut.before.images), &own(&after.images), &images, &mut wrong);
    let containers =
        records.iter().map(|record| (record.name.clone().unwrap_or_default(), record.id.clone())).collect();
    compare("container", &cut.before.containers, &after.containers, &containers, &mut wrong);
    let aside = names(paths.quarantine()).len();
    if aside != cut.before.quarantined && aside != after.quarantined {
        wrong.push(format!("{aside} things lie in the quarantine"));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n")),
    }
}

/// Each is as it was before the step that was in work, or as it is after it.
fn compare<T: Eq + Debug>(
    what: &str,
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
    found: &BTreeMap<String, T>,
    wrong: &mut Vec<String>,
) {
    let all: BTreeSet<_> = before.keys().chain(after.keys()).chain(found.keys()).collect();
    for name in all {
        let (before, after, found) = (before.get(name), after.get(name), found.get(name));
        if found != before && found != after {
            wrong.push(format!("{what} {name}: {found:?}, where it was {before:?} and becomes {after:?}"));
        }
    }
}

/// A daemon starts on it and goes on as if nothing had been.
fn work_on(kind: &FileSystem, cut: &Cut, archive: &Path) {
    let home = scratch();
    let root = home.path().join("root");
    fs::create_dir(&root).unwrap();
    kind.mount(&cut.image, &root).unwrap();
    mount_bin(&root);
    let mut daemon = Daemon::start_in(home, &[]).unwrap();
    if !cut.may_be_damaged() {
        daemon.ok(&["image", "verify"]);
    }
    daemon.ok(&["load", "-i", path(archive)]);
    daemon.ok(&["create", "--name", "new", "committed:1"]);
    for name in daemon.ok(&["ps", "-aq"]).lines() {
        daemon.ok(&["rm", name]);
    }
    daemon.ok(&["image", "prune", "-af"]);
    assert_eq!(daemon.ok(&["images", "-aq"]), "");
    for directory in ["layers", "blobs/sha256", "containers", "tmp"] {
        assert_eq!(fs::read_dir(root.join(directory)).unwrap().count(), 0, "{directory}");
    }
    daemon.terminate();
    disk::unmount(&root.join("bin"));
    disk::unmount(&root);
}

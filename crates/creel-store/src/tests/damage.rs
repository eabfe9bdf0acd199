//! Rows and files that were damaged from outside.

use rusqlite::Connection;

use super::*;

fn with_db(root: &Path, statements: &str) {
    Connection::open(root.join("creel.db")).unwrap().execute_batch(statements).unwrap();
}

/// A store with two images, a container and records.
fn furnished(root: &Path) -> (Arc<ImageRecord>, Arc<ImageRecord>) {
    let store = Store::open(root).unwrap();
    let one = pull(&store, &[tar(&[("a", b"one")])], &[reference("one")]).unwrap();
    let two = pull(&store, &[tar(&[("a", b"two")])], &[reference("two")]).unwrap();
    store.create_container(&container(1), &one, "container", Some("web"), b"{}").unwrap();
    std::fs::write(store.snapshot(&container(1)).unwrap().upper.join("mine"), b"work").unwrap();
    for number in 0..50 {
        store.put_record("volume", &format!("{number:02}"), None, &vec![b' '; 3000].repeat(1)).unwrap_err();
        let json = format!("{{\"pad\":\"{}\"}}", "x".repeat(3000));
        store
            .put_record("volume", &format!("{number:02}"), Some(&format!("v{number}")), json.as_bytes())
            .unwrap();
    }
    (one, two)
}

#[test]
fn one_bad_row_of_each_table_goes_to_the_quarantine() {
    let dir = scratch();
    let (one, two) = furnished(dir.path());
    with_db(
        dir.path(),
        &format!(
            "UPDATE records SET json = '{{broken' WHERE id = '07';
             INSERT INTO records VALUES ('volume', x'ff00', NULL, '{{}}'), ('volume', 'number', x'ff', '{{}}');
             INSERT INTO blobs VALUES ('sha256:nonsense', 5), ('{}', 5);
             INSERT INTO layers VALUES ('{}', '{{}}');
             INSERT INTO images VALUES ('{}', '{{\"manifest\":null,\"layers\":[],\"parent\":null}}');
             INSERT INTO refs VALUES ('docker.io/library/none:latest', '{}'), ('UPPER', '{}');
             INSERT INTO snapshots VALUES ('short', '{}', '');",
            no_digest(),
            no_digest(),
            no_digest(),
            no_digest(),
            one.id,
            one.id,
        ),
    );
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.open_report().quarantined.len(), 10, "{:#?}", store.open_report());
    assert_eq!(store.records("volume").len(), 49);
    assert_eq!(store.resolve_image("one").unwrap().id, one.id);
    assert_eq!(store.resolve_image("two").unwrap().id, two.id);
    store.put_record("volume", "07", Some("v7"), b"{}").unwrap();
    assert!(store.quarantine_record("volume", "08", "it lacks a driver").unwrap());
    assert_eq!(store.record_by_name("volume", "v8"), None);
    assert_whole(&store);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.open_report(), &OpenReport::default());
    drop(store);
    let c = Connection::open(dir.path().join("creel.db")).unwrap();
    let count: i64 = c.query_row("SELECT count(*) FROM quarantine", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 11);
    let data: String = c
        .query_row("SELECT CAST(data AS TEXT) FROM quarantine WHERE key = 'volume/07'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(data, "{broken");
}

#[test]
fn an_image_whose_files_are_gone_is_put_aside_and_can_be_pulled_again() {
    let dir = scratch();
    let (one, two) = furnished(dir.path());
    let store = Store::open(dir.path()).unwrap();
    let layer = store.paths().layer(&one.layers[0].layer);
    let config = store.paths().blob(&two.id);
    drop(store);
    std::fs::remove_dir_all(layer).unwrap();
    std::fs::write(&config, vec![b'x'; std::fs::metadata(&config).unwrap().len() as usize]).unwrap();
    let store = Store::open(dir.path()).unwrap();
    // what lacks a layer is refused; of what lacks its configuration nothing is known
    let lacking = store.resolve_image("one").unwrap();
    assert_eq!(store.view().lacks(&lacking), [Content::Layer(one.layers[0].layer)]);
    assert!(store.prepare_snapshot(&container(2), &lacking).is_err());
    assert!(store.resolve_image("two").is_err());
    // the container's own files are kept for people
    let mine = store.container_dir(&container(1)).join("upper/mine");
    assert_eq!(std::fs::read(&mine).unwrap(), b"work");
    let again = pull(&store, &[tar(&[("a", b"one")])], &[reference("one")]).unwrap();
    assert_eq!(again.id, one.id);
    drop(store);
    Store::open(dir.path()).unwrap();
    assert!(mine.exists());
}

#[test]
fn a_damaged_database_is_moved_aside_and_rebuilt() {
    let dir = scratch();
    let (one, two) = furnished(dir.path());
    let db = dir.path().join("creel.db");
    // nothing of it can be read: images come back from the disk, without tags
    std::fs::write(&db, noise(3, 100_000)).unwrap();
    let store = Store::open(dir.path()).unwrap();
    let aside = store.open_report().rebuilt_from.clone().unwrap();
    assert_eq!(std::fs::read(&aside).unwrap(), noise(3, 100_000));
    for image in [&one, &two] {
        let found = store.image(&image.id).unwrap();
        assert_eq!((&found.layers, &found.manifest), (&image.layers, &image.manifest));
    }
    assert_eq!(store.view().references().count(), 0);
    assert_eq!(std::fs::read(store.container_dir(&container(1)).join("upper/mine")).unwrap(), b"work");
    store.tag(&reference("one"), &one.id).unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.open_report(), &OpenReport::default());
    assert_eq!(store.resolve_image("one").unwrap().id, one.id);
    assert_eq!(std::fs::read(store.container_dir(&container(1)).join("upper/mine")).unwrap(), b"work");
}

#[test]
fn a_missing_database_is_made_anew_from_what_lies_there() {
    let dir = scratch();
    let (one, two) = furnished(dir.path());
    let db = dir.path().join("creel.db");
    for how in ["gone", "empty"] {
        for suffix in ["", "-wal"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", db.display()));
        }
        if how == "empty" {
            std::fs::write(&db, b"").unwrap();
        }
        let store = Store::open(dir.path()).unwrap();
        assert!(store.open_report().rebuilt_from.is_some(), "{how}");
        assert!(store.image(&one.id).is_some() && store.image(&two.id).is_some(), "{how}");
        assert_eq!(std::fs::read(store.container_dir(&container(1)).join("upper/mine")).unwrap(), b"work");
    }
}

const OPEN: &str = "CREEL_STORE_OPEN";

/// Opens a store and is killed meanwhile.
#[test]
fn opener() {
    if let Some(root) = std::env::var_os(OPEN) {
        Store::open(Path::new(&root)).unwrap();
    }
}

#[test]
fn a_rebuilding_that_is_killed_loses_nothing() {
    let steps = [
        "rebuild-before-rename",
        "rebuild-renamed",
        "rebuild-moving-aside:1",
        "rebuild-moving-aside:2",
        "rebuild-moving-aside:3",
        "rebuild-moving-aside:4",
    ];
    for step in steps {
        let dir = scratch();
        let (one, two) = furnished(dir.path());
        let db = dir.path().join("creel.db");
        let mut content = std::fs::read(&db).unwrap();
        content[..100].copy_from_slice(&noise(5, 100));
        std::fs::write(&db, &content).unwrap();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::damage::opener"])
            .env(OPEN, dir.path())
            .env("CREEL_STORE_KILL_AT", step)
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{step}");
        let store = Store::open(dir.path()).unwrap();
        for image in [&one, &two] {
            let found = store.image(&image.id).unwrap_or_else(|| panic!("{step}: an image is gone"));
            assert_eq!(found.layers, image.layers, "{step}");
        }
        let mine = store.container_dir(&container(1)).join("upper/mine");
        assert_eq!(std::fs::read(mine).unwrap(), b"work", "{step}");
        // what it was is kept as one piece
        let aside = store.open_report().rebuilt_from.clone().unwrap();
        assert_eq!(std::fs::read(aside).unwrap(), content, "{step}");
        let left = names(dir.path());
        assert!(!left.iter().any(|name| name == "creel.db.new" || name == "creel.db.rebuilt"), "{left:?}");
    }
}

#[test]
fn whatever_page_is_damaged_opening_succeeds_and_keeps_what_can_be_read() {
    let dir = scratch();
    let (one, _) = furnished(dir.path());
    let db = dir.path().join("creel.db");
    let whole = std::fs::read(&db).unwrap();
    let (mut rebuilt, mut volumes) = (0, 0);
    for page in 0..whole.len() / 4096 {
        let mut damaged = whole.clone();
        damaged[page * 4096..(page + 1) * 4096].copy_from_slice(&noise(page as u64, 4096));
        std::fs::write(&db, damaged).unwrap();
        let _ = std::fs::remove_file(dir.path().join("creel.db-wal"));
        let store = Store::open(dir.path()).unwrap();
        rebuilt += u32::from(store.open_report().rebuilt_from.is_some());
        assert!(store.image(&one.id).is_some(), "page {page}");
        assert!(store.container_dir(&container(1)).join("upper/mine").exists(), "page {page}");
        volumes = volumes.max(store.records("volume").len());
        store.put_record("after", "1", None, b"{}").unwrap();
    }
    assert!(rebuilt > 5, "only {rebuilt} damages were noticed");
    assert!(volumes > 20, "only {volumes} records were carried over at best");
}

#[test]
fn a_newer_schema_is_left_alone() {
    let dir = scratch();
    furnished(dir.path());
    with_db(dir.path(), "PRAGMA user_version = 99");
    let error = Store::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("schema version 99"), "{error}");
    with_db(dir.path(), "PRAGMA user_version = 1");
    Store::open(dir.path()).unwrap().resolve_image("one").unwrap();
}

//! System call filters that are kept from one container to the next: used when they are the same, and by nobody's leave
//! but root's.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::Place;

/// Refuses to make directories.
fn profile() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 92}],
    })
}

fn bundle(place: &Place, name: &str, profile: &Value) -> PathBuf {
    place.bundle(name, &["sh", "-c", "mkdir /tmp/here 2>&1 && echo made; true"], |spec| {
        spec["linux"]["seccomp"] = profile.clone();
        spec["mounts"].as_array_mut().unwrap().push(json!({"destination": "/tmp", "type": "tmpfs"}));
    })
}

fn run(place: &Place, id: &str, bundle: &Path) -> String {
    place.ok(&["run", "--bundle", bundle.to_str().unwrap(), id])
}

const REFUSED: &str = "mkdir: can't create directory '/tmp/here': Protocol not available";

fn kept(place: &Place) -> Vec<PathBuf> {
    fs::read_dir(place.profiles()).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Puts a filter that refuses nothing in the place of the one in the file.
fn disarm(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let text = serde_json::to_vec(&profile()).unwrap();
    let at = bytes.windows(text.len()).position(|part| part == text).unwrap() + text.len();
    // No flags, then "return SECCOMP_RET_ALLOW".
    bytes.splice(at.., [0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0xff, 0x7f]);
    fs::write(file, bytes).unwrap();
}

#[test]
fn the_same_profile_is_compiled_once() {
    let Some(place) = Place::new() else { return };
    let same = bundle(&place, "same", &profile());
    assert_eq!(run(&place, "first", &same), REFUSED);
    let files = kept(&place);
    let [file] = &files[..] else { panic!("{files:?}") };
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(place.profiles()).unwrap().permissions().mode() & 0o777, 0o700);
    // What is used is what is kept: the only way to see it from outside.
    disarm(file);
    assert_eq!(run(&place, "second", &same), "made");
    // A further process has it, too.
    let third = bundle(&place, "third", &profile());
    let text = fs::read_to_string(third.join("config.json")).unwrap();
    fs::write(third.join("config.json"), text.replace("mkdir /tmp/here", "sleep 1000")).unwrap();
    place.create("third", &third);
    place.start("third");
    assert_eq!(place.ok(&["exec", "third", "mkdir", "/tmp/x"]), "");
    place.ok(&["delete", "--force", "third"]);
    // Another profile is another filter, be it by a space.
    let other = bundle(&place, "other", &json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    assert_eq!(run(&place, "fourth", &other), "made");
    assert_eq!(kept(&place).len(), 2);
    let spaced =
        fs::read_to_string(same.join("config.json")).unwrap().replace("\"errnoRet\":", "\"errnoRet\": ");
    fs::write(same.join("config.json"), spaced).unwrap();
    assert_eq!(run(&place, "fifth", &same), REFUSED);
    // Who is strict about names has the profile read each time.
    let strict = place.bundle("strict", &["true"], |spec| {
        spec["linux"]["seccomp"] = profile();
        spec["annotations"] = json!({"run.oci.seccomp_fail_unknown_syscall": "1"});
    });
    run(&place, "sixth", &strict);
    place.finish();
}

#[test]
fn what_is_damaged_or_not_ours_is_not_used() {
    let Some(place) = Place::new() else { return };
    let same = bundle(&place, "same", &profile());
    run(&place, "first", &same);
    let file = kept(&place).remove(0);
    let whole = fs::read(&file).unwrap();
    disarm(&file);
    let disarmed = fs::read(&file).unwrap();
    // As if another build had written it.
    let mut other = disarmed.clone();
    other[0] ^= 1;
    for bytes in [&other[..], &whole[..whole.len() - 3], &whole[..10], b""] {
        fs::write(&file, bytes).unwrap();
        assert_eq!(run(&place, "again", &same), REFUSED);
        assert_eq!(fs::read(&file).unwrap(), whole, "it is written anew");
    }
    // A root that others may write to, and a link to somewhere else.
    fs::write(&file, &disarmed).unwrap();
    fs::set_permissions(place.profiles(), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(run(&place, "again", &same), REFUSED);
    fs::set_permissions(place.profiles(), fs::Permissions::from_mode(0o700)).unwrap();
    chown(place.profiles(), Some(65_534), None).unwrap();
    assert_eq!(run(&place, "again", &same), REFUSED);
    chown(place.profiles(), Some(0), None).unwrap();
    assert_eq!(run(&place, "again", &same), "made", "the file itself is in order");
    let moved = place.dir.path().join("moved");
    fs::rename(place.profiles(), &moved).unwrap();
    std::os::unix::fs::symlink(&moved, place.profiles()).unwrap();
    assert_eq!(run(&place, "again", &same), REFUSED);
    fs::remove_file(place.profiles()).unwrap();
    fs::create_dir(place.profiles()).unwrap();
    fs::set_permissions(place.profiles(), fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink(moved.join(file.file_name().unwrap()), &file).unwrap();
    assert_eq!(run(&place, "again", &same), REFUSED);
    place.finish();
}

#[test]
fn no_more_are_kept_than_a_few() {
    let Some(place) = Place::new() else { return };
    for number in 0..70 {
        let mut profile = profile();
        profile["syscalls"][0]["errnoRet"] = json!(number + 1);
        let bundle = place.bundle("one", &["true"], |spec| spec["linux"]["seccomp"] = profile);
        run(&place, "one", &bundle);
    }
    let many = kept(&place).len();
    assert!((1..70).contains(&many), "{many}");
    place.finish();
}

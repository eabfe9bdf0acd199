//! Layers on top of each other, as overlayfs shows them: whiteouts, missing parents, hard links into lower layers, and
//! the way back from an upper directory to a layer.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: an unwrap is an assertion")]

mod common;

use std::path::Path;

use common::{Tar, layer, root, scratch, shape, union};
use creel_layer::tar::{Entry, Kind};
use creel_layer::{UnpackOptions, changes, pack_diff, unpack};
use expect_test::{Expect, expect};

/// A lower layer that the others change.
fn lower() -> Tar {
    Tar::new()
        .special_dir("d")
        .file("d/old", "old")
        .special_dir("d/sub")
        .file("d/sub/deep", "deep")
        .file("f", "lower")
        .symlink("lib", "usr/lib")
        .dir("usr")
        .special_dir("usr/lib")
        .add(Entry { mode: 0o4755, uid: 5, size: 4, ..Entry::new("usr/tool", Kind::File) }, b"tool")
}

/// Unpacks `tar` over [`lower`], and shows its own directory and the union.
fn check(tar: Tar, composed: bool, own: &Expect, whole: &Expect) {
    let scratch = scratch();
    let (below, result) = layer(scratch.path(), "lower", lower(), &[]);
    let done = result.unwrap();
    assert!(!done.composed && !done.root_entry && done.entries == 9);
    let (upper, result) = layer(scratch.path(), "upper", tar, &[&below]);
    assert_eq!(result.unwrap().composed, composed);
    own.assert_eq(&shape(&upper));
    whole.assert_eq(&union(&[&upper, &below]));
}

#[test]
fn a_whiteout_hides_what_is_below_and_nothing_else() {
    if !root() {
        return;
    }
    let own = expect![[r#"
        . 40755 0:0
        d 40755 0:0 trusted.overlay.opaque=y
        d/new 100644 0:0 size 3 "new"
        f 100644 0:0 size 3 "new"
        usr 20000 0:0 dev 0:0
    "#]];
    let whole = expect![[r#"
        d drwxr-xr-x 0:0
        d/new -rw-r--r-- 0:0 new
        f -rw-r--r-- 0:0 new
        lib lrwxrwxrwx 0:0
    "#]];
    // In either order: a file, a directory, and what is in it.
    check(
        Tar::new()
            .file(".wh.f", "")
            .file("f", "new")
            .file(".wh.d", "")
            .dir("d")
            .file("d/new", "new")
            .file(".wh.usr", ""),
        false,
        &own,
        &whole,
    );
    check(
        Tar::new()
            .file("f", "new")
            .file(".wh.f", "")
            .dir("d")
            .file("d/new", "new")
            .file(".wh.d", "")
            .file(".wh.usr", ""),
        false,
        &own,
        &whole,
    );
}

#[test]
fn an_opaque_directory_hides_what_is_below_in_any_order() {
    if !root() {
        return;
    }
    let own = expect![[r#"
        . 40755 0:0
        d 40755 0:0 trusted.overlay.opaque=y
        d/new 100644 0:0 size 3 "new"
    "#]];
    let whole = expect![[r#"
        d drwxr-xr-x 0:0
        d/new -rw-r--r-- 0:0 new
        f -rw-r--r-- 0:0 lower
        lib lrwxrwxrwx 0:0
        usr drwxr-xr-x 0:0
        usr/lib drwx--x--T 11:12
        usr/tool -rwsr-xr-x 5:0 tool
    "#]];
    check(Tar::new().dir("d").file("d/.wh..wh..opq", "").file("d/new", "new"), false, &own, &whole);
    check(Tar::new().dir("d").file("d/new", "new").file("d/.wh..wh..opq", ""), false, &own, &whole);
}

#[test]
fn an_opaque_root_hides_everything() {
    if !root() {
        return;
    }
    check(
        Tar::new().dir("d").file("d/new", "new").file("f", "new").file(".wh..wh..opq", ""),
        true,
        &expect![[r#"
            . 40755 0:0
            d 40755 0:0 trusted.overlay.opaque=y
            d/new 100644 0:0 size 3 "new"
            f 100644 0:0 size 3 "new"
            lib 20000 0:0 dev 0:0
            usr 20000 0:0 dev 0:0
        "#]],
        &expect![[r#"
            d drwxr-xr-x 0:0
            d/new -rw-r--r-- 0:0 new
            f -rw-r--r-- 0:0 new
        "#]],
    );
}

#[test]
fn missing_parents_are_those_of_the_layers_below() {
    if !root() {
        return;
    }
    check(
        Tar::new().file("d/sub/new", "new").file("none/x", "x").file("d/.wh.old", ""),
        true,
        &expect![[r#"
            . 40755 0:0
            d 41710 11:12 user.kept=yes
            d/old 20000 0:0 dev 0:0
            d/sub 41710 11:12 user.kept=yes
            d/sub/new 100644 0:0 size 3 "new"
            none 40755 0:0
            none/x 100644 0:0 size 1 "x"
        "#]],
        &expect![[r#"
            d drwx--x--T 11:12
            d/sub drwx--x--T 11:12
            d/sub/deep -rw-r--r-- 0:0 deep
            d/sub/new -rw-r--r-- 0:0 new
            f -rw-r--r-- 0:0 lower
            lib lrwxrwxrwx 0:0
            none drwxr-xr-x 0:0
            none/x -rw-r--r-- 0:0 x
            usr drwxr-xr-x 0:0
            usr/lib drwx--x--T 11:12
            usr/tool -rwsr-xr-x 5:0 tool
        "#]],
    );
}

#[test]
fn a_link_below_is_followed_as_in_the_container() {
    if !root() {
        return;
    }
    check(
        Tar::new().file("lib/new", "new"),
        true,
        &expect![[r#"
        . 40755 0:0
        usr 40755 0:0
        usr/lib 41710 11:12 user.kept=yes
        usr/lib/new 100644 0:0 size 3 "new"
    "#]],
        &expect![[r#"
        d drwx--x--T 11:12
        d/old -rw-r--r-- 0:0 old
        d/sub drwx--x--T 11:12
        d/sub/deep -rw-r--r-- 0:0 deep
        f -rw-r--r-- 0:0 lower
        lib lrwxrwxrwx 0:0
        usr drwxr-xr-x 0:0
        usr/lib drwx--x--T 11:12
        usr/lib/new -rw-r--r-- 0:0 new
        usr/tool -rwsr-xr-x 5:0 tool
    "#]],
    );
}

#[test]
fn what_a_hidden_directory_lent_is_given_back() {
    if !root() {
        return;
    }
    // The parents come first, and turn out to be hidden.
    let own = expect![[r#"
        . 40755 0:0
        d 40755 0:0 trusted.overlay.opaque=y
        d/sub 40755 0:0
        d/sub/new 100644 0:0 size 3 "new"
    "#]];
    let whole = expect![[r#"
        d drwxr-xr-x 0:0
        d/sub drwxr-xr-x 0:0
        d/sub/new -rw-r--r-- 0:0 new
        f -rw-r--r-- 0:0 lower
        lib lrwxrwxrwx 0:0
        usr drwxr-xr-x 0:0
        usr/lib drwx--x--T 11:12
        usr/tool -rwsr-xr-x 5:0 tool
    "#]];
    check(Tar::new().file("d/sub/new", "new").file(".wh.d", ""), true, &own, &whole);
    let whole = expect![[r#"
        d drwxr-xr-x 0:0
        d/sub drwxr-xr-x 0:0
        d/sub/new -rw-r--r-- 0:0 new
        f -rw-r--r-- 0:0 lower
        lib lrwxrwxrwx 0:0
        usr drwxr-xr-x 0:0
        usr/lib drwx--x--T 11:12
        usr/tool -rwsr-xr-x 5:0 tool
    "#]];
    let own = expect![[r#"
        . 40755 0:0
        d 40755 0:0 trusted.overlay.opaque=y
        d/sub 40755 0:0
        d/sub/new 100644 0:0 size 3 "new"
    "#]];
    check(Tar::new().file(".wh.d", "").file("d/sub/new", "new"), false, &own, &whole);
}

#[test]
fn a_hard_link_brings_its_file_up() {
    if !root() {
        return;
    }
    check(
        Tar::new().link("alias", "usr/tool"),
        true,
        &expect![[r#"
        . 40755 0:0
        alias 104755 5:0 size 4 "tool"
        usr 40755 0:0
        usr/tool 104755 5:0 size 4 "tool" = alias
    "#]],
        &expect![[r#"
        alias -rwsr-xr-x 5:0 tool
        d drwx--x--T 11:12
        d/old -rw-r--r-- 0:0 old
        d/sub drwx--x--T 11:12
        d/sub/deep -rw-r--r-- 0:0 deep
        f -rw-r--r-- 0:0 lower
        lib lrwxrwxrwx 0:0
        usr drwxr-xr-x 0:0
        usr/lib drwx--x--T 11:12
        usr/tool -rwsr-xr-x 5:0 tool
    "#]],
    );
    check(
        Tar::new().link("alias", "usr/tool").file("usr/.wh.tool", ""),
        true,
        &expect![[r#"
            . 40755 0:0
            alias 104755 5:0 size 4 "tool"
            usr 40755 0:0
            usr/tool 20000 0:0 dev 0:0
        "#]],
        &expect![[r#"
            alias -rwsr-xr-x 5:0 tool
            d drwx--x--T 11:12
            d/old -rw-r--r-- 0:0 old
            d/sub drwx--x--T 11:12
            d/sub/deep -rw-r--r-- 0:0 deep
            f -rw-r--r-- 0:0 lower
            lib lrwxrwxrwx 0:0
            usr drwxr-xr-x 0:0
            usr/lib drwx--x--T 11:12
        "#]],
    );
    let scratch = scratch();
    let (below, _) = layer(scratch.path(), "lower", lower(), &[]);
    let (gone, _) = layer(scratch.path(), "gone", Tar::new().dir("usr").file("usr/.wh.tool", ""), &[&below]);
    let (_, result) = layer(scratch.path(), "top", Tar::new().link("alias", "usr/tool"), &[&gone, &below]);
    assert!(result.unwrap_err().to_string().contains("no such file"));
}

#[test]
fn a_directory_in_place_of_a_file_hides_what_is_below() {
    if !root() {
        return;
    }
    check(
        Tar::new().file("d", "file").dir("d").file("d/x", "x"),
        false,
        &expect![[r#"
        . 40755 0:0
        d 40755 0:0 trusted.overlay.opaque=y
        d/x 100644 0:0 size 1 "x"
    "#]],
        &expect![[r#"
        d drwxr-xr-x 0:0
        d/x -rw-r--r-- 0:0 x
        f -rw-r--r-- 0:0 lower
        lib lrwxrwxrwx 0:0
        usr drwxr-xr-x 0:0
        usr/lib drwx--x--T 11:12
        usr/tool -rwsr-xr-x 5:0 tool
    "#]],
    );
}

/// An upper directory made by overlayfs itself, turned into a layer, unpacked, and shown over the same lower layer.
#[test]
fn an_upper_directory_becomes_a_layer_and_comes_back() {
    if !root() {
        return;
    }
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let (below, _) = layer(scratch.path(), "lower", lower(), &[]);
    for dir in ["upper", "work", "merged", "again"] {
        std::fs::create_dir(at(dir)).unwrap();
    }
    let script = r#"
        mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3,redirect_dir=off,metacopy=off,index=off" "$4"; cd "$4"
        rm -r d/sub; mkdir d/sub; echo new > d/sub/new       # opaque
        rm f; echo other > usr/tool; ln usr/tool usr/alias
        mkfifo pipe; chmod 700 usr/lib; touch -r d/old stamp; rm d/old
        mkdir added; echo x > added/x; echo y > .wh.strange
        truncate -s 3M hole; chmod 711 .
        chown -h 0:0 lib                                      # copied up and as it was
    "#;
    let output = std::process::Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-ec", script, "sh"])
        .args([&below, &at("upper"), &at("work"), &at("merged")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::os::unix::net::UnixListener::bind(at("upper/socket")).unwrap();

    let listed: Vec<_> = changes(&at("upper"), std::slice::from_ref(&below)).unwrap();
    let text: String = listed.iter().map(|c| format!("{} {}\n", c.kind.letter(), c.path.display())).collect();
    expect![[r#"
        A /.wh.strange
        A /added
        A /added/x
        C /d
        D /d/old
        C /d/sub
        D /d/sub/deep
        A /d/sub/new
        D /f
        A /hole
        A /pipe
        A /socket
        A /stamp
        C /usr
        A /usr/alias
        C /usr/lib
        C /usr/tool
    "#]]
    .assert_eq(&text);

    let pack = || {
        let mut archive = Vec::new();
        let packed = pack_diff(&at("upper"), std::slice::from_ref(&below), &mut archive).unwrap();
        (archive, packed)
    };
    let (archive, packed) = pack();
    assert_eq!(pack().0, archive);
    assert_eq!(
        packed.skipped,
        [
            ".wh.strange: names that begin with `.wh.` mean deletion in a layer",
            "socket: a socket cannot be archived"
        ]
    );
    let mut reader = creel_layer::tar::Reader::new(&archive[..]);
    let mut names = String::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names += &format!("{} ", String::from_utf8_lossy(&entry.name));
    }
    expect!["./ added/ added/x d/ d/.wh.old d/sub/ d/sub/.wh..wh..opq d/sub/new .wh.f hole lib pipe stamp usr/ usr/alias usr/lib/ usr/tool "].assert_eq(&names);

    std::fs::remove_file(at("upper/socket")).unwrap();
    std::fs::remove_file(at("upper/.wh.strange")).unwrap();
    let options = UnpackOptions { parents: vec![below.clone()], ..Default::default() };
    let done = unpack(&archive[..], &at("again"), &options).unwrap();
    assert!(!done.composed && done.root_entry);
    assert_eq!(union(&[&at("again"), &below]), union(&[&at("upper"), &below]));
    let lines = |name: &str| -> Vec<_> {
        let lines = common::describe(&at(name), true).into_iter().skip(1);
        lines.map(|(name, line)| (name, strip_overlay(&line))).collect()
    };
    assert_eq!(lines("again"), lines("upper"));
}

/// An upper directory's line without what a layer has not: overlayfs's book-keeping, and its whiteouts' times and
/// links (it makes one device and links it everywhere).
fn strip_overlay(line: &str) -> String {
    if line.ends_with("dev 0:0") || line.contains("dev 0:0 = ") {
        return "whiteout".to_owned();
    }
    line.split(' ')
        .filter(|word| !word.starts_with("trusted.overlay.") || *word == "trusted.overlay.opaque=y")
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn what_is_copied_up_unchanged_is_no_change() {
    if !root() {
        return;
    }
    let scratch = scratch();
    let (below, _) = layer(scratch.path(), "lower", lower(), &[]);
    let upper = scratch.path().join("upper");
    let status = std::process::Command::new("cp")
        .args(["-a", below.to_str().unwrap(), upper.to_str().unwrap()])
        .status();
    assert!(status.unwrap().success());
    assert_eq!(changes(&upper, std::slice::from_ref(&below)).unwrap(), []);
    assert!(changes(&upper, &[Path::new("/nonexistent").to_path_buf()]).is_err());
}

//! Entries that would lead out of the tree, or speak a language that they must not.

use creel_layer::tar::{Entry, Kind, Segment};

use super::Outcome::Refused;
use super::{Corpus, Made};
use crate::common::Tar;

fn tar() -> Tar {
    Tar::new()
}

pub fn climbing_out_by_name(c: &mut Corpus) {
    c.case("..", tar().file("../outside/x", "x").bytes(), Refused("leads out of the root"));
    c.case(
        ".. in the middle",
        tar().file("a/../../outside/x", "x").bytes(),
        Refused("leads out of the root"),
    );
    c.case(".. as directory", tar().dir("..").bytes(), Refused("leads out of the root"));
    c.case(".. as whiteout", tar().file("../.wh.outside", "").bytes(), Refused("leads out of the root"));
    c.case("whiteout of ..", tar().file(".wh...", "").bytes(), Refused("nothing that can be deleted"));
    c.case("opaque ..", tar().file("../.wh..wh..opq", "").bytes(), Refused("leads out of the root"));
    c.case(
        "absolute",
        tar().file("/etc/x", "x").bytes(),
        Made("etc 40755 0:0\n etc/x 100644 0:0 size 1 \"x\""),
    );
    c.case("inner ..", tar().file("a/../b", "x").bytes(), Made("b 100644 0:0 size 1 \"x\""));
    let long = "../".repeat(60) + "outside/x";
    c.case("pax path", tar().file(&long, "x").bytes(), Refused("leads out of the root"));
    c.case("name too long", tar().file(&"n".repeat(256), "x").bytes(), Refused("longer than 255"));
    c.case("path too long", tar().file(&"n/".repeat(2100), "x").bytes(), Refused("longer than 4095"));
}

pub fn climbing_out_through_links(c: &mut Corpus) {
    let up = "../outside/dir";
    c.case(
        "relative link",
        tar().symlink("l", up).file("l/x", "x").bytes(),
        // Followed inside of the root, where that path is made.
        Made(
            "l 120777 0:0 -> ../outside/dir\n outside 40755 0:0\n outside/dir 40755 0:0\n outside/dir/x 100644 0:0 size 1 \"x\"",
        ),
    );
    c.case(
        "absolute link",
        tar().symlink("l", "/var/tmp").file("l/creel-was-here", "x").bytes(),
        Made(
            "l 120777 0:0 -> /var/tmp\n var 40755 0:0\n var/tmp 40755 0:0\n var/tmp/creel-was-here 100644 0:0 size 1 \"x\"",
        ),
    );
    c.case(
        "link in the middle, and `..` behind it",
        tar().dir("a").symlink("a/l", "../../..").file("a/l/outside/x", "x").bytes(),
        Made(
            "a 40755 0:0\n a/l 120777 0:0 -> ../../..\n outside 40755 0:0\n outside/x 100644 0:0 size 1 \"x\"",
        ),
    );
    c.case(
        "whiteout through a link",
        tar().symlink("l", up).file("l/.wh.sentinel", "").bytes(),
        Made(
            "l 120777 0:0 -> ../outside/dir\n outside 40755 0:0\n outside/dir 40755 0:0\n outside/dir/sentinel 20000 0:0 dev 0:0",
        ),
    );
    c.case(
        "opaque marker through a link",
        tar().symlink("l", up).file("l/.wh..wh..opq", "").bytes(),
        Made(
            "l 120777 0:0 -> ../outside/dir\n outside 40755 0:0\n outside/dir 40755 0:0 trusted.overlay.opaque=y",
        ),
    );
    c.case(
        "file over a link replaces the link",
        tar().symlink("l", "../outside/dir/sentinel").file("l", "mine").bytes(),
        Made("l 100644 0:0 size 4 \"mine\""),
    );
    c.case(
        "directory over a link replaces the link",
        tar().symlink("l", up).dir("l").file("l/x", "x").bytes(),
        Made("l 40755 0:0 trusted.overlay.opaque=y\n l/x 100644 0:0 size 1 \"x\""),
    );
    c.case(
        "link loop",
        tar().symlink("a", "b").symlink("b", "a").file("a/x", "x").bytes(),
        Refused("find its directory"),
    );
    c.case(
        "link to itself",
        tar().symlink("a", "a/b").file("a/x", "x").bytes(),
        Refused("find its directory"),
    );
    c.case(
        "magic link",
        tar().symlink("p", "/proc/self/root").file("p/x", "x").bytes(),
        Made(
            "p 120777 0:0 -> /proc/self/root\n proc 40755 0:0\n proc/self 40755 0:0\n proc/self/root 40755 0:0\n proc/self/root/x 100644 0:0 size 1 \"x\"",
        ),
    );
    // The directory's time is set at the end, when a link stands in its place.
    c.case(
        "directory, then a link in its place",
        tar().dir("d").dir("d/dir").symlink("d", "../outside").bytes(),
        Made("d 120777 0:0 -> ../outside"),
    );
    c.case(
        "remembered directory, then a link in its place",
        tar().dir("d").file("d/x", "x").symlink("d", "../outside").file("d/sentinel", "y").bytes(),
        Made("d 120777 0:0 -> ../outside\n outside 40755 0:0\n outside/sentinel 100644 0:0 size 1 \"y\""),
    );
}

pub fn hard_links(c: &mut Corpus) {
    let missing = "no such file";
    c.case(
        "outside by ..",
        tar().link("l", "../outside/dir/sentinel").bytes(),
        Refused("outside of the root"),
    );
    c.case("outside by name", tar().link("l", "/etc/passwd").bytes(), Refused(missing));
    c.case(
        "through a link",
        tar().symlink("s", "../outside/dir").link("l", "s/sentinel").bytes(),
        Refused(missing),
    );
    c.case(
        "to a link",
        tar().symlink("s", "../outside/dir/sentinel").link("l", "s").bytes(),
        Made("l 120777 0:0 -> ../outside/dir/sentinel\n s 120777 0:0 -> ../outside/dir/sentinel = l"),
    );
    c.case("to a directory", tar().dir("d").link("l", "d").bytes(), Refused("is a directory"));
    c.case("to the root", tar().link("l", "/").bytes(), Refused("is a directory"));
    c.case("to nothing", tar().link("l", "none").bytes(), Refused(missing));
    c.case("to itself", tar().link("l", "l").bytes(), Refused(missing));
    c.case(
        "to itself, there",
        tar().file("l", "x").link("l", "l").bytes(),
        Made("l 100644 0:0 size 1 \"x\""),
    );
    c.case(
        "to a deleted name",
        tar().file(".wh.x", "").link("l", "x").bytes(),
        Refused("deleted by the same layer"),
    );
    c.case(
        "to a whiteout by its name",
        tar().file(".wh.x", "").link("l", ".wh.x").bytes(),
        Refused("whiteout"),
    );
    c.case(
        "then written through",
        tar().file("a", "first").link("b", "a").file("b", "second").bytes(),
        Made("a 100644 0:0 size 5 \"first\"\n b 100644 0:0 size 6 \"second\""),
    );
    c.case(
        "over a directory that has its target",
        tar().dir("d").file("d/x", "x").link("d", "d/x").bytes(),
        Refused("create"),
    );
}

pub fn overlay_language(c: &mut Corpus) {
    c.case("0:0 device", tar().kind("etc", Kind::CharDevice(0, 0)).bytes(), Refused("overlayfs's own mark"));
    c.case("0:0 by overflow", tar().kind("etc", Kind::CharDevice(1 << 12, 0)).bytes(), Refused("no device"));
    c.case(
        "0:0 by overflow of minor",
        tar().kind("etc", Kind::CharDevice(0, 1 << 20)).bytes(),
        Refused("no device"),
    );
    let mut entry = Entry::new("d", Kind::Directory);
    for key in
        ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "trusted.x", "user.ok"]
    {
        entry.xattrs.push((key.as_bytes().to_vec(), b"y".to_vec()));
    }
    c.case("attributes", tar().add(entry, b"").bytes(), Made("d 40755 0:0 user.ok=y"));
    c.case("file below a whiteout's name", tar().file(".wh.d/x", "x").bytes(), Refused("reserved"));
    c.case("whiteout of nothing", tar().file(".wh.", "").bytes(), Refused("nothing that can be deleted"));
    c.case("aufs's own", tar().file(".wh..wh.plnk/12.34", "x").file(".wh..wh.aufs", "").bytes(), Made(""));
}

pub fn kinds_and_doubles(c: &mut Corpus) {
    c.case(
        "fifo, then a file of its name",
        tar().kind("f", Kind::Fifo).file("f", "x").bytes(),
        Made("f 100644 0:0 size 1 \"x\""),
    );
    c.case(
        "file, then a fifo of its name",
        tar().file("f", "x").kind("f", Kind::Fifo).bytes(),
        Made("f 10644 0:0"),
    );
    c.case(
        "fifo as parent",
        tar().kind("f", Kind::Fifo).file("f/x", "x").bytes(),
        Refused("`f` is not a directory"),
    );
    c.case("file as parent", tar().file("f", "").file("f/x", "x").bytes(), Refused("`f` is not a directory"));
    c.case(
        "file twice",
        tar().file("f", "one").file("./f", "other").bytes(),
        Made("f 100644 0:0 size 5 \"other\""),
    );
    c.case(
        "directory twice keeps what is in it",
        tar().special_dir("d").file("d/x", "x").dir("d/").bytes(),
        Made("d 40755 0:0\n d/x 100644 0:0 size 1 \"x\""),
    );
    c.case(
        "directory, then a file",
        tar().dir("d").file("d/x", "x").file("d", "f").bytes(),
        Made("d 100644 0:0 size 1 \"f\""),
    );
    c.case("root as a file", tar().file("./", "x").bytes(), Refused("the root can be a directory only"));
    c.case("root as a link", tar().symlink(".", "/etc").bytes(), Refused("the root can be a directory only"));
    c.case("empty name", tar().file("", "x").bytes(), Refused("the root can be a directory only"));
    c.case("empty link", tar().symlink("l", "").bytes(), Refused("create"));
    let owned = Entry { uid: 1 << 32, ..Entry::new("f", Kind::File) };
    c.case("uid beyond 32 bits", tar().add(owned, b"").bytes(), Refused("not an id"));
    let owned = Entry { gid: u64::from(u32::MAX), ..Entry::new("f", Kind::File) };
    c.case("gid -1", tar().add(owned, b"").bytes(), Refused("not an id"));
}

pub fn huge_and_cut(c: &mut Corpus) {
    let sparse = |size: u64, offset| {
        let sparse = Some(vec![Segment { offset, length: 1 }]);
        tar().add(Entry { size, sparse, ..Entry::new("s", Kind::File) }, b"x").bytes()
    };
    c.case("2^62 of hole", sparse(1 << 62, (1 << 62) - 1), Refused("set the file's length"));
    c.case("1 TiB of hole", sparse(1 << 40, 1 << 39), Made("s 100644 0:0 size 1099511627776 sparse"));
    c.case("sparse beyond its end", sparse(10, 10), Refused("beyond the end"));
    let many = Some(vec![Segment { offset: 5, length: 3 }, Segment { offset: 2, length: 1 }]);
    let entry = Entry { size: 20, sparse: many, ..Entry::new("s", Kind::File) };
    c.case("sparse backwards", tar().add(entry, b"abcd").bytes(), Refused("overlap"));
    let whole = tar().file("f", &"x".repeat(3000)).bytes();
    c.case("cut in a file", whole[..2000].to_vec(), Refused("truncated"));
    c.case("cut in a header", whole[..300].to_vec(), Refused("truncated"));
    c.case("no archive", b"<html>not found</html>".repeat(100), Refused("wrong checksum"));
    let mut claims = tar().file("f", "").bytes();
    claims[124..136].copy_from_slice(b"77777777777\0");
    let sum: u32 = claims[..512]
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
        .sum();
    claims[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    c.case("8 GiB announced, none there", claims, Refused("truncated"));
}

//! Streams that say one thing to one reader and another to the next, that are larger than they look, or that are cut.

use std::io::Write;

use creel_layer::Limits;
use creel_layer::tar::{Entry, Kind, Segment};

use super::Outcome::Refused;
use super::{Corpus, Made};
use crate::common::{Tar, special};

fn tar() -> Tar {
    Tar::new()
}

/// A header made by hand, for what no well-behaved writer makes. `magic` tells ustar from GNU's own format.
fn header(flag: u8, name: &str, size: &[u8], magic: &[u8; 8]) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    for (at, number) in [(100, "0000644"), (108, "0000000"), (116, "0000000"), (136, "00000000000")] {
        block[at..at + number.len()].copy_from_slice(number.as_bytes());
    }
    block[124..124 + size.len()].copy_from_slice(size);
    block[156] = flag;
    block[257..265].copy_from_slice(magic);
    seal(&mut block);
    block
}

const USTAR: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";

fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn octal(number: usize) -> Vec<u8> {
    format!("{number:011o}").into_bytes()
}

/// Data filled up to whole blocks.
fn blocks(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

/// An extended header of type `flag` (`x`, `g`, `L`, `K`) with this data.
fn extended(flag: u8, data: &[u8]) -> Vec<u8> {
    [&header(flag, "extended", &octal(data.len()), USTAR)[..], &blocks(data)].concat()
}

/// Records of a pax header.
fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        data.extend(format!("{length} {key}=").bytes());
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    data
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    [&header(b'0', name, &octal(data.len()), USTAR)[..], &blocks(data)].concat()
}

fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    [&parts.concat()[..], &[0; 1024]].concat()
}

/// What one reader takes for a file's data is another's next entry. Read as Go's `archive/tar` reads it, which made and
/// checked nearly all layers.
pub fn smuggling(c: &mut Corpus) {
    let hidden = file("evil", b"x");
    let data = "size 1024 sum ";
    let sum = hidden.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    c.case(
        "pax size hides an entry that the header's size shows",
        archive(&[
            extended(b'x', &pax(&[("size", b"1024")])),
            header(b'0', "f", &octal(0), USTAR).to_vec(),
            hidden.clone(),
        ]),
        Made(format!("f 100644 0:0 {data}{sum:x}")),
    );
    c.case(
        "pax size shows an entry that the header's size hides",
        archive(&[
            extended(b'x', &pax(&[("size", b"0")])),
            header(b'0', "f", &octal(1024), USTAR).to_vec(),
            file("shown", b"x"),
        ]),
        Made("f 100644 0:0 size 0 \"\"\nshown 100644 0:0 size 1 \"x\""),
    );
    let mut directory = header(b'5', "d", &octal(1024), USTAR);
    directory[100..107].copy_from_slice(b"0000755");
    seal(&mut directory);
    c.case(
        "a directory's size hides nothing",
        archive(&[directory.to_vec(), file("d/shown", b"x")]),
        Made("d 40755 0:0\nd/shown 100644 0:0 size 1 \"x\""),
    );
    let mut link = header(b'1', "l", &octal(1024), USTAR);
    link[157] = b'f';
    seal(&mut link);
    c.case(
        "a hard link's size hides nothing",
        archive(&[file("f", b"x"), link.to_vec(), file("shown", b"x")]),
        Made("f 100644 0:0 size 1 \"x\"\nl 100644 0:0 size 1 \"x\" = f\nshown 100644 0:0 size 1 \"x\""),
    );
    for (what, size) in
        [("negative", &b"-1"[..]), ("beyond 64 bits", b"99999999999999999999"), ("hexadecimal", b"0x200")]
    {
        c.case(
            &format!("pax size is {what}"),
            archive(&[extended(b'x', &pax(&[("size", size)])), file("f", b"x")]),
            Refused("pax header"),
        );
    }
    c.case(
        "size is negative in base 256",
        archive(&[header(b'0', "f", &[0xff; 12], GNU).to_vec()]),
        Refused("malformed"),
    );
    c.case(
        "size is 8 EiB in base 256",
        archive(&[header(b'0', "f", &[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0], GNU).to_vec()]),
        Refused("malformed"),
    );
    let up = b"../outside/x";
    c.case(
        "pax path leads out of an innocent name",
        archive(&[extended(b'x', &pax(&[("path", up)])), file("f", b"x")]),
        Refused("leads out of the root"),
    );
    c.case(
        "GNU name leads out of an innocent name",
        archive(&[extended(b'L', b"../outside/x\0"), file("f", b"x")]),
        Refused("leads out of the root"),
    );
    c.case(
        "GNU name and pax path: pax wins",
        archive(&[extended(b'L', up), extended(b'x', &pax(&[("path", b"mine")])), file("f", b"x")]),
        Made("mine 100644 0:0 size 1 \"x\""),
    );
    c.case(
        "two paths in one header: the last wins",
        archive(&[extended(b'x', &pax(&[("path", b"a"), ("path", up)])), file("f", b"x")]),
        Refused("leads out of the root"),
    );
    c.case(
        "two pax headers: the second stands alone",
        archive(&[
            extended(b'x', &pax(&[("path", up)])),
            extended(b'x', &pax(&[("mtime", b"1")])),
            file("f", b"x"),
        ]),
        Made("f 100644 0:0 size 1 \"x\""),
    );
    c.case(
        "path with a NUL",
        archive(&[extended(b'x', &pax(&[("path", b"a\0/../../outside/x")])), file("f", b"x")]),
        Refused("NUL"),
    );
    c.case(
        "GNU name with a NUL: up to there",
        archive(&[extended(b'L', b"a\0/../../outside/x"), file("f", b"x")]),
        Made("a 100644 0:0 size 1 \"x\""),
    );
    c.case(
        "path for all entries",
        archive(&[extended(b'g', &pax(&[("path", up)])), file("f", b"x")]),
        Refused("global header"),
    );
    c.case(
        "sparse name leads out of an innocent name",
        archive(&[
            extended(
                b'x',
                &pax(&[("GNU.sparse.name", up), ("GNU.sparse.size", b"1"), ("GNU.sparse.map", b"0,1")]),
            ),
            file("f", b"x"),
        ]),
        Refused("leads out of the root"),
    );
    let mut link = header(b'1', "l", &octal(0), USTAR);
    link[157] = b'f';
    seal(&mut link);
    c.case(
        "link path leads out of an innocent target",
        archive(&[
            file("f", b"x"),
            extended(b'x', &pax(&[("linkpath", b"../outside/dir/sentinel")])),
            link.to_vec(),
        ]),
        Refused("outside of the root"),
    );
    c.case(
        "pax path makes a whiteout of an innocent name",
        archive(&[extended(b'x', &pax(&[("path", b"d/.wh.x")])), file("f", b"x")]),
        Made("d 40755 0:0\nd/x 20000 0:0 dev 0:0"),
    );
    for (what, flag) in [("pax", b'x'), ("GNU name", b'L'), ("GNU link", b'K')] {
        c.case(
            &format!("{what} header of nothing"),
            archive(&[file("f", b"x"), extended(flag, &pax(&[("path", b"a")]))]),
            Refused("truncated"),
        );
        c.case(
            &format!("{what} header of 2 MiB"),
            archive(&[header(flag, "extended", &octal(2 << 20), USTAR).to_vec(), vec![b'a'; 2 << 20]]),
            Refused("longer than the limit of 1 MiB"),
        );
    }
    c.case(
        "record that is longer than its header",
        archive(&[extended(b'x', b"9999 path=x\n"), file("f", b"x")]),
        Refused("pax header"),
    );
    c.case(
        "one block of zeros between entries",
        archive(&[file("f", b"x"), vec![0; 512], file("g", b"x")]),
        Refused("single block of zeros"),
    );
    c.case(
        "entries behind the end",
        [archive(&[file("f", b"x")]), archive(&[file("../outside/x", b"x")])].concat(),
        Made("f 100644 0:0 size 1 \"x\""),
    );
    for flag in *b"MNDAIX8" {
        c.case(
            &format!("type {}", char::from(flag)),
            archive(&[header(flag, "f", &octal(0), GNU).to_vec()]),
            Refused("not supported"),
        );
    }
}

/// Names that mean a deletion, where they should not.
pub fn whiteouts(c: &mut Corpus) {
    let refused = "nothing that can be deleted";
    c.case("of nothing, below", tar().dir("d").file("d/.wh.", "").bytes(), Refused(refused));
    c.case("of the directory", tar().dir("d").file("d/.wh..", "").bytes(), Refused(refused));
    c.case("of its parent", tar().dir("d").file("d/.wh...", "").bytes(), Refused(refused));
    c.case("of a whiteout", tar().file(".wh..wh.x", "").file(".wh..wh..wh.x", "").bytes(), Made(""));
    c.case(
        "with content",
        tar().file(".wh.x", "data").file("f", "x").bytes(),
        Made("f 100644 0:0 size 1 \"x\"\nx 20000 0:0 dev 0:0"),
    );
    c.case(
        "as directory, link, hard link and device",
        tar()
            .dir(".wh.a")
            .symlink(".wh.b", "/etc/passwd")
            .link(".wh.c", "/etc/passwd")
            .kind(".wh.d", Kind::CharDevice(0, 0))
            .bytes(),
        Made("a 20000 0:0 dev 0:0\nb 20000 0:0 dev 0:0\nc 20000 0:0 dev 0:0\nd 20000 0:0 dev 0:0"),
    );
    c.case(
        "opaque marker as directory and as link",
        tar().dir("d/.wh..wh..opq").symlink("e/.wh..wh..opq", "/").bytes(),
        Made("d 40755 0:0 trusted.overlay.opaque=y\ne 40755 0:0 trusted.overlay.opaque=y"),
    );
    c.case("below an opaque marker", tar().file(".wh..wh..opq/x", "x").bytes(), Made(""));
    c.case(
        "opaque marker in a file",
        tar().file("f", "x").file("f/.wh..wh..opq", "").bytes(),
        Refused("`f` is not a directory"),
    );
    c.case(
        "opaque marker by a detour",
        tar().dir("d").file("d/../.wh..wh..opq", "").file("f", "x").bytes(),
        Made(
            "d 40755 0:0 trusted.overlay.opaque=y\nf 100644 0:0 size 1 \"x\""
                .replace(" trusted.overlay.opaque=y", ""),
        ),
    );
    c.case(
        "whiteout of a name that is too long",
        tar().file(&format!(".wh.{}", "n".repeat(252)), "").bytes(),
        Refused("longer than 255"),
    );
    c.case(
        "file below a deleted name",
        tar().file(".wh.d", "").file("d/x", "x").bytes(),
        Made("d 40755 0:0 trusted.overlay.opaque=y\nd/x 100644 0:0 size 1 \"x\""),
    );
    c.case(
        "link to a deleted name, and through it",
        tar().file(".wh.d", "").symlink("l", "d").file("l/x", "x").bytes(),
        Made("d 40755 0:0 trusted.overlay.opaque=y\nd/x 100644 0:0 size 1 \"x\"\nl 120777 0:0 -> d"),
    );
}

/// The layer below has prepared links; what is above writes, deletes and links through them.
pub fn through_a_lower_layer(c: &mut Corpus) {
    let below = || {
        tar()
            .dir("d")
            .symlink("d/up", "../../outside/dir")
            .symlink("abs", "/outside/dir")
            .symlink("loop", "loop")
            .bytes()
    };
    let mut case = |what: &str, tar: Tar, outcome| {
        c.add(what, tar.bytes(), Some(below()), Limits::default(), outcome);
    };
    case(
        "write through a lower link",
        tar().file("abs/sentinel", "x"),
        Made("outside 40755 0:0\noutside/dir 40755 0:0\noutside/dir/sentinel 100644 0:0 size 1 \"x\""),
    );
    case(
        "write through a lower link that climbs",
        tar().file("d/up/sentinel", "x"),
        Made(
            "d 40755 0:0\noutside 40755 0:0\noutside/dir 40755 0:0\noutside/dir/sentinel 100644 0:0 size 1 \"x\"",
        ),
    );
    case(
        "whiteout through a lower link",
        tar().file("abs/.wh.sentinel", ""),
        Made("outside 40755 0:0\noutside/dir 40755 0:0\noutside/dir/sentinel 20000 0:0 dev 0:0"),
    );
    case("hard link through a lower link", tar().link("l", "abs/sentinel"), Refused("no such file"));
    case(
        "hard link through a lower link that climbs",
        tar().link("l", "d/up/sentinel"),
        Refused("no such file"),
    );
    case(
        "hard link to a lower link",
        tar().link("l", "abs"),
        Made("abs 120777 0:0 -> /outside/dir\nl 120777 0:0 -> /outside/dir = abs"),
    );
    case("lower loop", tar().file("loop/x", "x"), Refused("find its directory"));
}

/// What a file may have besides its content.
pub fn attributes(c: &mut Corpus) {
    let with = |key: &str, value: Vec<u8>| {
        let xattrs = vec![(key.as_bytes().to_vec(), value)];
        tar().add(Entry { xattrs, ..special("d") }, b"").bytes()
    };
    let plain = "d 41710 11:12";
    c.case("value of 70,000 bytes", with("user.x", vec![b'x'; 70_000]), Refused("set extended attribute"));
    c.case(
        "name of 300 bytes",
        with(&format!("user.{}", "n".repeat(300)), b"x".to_vec()),
        Refused("set extended attribute"),
    );
    c.case("in no namespace", with("nowhere.x", b"x".to_vec()), Made(plain));
    let time = creel_layer::tar::Timestamp { seconds: i64::MAX, nanoseconds: 999_999_999 };
    for (what, mtime) in
        [("latest", time), ("earliest", creel_layer::tar::Timestamp { seconds: i64::MIN, nanoseconds: 0 })]
    {
        let entry = Entry { mtime, size: 1, ..Entry::new("f", Kind::File) };
        c.case(
            &format!("the {what} time"),
            tar().add(entry, b"x").bytes(),
            Made("f 100644 0:0 size 1 \"x\""),
        );
    }
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Members that are cut, joined, or followed by something else.
pub fn compressed(c: &mut Corpus) {
    let whole = tar().file("f", &"x".repeat(3000)).file("g", "y").bytes();
    let sum = (0..3000).fold(7u64, |sum, _| sum.wrapping_mul(31).wrapping_add(u64::from(b'x')));
    let made = || Made(format!("f 100644 0:0 size 3000 sum {sum:x}\ng 100644 0:0 size 1 \"y\""));
    c.case("gzip", gzip(&whole), made());
    let two = [gzip(&whole[..1500]), gzip(b""), gzip(&whole[1500..])].concat();
    c.case("members joined in the middle of a file", two.clone(), made());
    c.case("second member cut", two[..two.len() - 5].to_vec(), Refused("the archive"));
    let one = gzip(&whole);
    for cut in [1, 4, 8, 9, one.len() / 2] {
        c.case(&format!("gzip without its last {cut} bytes"), one[..one.len() - cut].to_vec(), Refused(""));
    }
    c.case("gzip's first three bytes", one[..3].to_vec(), Refused(""));
    let mut flipped = one.clone();
    let crc = one.len() - 6;
    flipped[crc] ^= 1;
    c.case("wrong checksum", flipped, Refused("read the archive"));
    c.case(
        "garbage behind a member",
        [one.clone(), b"garbage".to_vec()].concat(),
        Refused("read the archive"),
    );
    c.case(
        "second archive in a second member",
        [one.clone(), gzip(&tar().file("h", "z").bytes())].concat(),
        made(),
    );
    c.case("compressed twice", gzip(&one), Refused("truncated"));
    c.case("gzip of nothing", gzip(b""), Made(""));
    c.case("nothing", Vec::new(), Made(""));
    c.case("bzip2", b"BZh91AY&SY".to_vec(), Refused("bzip2"));
    c.case("xz", b"\xfd7zXZ\0\0\x04".to_vec(), Refused("xz"));
    // A frame header that asks for a window of 2 GiB (RFC 8878, 3.1.1.1.2), and one block.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0, 0xa8, 0x03, 0, 0, b'x'];
    c.case("zstd that wants 2 GiB of memory", window.to_vec(), Refused("memory"));
}

/// What is small on its way and large at its end.
pub fn bombs(c: &mut Corpus) {
    let bytes = Limits { bytes: Some(1 << 20), ..Limits::default() };
    let entries = Limits { entries: Some(1000), ..Limits::default() };
    let too_large = || Refused("larger than the limit of 1048576 bytes");
    let zeros = gzip(&vec![0; 8 << 20]);
    c.add("zeros and nothing else", zeros.clone(), None, bytes, too_large());
    let big = tar().file("f", &"x".repeat(2 << 20)).bytes();
    c.add("a large file", gzip(&big), None, bytes, too_large());
    c.add("members of zeros", [&zeros[..], &zeros[..]].concat(), None, bytes, too_large());
    let behind = [tar().file("f", "x").bytes(), vec![0; 2 << 20]].concat();
    c.add("zeros behind the end", gzip(&behind), None, bytes, too_large());
    let block = [0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
    // Blocks of one byte repeated 128 KiB times (RFC 8878, 3.1.1.2.2), 64 of them.
    let repeat: Vec<u8> = (0..64).flat_map(|n| [(n == 63) as u8 | 0x02, 0, 0x10, 0]).collect();
    c.add("zstd: 256 bytes for 8 MiB", [&block[..], &repeat].concat(), None, bytes, too_large());
    let many = |count: usize| {
        let mut tar = tar();
        for index in 0..count {
            tar = tar.file(&format!("f{index}"), "");
        }
        gzip(&tar.bytes())
    };
    c.add("very many tiny files", many(1001), None, entries, Refused("more than 1000 entries"));
    let shape: Vec<String> = (0..1000).map(|index| format!("f{index} 100644 0:0 size 0 \"\"")).collect();
    let mut shape = shape;
    shape.sort();
    c.add("as many as are allowed", many(1000), None, entries, Made(shape.join("\n")));
    let mut twice = tar();
    for _ in 0..1001 {
        twice = twice.file("f", "");
    }
    c.add("one name very many times", gzip(&twice.bytes()), None, entries, Refused("more than 1000 entries"));
    // Each name needs two thousand directories, and all their names are kept until the end.
    let mut deep = tar();
    for index in 0..3 {
        deep = deep.file(&format!("{index:02}{}", "/d".repeat(2040)), "");
    }
    let paths = Limits { paths: Some(8 << 20), ..Limits::default() };
    c.add(
        "very many directories for few entries",
        gzip(&deep.bytes()),
        None,
        paths,
        Refused("directories have names"),
    );
    // A link to the deepest directory that a name can have, and on from there.
    let path = "d/".repeat(1000);
    let deeper = tar()
        .dir(&path)
        .symlink("l", path.trim_end_matches('/'))
        .dir(&format!("l/{path}"))
        .symlink("m", &format!("{path}{}", path.trim_end_matches('/')))
        .file(&format!("m/{path}/x"), "x");
    c.case("deeper than any path", deeper.bytes(), Refused(""));
    let sparse = |size: u64, offset| {
        let sparse = Some(vec![Segment { offset, length: 1 }]);
        tar().add(Entry { size, sparse, ..Entry::new("s", Kind::File) }, b"x").bytes()
    };
    c.case("8 EiB of hole", sparse(1 << 63, 5), Refused("file is too large"));
    c.case("8 EiB less one byte", sparse(i64::MAX as u64, 5), Refused("set the file's length"));
    c.case("16 EiB of hole", sparse(u64::MAX, 5), Refused("file is too large"));
    let mut old = header(b'S', "s", &octal(1), GNU);
    old[386..397].copy_from_slice(b"00000000000");
    old[398..409].copy_from_slice(b"00000000001");
    old[483..495].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    seal(&mut old);
    c.case(
        "8 EiB by GNU's old format",
        archive(&[old.to_vec(), blocks(b"x")]),
        Refused("set the file's length"),
    );
    let map = format!("{}\n", 1u64 << 40);
    c.case(
        "a sparse map of 2^40 lines",
        archive(&[
            extended(
                b'x',
                &pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.realsize", b"1"),
                ]),
            ),
            file("s", &blocks(map.as_bytes())),
        ]),
        Refused("too many segments"),
    );
}

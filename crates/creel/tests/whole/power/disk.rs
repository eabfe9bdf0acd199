//! A disk that writes down what is asked of it: every write and every flush, in their order, so that a power cut at
//! any of them can be played afterwards.
//!
//! It is a file served by this process over FUSE with a loop device on top, since that is what every kernel has. The
//! loop device says that it has a volatile cache and passes each flush on as an fsync of the file; a write that must
//! be durable by itself (FUA) becomes a write and a flush.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What a disk writes in one piece: the half of a block is never on it.
pub(crate) const BLOCK: usize = 4096;

/// Something that the disk was asked for.
pub(crate) enum Event {
    /// Bytes at a place.
    Write(u64, Vec<u8>),
    /// All that was written before is to be durable.
    Flush,
}

/// What was on the disk at first, what is on it, and what was asked of it meanwhile.
struct Record {
    first: Vec<u8>,
    now: Vec<u8>,
    events: Vec<Event>,
    /// What a block that cannot be written begins with.
    refused: Option<Vec<u8>>,
}

/// The disk, as long as it is mounted.
pub(crate) struct Disk {
    record: Arc<Mutex<Record>>,
    server: Option<JoinHandle<()>>,
    file: PathBuf,
    mounted: PathBuf,
}

/// A file system to put on a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileSystem {
    pub(crate) name: &'static str,
    pub(crate) megabytes: u64,
    /// Copies of it cannot be mounted beside each other.
    pub(crate) alone: bool,
    options: &'static str,
    make: &'static [&'static str],
    check: &'static [&'static str],
}

/// The file systems that this knows how to make.
pub(crate) const FILE_SYSTEMS: [FileSystem; 3] = [
    FileSystem {
        name: "ext4",
        megabytes: 64,
        alone: false,
        options: "loop",
        make: &[
            "-q",
            "-F",
            "-b",
            "4096",
            "-J",
            "size=4",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
        ],
        check: &["e2fsck", "-f", "-n"],
    },
    FileSystem {
        name: "xfs",
        megabytes: 300,
        alone: false,
        options: "loop,nouuid",
        make: &["-q", "-f", "-K"],
        check: &["xfs_repair", "-n"],
    },
    FileSystem {
        name: "btrfs",
        megabytes: 160,
        alone: true,
        options: "loop",
        make: &["-q", "-f", "-K"],
        check: &["btrfs", "check"],
    },
];

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|why| format!("{program}: {why}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{program} {}: {}{}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        )),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl FileSystem {
    /// Whether the program that makes it is here.
    pub(crate) fn can_be_made(&self) -> bool {
        Command::new(format!("mkfs.{}", self.name)).arg("-V").output().is_ok()
    }

    /// Mounts the one in `file`; a read-only mount changes nothing, but for what its journal asks for.
    pub(crate) fn mount(&self, file: &Path, at: &Path) -> Result<(), String> {
        run("mount", &["-t", self.name, "-o", self.options, text(file), text(at)])
    }

    /// Has its own program look for damage.
    pub(crate) fn check(&self, file: &Path) -> Result<(), String> {
        run(self.check[0], &[&self.check[1..], &[text(file)]].concat())
    }
}

/// Whether this kernel has loop devices and, for a disk that records, FUSE; says what it lacks.
pub(crate) fn can_be_had(recording: bool) -> bool {
    let wanted = if recording { &["/dev/loop-control", "/dev/fuse"][..] } else { &["/dev/loop-control"] };
    let missing = wanted.iter().find(|device| File::open(device).is_err());
    if let Some(device) = missing {
        eprintln!("skipped: this kernel gives no {device}");
    }
    missing.is_none()
}

/// Takes a mount away; what still has a file open on it keeps it for a moment.
pub(crate) fn unmount(at: &Path) {
    for _ in 0..200 {
        match run("umount", &[text(at)]) {
            Ok(()) => return,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    }
    panic!("{} cannot be unmounted", at.display());
}

impl Disk {
    /// Makes a file system in `dir`, on a new disk, and mounts it at `dir/root`. Only in a mount namespace of one's own.
    pub(crate) fn mount(kind: &FileSystem, dir: &Path) -> Self {
        let plain = dir.join("plain");
        File::create(&plain).unwrap().set_len(kind.megabytes << 20).unwrap();
        run(&format!("mkfs.{}", kind.name), &[kind.make, &[text(&plain)]].concat()).unwrap();
        let first = read_sparse(&plain);
        fs::remove_file(&plain).unwrap();
        let size = first.len() as u64;
        let mut now = vec![0; first.len()];
        copy_sparse(&first, &mut now);
        let record = Arc::new(Mutex::new(Record { first, now, events: Vec::new(), refused: None }));
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let file = dir.join("disk");
        File::create(&file).unwrap();
        let options = format!("fd={},rootmode=100600,user_id=0,group_id=0", device.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::NODEV | rustix::mount::MountFlags::NOSUID;
        rustix::mount::mount("creel-test-disk", &file, "fuse", flags, options.as_c_str()).unwrap();
        let served = record.clone();
        let server = std::thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || serve(device, size, &served))
            .unwrap();
        let mounted = dir.join("root");
        fs::create_dir(&mounted).unwrap();
        kind.mount(&file, &mounted).unwrap();
        Self { record, server: Some(server), file, mounted }
    }

    /// From now on blocks that begin with this cannot be written.
    pub(crate) fn refuse(&self, mark: Option<&[u8]>) {
        self.record.lock().unwrap().refused = mark.map(<[u8]>::to_vec);
    }

    /// How many events there were.
    pub(crate) fn now(&self) -> usize {
        self.record.lock().unwrap().events.len()
    }

    /// Unmounts the disk and gives what was asked of it since `begin`, with what was on it then.
    pub(crate) fn take(mut self, begin: usize) -> Played {
        unmount(&self.mounted);
        // the loop device lets go of the file a moment after the mount is gone
        unmount(&self.file);
        self.server.take().unwrap().join().unwrap();
        let mut record = self.record.lock().unwrap();
        let mut played = Played::new(std::mem::take(&mut record.first));
        let mut events = std::mem::take(&mut record.events);
        let rest = events.split_off(begin);
        for event in events {
            if let Event::Write(at, data) = event {
                played.write(at, &data);
            }
        }
        played.events = rest;
        played
    }
}

/// What was on a disk when the record began, and the record.
pub(crate) struct Played {
    pub(crate) image: Vec<u8>,
    /// The blocks that are not zero.
    used: BTreeSet<usize>,
    pub(crate) events: Vec<Event>,
}

impl Played {
    /// A disk of no size.
    pub(crate) fn empty() -> Self {
        Self::new(Vec::new())
    }

    fn new(image: Vec<u8>) -> Self {
        let blocks = image.chunks(BLOCK).enumerate().filter(|(_, block)| !is_zero(block));
        let used = blocks.map(|(number, _)| number).collect();
        Self { image, used, events: Vec::new() }
    }

    /// Writes to what is on the disk.
    pub(crate) fn write(&mut self, at: u64, data: &[u8]) {
        let at = at as usize;
        self.image[at..at + data.len()].copy_from_slice(data);
        self.used.extend(at / BLOCK..(at + data.len()).div_ceil(BLOCK));
    }

    /// What is on the disk now, with some writes besides, as a file.
    pub(crate) fn lay_out<'a>(&self, besides: impl Iterator<Item = (u64, &'a [u8])>, to: &Path) {
        let mut file = File::create(to).unwrap();
        file.set_len(self.image.len() as u64).unwrap();
        let mut used = self.used.iter().copied().peekable();
        while let Some(first) = used.next() {
            let mut end = first + 1;
            while used.next_if(|next| *next == end).is_some() {
                end += 1;
            }
            file.seek(SeekFrom::Start((first * BLOCK) as u64)).unwrap();
            file.write_all(&self.image[first * BLOCK..(end * BLOCK).min(self.image.len())]).unwrap();
        }
        for (at, data) in besides {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(data).unwrap();
        }
    }
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// Copies what is not zero, so that the rest of the memory stays untouched.
fn copy_sparse(from: &[u8], to: &mut [u8]) {
    for (from, to) in from.chunks(BLOCK).zip(to.chunks_mut(BLOCK)) {
        if !is_zero(from) {
            to.copy_from_slice(from);
        }
    }
}

fn read_sparse(file: &Path) -> Vec<u8> {
    let mut file = File::open(file).unwrap();
    let mut image = vec![0; file.metadata().unwrap().len() as usize];
    let mut piece = vec![0; 1 << 20];
    for at in image.chunks_mut(1 << 20) {
        let piece = &mut piece[..at.len()];
        file.read_exact(piece).unwrap();
        copy_sparse(piece, at);
    }
    image
}

/// What the kernel asks a file system that consists of one file.
mod op {
    pub(super) const GETATTR: u32 = 3;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FSYNC: u32 = 20;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const SETATTR: u32 = 4;
    pub(super) const FORGET: u32 = 2;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const BATCH_FORGET: u32 = 42;
}

const MOST: usize = 1 << 20;

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn small(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Answers the kernel (linux/fuse.h, version 7.31) until the file system is unmounted.
fn serve(mut device: File, size: u64, record: &Mutex<Record>) {
    let mut request = vec![0; MOST + 8192];
    loop {
        let length = match device.read(&mut request) {
            Ok(length) => length,
            Err(why) if why.kind() == std::io::ErrorKind::Interrupted => continue,
            // unmounted
            Err(_) => return,
        };
        let (opcode, unique) = (small(&request, 4), number(&request, 8));
        let body = &request[40..length];
        let answer = match opcode {
            op::FORGET | op::BATCH_FORGET | op::INTERRUPT => continue,
            op::INIT => Ok(welcome(body)),
            op::GETATTR | op::SETATTR => Ok(attributes(size)),
            // direct I/O: nothing of it is kept in the kernel's memory
            op::OPEN => Ok([0u64.to_le_bytes(), 1u64.to_le_bytes()].concat()),
            op::READ => {
                let (at, count) = (number(body, 8), u64::from(small(body, 16)));
                let at = at.min(size);
                let end = (at + count).min(size);
                Ok(record.lock().unwrap().now[at as usize..end as usize].to_vec())
            }
            op::WRITE => {
                let (at, count) = (number(body, 8), small(body, 16) as usize);
                let data = &body[40..40 + count];
                let mut record = record.lock().unwrap();
                let refused = |mark: &Vec<u8>| data.chunks(BLOCK).any(|block| block.starts_with(mark));
                if record.refused.as_ref().is_some_and(refused) {
                    Err(rustix::io::Errno::IO)
                } else {
                    record.now[at as usize..at as usize + count].copy_from_slice(data);
                    record.events.push(Event::Write(at, data.to_vec()));
                    Ok([small(body, 16).to_le_bytes(), [0; 4]].concat())
                }
            }
            op::FSYNC => {
                record.lock().unwrap().events.push(Event::Flush);
                Ok(Vec::new())
            }
            op::RELEASE | op::FLUSH => Ok(Vec::new()),
            _ => Err(rustix::io::Errno::NOSYS),
        };
        let (error, data) = match answer {
            Ok(data) => (0, data),
            Err(why) => (-why.raw_os_error(), Vec::new()),
        };
        let mut reply = Vec::with_capacity(16 + data.len());
        reply.extend((16 + data.len() as u32).to_le_bytes());
        reply.extend(error.to_le_bytes());
        reply.extend(unique.to_le_bytes());
        reply.extend(data);
        // Who asked may be gone.
        let _ = device.write(&reply);
    }
}

fn welcome(asked: &[u8]) -> Vec<u8> {
    const MAX_PAGES: u32 = 1 << 22;
    let mut out = Vec::new();
    for value in [7, 31, small(asked, 8), MAX_PAGES & small(asked, 12)] {
        out.extend(value.to_le_bytes());
    }
    out.extend([0; 4]);
    out.extend((MOST as u32).to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend(((MOST / BLOCK) as u16).to_le_bytes());
    out.resize(64, 0);
    out
}

fn attributes(size: u64) -> Vec<u8> {
    let mut out = vec![0; 16];
    out[..8].copy_from_slice(&3600u64.to_le_bytes());
    for value in [1, size, size / 512, 0, 0, 0] {
        out.extend(value.to_le_bytes());
    }
    for value in [0, 0, 0, 0o100_600, 1, 0, 0, 0, BLOCK as u32, 0] {
        out.extend(value.to_le_bytes());
    }
    out
}

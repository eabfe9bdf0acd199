//! The verbs and their flags: the tables from which the command line is read and the help is printed.

use crate::flags::Flag;

/// Which verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Saves a container by CRIU.
    Checkpoint,
    /// Makes a container that waits to be started.
    Create,
    /// Removes what a container holds.
    Delete,
    /// Statistics and OOM events.
    Events,
    /// A further process in a container.
    Exec,
    /// What this runtime can do.
    Features,
    /// Sends a signal.
    Kill,
    /// The containers below the root.
    List,
    /// Mounts of a running container.
    Mounts,
    /// Freezes a container.
    Pause,
    /// A container's processes.
    Ps,
    /// Brings a container back by CRIU.
    Restore,
    /// Thaws a container.
    Resume,
    /// Makes a container and starts it.
    Run,
    /// Writes a configuration to begin with.
    Spec,
    /// Lets a created container run its program.
    Start,
    /// A container's state.
    State,
    /// Changes limits.
    Update,
}

/// One verb.
#[derive(Debug)]
pub struct Verb {
    /// Which.
    pub name: Name,
    /// The word on the command line.
    pub word: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Its arguments, as the help shows them.
    pub arguments: &'static str,
    /// Its flags.
    pub flags: &'static [Flag],
    /// Fewest and most arguments.
    pub count: (usize, usize),
    /// Whether flags end at the first argument.
    pub stop: bool,
}

impl Verb {
    /// Whether a process of this program becomes one of a container's.
    pub(crate) fn joins(&self) -> bool {
        matches!(self.name, Name::Create | Name::Run | Name::Exec | Name::Mounts)
    }
}

/// The flags before the verb.
pub const GLOBAL: &[Flag] = &[
    Flag::on("debug", "enable debug logging"),
    Flag::text("log", "set the log file to write logs to (default is '/dev/stderr')"),
    Flag::text("log-format", "set the log format ('text' (default), or 'json')"),
    Flag::text("root", "root directory for storage of container state (this should be located in tmpfs)"),
    Flag::on(
        "systemd-cgroup",
        "make control groups by systemd; expects cgroupsPath of the form \"slice:prefix:name\"",
    ),
    Flag::text("rootless", "pass over missing rights to control groups ('true', 'false', or 'auto')"),
    // crun's spelling of --systemd-cgroup.
    Flag::text("cgroup-manager", ""),
    Flag::on("version", "print the version").or("v"),
];

const BUNDLE: Flag = Flag::text("bundle", "path to the bundle directory, by default the current one").or("b");
// crun's way to name another file.
const CONFIG: Flag = Flag::text("config", "");
const CONSOLE_SOCKET: Flag =
    Flag::text("console-socket", "path to an AF_UNIX socket that is sent the master end of the terminal");
const PIDFD_SOCKET: Flag =
    Flag::text("pidfd-socket", "path to an AF_UNIX socket that is sent a pidfd of the process");
const PID_FILE: Flag = Flag::text("pid-file", "file to write the process id to");
const NO_PIVOT: Flag =
    Flag::on("no-pivot", "do not use pivot_root; for a root file system on the initial ramdisk only");
const NO_NEW_KEYRING: Flag = Flag::on("no-new-keyring", "keep the caller's session keyring in the container");
const PRESERVE_FDS: Flag =
    Flag::number("preserve-fds", "pass N further descriptors (3 to 2+N, after $LISTEN_FDS)");
const DETACH: Flag = Flag::on("detach", "return when the process runs").or("d");
const NO_SUBREAPER: Flag = Flag::on("no-subreaper", "do not adopt orphaned processes of the container");
const FORMAT: Flag = Flag::text("format", "table (default) or json").or("f");

const CREATE: &[Flag] =
    &[BUNDLE, CONSOLE_SOCKET, PIDFD_SOCKET, PID_FILE, NO_PIVOT, NO_NEW_KEYRING, PRESERVE_FDS, CONFIG];

const RUN: &[Flag] = &[
    BUNDLE,
    CONSOLE_SOCKET,
    PIDFD_SOCKET,
    DETACH,
    Flag::on("keep", "do not delete the container when it ends"),
    PID_FILE,
    NO_SUBREAPER,
    NO_PIVOT,
    NO_NEW_KEYRING,
    PRESERVE_FDS,
    CONFIG,
];

const EXEC: &[Flag] = &[
    CONSOLE_SOCKET,
    PIDFD_SOCKET,
    Flag::text("cwd", "working directory in the container"),
    Flag::many("env", "add to the environment").or("e"),
    Flag::on("tty", "give it a pseudo-terminal").or("t"),
    Flag::text("user", "uid[:gid]").or("u"),
    Flag::many("additional-gids", "supplementary group").or("g"),
    Flag::text("process", "file with the process's specification").or("p"),
    DETACH,
    PID_FILE,
    Flag::text("process-label", "SELinux label of the process"),
    Flag::text("apparmor", "AppArmor profile of the process"),
    Flag::on("no-new-privs", "set the no_new_privs attribute"),
    Flag::many("cap", "add a capability").or("c"),
    PRESERVE_FDS,
    Flag::many("cgroup", "run in an existing group below the container's: [CONTROLLER:]PATH"),
    Flag::on("ignore-paused", "allow a paused container"),
];

const UPDATE: &[Flag] = &[
    Flag::text(
        "resources",
        "file with linux.resources in JSON, or '-' for standard input; other flags are ignored",
    )
    .or("r"),
    Flag::number("blkio-weight", "weight of block I/O, 10 to 1000"),
    Flag::text("cpu-period", "CPU period in microseconds"),
    Flag::text("cpu-quota", "CPU time allowed in a period, in microseconds"),
    Flag::text("cpu-burst", "CPU time that may be saved up, in microseconds"),
    Flag::text("cpu-share", "CPU shares"),
    Flag::text("cpu-rt-period", "real-time CPU period in microseconds"),
    Flag::text("cpu-rt-runtime", "real-time CPU time in a period, in microseconds"),
    Flag::text("cpuset-cpus", "CPUs to use"),
    Flag::text("cpuset-mems", "memory nodes to use"),
    Flag::text("kernel-memory", ""),
    Flag::text("kernel-memory-tcp", ""),
    Flag::text("memory", "memory limit in bytes"),
    Flag::text("cpu-idle", "1 for SCHED_IDLE, 0 for the default"),
    Flag::text("memory-reservation", "soft memory limit in bytes"),
    Flag::text("memory-swap", "limit of memory and swap together in bytes; -1 for none"),
    Flag::number("pids-limit", "most tasks"),
    Flag::text("l3-cache-schema", "Intel RDT/CAT L3 cache schema"),
    Flag::text("mem-bw-schema", "Intel RDT/MBA memory bandwidth schema"),
];

const IMAGE_PATH: Flag = Flag::text("image-path", "directory of CRIU's image files");
const WORK_PATH: Flag = Flag::text("work-path", "directory of CRIU's work files and logs");
const TCP_ESTABLISHED: Flag = Flag::on("tcp-established", "allow open TCP connections");
const EXT_UNIX_SK: Flag = Flag::on("ext-unix-sk", "allow external unix sockets");
const SHELL_JOB: Flag = Flag::on("shell-job", "allow shell jobs");
const LAZY_PAGES: Flag = Flag::on("lazy-pages", "bring memory back when it is touched (userfaultfd)");
const FILE_LOCKS: Flag = Flag::on("file-locks", "handle file locks");
const CGROUPS_MODE: Flag = Flag::text("manage-cgroups-mode", "soft (default), full, strict or ignore");
const EMPTY_NS: Flag = Flag::many("empty-ns", "make this namespace without its contents");
const AUTO_DEDUP: Flag = Flag::on("auto-dedup", "free memory images as they are read");

const CHECKPOINT: &[Flag] = &[
    IMAGE_PATH,
    WORK_PATH,
    Flag::text("parent-path", "directory of an earlier pre-dump, relative to the image path"),
    Flag::on("leave-running", "let the container run on"),
    TCP_ESTABLISHED,
    Flag::on("tcp-skip-in-flight", "skip TCP connections that are being made"),
    Flag::on("link-remap", "allow unlinked files to be linked back"),
    EXT_UNIX_SK,
    SHELL_JOB,
    LAZY_PAGES,
    Flag::number("status-fd", "descriptor that CRIU writes \\0 to when lazy pages are ready"),
    Flag::text("page-server", "ADDRESS:PORT of the page server"),
    FILE_LOCKS,
    Flag::on("pre-dump", "save memory only and let the container run on"),
    CGROUPS_MODE,
    EMPTY_NS,
    AUTO_DEDUP,
];

const RESTORE: &[Flag] = &[
    CONSOLE_SOCKET,
    IMAGE_PATH,
    WORK_PATH,
    TCP_ESTABLISHED,
    EXT_UNIX_SK,
    SHELL_JOB,
    FILE_LOCKS,
    CGROUPS_MODE,
    BUNDLE,
    DETACH,
    PID_FILE,
    NO_SUBREAPER,
    NO_PIVOT,
    EMPTY_NS,
    AUTO_DEDUP,
    LAZY_PAGES,
    Flag::text("lsm-profile", "LSM profile to restore with, TYPE:NAME"),
    Flag::text("lsm-mount-context", "LSM mount context to restore with"),
];

const ID: &str = "<container-id>";
const ANY: usize = usize::MAX;

const fn verb(
    name: Name,
    word: &'static str,
    about: &'static str,
    arguments: &'static str,
    flags: &'static [Flag],
    count: (usize, usize),
) -> Verb {
    Verb { name, word, about, arguments, flags, count, stop: false }
}

/// All verbs.
pub const VERBS: &[Verb] = &[
    verb(Name::Checkpoint, "checkpoint", "checkpoint a running container", ID, CHECKPOINT, (1, 1)),
    verb(Name::Create, "create", "create a container", ID, CREATE, (1, 1)),
    verb(
        Name::Delete,
        "delete",
        "delete any resources held by the container",
        ID,
        &[
            Flag::on("force", "kill the container first if it runs").or("f"),
            // crun's.
            Flag::on("regex", "delete all containers whose id the given regular expression matches").or("r"),
        ],
        (1, 1),
    ),
    verb(
        Name::Events,
        "events",
        "display a container's OOM events and statistics",
        ID,
        &[
            Flag::text("interval", "time between statistics, like 5s (default) or 100ms"),
            Flag::on("stats", "display statistics once"),
        ],
        (1, 1),
    ),
    Verb {
        stop: true,
        ..verb(
            Name::Exec,
            "exec",
            "execute a further process in the container",
            "<container-id> <command> [arguments...]  || -p process.json <container-id>",
            EXEC,
            (1, ANY),
        )
    },
    verb(Name::Features, "features", "show what this runtime can do, in JSON", "", &[], (0, 0)),
    Verb {
        stop: true,
        ..verb(
            Name::Kill,
            "kill",
            "send a signal (default: SIGTERM) to the container's first process",
            "<container-id> [signal]",
            &[Flag::on("all", "").or("a")],
            (1, 2),
        )
    },
    verb(
        Name::List,
        "list",
        "list the containers of the given root",
        "",
        &[FORMAT, Flag::on("quiet", "display only ids").or("q")],
        (0, 0),
    ),
    // crun's.
    verb(
        Name::Mounts,
        "mounts",
        "add or remove mounts of a running container, listed in a file as in config.json",
        "add|remove <container-id> <file>",
        &[],
        (3, 3),
    ),
    verb(Name::Pause, "pause", "suspend all processes of the container", ID, &[], (1, 1)),
    Verb {
        stop: true,
        ..verb(
            Name::Ps,
            "ps",
            "display the processes of the container",
            "<container-id> [ps options]",
            &[FORMAT],
            (1, ANY),
        )
    },
    verb(Name::Restore, "restore", "restore a container from a checkpoint", ID, RESTORE, (1, 1)),
    verb(Name::Resume, "resume", "let a paused container go on", ID, &[], (1, 1)),
    verb(Name::Run, "run", "create a container and run its program", ID, RUN, (1, 1)),
    verb(
        Name::Spec,
        "spec",
        "write a config.json to begin with",
        "",
        &[BUNDLE, Flag::on("rootless", "for a container of an ordinary user")],
        (0, 0),
    ),
    verb(Name::Start, "start", "run the program of a created container", ID, &[], (1, 1)),
    verb(Name::State, "state", "output the state of a container", ID, &[], (1, 1)),
    verb(Name::Update, "update", "change the container's limits", ID, UPDATE, (1, 1)),
];

/// The verb that a word names.
pub fn find(word: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.word == word)
}

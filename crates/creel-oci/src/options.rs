//! The global flags.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::flags::{self, Parsed};
use crate::log::{Format, Log};
use crate::verbs::GLOBAL;

/// What the global flags say.
#[derive(Debug)]
pub(crate) struct Options {
    /// How the program was called.
    pub(crate) program: String,
    /// The root of the state directories, absolute.
    pub(crate) root: PathBuf,
    /// Whether `--root` was given.
    pub(crate) root_given: bool,
    /// Whether control groups are made by systemd.
    pub(crate) systemd: bool,
    /// Whether containers may go without control groups.
    pub(crate) cgroups_optional: bool,
    /// Whether missing rights to control groups are passed over.
    pub(crate) rootless: bool,
    /// Where errors and warnings go.
    pub(crate) log: Log,
}

/// The arguments, split at the verb.
pub(crate) fn split(args: &[OsString]) -> std::result::Result<Parsed, String> {
    flags::parse(GLOBAL, args, true)
}

impl Options {
    /// Reads the global flags. The log is opened first, so that every later error is found there.
    ///
    /// # Errors
    /// A log format or file, or a root, that cannot be; the log as far as it came is in the pair.
    pub(crate) fn read(program: &str, parsed: &Parsed) -> std::result::Result<Options, (Log, Error)> {
        let debug = parsed.on("debug");
        let format = match parsed.text("log-format").as_deref() {
            None | Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some(other) => {
                let error = Error::Invalid(format!("invalid log-format: {other}"));
                return Err((Log::new(Format::Text, debug), error));
            }
        };
        let mut log = Log::new(format, debug);
        if let Some(path) = parsed.value("log")
            && let Err(error) = log.open(Path::new(path))
        {
            return Err((log, error));
        }
        match Options::rest(parsed) {
            Ok((root, root_given, systemd, cgroups_optional, rootless)) => {
                let program = program.to_owned();
                Ok(Options { program, root, root_given, systemd, cgroups_optional, rootless, log })
            }
            Err(error) => Err((log, error)),
        }
    }

    #[allow(clippy::type_complexity)]
    fn rest(parsed: &Parsed) -> Result<(PathBuf, bool, bool, bool, bool)> {
        let root = match parsed.value("root") {
            Some(path) => {
                let path = absolute(Path::new(path))?;
                if path == Path::new("/") {
                    return Err(Error::Invalid("Option --root argument should not be set to /".into()));
                }
                path
            }
            None if parsed.is_set("root") => {
                return Err(Error::Invalid("Option --root argument should not be empty".into()));
            }
            None => default_root(is_root(), std::env::var_os("XDG_RUNTIME_DIR")),
        };
        let (mut systemd, mut cgroups_optional) = (parsed.on("systemd-cgroup"), false);
        match parsed.text("cgroup-manager").as_deref() {
            None | Some("cgroupfs") => {}
            Some("systemd") => systemd = true,
            Some("disabled") => cgroups_optional = true,
            Some(other) => return Err(Error::Invalid(format!("unknown cgroup manager: {other}"))),
        }
        let rootless = match parsed.text("rootless").map(|text| text.to_ascii_lowercase()).as_deref() {
            None | Some("auto") => !is_root() || in_user_namespace(),
            Some("true" | "1" | "t") => true,
            Some("false" | "0" | "f") => false,
            Some(other) => {
                return Err(Error::Invalid(format!(
                    "invalid --rootless value {other:?}: use true, false or auto"
                )));
            }
        };
        Ok((root, parsed.is_set("root"), systemd, cgroups_optional, rootless))
    }
}

/// Whether this process is root, as its user namespace sees it.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this process is in a user namespace with fewer than all ids.
fn in_user_namespace() -> bool {
    let whole = |text: &str| text.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    creel_sys::kernelfs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !whole(&map))
}

fn default_root(is_root: bool, runtime_dir: Option<OsString>) -> PathBuf {
    match runtime_dir {
        Some(dir) if !is_root && !dir.is_empty() => PathBuf::from(dir).join("creel-oci"),
        _ => PathBuf::from("/run/creel-oci"),
    }
}

/// A path without `.`, `..` and doubled slashes, from the current directory on.
///
/// # Errors
/// There is no current directory.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    let start = if path.is_absolute() { PathBuf::new() } else { current_dir()? };
    Ok(clean(&start.join(path)))
}

/// The current directory, as the kernel names it.
pub(crate) fn current_dir() -> Result<PathBuf> {
    std::env::current_dir().map_err(|e| Error::call("getwd", e))
}

/// A path without `.`, `..` and doubled slashes; the file system is not asked.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => out.push(name),
            std::path::Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(line: &str) -> std::result::Result<Options, String> {
        let args: Vec<OsString> = line.split(' ').filter(|w| !w.is_empty()).map(OsString::from).collect();
        Options::read("runc", &split(&args).unwrap()).map_err(|(_, e)| e.to_string())
    }

    #[test]
    fn global_flags() {
        let options = read("--root /x/../y --systemd-cgroup --rootless=true list").unwrap();
        assert_eq!((options.root, options.systemd, options.rootless), ("/y".into(), true, true));
        assert!(read("--cgroup-manager systemd list").unwrap().systemd);
        for (line, error) in [
            ("--log-format foo list", "invalid log-format: foo"),
            ("--root / list", "Option --root argument should not be set to /"),
            ("--log /nonexistent/x list", "open /nonexistent/x: no such file or directory"),
            ("--rootless maybe list", "invalid --rootless value \"maybe\": use true, false or auto"),
        ] {
            assert_eq!(read(line).unwrap_err(), error, "{line}");
        }
    }

    #[test]
    fn the_root_of_a_user() {
        assert_eq!(default_root(true, Some("/run/user/0".into())), Path::new("/run/creel-oci"));
        assert_eq!(default_root(false, Some("/run/user/7".into())), Path::new("/run/user/7/creel-oci"));
        assert_eq!(default_root(false, None), Path::new("/run/creel-oci"));
        assert_eq!(clean(Path::new("/a/./b//../c/")), Path::new("/a/c"));
    }
}

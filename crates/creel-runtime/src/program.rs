//! Finding the program as execvp(3) does, inside the root and with the rights of the user who will run it.

use std::ffi::CString;

use creel_sys::process::Exec;
use creel_types::ErrorKind;
use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::error::Fault;

/// Where programs are looked for when the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The path to execute for `name`, or Docker's words why there is none.
pub(crate) fn find(name: &str, env: &[String]) -> Result<String, Fault> {
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_string()),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Fault::new(
                ErrorKind::ProgramNotFound,
                format!("exec: {name:?}: stat {name}: no such file or directory"),
            )),
            Err(e) => Err(refused(name, e)),
        };
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut worst = None;
    for dir in path.split(':') {
        let candidate = if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") };
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ACCESS | Errno::PERM) => worst = Some(Errno::ACCESS),
            // A directory of that name in PATH is passed over, as a shell does.
            Err(_) => {}
        }
    }
    match worst {
        Some(e) => Err(refused(name, e)),
        None => Err(Fault::new(
            ErrorKind::ProgramNotFound,
            format!("exec: {name:?}: executable file not found in $PATH"),
        )),
    }
}

fn refused(name: &str, error: Errno) -> Fault {
    let text = match error {
        Errno::ACCESS | Errno::PERM => "permission denied".to_string(),
        Errno::ISDIR => "is a directory".to_string(),
        other => crate::error::plain(&other.into()),
    };
    Fault {
        message: format!("exec: {name:?}: {text}"),
        errno: Some(error.raw_os_error()),
        kind: ErrorKind::ProgramNotExecutable,
    }
}

fn executable(path: &str) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return Err(Errno::ISDIR),
        FileType::RegularFile => {}
        _ => return Err(Errno::ACCESS),
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// Lays out the call.
pub(crate) fn prepare(path: &str, args: &[String], env: &[String]) -> Result<Exec, Fault> {
    let text = |text: &str| CString::new(text).map_err(|_| Fault::from(Errno::INVAL));
    let list = |list: &[String]| list.iter().map(|entry| text(entry)).collect::<Result<Vec<_>, _>>();
    Ok(Exec::new(text(path)?, list(args)?, list(env)?))
}

/// What a failed execve(2) means.
pub(crate) fn failed(path: &str, error: &std::io::Error) -> Fault {
    let kind = match error.raw_os_error() {
        // The interpreter that a script or an ELF file names may be what is missing.
        Some(libc::ENOENT | libc::ENOTDIR) => ErrorKind::ProgramNotFound,
        Some(
            libc::EACCES
            | libc::EPERM
            | libc::ENOEXEC
            | libc::EISDIR
            | libc::ELOOP
            | libc::ETXTBSY
            | libc::EINVAL,
        ) => ErrorKind::ProgramNotExecutable,
        Some(libc::E2BIG) => ErrorKind::InvalidArgument,
        _ => ErrorKind::Internal,
    };
    Fault {
        message: format!("exec {path}: {}", crate::error::plain(error)),
        errno: error.raw_os_error(),
        kind,
    }
}

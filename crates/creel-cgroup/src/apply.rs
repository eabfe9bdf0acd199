//! The thin executor of plans, and the seam at which tests put a kernel of their own.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use creel_sys::kernelfs;
use creel_types::spec::DeviceRule;

use crate::devices::List;
use crate::error::{Error, Result};
use crate::files;
use crate::plan::{Missing, Plan, Step, Write};
use crate::program;

/// What the executor needs of the kernel.
pub(crate) trait Kernel {
    fn mkdir(&self, dir: &Path) -> io::Result<()>;
    fn rmdir(&self, dir: &Path) -> io::Result<()>;
    fn read(&self, file: &Path) -> io::Result<String>;
    fn write(&self, file: &Path, value: &str) -> io::Result<()>;
    /// Writes one value after the other into the same file.
    fn write_each(&self, file: &Path, values: &mut dyn Iterator<Item = &str>) -> io::Result<()> {
        for value in values {
            self.write(file, value)?;
        }
        Ok(())
    }
    fn children(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    fn device_program(&self, dir: &Path, rules: &[DeviceRule]) -> Result<()>;
}

/// The real one.
pub(crate) struct Real;

impl Kernel for Real {
    fn mkdir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn rmdir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn read(&self, file: &Path) -> io::Result<String> {
        kernelfs::read_to_string(file)
    }

    fn write(&self, file: &Path, value: &str) -> io::Result<()> {
        // A control file takes a value in one write(2); a File has no buffer that could part it.
        fs::File::options().write(true).open(file)?.write_all(value.as_bytes())
    }

    fn write_each(&self, file: &Path, values: &mut dyn Iterator<Item = &str>) -> io::Result<()> {
        let mut file = fs::File::options().write(true).open(file)?;
        for value in values {
            file.write_all(value.as_bytes())?;
        }
        Ok(())
    }

    fn children(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    fn device_program(&self, dir: &Path, rules: &[DeviceRule]) -> Result<()> {
        program::attach(dir, rules)
    }
}

const EINVAL: i32 = 22;
const ENODEV: i32 = 19;
const ERANGE: i32 = 34;
const EBUSY: i32 = 16;
const EOPNOTSUPP: i32 = 95;

/// Applies steps of the plan of a new group; returns the directories that they made, which are removed again when one
/// fails, in reverse.
pub(crate) fn create(kernel: &impl Kernel, steps: &[Step]) -> Result<Vec<PathBuf>> {
    // What somebody removes between two of our steps is made again: a parent that another group's failure takes along, or
    // an empty group that systemd trims.
    const TRIES: u32 = 5;
    let mut tries = 0;
    loop {
        tries += 1;
        let mut made = Vec::new();
        let result = steps.iter().try_for_each(|step| apply(kernel, step, &mut made));
        let Err(error) = result else { return Ok(made) };
        // ENODEV can mean a device, too.
        let vanished = match error.raw_os_error() {
            Some(ENODEV) => made.iter().any(|dir| !there(kernel, dir)),
            _ => error.is_vanished(),
        };
        take_back(kernel, &made);
        match made.pop() {
            _ if !vanished => return Err(error),
            Some(dir) if tries == TRIES => return Err(Error::Vanished { dir }),
            None if tries == TRIES => return Err(error),
            _ => {}
        }
    }
}

/// Removes directories that were made, in reverse.
pub(crate) fn take_back(kernel: &impl Kernel, made: &[PathBuf]) {
    for dir in made.iter().rev() {
        // Parents may have got other children meanwhile: then they stay.
        let _ = kernel.rmdir(dir);
    }
}

/// Applies the plan of an update; on failure writes the former values back, in reverse, as far as files show them.
pub(crate) fn update(kernel: &impl Kernel, plan: &Plan) -> Result<()> {
    let mut former: Vec<(PathBuf, String)> = Vec::new();
    for step in &plan.steps {
        let writes: &[Write] = match step {
            Step::Write(write) => std::slice::from_ref(write),
            Step::WriteTogether(writes) | Step::WriteFirst(writes) => writes,
            Step::Period { file, .. } => {
                former
                    .extend(kernel.read(file).ok().map(|value| (file.clone(), value.trim_end().to_owned())));
                &[]
            }
            _ => &[],
        };
        for write in writes {
            if let Ok(value) = kernel.read(&write.file) {
                former.push((write.file.clone(), value.trim_end().to_owned()));
            }
        }
        if let Err(error) = apply(kernel, step, &mut Vec::new()) {
            // Twice: of values that constrain each other one may have to wait for the other.
            for _ in 0..2 {
                for (file, value) in former.iter().rev() {
                    let _ = kernel.write(file, value);
                }
            }
            return Err(error);
        }
    }
    Ok(())
}

fn failed(step: &Step, cause: io::Error) -> Error {
    let hint = match (step, cause.raw_os_error()) {
        (Step::Enable { .. }, Some(EBUSY)) => {
            " (this group has processes of its own; move them into a group below it, cgroup-v2.rst \"No Internal \
             Process Constraint\")"
        }
        (_, Some(EBUSY)) => " (more is in use than the new limit allows)",
        (Step::Mkdir { .. }, _) if cause.kind() == io::ErrorKind::PermissionDenied => {
            " (no group may be made there by this user; see `Delegate=` in systemd.resource-control(5))"
        }
        (Step::Enable { .. }, _) if cause.kind() == io::ErrorKind::PermissionDenied => {
            " (these controllers are not delegated to this user; see `Delegate=` in systemd.resource-control(5))"
        }
        (Step::Mkdir { .. }, _) if cause.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            " (the control groups are mounted read-only here)"
        }
        (_, Some(ENODEV)) => " (there is no such device)",
        (_, Some(EINVAL | ERANGE)) => " (the value is out of the range that the kernel takes here)",
        _ => "",
    };
    Error::Step { step: step.to_string(), cause, hint }
}

/// Applies one step; directories that it makes are added to `made`.
pub(crate) fn apply(kernel: &impl Kernel, step: &Step, made: &mut Vec<PathBuf>) -> Result<()> {
    let fail = |cause| failed(step, cause);
    match step {
        Step::Mkdir { dir, fresh } => match kernel.mkdir(dir) {
            Ok(()) => {
                made.push(dir.clone());
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !fresh => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if adopt(kernel, dir)? {
                    return Ok(());
                }
                kernel.mkdir(dir).map_err(fail)?;
                made.push(dir.clone());
                Ok(())
            }
            Err(e) => Err(fail(e)),
        },
        Step::Enable { dir, controllers, required } => {
            enable(kernel, dir, controllers, required).map_err(fail)
        }
        Step::Joinable { dir, domain } => joinable(kernel, dir, domain, made).map_err(fail),
        Step::Period { file, period } => {
            let now = kernel.read(file).map_err(fail)?;
            let quota = now.split_whitespace().next().unwrap_or("max");
            kernel.write(file, &format!("{quota} {period}")).map_err(fail)
        }
        Step::Inherit { file } => inherit(kernel, file).map_err(fail),
        Step::Write(write) => one(kernel, write)?.map_err(fail),
        Step::WriteTogether(writes) => together(kernel, writes)?.map_err(fail),
        Step::WriteFirst(writes) => {
            for (i, write) in writes.iter().enumerate() {
                match kernel.write(&write.file, &write.value) {
                    Err(e) if absent(&e) && !has_group(kernel, &write.file) => return Err(fail(e)),
                    Err(e) if absent(&e) && i + 1 < writes.len() => {}
                    Err(e) if absent(&e) => return Err(lacking(write)),
                    other => return other.map_err(fail),
                }
            }
            Ok(())
        }
        Step::DeviceList { dir, rules } => {
            let list = List::from_rules(rules)?;
            let current = match made.iter().any(|fresh| fresh == dir) {
                true => None,
                false => Some(List::parse(&kernel.read(&dir.join("devices.list")).map_err(fail)?)?),
            };
            let writes = list.writes(current.as_ref());
            for same in writes.chunk_by(|(one, _), (other, _)| one == other) {
                let mut values = same.iter().map(|(_, value)| value.as_str());
                kernel.write_each(&dir.join(same[0].0), &mut values).map_err(fail)?;
            }
            Ok(())
        }
        Step::DeviceProgram { dir, rules } => kernel.device_program(dir, rules),
    }
}

/// Whether a group exists.
pub(crate) fn there(kernel: &impl Kernel, dir: &Path) -> bool {
    // Not the directory alone: that of a group which is being removed goes last.
    !kernel.read(&dir.join("cgroup.procs")).is_err_and(|cause| files::gone(&cause))
}

/// Whether a file is missing for itself, and not because its whole group was removed.
fn has_group(kernel: &impl Kernel, file: &Path) -> bool {
    file.parent().is_some_and(|dir| there(kernel, dir))
}

fn absent(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::NotFound || cause.raw_os_error() == Some(EOPNOTSUPP)
}

fn lacking(write: &Write) -> Error {
    let file = write.file.display().to_string();
    let name = write.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Error::Unsupported { what: format!("{name} = {}", write.value), file }
}

/// The outer result is an error of its own, the inner one the kernel's.
fn one(kernel: &impl Kernel, write: &Write) -> Result<io::Result<()>> {
    match kernel.write(&write.file, &write.value) {
        Err(e) if absent(&e) && !has_group(kernel, &write.file) => Ok(Err(e)),
        Err(e) if absent(&e) && write.missing == Missing::Skip => Ok(Ok(())),
        Err(e) if absent(&e) => Err(lacking(write)),
        other => Ok(other),
    }
}

fn together(kernel: &impl Kernel, writes: &[Write]) -> Result<io::Result<()>> {
    let mut left: Vec<&Write> = writes.iter().collect();
    loop {
        let before = left.len();
        let mut refused = None;
        let mut again = Vec::new();
        for write in left {
            match one(kernel, write)? {
                Ok(()) => {}
                Err(e) if e.raw_os_error() == Some(EINVAL) => {
                    again.push(write);
                    refused = Some(e);
                }
                Err(e) => return Ok(Err(e)),
            }
        }
        match refused {
            None => return Ok(Ok(())),
            Some(e) if again.len() == before => return Ok(Err(e)),
            Some(_) => left = again,
        }
    }
}

fn enable(kernel: &impl Kernel, dir: &Path, controllers: &[String], required: &[String]) -> io::Result<()> {
    let file = dir.join("cgroup.subtree_control");
    let enabled = kernel.read(&file)?;
    let lacking: Vec<&str> = controllers
        .iter()
        .map(String::as_str)
        .filter(|controller| !enabled.split_whitespace().any(|on| on == *controller))
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let plus = |list: &[&str]| list.iter().map(|c| format!("+{c}")).collect::<Vec<_>>().join(" ");
    if kernel.write(&file, &plus(&lacking)).is_ok() {
        return Ok(());
    }
    // One that cannot be had spoils the whole write, so each is asked for by itself.
    for controller in lacking {
        if let Err(e) = kernel.write(&file, &plus(&[controller]))
            && required.iter().any(|r| r == controller)
        {
            return Err(e);
        }
    }
    Ok(())
}

fn inherit(kernel: &impl Kernel, file: &Path) -> io::Result<()> {
    if !kernel.read(file)?.trim().is_empty() {
        return Ok(());
    }
    let name = file.file_name().unwrap_or_default();
    let Some(above) = file.parent().and_then(Path::parent) else { return Ok(()) };
    let value = kernel.read(&above.join(name))?;
    kernel.write(file, value.trim_end())
}

/// What to do with a group that is there already: `true` when it is taken as it is, limits and all (somebody may have
/// prepared it); `false` when it was removed because a run cut short left groups below it, which would keep processes
/// out. Refuses when anything lives in it, and when it is frozen: what joined would stand still.
fn adopt(kernel: &impl Kernel, dir: &Path) -> Result<bool> {
    let tree = refuse_living(kernel, dir)?;
    if tree.len() == 1 {
        return Ok(true);
    }
    for group in tree.iter().rev() {
        remove_dir(kernel, group, Duration::from_millis(200))
            .map_err(|cause| Error::file("remove", group, cause))?;
    }
    Ok(false)
}

/// A group and all below it, if nothing lives there and it is not frozen.
pub(crate) fn refuse_living(kernel: &impl Kernel, dir: &Path) -> Result<Vec<PathBuf>> {
    let tree = tree(kernel, dir).map_err(|cause| Error::file("read", dir, cause))?;
    for group in &tree {
        let file = group.join("cgroup.procs");
        let text = match kernel.read(&file) {
            Ok(text) => text,
            Err(cause) if files::gone(&cause) || cause.raw_os_error() == Some(EOPNOTSUPP) => continue,
            Err(cause) => return Err(Error::file("read", &file, cause)),
        };
        if let Some(pid) = files::pids(&file, &text)?.first() {
            return Err(Error::Occupied { dir: dir.to_path_buf(), pid: *pid });
        }
    }
    for (file, frozen) in [("cgroup.freeze", "1"), ("freezer.state", "FROZEN"), ("freezer.state", "FREEZING")]
    {
        if kernel.read(&dir.join(file)).is_ok_and(|text| text.trim() == frozen) {
            return Err(Error::Frozen { dir: dir.to_path_buf() });
        }
    }
    Ok(tree)
}

/// Below a threaded group new groups are "domain invalid" and take no process before they are threaded, too.
fn joinable(kernel: &impl Kernel, dir: &Path, domain: &[String], made: &[PathBuf]) -> io::Result<()> {
    let invalid =
        |dir: &Path| kernel.read(&dir.join("cgroup.type")).is_ok_and(|text| text.trim() == "domain invalid");
    if !invalid(dir) {
        return Ok(());
    }
    if !domain.is_empty() {
        return Err(io::Error::other(format!(
            "a group above has processes of its own or threads, so that {} cannot be had here",
            domain.join(" ")
        )));
    }
    for parent in made.iter().filter(|parent| dir.starts_with(parent) && parent.as_path() != dir) {
        if invalid(parent) {
            kernel.write(&parent.join("cgroup.type"), "threaded")?;
        }
    }
    kernel.write(&dir.join("cgroup.type"), "threaded")
}

/// A group and all below it, parents first.
pub(crate) fn tree(kernel: &impl Kernel, dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![dir.to_path_buf()];
    let mut next = 0;
    while let Some(group) = found.get(next) {
        match kernel.children(group) {
            Ok(children) => found.extend(children),
            Err(e) if files::gone(&e) && next > 0 => {}
            Err(e) => return Err(e),
        }
        next += 1;
    }
    Ok(found)
}

/// Removes one directory; EBUSY passes when the last process has ended altogether, so it is tried for a while.
pub(crate) fn remove_dir(kernel: &impl Kernel, dir: &Path, patience: Duration) -> io::Result<()> {
    let mut pause = Duration::from_micros(500);
    let mut waited = Duration::ZERO;
    loop {
        match kernel.rmdir(dir) {
            Err(e) if files::gone(&e) => return Ok(()),
            Err(e) if e.raw_os_error() == Some(EBUSY) && waited < patience => {
                sleep(pause);
                waited += pause;
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            other => return other,
        }
    }
}

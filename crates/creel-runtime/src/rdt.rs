//! Intel resource director technology: a class of service and a monitoring group of the resctrl file system
//! (runtime-spec, "IntelRdt"; the kernel's `filesystems/resctrl.rst`).

use std::io::Write;
use std::path::{Path, PathBuf};

use creel_sys::kernelfs::unescape;
use creel_types::spec::IntelRdt;

use crate::Error;
use crate::error::plain;

/// Where resctrl is mounted, by the text of `/proc/self/mountinfo`.
fn mounted(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("resctrl ").then(|| left.split(' ').nth(4).map(|at| unescape(at).into()))?
    })
}

fn root() -> Result<PathBuf, Error> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|e| Error::setup("cannot read /proc/self/mountinfo", plain(&e)))?;
    mounted(&text).ok_or_else(|| {
        Error::unsupported("linux.intelRdt", "no resctrl file system is mounted on this host; leave it out")
    })
}

/// Checks what can be checked without the file system.
pub(crate) fn check(wanted: &IntelRdt) -> Result<(), Error> {
    let wrong = |field: &str, text: &str| Err(Error::invalid(format!("linux.intelRdt.{field}"), text));
    if let Some(class) = wanted.clos_id.as_deref()
        && class != "/"
        && (class.is_empty() || class == "." || class == ".." || class.contains(['/', '\0', '\n']))
    {
        return wrong("closID", "this is no name of a directory");
    }
    let line = |text: &Option<String>| text.as_deref().is_some_and(|text| text.contains('\n'));
    if line(&wanted.l3_cache_schema) {
        return wrong("l3CacheSchema", "it is more than a line");
    }
    if line(&wanted.mem_bw_schema) || !wanted.mem_bw_schema.as_deref().unwrap_or("MB:").starts_with("MB:") {
        return wrong("memBwSchema", "it has to be one line that begins with MB:");
    }
    if wanted.schemata.iter().any(|text| text.contains('\n')) {
        return wrong("schemata", "an element is more than a line");
    }
    Ok(())
}

/// What was found before anything was made: the directories of one container.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    wanted: &'a IntelRdt,
    class: PathBuf,
    group: Option<PathBuf>,
    /// Whether the class is the container's own and goes with it.
    own: bool,
}

impl<'a> Plan<'a> {
    /// Finds the file system.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it is not mounted.
    pub(crate) fn find(id: &str, wanted: Option<&'a IntelRdt>) -> Result<Option<Plan<'a>>, Error> {
        wanted.map(|wanted| Ok(Plan::at(&root()?, id, wanted))).transpose()
    }

    fn at(root: &Path, id: &str, wanted: &'a IntelRdt) -> Plan<'a> {
        let class = match wanted.clos_id.as_deref() {
            None => root.join(id),
            Some("/") => root.to_path_buf(),
            Some(name) => root.join(name),
        };
        let group = wanted.enable_monitoring.then(|| class.join("mon_groups").join(id));
        Plan { wanted, class, group, own: wanted.clos_id.is_none() }
    }

    /// Puts a process into its class, which is made and set where the specification says so. A failure leaves nothing.
    pub(crate) fn enter(&self, pid: i32) -> Result<(), Error> {
        let existed = self.class.is_dir();
        self.fill(existed, pid).inspect_err(|_| {
            if let Some(group) = &self.group {
                let _ = std::fs::remove_dir(group);
            }
            if !existed {
                let _ = std::fs::remove_dir(&self.class);
            }
        })
    }

    fn fill(&self, existed: bool, pid: i32) -> Result<(), Error> {
        let wanted = self.wanted;
        let failed = |path: &Path, e: &std::io::Error| {
            Error::setup(format!("cannot set up {}", path.display()), plain(e))
        };
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let fixed: Vec<String> =
            [&wanted.l3_cache_schema, &wanted.mem_bw_schema].into_iter().filter_map(given).collect();
        let schemata = self.class.join("schemata");
        match (existed, &wanted.clos_id) {
            (false, Some(name)) if fixed.is_empty() && wanted.schemata.is_empty() => {
                let text = format!("the class {name} does not exist, and no schema is given to make it with");
                return Err(Error::invalid("linux.intelRdt.closID", text));
            }
            (false, _) => std::fs::create_dir(&self.class).map_err(|e| failed(&self.class, &e))?,
            (true, None) => {
                return Err(Error::setup(
                    format!("cannot set up {}", self.class.display()),
                    "there is such a class already, and it is not this container's",
                ));
            }
            (true, Some(name)) if !fixed.is_empty() => {
                let set = std::fs::read_to_string(&schemata).map_err(|e| failed(&schemata, &e))?;
                for line in &fixed {
                    if !set.lines().any(|known| known.trim() == line.trim()) {
                        let text = format!("the class {name} exists with other schemata than {line}");
                        return Err(Error::invalid("linux.intelRdt", text));
                    }
                }
            }
            (true, Some(_)) => {}
        }
        let write = |path: &Path, text: &str| {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.append(true).create(true).open(path).map_err(|e| failed(path, &e))?;
            file.write_all(format!("{text}\n").as_bytes()).map_err(|e| failed(path, &e))
        };
        for line in fixed.iter().chain(&wanted.schemata) {
            write(&schemata, line)?;
        }
        write(&self.class.join("tasks"), &pid.to_string())?;
        if let Some(group) = &self.group {
            std::fs::create_dir(group).map_err(|e| failed(group, &e))?;
            write(&group.join("tasks"), &pid.to_string())?;
        }
        Ok(())
    }

    fn remove(&self) -> std::io::Result<()> {
        let remove = |path: &Path| match std::fs::remove_dir(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        if let Some(group) = &self.group {
            remove(group)?;
        }
        if self.own { remove(&self.class) } else { Ok(()) }
    }
}

/// Removes what a container had in resctrl: its class if it was its own, and its monitoring group. For whoever deletes
/// the container; nothing happens if it asked for nothing.
///
/// # Errors
/// [`Error::Setup`] when a directory cannot be removed.
pub fn release(id: &str, wanted: Option<&IntelRdt>) -> Result<(), Error> {
    match Plan::find(id, wanted) {
        Ok(Some(plan)) => plan
            .remove()
            .map_err(|e| Error::setup(format!("cannot remove {}", plan.class.display()), plain(&e))),
        // Not mounted any more: there is nothing.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn the_mount_is_found() {
        let text =
            "22 27 0:21 / /proc rw - proc proc rw\n40 30 0:3 / /sys/fs/resctrl rw - resctrl resctrl rw\n";
        assert_eq!(mounted(text), Some("/sys/fs/resctrl".into()));
        assert_eq!(mounted("40 30 0:3 / /a\\040b rw - resctrl resctrl rw\n"), Some("/a b".into()));
        assert_eq!(mounted("22 27 0:21 / /resctrl rw - proc resctrl rw\n"), None);
    }

    #[test]
    fn a_class_of_ones_own() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = IntelRdt {
            l3_cache_schema: Some("L3:0=f".into()),
            mem_bw_schema: Some("MB:0=20".into()),
            schemata: vec!["L2:0=1".into()],
            enable_monitoring: false,
            clos_id: None,
        };
        let plan = Plan::at(dir.path(), "box", &wanted);
        plan.enter(7).unwrap();
        assert_eq!(read(&dir.path().join("box/schemata")), "L3:0=f\nMB:0=20\nL2:0=1\n");
        assert_eq!(read(&dir.path().join("box/tasks")), "7\n");
        assert!(plan.enter(8).is_err(), "another container's class");
    }

    #[test]
    fn a_class_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("gold");
        let of = |l3: Option<&str>| IntelRdt {
            clos_id: Some("gold".into()),
            l3_cache_schema: l3.map(str::to_string),
            ..IntelRdt::default()
        };
        assert!(Plan::at(dir.path(), "box", &of(None)).enter(7).is_err(), "it does not exist");
        assert!(!class.exists());
        std::fs::create_dir(&class).unwrap();
        std::fs::write(class.join("schemata"), "    L3:0=f\n").unwrap();
        Plan::at(dir.path(), "box", &of(None)).enter(7).unwrap();
        assert_eq!(
            (read(&class.join("tasks")), read(&class.join("schemata"))),
            ("7\n".into(), "    L3:0=f\n".into())
        );
        Plan::at(dir.path(), "box", &of(Some("L3:0=f"))).enter(8).unwrap();
        assert!(Plan::at(dir.path(), "box", &of(Some("L3:0=1"))).enter(9).is_err());
        // Not the container's to remove.
        Plan::at(dir.path(), "box", &of(None)).remove().unwrap();
        assert!(class.exists());
        // The default class, with a group to watch it.
        std::fs::create_dir(dir.path().join("mon_groups")).unwrap();
        let wanted = IntelRdt { clos_id: Some("/".into()), enable_monitoring: true, ..IntelRdt::default() };
        Plan::at(dir.path(), "box", &wanted).enter(5).unwrap();
        assert_eq!(read(&dir.path().join("mon_groups/box/tasks")), "5\n");
        assert_eq!(read(&dir.path().join("tasks")), "5\n");
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in ["", ".", "..", "a/b", "/a", "a\nb"] {
            let wanted = IntelRdt { clos_id: Some(bad.into()), ..IntelRdt::default() };
            assert!(check(&wanted).is_err(), "{bad:?}");
        }
        let wanted = IntelRdt { mem_bw_schema: Some("L3:0=1".into()), ..IntelRdt::default() };
        assert!(check(&wanted).is_err());
    }
}

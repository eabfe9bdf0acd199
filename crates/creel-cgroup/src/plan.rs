//! What is to be done to make a group or to change its limits: a pure value.

use std::fmt;
use std::path::{Path, PathBuf};

use creel_types::spec::{DeviceRule, Resources, WeightDevice};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::hierarchy::Hierarchies;
use crate::{devices, v1, v2};

/// What a missing file means for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// The limit cannot be had: an error.
    Fail,
    /// The kernel does not have it and nothing is lost: go on.
    Skip,
}

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Write {
    /// The file.
    pub file: PathBuf,
    /// What is written, in a single write(2).
    pub value: String,
    /// What to do if the file is not there.
    pub missing: Missing,
}

/// One step of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Make a directory.
    Mkdir {
        /// The directory.
        dir: PathBuf,
        /// Whether it is the group itself, in which nothing may live yet (one that is empty is taken as it is, one
        /// with empty groups below it is made anew); a parent may exist and be in use.
        fresh: bool,
    },
    /// Hand controllers down to the groups below (`cgroup.subtree_control`).
    Enable {
        /// The directory whose children shall have them.
        dir: PathBuf,
        /// The controllers.
        controllers: Vec<String>,
        /// Those of them without which a limit could not be set; the others may fail.
        required: Vec<String>,
    },
    /// See that processes can join a v2 group: in a threaded subtree it becomes threaded (`cgroup-v2.rst`, "Threads").
    Joinable {
        /// The group's directory.
        dir: PathBuf,
        /// Controllers that are needed and that a threaded group cannot have.
        domain: Vec<String>,
    },
    /// Copy a value from the parent's file of the same name if this one is empty (cpuset of v1).
    Inherit {
        /// The file.
        file: PathBuf,
    },
    /// Write a value.
    Write(Write),
    /// Write values that constrain each other (a limit of memory and one of memory with swap): those that the kernel
    /// refuses with EINVAL are tried again after the others.
    WriteTogether(Vec<Write>),
    /// Write a new period to v2's `cpu.max`, with the quota that is there.
    Period {
        /// The file.
        file: PathBuf,
        /// Microseconds.
        period: u64,
    },
    /// Write to the first of these files that exists.
    WriteFirst(Vec<Write>),
    /// Replace the v1 device list by these rules.
    DeviceList {
        /// The group's directory.
        dir: PathBuf,
        /// The rules in the specification's order.
        rules: Vec<DeviceRule>,
    },
    /// Attach an eBPF program that implements these rules.
    DeviceProgram {
        /// The group's directory.
        dir: PathBuf,
        /// The rules in the specification's order.
        rules: Vec<DeviceRule>,
    },
}

impl Step {
    /// Whether it belongs to the making of groups that processes can join; the others set limits.
    pub(crate) fn makes_groups(&self) -> bool {
        matches!(
            self,
            Step::Mkdir { .. } | Step::Enable { .. } | Step::Joinable { .. } | Step::Inherit { .. }
        )
    }

    /// The directory or file that it is about.
    pub fn place(&self) -> Option<&Path> {
        match self {
            Step::Mkdir { dir, .. }
            | Step::Enable { dir, .. }
            | Step::Joinable { dir, .. }
            | Step::DeviceList { dir, .. }
            | Step::DeviceProgram { dir, .. } => Some(dir),
            Step::Inherit { file } | Step::Period { file, .. } => Some(file),
            Step::Write(write) => Some(&write.file),
            Step::WriteTogether(writes) | Step::WriteFirst(writes) => {
                writes.first().map(|write| write.file.as_path())
            }
        }
    }
}

/// Ordered steps. Undoing them is removing the made directories in reverse order.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// Requests that have no meaning in this layout and are passed over, for the log and for `explain`.
    pub notes: Vec<String>,
}

impl Plan {
    /// The plan that makes the group `path` in all hierarchies, with these limits.
    pub(crate) fn create(h: &Hierarchies, path: &str, r: &Resources) -> Result<Plan> {
        Plan::with_groups(h, path, r, true)
    }

    /// The same for a group of which somebody else (systemd) has made a part, with processes in it.
    pub(crate) fn complete(h: &Hierarchies, path: &str, r: &Resources) -> Result<Plan> {
        Plan::with_groups(h, path, r, false)
    }

    fn with_groups(h: &Hierarchies, path: &str, r: &Resources, fresh: bool) -> Result<Plan> {
        let components = components(path)?;
        let mut plan = Plan::default();
        for v1 in h.v1() {
            let cpuset = v1.controllers.iter().any(|c| c == "cpuset");
            plan.directories(v1.dir(""), &components, fresh, |plan, dir| {
                if cpuset {
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        plan.steps.push(Step::Inherit { file: dir.join(file) });
                    }
                }
            });
        }
        if let Some(unified) = h.unified() {
            let required = v2::controllers_needed(h, r);
            let enable = |plan: &mut Plan, dir: &Path| {
                if !unified.controllers.is_empty() {
                    plan.steps.push(Step::Enable {
                        dir: dir.to_path_buf(),
                        controllers: unified.controllers.clone(),
                        required: required.clone(),
                    });
                }
            };
            let mut above = unified.mount_point.clone();
            enable(&mut plan, &above);
            for part in unified.prefix.split('/').filter(|part| !part.is_empty()) {
                above.push(part);
                enable(&mut plan, &above);
            }
            let mut left = components.len();
            plan.directories(above, &components, fresh, |plan, dir| {
                left -= 1;
                if left > 0 {
                    enable(plan, dir);
                } else {
                    let domain = ["memory", "io", "hugetlb", "rdma"];
                    let domain = required.iter().filter(|c| domain.contains(&c.as_str())).cloned().collect();
                    plan.steps.push(Step::Joinable { dir: dir.to_path_buf(), domain });
                }
            });
        }
        plan.limits(h, path, r)?;
        Ok(plan)
    }

    /// The plan that changes the limits of an existing group.
    pub(crate) fn update(h: &Hierarchies, path: &str, r: &Resources) -> Result<Plan> {
        components(path)?;
        let mut plan = Plan::default();
        plan.limits(h, path, r)?;
        Ok(plan)
    }

    fn limits(&mut self, h: &Hierarchies, path: &str, r: &Resources) -> Result<()> {
        check(r)?;
        v1::limits(self, h, path, r)?;
        v2::limits(self, h, path, r)
    }

    fn directories(
        &mut self,
        mut dir: PathBuf,
        components: &[&str],
        fresh: bool,
        mut after: impl FnMut(&mut Plan, &Path),
    ) {
        for (i, component) in components.iter().enumerate() {
            dir.push(component);
            self.steps.push(Step::Mkdir { dir: dir.clone(), fresh: fresh && i + 1 == components.len() });
            after(self, &dir);
        }
    }

    pub(crate) fn write(&mut self, file: PathBuf, value: impl fmt::Display, missing: Missing) {
        self.steps.push(Step::Write(Write { file, value: value.to_string(), missing }));
    }

    pub(crate) fn together(&mut self, mut writes: Vec<Write>) {
        match writes.len() {
            0 => {}
            1 => self.steps.extend(writes.pop().map(Step::Write)),
            _ => self.steps.push(Step::WriteTogether(writes)),
        }
    }
}

/// Refuses what is wrong in itself, wherever it would be written (`config-linux.md`, "Block IO", "RDMA", "Allowed Device
/// list").
fn check(r: &Resources) -> Result<()> {
    let weighed = |device: &WeightDevice| device.weight.or(device.leaf_weight).is_some();
    let devices = r.block_io.iter().flat_map(|io| &io.weight_device);
    if let Some(device) = devices.into_iter().find(|device| !weighed(device)) {
        let (major, minor) = (device.major, device.minor);
        return Err(Error::Invalid(format!(
            "resources.blockIO.weightDevice {major}:{minor} has neither weight nor leafWeight"
        )));
    }
    for (name, limits) in &r.rdma {
        if limits.hca_handles.or(limits.hca_objects).is_none() {
            let text = format!("resources.rdma.{name} has neither hcaHandles nor hcaObjects");
            return Err(Error::Invalid(text));
        }
    }
    r.devices.iter().try_for_each(|rule| devices::Rule::parse(rule).map(drop))
}

/// The parts of a group's path.
pub(crate) fn components(path: &str) -> Result<Vec<&str>> {
    let wrong = |reason| Error::Path { path: path.to_owned(), reason };
    let rest = path.strip_prefix('/').ok_or_else(|| wrong("is not absolute"))?;
    let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Err(wrong("is the root of the hierarchies"));
    }
    for part in &parts {
        if matches!(*part, "." | "..") {
            return Err(wrong("has a . or .. component"));
        }
        if part.len() > 255 {
            return Err(wrong("has a component of more than 255 bytes"));
        }
        if part.contains(['\n', '\0']) {
            return Err(wrong("has a line break or a NUL in it"));
        }
    }
    Ok(parts)
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write {} to {}", self.value, self.file.display())?;
        match self.missing {
            Missing::Fail => Ok(()),
            Missing::Skip => f.write_str(" if it exists"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, writes: &[Write], word: &str| {
            for (i, write) in writes.iter().enumerate() {
                let joint = if i == 0 { "" } else { word };
                write!(f, "{joint}{write}")?;
            }
            Ok(())
        };
        match self {
            Step::Mkdir { dir, fresh: true } => write!(f, "make new directory {}", dir.display()),
            Step::Mkdir { dir, fresh: false } => write!(f, "make directory {}", dir.display()),
            Step::Enable { dir, controllers, required } => {
                write!(f, "enable {} below {}", controllers.join(" "), dir.display())?;
                if required.is_empty() { Ok(()) } else { write!(f, " (needed: {})", required.join(" ")) }
            }
            Step::Joinable { dir, domain } if domain.is_empty() => {
                write!(f, "let processes join {}", dir.display())
            }
            Step::Joinable { dir, domain } => {
                write!(f, "let processes join {} (with {})", dir.display(), domain.join(" "))
            }
            Step::Period { file, period } => {
                write!(f, "write the quota that is there and the period {period} to {}", file.display())
            }
            Step::Inherit { file } => write!(f, "inherit {}", file.display()),
            Step::Write(write) => write!(f, "{write}"),
            Step::WriteTogether(writes) => list(f, writes, " together with "),
            Step::WriteFirst(writes) => list(f, writes, " or else "),
            Step::DeviceList { dir, rules } => {
                write!(f, "set {} device rules in {}", rules.len(), dir.display())
            }
            Step::DeviceProgram { dir, rules } => {
                write!(f, "attach a program of {} device rules to {}", rules.len(), dir.display())
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

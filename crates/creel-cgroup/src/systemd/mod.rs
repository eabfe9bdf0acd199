//! The systemd driver: a container's group is a transient scope (or slice) that systemd makes, knows and cleans up.
//!
//! systemd is asked over D-Bus: at the system bus, an ordinary user's own at his session bus, or at systemd's private
//! socket where there is no bus. It moves the container's first process into the unit, so that this must exist and wait
//! (before it takes a cgroup namespace) while [`create`] runs. Limits are given to systemd as far as it knows such, so
//! that it does not undo them when it writes its files again; then all of them are written to the files as the other
//! driver does, for the rest. What properties there are and in which order is runc's: tools read them with
//! `systemctl show`.

mod bus;
mod names;
mod props;
mod text;
mod wire;

use std::collections::BTreeMap;
use std::fs;

use creel_types::spec::Resources;
use serde::{Deserialize, Serialize};

use self::bus::{Bus, MANAGER, Which};
use self::names::Place;
use self::props::{Host, Properties};
pub use self::wire::Value;
use crate::admit;
use crate::apply::{self, Real};
use crate::error::{Error, Result};
use crate::files;
use crate::group::{Cgroup, check_usage};
use crate::hierarchy::{Hierarchies, Layout};
use crate::plan::Plan;

/// The unit behind a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name, with `.scope` or `.slice`.
    pub name: String,
    /// Whether it is the calling user's systemd that has it, not the machine's.
    #[serde(default)]
    pub user: bool,
}

impl Unit {
    fn bus(&self) -> Result<Bus> {
        Bus::connect(if self.user { Which::User } else { Which::System })
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `linux.cgroupsPath`: `slice:prefix:name`, or nothing.
    pub cgroups_path: Option<&'a str>,
    /// The container's id.
    pub id: &'a str,
    /// The container's annotations; `org.systemd.property.NAME` sets a property.
    pub annotations: &'a BTreeMap<String, String>,
    /// `linux.resources`.
    pub resources: &'a Resources,
    /// Whether it is the calling user's systemd that is asked (cgroup v2 alone).
    pub rootless: bool,
}

/// A unit that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Its group, which knows the unit: [`Cgroup::update`] and [`Cgroup::remove`] tell systemd.
    pub group: Cgroup,
    /// What was passed over, for the log.
    pub notes: Vec<String>,
}

/// Reads a request without asking anybody, so that what is wrong with it is known before a process exists. Gives the
/// path that its group will have; for an ordinary user it is below that of his systemd.
///
/// # Errors
/// [`Error::Invalid`] as [`create`].
pub fn validate(h: &Hierarchies, request: &Request<'_>) -> Result<String> {
    let place = Place::parse(request.cgroups_path, request.id, request.rootless)?;
    if request.rootless && h.layout() != Layout::V2 {
        return Err(Error::Invalid(
            "systemd gives an ordinary user no groups of cgroup v1; leave out --systemd-cgroup".into(),
        ));
    }
    text::properties(request.annotations)?;
    props::limits(request.resources, Host { v2: h.layout() == Layout::V2, version: u32::MAX })?;
    let path = place.path()?;
    Plan::complete(h, &path, request.resources)?;
    Ok(path)
}

/// The values in a message of D-Bus's, and its bytes as they would be sent from here; `None` if it is none. For the
/// fuzzer, which cannot reach further in.
#[doc(hidden)]
pub fn read_message(bytes: &[u8]) -> Option<(Vec<Value>, Vec<u8>)> {
    let message = wire::Message::decode(bytes).ok()??;
    let encoded = message.encode();
    Some((message.body, encoded))
}

/// Has systemd make the unit, with the process in it, and sets its limits. On failure the unit is stopped again.
///
/// # Errors
/// [`Error::Invalid`] for a `cgroupsPath`, an annotation or limits that are wrong; [`Error::Systemd`] when systemd
/// cannot be reached or refuses; [`Error::Occupied`] and [`Error::Frozen`] when the group is there and not empty or
/// frozen; otherwise as [`Cgroup::create`].
pub fn create(h: &Hierarchies, request: &Request<'_>, pid: Option<i32>) -> Result<Started> {
    validate(h, request)?;
    let unit = Unit { name: String::new(), user: request.rootless };
    create_over(unit.bus()?, h, request, pid)
}

fn create_over(mut bus: Bus, h: &Hierarchies, request: &Request<'_>, pid: Option<i32>) -> Result<Started> {
    let place = Place::parse(request.cgroups_path, request.id, request.rootless)?;
    let host = host(&mut bus, h)?;
    let mut path = place.path()?;
    if request.rootless {
        let above = bus.manager_property("ControlGroup")?;
        path = format!("{}{path}", above.as_text().unwrap_or_default().trim_end_matches('/'));
    }
    if !place.unit.ends_with(".slice") {
        for dir in h.dirs(&path).filter(|dir| dir.is_dir()) {
            apply::refuse_living(&Real, &dir)?;
        }
    }
    check_usage(h, &path, request.resources)?;
    let mut resources = request.resources.clone();
    if request.rootless {
        // Neither he nor his systemd may load programs: what he cannot open he cannot open in a container.
        resources.devices.clear();
    }
    let (limits, notes) = props::limits(&resources, host)?;
    round(&mut resources, None);
    let mut properties = props::unit(&place, pid, host);
    properties.extend(limits);
    properties.extend(text::properties(request.annotations)?);
    let unit = Unit { name: place.unit, user: request.rootless };
    start(&mut bus, &unit.name, &properties, pid.is_none())?;
    let group = Cgroup::of_unit(h.clone(), path, unit);
    let limited = complete(&group, &resources, pid);
    if let Err(error) = limited {
        // Asked to end, a process that waits for its creator would keep systemd waiting.
        let _ = group.kill_all();
        stop(&mut bus, &group)?;
        return Err(error);
    }
    Ok(Started { group, notes })
}

fn host(bus: &mut Bus, h: &Hierarchies) -> Result<Host> {
    let version = bus.manager_property("Version")?;
    Ok(Host { v2: h.layout() == Layout::V2, version: props::version(version.as_text().unwrap_or_default()) })
}

/// Makes the group where systemd does not, sets its limits, and moves the process where systemd has not moved it.
fn complete(group: &Cgroup, r: &Resources, pid: Option<i32>) -> Result<()> {
    let plan = Plan::complete(group.hierarchies(), group.path(), r)?;
    match pid {
        Some(pid) => admit::admit(&Real, group, &plan, pid),
        None => apply::create(&Real, &plan.steps).map(drop),
    }
}

/// What the files are to get: without a weight beside idleness, and with the quota that systemd makes of it. In an update that names only one of quota and period the other
/// is what the group has.
fn round(r: &mut Resources, group: Option<&Cgroup>) {
    if r.unified.get("cpu.idle").is_some_and(|value| value.trim() == "1") {
        r.unified.remove("cpu.weight");
    }
    let Some(cpu) = &mut r.cpu else { return };
    if cpu.idle == Some(1) {
        // systemd makes the group idle before the files are written, and then it takes no weight.
        cpu.shares = None;
    }
    let said = |quota: Option<i64>| quota.filter(|quota| *quota != 0);
    let period = cpu.period.filter(|period| *period != 0);
    if said(cpu.quota).is_some() != period.is_some()
        && let Some((quota_now, period_now)) = group.and_then(bandwidth)
    {
        cpu.quota = Some(said(cpu.quota).unwrap_or(quota_now));
        cpu.period = Some(period.unwrap_or(period_now));
    }
    cpu.quota = cpu.quota.map(|quota| props::rounded(quota, cpu.period.unwrap_or(0)));
}

/// Quota (-1 for none) and period of a group.
fn bandwidth(group: &Cgroup) -> Option<(i64, u64)> {
    let h = group.hierarchies();
    if let Some(dir) = h.v1_dir("cpu", group.path()) {
        let quota = fs::read_to_string(dir.join("cpu.cfs_quota_us")).ok()?.trim().parse().ok()?;
        return Some((quota, files::read_number(&dir.join("cpu.cfs_period_us")).ok()??));
    }
    let text = fs::read_to_string(h.unified_dir("cpu", group.path())?.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    Some((if quota == "max" { -1 } else { quota.parse().ok()? }, period.parse().ok()?))
}

fn structs(properties: &Properties) -> Value {
    let pair = |(name, value): &(String, Value)| {
        Value::Struct(vec![Value::text(name), Value::variant(value.clone())])
    };
    Value::Array("(sv)".into(), properties.iter().map(pair).collect())
}

fn is(error: &Error, wanted: &str) -> bool {
    matches!(error, Error::Systemd { name, .. } if name.ends_with(wanted))
}

/// `may_exist`: for a slice that is only to be there.
fn start(bus: &mut Bus, name: &str, properties: &Properties, may_exist: bool) -> Result<()> {
    let body = || {
        vec![
            Value::text(name),
            Value::text("replace"),
            structs(properties),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ]
    };
    let begin = |bus: &mut Bus| bus.call(MANAGER, "StartTransientUnit", body());
    let reply = match begin(bus) {
        Err(error) if is(&error, ".UnitExists") && may_exist => return Ok(()),
        Err(error) if is(&error, ".UnitExists") => {
            // One that has failed stays until it is forgotten.
            let _ = forget(bus, name);
            begin(bus)
        }
        other => other,
    };
    let reply = reply.map_err(|error| about(error, "start", name))?;
    let result = match job(&reply) {
        Some(job) => bus.job_result(job)?,
        None => return Err(about(wrong_answer(), "start", name)),
    };
    if result != "done" {
        let _ = forget(bus, name);
        let why = format!("its job ended with {result:?}; see `systemctl status {name}` and the journal");
        return Err(Error::Systemd { what: format!("start the unit {name}"), name: String::new(), why });
    }
    Ok(())
}

fn job(reply: &[Value]) -> Option<&str> {
    reply.first().and_then(Value::as_text)
}

fn wrong_answer() -> Error {
    Error::Systemd { what: String::new(), name: String::new(), why: "the answer names no job".into() }
}

/// The same error with the unit's name in it.
fn about(error: Error, action: &str, unit: &str) -> Error {
    match error {
        Error::Systemd { name, why, .. } => {
            Error::Systemd { what: format!("{action} the unit {unit}"), name, why }
        }
        other => other,
    }
}

fn forget(bus: &mut Bus, name: &str) -> Result<()> {
    bus.call(MANAGER, "ResetFailedUnit", vec![Value::text(name)]).map(drop)
}

/// Stops the unit (what is still in it is killed) and has systemd forget it. One that is gone is no error.
fn stop(bus: &mut Bus, group: &Cgroup) -> Result<()> {
    let Some(unit) = group.unit() else { return Ok(()) };
    match bus.call(MANAGER, "StopUnit", vec![Value::text(&unit.name), Value::text("replace")]) {
        Ok(reply) => {
            if let Some(job) = job(&reply) {
                // Whatever became of it: the group's removal will tell.
                bus.job_result(job)?;
            }
        }
        Err(error) if is(&error, ".NoSuchUnit") => return Ok(()),
        Err(error) => return Err(about(error, "stop", &unit.name)),
    }
    // Refused when it has not failed, which is the rule.
    let _ = forget(bus, &unit.name);
    Ok(())
}

/// Stops the unit of a group.
pub(crate) fn remove(group: &Cgroup) -> Result<()> {
    match group.unit() {
        Some(unit) => stop(&mut unit.bus()?, group),
        None => Ok(()),
    }
}

/// Has systemd move a process of the caller's into a unit of his. An ordinary user has to ask for it: he may not move
/// processes between groups whose common parent is not his, as from a login session into his systemd's own.
///
/// # Errors
/// [`Error::Systemd`] when systemd cannot be reached or refuses, also for a group that is no unit.
pub fn adopt(group: &Cgroup, pid: i32) -> Result<()> {
    let name = group.unit().map(|unit| unit.name.as_str()).unwrap_or_default();
    let wrong = |why: &str| Error::Systemd {
        what: format!("move process {pid} into the unit {name}"),
        name: String::new(),
        why: why.into(),
    };
    let unit = group.unit().ok_or_else(|| wrong("the group is none of systemd's"))?;
    let number = u32::try_from(pid).map_err(|_| wrong("this is no process id"))?;
    let pids = Value::Array("u".into(), vec![Value::Uint32(number)]);
    let body = vec![Value::text(name), Value::text(""), pids];
    unit.bus()?.call(MANAGER, "AttachProcessesToUnit", body).map(drop).map_err(|error| match error {
        Error::Systemd { name: error, why, .. } => {
            Error::Systemd { what: format!("move process {pid} into the unit {name}"), name: error, why }
        }
        other => other,
    })
}

/// Tells systemd of new limits of a group that is a unit's; `r` becomes what the files are to get. Gives what was passed
/// over.
pub(crate) fn update(group: &Cgroup, r: &mut Resources) -> Result<Vec<String>> {
    match group.unit() {
        Some(unit) => update_over(&mut unit.bus()?, group, &unit.name, r),
        None => Ok(Vec::new()),
    }
}

fn update_over(bus: &mut Bus, group: &Cgroup, name: &str, r: &mut Resources) -> Result<Vec<String>> {
    let host = host(bus, group.hierarchies())?;
    if group.unit().is_some_and(|unit| unit.user) {
        r.devices.clear();
    }
    // Rounding takes out what is passed over.
    let (_, notes) = props::limits(r, host)?;
    round(r, Some(group));
    let (properties, _) = props::limits(r, host)?;
    if properties.is_empty() {
        return Ok(notes);
    }
    // v1: systemd empties the device list before it fills it; nobody shall meet it empty.
    let freeze = !host.v2 && !r.devices.is_empty() && !group.is_frozen()?;
    if freeze {
        group.freeze()?;
    }
    let body = vec![Value::text(name), Value::Bool(true), structs(&properties)];
    let set =
        bus.call(MANAGER, "SetUnitProperties", body).map_err(|error| about(error, "set properties of", name));
    if freeze {
        group.thaw()?;
    }
    set.map(|_| notes)
}

#[cfg(test)]
mod tests;

//! `mounts`: file systems and paths of the host that a running container gets, and loses.

use std::os::fd::AsFd;
use std::path::Path;

use creel_runtime::live::{self, Target};
use creel_types::spec::{self, Mount};

use crate::container;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::record::Status;

/// `mounts add|remove ID FILE`.
pub(crate) fn mounts(o: &Options, what: &str, id: &str, file: &str) -> Result<()> {
    let change = match what {
        "add" => live::add,
        "remove" => live::remove,
        _ => return Err(Error::Invalid(format!("mounts: {what:?} is neither add nor remove"))),
    };
    let loaded = container::load_locked(o, id)?;
    if matches!(loaded.status(), Status::Stopped | Status::Creating) {
        return Err(Error::NotRunning);
    }
    let bytes = std::fs::read(file).map_err(|e| Error::on("open", Path::new(file), e))?;
    let list: Vec<Mount> = spec::from_json(&bytes).map_err(|e| Error::Invalid(format!("{file}: {e}")))?;
    let (init, spec) = (loaded.init()?, loaded.entry.spec()?);
    let target = Target {
        pidfd: init.as_fd(),
        spec: &spec,
        bundle: loaded.record.bundle.as_ref(),
        rootfs: loaded.record.rootfs.as_ref(),
    };
    Ok(change(&target, &list)?)
}

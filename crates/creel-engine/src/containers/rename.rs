//! Rename.

use std::sync::Arc;

use crate::core::{Core, to_the_end};
use crate::error::{Error, Result};
use crate::names;

/// Gives a container another name.
pub(crate) async fn rename(core: &Arc<Core>, id: &str, new: &str) -> Result<()> {
    if new.is_empty() {
        return Err(Error::invalid("Neither old nor new names may be empty"));
    }
    let container = core.containers.find(id)?;
    let allocating = |e: Error| e.within("Error when allocating new name");
    let new =
        names::check(&format!("/{}", new.strip_prefix('/').unwrap_or(new))).map_err(allocating)?.to_owned();
    let core = core.clone();
    to_the_end(async move {
        let _owner = container.owner.lock().await;
        let old = container.name();
        if old == new {
            return Err(Error::invalid("Renaming a container with the same name as its current name"));
        }
        let guard = core.containers.take_name(&new, &container.id).map_err(allocating)?;
        let record = container.change(|record| record.name.clone_from(&new));
        if let Err(e) = core.put(record).await {
            container.change(|record| record.name.clone_from(&old));
            return Err(e);
        }
        guard.keep();
        core.containers.release_name(&old);
        core.tell(&container, "rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    })
    .await
}

//! Remove: the rows go first, in one transaction; what a crash leaves is swept at the next start.

use std::sync::Arc;

use super::container::Container;
use super::{signal, start};
use crate::core::{Core, blocking, to_the_end};
use crate::error::{Error, Result};
use crate::options::RemoveOptions;
use crate::record::KIND;
use crate::volumes::taking;

/// Removes a container.
pub(crate) async fn remove(core: &Arc<Core>, id: &str, options: RemoveOptions) -> Result<()> {
    if options.link {
        return Err(Error::unsupported("removing a link: links are not in this version of creel yet"));
    }
    let container = core.containers.find(id)?;
    let core = core.clone();
    to_the_end(async move {
        let _owner = container.owner.lock().await;
        finish(&core, &container, options).await
    })
    .await
}

/// Removes a container whose owner the caller is.
pub(crate) async fn finish(
    core: &Arc<Core>,
    container: &Arc<Container>,
    options: RemoveOptions,
) -> Result<()> {
    let life = container.life();
    if life.removed {
        return Err(Error::not_found(format!("No such container: {}", container.id)));
    }
    if let Some(running) = &life.running {
        let name = container.name();
        if !options.force {
            return Err(Error::conflict(if running.paused {
                format!("cannot remove container \"{name}\": container is paused and must be unpaused first")
            } else {
                format!(
                    "cannot remove container \"{name}\": container is running: stop the container before removing or force remove"
                )
            }));
        }
        // `--rm` would wait for the lock that is held here, and find nothing left to do.
        container.restarting.store(true, std::sync::atomic::Ordering::SeqCst);
        signal::halt(core, container, Some(libc::SIGKILL), Some(-1)).await.or_else(|e| match e.kind() {
            creel_types::ErrorKind::NotModified => Ok(()),
            _ => Err(e),
        })?;
    }
    let record = container.record();
    let volumes = options.volumes || record.host_config.auto_remove;
    core.volumes.release(&container.id);
    if volumes && record.host_config.auto_remove {
        // First, since a daemon that is killed in between removes such a container again.
        taking::discard_anonymous(core, &record).await;
    }
    let (store, id, run_dir) = (core.store.clone(), container.id.clone(), core.run_dir(&container.id));
    let removed = blocking(move || {
        store.delete_container(&id, KIND)?;
        start::clear(&run_dir)
    });
    if let Err(e) = removed.await {
        // The rows may be gone or not: either way it can only be removed again.
        if core.store.record(KIND, container.id.as_str()).is_some() {
            container.set_life(|life| life.dead = true);
            record.volumes().for_each(|(_, of)| core.volumes.add_user(&of.name, &container.id));
            return Err(e.within(format_args!("removing container {}", container.name())));
        }
        tracing::warn!(
            container = container.id.short(),
            "what is left of it is swept at the next start: {e}"
        );
    }
    if volumes {
        taking::discard_anonymous(core, &record).await;
    }
    core.containers.remove(container);
    core.execs.forget(&container.id);
    drop(container.take_pending());
    container.set_life(|life| life.removed = true);
    core.tell(container, "destroy", &[]);
    Ok(())
}

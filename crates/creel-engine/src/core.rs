//! What all use cases share: the store, the containers, the event bus, the machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use creel_cgroup::{Cgroup, Hierarchies};
use creel_plugin::Plugins;
use creel_store::Store;
use creel_types::ContainerId;
use tokio::sync::mpsc;

use crate::containers::{Container, Registry};
use crate::error::{Error, Result};
use crate::events::Bus;
use crate::execs::Execs;
use crate::options::EngineConfig;
use crate::program::Program;
use crate::record::{ContainerRecord, KIND};
use crate::shim::Told;
use crate::volumes::Volumes;

/// The engine's insides.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: EngineConfig,
    pub(crate) store: Arc<Store>,
    pub(crate) containers: Registry,
    pub(crate) execs: Execs,
    pub(crate) volumes: Volumes,
    /// Drivers of volumes besides our own.
    pub(crate) plugins: Plugins,
    pub(crate) events: Bus,
    pub(crate) hierarchies: Hierarchies,
    /// Changes with every boot: nothing that ran in another one runs now.
    pub(crate) boot_id: String,
    /// What shims, inits and helpers are made from.
    pub(crate) program: Program,
    /// Where shims' events go.
    pub(crate) told: mpsc::UnboundedSender<Told>,
}

impl Core {
    /// The run directory of a container.
    pub(crate) fn run_dir(&self, id: &ContainerId) -> PathBuf {
        self.config.run_dir.join("containers").join(id.as_str())
    }

    /// The durable directory of a container.
    pub(crate) fn dir(&self, id: &ContainerId) -> PathBuf {
        self.store.container_dir(id)
    }

    /// The file that its log is written to.
    pub(crate) fn log_path(&self, record: &ContainerRecord) -> Option<PathBuf> {
        record.has_log().then(|| self.dir(&record.id).join(format!("{}-json.log", record.id)))
    }

    /// The path of its cgroup in every hierarchy.
    pub(crate) fn cgroup_path(&self, record: &ContainerRecord) -> String {
        let parent = match record.host_config.cgroup_parent.trim_matches('/') {
            "" => self.config.cgroup_parent.trim_matches('/'),
            given => given,
        };
        format!("/{parent}/{}", record.id)
    }

    /// Opens a container's cgroup.
    pub(crate) fn cgroup(&self, record: &ContainerRecord) -> Result<Cgroup> {
        Cgroup::open(&self.hierarchies, &self.cgroup_path(record)).map_err(|e| Error::of(&e))
    }

    /// Writes a container's record, durably.
    pub(crate) async fn put(self: &Arc<Self>, record: Arc<ContainerRecord>) -> Result<()> {
        let store = self.store.clone();
        blocking(move || {
            let json = serde_json::to_vec(&*record)
                .map_err(|e| Error::internal(format!("writing a record: {e}")))?;
            Ok(store.put_record(KIND, record.id.as_str(), Some(&record.name), &json)?)
        })
        .await
    }

    /// Tells an event about a container, with its labels and particulars.
    pub(crate) fn tell(&self, container: &Container, action: &str, particulars: &[(&str, String)]) {
        let record = container.record();
        let mut attributes: BTreeMap<String, String> = record.labels();
        attributes.insert("image".to_owned(), record.config.image.clone());
        attributes.insert("name".to_owned(), record.name.clone());
        attributes.extend(particulars.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self.events.tell("container", action, container.id.as_str(), attributes);
    }
}

/// Runs what blocks on a thread made for it.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T>
where
    F: FnOnce() -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Error::internal(format!("a task of the engine failed: {e}"))))
}

/// Runs a mutation to its end, even if nobody waits for it any more.
pub(crate) async fn to_the_end<T, F>(work: F) -> Result<T>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    tokio::spawn(work)
        .await
        .unwrap_or_else(|e| Err(Error::internal(format!("a task of the engine failed: {e}"))))
}

//! Volumes: what there is, who uses it, and how it comes and goes.
//!
//! A volume's directory and document are `creel-store`'s. What is here lives in memory: which containers use a volume
//! (by their records, read at the daemon's start), and a gate for each name, so that nobody removes what another one is
//! just taking into use.

pub(crate) mod local;
pub(crate) mod manage;
pub(crate) mod mounting;
pub(crate) mod plugins;
pub(crate) mod taking;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use creel_store::Store;
use creel_types::ContainerId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The label of volumes for which nobody chose a name; its value is empty.
pub(crate) const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// The driver of directories below the engine's root.
pub(crate) const LOCAL: &str = "local";

type Pairs = BTreeMap<String, String>;

/// One volume: this is its document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) created: Timestamp,
    /// `None` where none were given, which Docker tells from none at all.
    #[serde(default)]
    pub(crate) labels: Option<Pairs>,
    /// The driver's; never empty.
    #[serde(default)]
    pub(crate) options: Option<Pairs>,
}

impl Volume {
    /// Whether it is a directory of ours and nothing else: what may be measured, filled and pruned without mounting.
    pub(crate) fn is_plain(&self) -> bool {
        self.driver == LOCAL && self.options.is_none()
    }

    /// Whether nobody chose its name.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.contains_key(ANONYMOUS))
    }
}

/// All volumes.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    inner: Mutex<Inner>,
    gates: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug, Default)]
struct Inner {
    volumes: BTreeMap<String, Arc<Volume>>,
    users: BTreeMap<String, BTreeSet<ContainerId>>,
    /// Volumes whose document cannot be read, with why: nobody may use or replace them.
    damaged: BTreeMap<String, String>,
}

impl Volumes {
    /// Those that lie below the root directory.
    pub(crate) fn read(store: &Store) -> Self {
        let mut inner = Inner::default();
        for found in store.volumes() {
            let name = found.name;
            let read = found.json.map_err(Error::from).and_then(|json| match json {
                // Laid there by somebody, as Docker's own directory can be.
                None => Ok(Volume {
                    name: name.clone(),
                    driver: LOCAL.to_owned(),
                    created: Timestamp::from_second(found.changed).unwrap_or_default(),
                    labels: None,
                    options: None,
                }),
                Some(json) => serde_json::from_slice::<Volume>(&json)
                    .map_err(|e| Error::internal(e.to_string()))
                    .map(|volume| Volume { name: name.clone(), ..volume }),
            });
            match read {
                Ok(volume) => drop(inner.volumes.insert(name, Arc::new(volume))),
                Err(e) => {
                    tracing::error!(
                        "the document of volume {name} cannot be read: {e}; its data stays where it is"
                    );
                    inner.damaged.insert(name, e.to_string());
                }
            }
        }
        Self { inner: Mutex::new(inner), gates: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gate of a name: whoever makes or removes a volume, or takes it into use, holds it meanwhile.
    pub(crate) async fn gate(&self, name: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let gate = {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
            gates.entry(name.to_owned()).or_default().clone()
        };
        gate.lock_owned().await
    }

    pub(crate) fn all(&self) -> Vec<Arc<Volume>> {
        self.lock().volumes.values().cloned().collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Volume>> {
        self.lock().volumes.get(name).cloned()
    }

    /// Fails for a volume whose document is damaged.
    pub(crate) fn check_whole(&self, name: &str) -> Result<()> {
        match self.lock().damaged.get(name) {
            None => Ok(()),
            Some(why) => Err(Error::new(
                creel_types::ErrorKind::DataLoss,
                format!(
                    "volume {name}: its document volume.json cannot be read: {why}; put it right, or take it away for a \
                     volume without options, and start the daemon anew"
                ),
            )),
        }
    }

    pub(crate) fn insert(&self, volume: Volume) -> Arc<Volume> {
        let volume = Arc::new(volume);
        self.lock().volumes.insert(volume.name.clone(), volume.clone());
        volume
    }

    pub(crate) fn forget(&self, name: &str) {
        self.lock().volumes.remove(name);
    }

    /// The containers that use a volume, running or not.
    pub(crate) fn users(&self, name: &str) -> Vec<ContainerId> {
        self.lock().users.get(name).map(|users| users.iter().cloned().collect()).unwrap_or_default()
    }

    /// Takes a volume into use by a container.
    pub(crate) fn add_user(&self, name: &str, container: &ContainerId) {
        self.lock().users.entry(name.to_owned()).or_default().insert(container.clone());
    }

    /// Ends all use by a container.
    pub(crate) fn release(&self, container: &ContainerId) {
        self.lock().users.retain(|_, users| {
            users.remove(container);
            !users.is_empty()
        });
    }

    /// Where a volume's data lies, as it is shown.
    pub(crate) fn mountpoint(store: &Store, volume: &Volume) -> PathBuf {
        store.volume_data(&volume.name)
    }
}

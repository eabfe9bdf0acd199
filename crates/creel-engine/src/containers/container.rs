//! One container in memory: its record, its life, and the lock that gives it one owner at a time.

use std::sync::{Arc, PoisonError, RwLock};

use creel_cgroup::Cgroup;
use creel_shim::proto::Attach;
use creel_types::ContainerId;
use jiff::Timestamp;
use tokio::net::UnixStream;
use tokio::sync::{Mutex, oneshot, watch};

use crate::error::Result;
use crate::record::{AtRest, ContainerRecord};
use crate::shim::Link;

/// A container that runs.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) started_at: Timestamp,
    pub(crate) link: Arc<Link>,
    /// `None` when the group could not be opened: figures and freezing are then refused.
    pub(crate) cgroup: Option<Arc<Cgroup>>,
    pub(crate) paused: bool,
}

/// Where a container is in its life, with counters by which nobody misses an end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life {
    pub(crate) running: Option<Running>,
    /// How often it ended since the daemon runs.
    pub(crate) exits: u64,
    /// The latest end: its code and, if it is not the program's own, why.
    pub(crate) last: Option<(i32, Option<String>)>,
    pub(crate) removed: bool,
    /// Whether its removal failed half-way; it can only be removed.
    pub(crate) dead: bool,
}

/// An attachment made before the start: gets its stream before the first byte is written.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) attach: Attach,
    pub(crate) stream: oneshot::Sender<Result<(UnixStream, bytes::Bytes, Option<i32>)>>,
}

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    /// Held by whoever changes its life: one mutation at a time.
    pub(crate) owner: Arc<Mutex<()>>,
    record: RwLock<Arc<ContainerRecord>>,
    life: watch::Sender<Life>,
    pending: std::sync::Mutex<Vec<Pending>>,
    /// Set while a restart is under way: its end is then no reason for `--rm` to remove it.
    pub(crate) restarting: std::sync::atomic::AtomicBool,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord) -> Arc<Self> {
        let last = match &record.rest {
            AtRest::Exited { code, error, .. } => {
                Some((*code, Some(error.clone()).filter(|error| !error.is_empty())))
            }
            _ => None,
        };
        Arc::new(Self {
            id: record.id.clone(),
            owner: Arc::new(Mutex::new(())),
            record: RwLock::new(Arc::new(record)),
            life: watch::channel(Life { last, ..Life::default() }).0,
            pending: std::sync::Mutex::new(Vec::new()),
            restarting: std::sync::atomic::AtomicBool::new(false),
        })
    }

    pub(crate) fn record(&self) -> Arc<ContainerRecord> {
        self.record.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the record in memory and returns what it now is; storing it is the caller's.
    pub(crate) fn change(&self, change: impl FnOnce(&mut ContainerRecord)) -> Arc<ContainerRecord> {
        let mut guard = self.record.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut guard));
        guard.clone()
    }

    pub(crate) fn name(&self) -> String {
        self.record().name.clone()
    }

    pub(crate) fn life(&self) -> Life {
        self.life.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    pub(crate) fn set_life(&self, change: impl FnOnce(&mut Life)) {
        self.life.send_modify(change);
    }

    pub(crate) fn running(&self) -> Option<Running> {
        self.life.borrow().running.clone()
    }

    pub(crate) fn push_pending(&self, pending: Pending) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push(pending);
    }

    pub(crate) fn take_pending(&self) -> Vec<Pending> {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One word, as lists show it.
    pub(crate) fn state_word(&self) -> &'static str {
        let life = self.life.borrow();
        match &life.running {
            Some(running) if running.paused => "paused",
            Some(_) => "running",
            None if life.dead => "dead",
            None => match self.record().rest {
                AtRest::Created { .. } => "created",
                AtRest::Started { .. } | AtRest::Exited { .. } => "exited",
            },
        }
    }
}

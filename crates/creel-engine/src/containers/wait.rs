//! Wait: registered when the call returns, so that an end that comes at once is not missed.

use std::sync::Arc;

use creel_wire::container::{WaitError, WaitResponse};
use tokio::sync::watch;

use super::container::{Container, Life};
use crate::core::Core;
use crate::error::Result;
use crate::options::WaitCondition;

/// A wait that counts from its making on.
#[derive(Debug)]
pub struct WaitHandle {
    watch: watch::Receiver<Life>,
    condition: WaitCondition,
    exits: u64,
    container: Arc<Container>,
}

/// Registers a wait.
pub(crate) fn wait(core: &Core, id: &str, condition: WaitCondition) -> Result<WaitHandle> {
    let container = core.containers.find(id)?;
    let mut watch = container.watch();
    let exits = watch.borrow_and_update().exits;
    Ok(WaitHandle { watch, condition, exits, container })
}

impl WaitHandle {
    /// Waits; gives the exit code of the latest end.
    pub async fn wait(mut self) -> WaitResponse {
        let (condition, exits) = (self.condition, self.exits);
        let due = |life: &Life| match condition {
            WaitCondition::NotRunning => life.running.is_none() || life.exits > exits || life.removed,
            WaitCondition::NextExit => life.exits > exits || life.removed,
            WaitCondition::Removed => life.removed,
        };
        let last = match self.watch.wait_for(due).await {
            Ok(life) => life.last.clone(),
            Err(_) => None,
        };
        let (code, error) = last.unwrap_or_else(|| (self.container.record().exit_code(), None));
        WaitResponse {
            status_code: i64::from(code),
            error: error.filter(|text| !text.is_empty()).map(|message| WaitError { message }),
        }
    }
}

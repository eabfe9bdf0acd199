//! What is told while images move: the meaning of Docker's JSON progress messages, without their wire form.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use creel_types::Digest;

/// One message: a line of its own, or the new state of the thing that `id` names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProgressEvent {
    /// The first 12 digits of a layer's digest, or a tag; none for a line of its own.
    pub id: Option<String>,
    /// Docker's word for what happens: `Pulling fs layer`, `Downloading`, `Pull complete`, …
    pub status: String,
    /// How many bytes are done, where that is known.
    pub current: Option<u64>,
    /// How many bytes there are, where that is known.
    pub total: Option<u64>,
    /// The outcome of a push, for programs: Docker's `aux` object.
    pub aux: Option<PushAux>,
}

/// The outcome of a push as Docker's clients read it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PushAux {
    /// The tag that was pushed.
    pub tag: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's size in bytes.
    pub size: u64,
}

impl ProgressEvent {
    /// A line of its own.
    pub fn line(status: impl Into<String>) -> Self {
        Self { status: status.into(), ..Self::default() }
    }

    /// A new state of `id`.
    pub fn of(id: impl Into<String>, status: impl Into<String>) -> Self {
        Self { id: Some(id.into()), status: status.into(), ..Self::default() }
    }

    /// A state of `id` that has come `current` bytes of `total` far.
    pub fn amount(
        id: impl Into<String>,
        status: impl Into<String>,
        current: u64,
        total: Option<u64>,
    ) -> Self {
        Self { current: Some(current), total, ..Self::of(id, status) }
    }
}

/// Somebody who is told how a transfer goes. Called from several threads; must not block for long.
pub trait Progress: Send + Sync {
    /// Takes one message.
    fn event(&self, event: ProgressEvent);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: ProgressEvent) {}
}

/// Keeps all messages; for tests and for `--quiet` callers that want the last line.
#[derive(Debug, Default)]
pub struct Recorded(Mutex<Vec<ProgressEvent>>);

impl Recorded {
    /// The messages so far, in their order.
    pub fn events(&self) -> Vec<ProgressEvent> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Progress for Recorded {
    fn event(&self, event: ProgressEvent) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event);
    }
}

/// The byte count of one transfer, told at most ten times a second.
pub(crate) struct Meter<'a> {
    progress: &'a dyn Progress,
    id: String,
    status: &'static str,
    total: Option<u64>,
    told: Option<Instant>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(
        progress: &'a dyn Progress,
        id: &str,
        status: &'static str,
        total: Option<u64>,
    ) -> Self {
        Self { progress, id: id.to_owned(), status, total, told: None }
    }

    pub(crate) fn at(&mut self, current: u64) {
        let due = self.told.is_none_or(|told| told.elapsed() >= Duration::from_millis(100));
        if due || Some(current) == self.total {
            self.told = Some(Instant::now());
            self.progress.event(ProgressEvent::amount(self.id.clone(), self.status, current, self.total));
        }
    }
}

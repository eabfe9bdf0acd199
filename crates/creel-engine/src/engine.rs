//! The façade (skeleton).
use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::options::*;
use creel_types::{Platform, Reference};
use creel_wire::container::*;
use creel_wire::exec::*;
use creel_wire::image::*;
use creel_wire::stats::Stats;
use creel_wire::system::*;
use jiff::Timestamp;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::Receiver;

/// Credentials.
#[derive(Debug, Clone)]
pub struct Auth;
impl Auth {
    /// Parses.
    pub fn from_json(_json: &[u8]) -> std::result::Result<Option<Auth>, Error> {
        Ok(None)
    }
}
/// The engine.
pub struct Engine;
/// A wait.
pub struct WaitHandle;
impl WaitHandle {
    /// Waits.
    pub async fn wait(self) -> WaitResponse {
        WaitResponse::default()
    }
}
/// An attachment.
pub struct Attachment {
    /// Whether there is a terminal.
    pub tty: bool,
}
impl Attachment {
    /// Runs.
    pub async fn run(self, _io: impl AsyncRead + AsyncWrite + Unpin + Send) -> Result<AttachEnd> {
        no()
    }
}
/// An exec session.
pub struct ExecSession {
    /// Whether there is a terminal.
    pub tty: bool,
}
impl ExecSession {
    /// Runs.
    pub async fn run(self, _io: impl AsyncRead + AsyncWrite + Unpin + Send) -> Result<AttachEnd> {
        no()
    }
    /// Starts without anyone attached.
    pub async fn detach(self) -> Result<()> {
        no()
    }
}
fn no<T>() -> Result<T> {
    Err(Error::unsupported("not there yet"))
}
#[allow(missing_docs, unused_variables)]
impl Engine {
    pub async fn open(config: EngineConfig) -> Result<Arc<Engine>> {
        no()
    }
    pub async fn create(
        &self,
        name: Option<&str>,
        request: CreateRequest,
        platform: Option<Platform>,
    ) -> Result<CreateResponse> {
        no()
    }
    pub async fn start(&self, id: &str) -> Result<Timings> {
        no()
    }
    pub async fn stop(&self, id: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        no()
    }
    pub async fn restart(&self, id: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        no()
    }
    pub async fn kill(&self, id: &str, signal: Option<&str>) -> Result<()> {
        no()
    }
    pub async fn pause(&self, id: &str) -> Result<()> {
        no()
    }
    pub async fn unpause(&self, id: &str) -> Result<()> {
        no()
    }
    pub async fn rename(&self, id: &str, new_name: &str) -> Result<()> {
        no()
    }
    pub async fn remove(&self, id: &str, o: RemoveOptions) -> Result<()> {
        no()
    }
    pub async fn wait(&self, id: &str, c: WaitCondition) -> Result<WaitHandle> {
        no()
    }
    pub async fn list(&self, o: ListOptions) -> Result<Vec<ContainerSummary>> {
        no()
    }
    pub async fn inspect(&self, id: &str, size: bool) -> Result<ContainerInspect> {
        no()
    }
    pub async fn logs(&self, id: &str, o: LogOptions) -> Result<LogStream> {
        no()
    }
    pub async fn attach(&self, id: &str, o: AttachOptions) -> Result<Attachment> {
        no()
    }
    pub async fn resize(&self, id: &str, height: u16, width: u16) -> Result<()> {
        no()
    }
    pub async fn top(&self, id: &str, ps_args: Option<&str>) -> Result<Top> {
        no()
    }
    pub async fn stats(&self, id: &str) -> Result<Stats> {
        no()
    }
    pub async fn changes(&self, id: &str) -> Result<Vec<Change>> {
        no()
    }
    pub async fn export(&self, id: &str) -> Result<ByteStream> {
        no()
    }
    pub async fn path_stat(&self, id: &str, path: &str) -> Result<PathStat> {
        no()
    }
    pub async fn archive_get(&self, id: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        no()
    }
    pub async fn archive_put(&self, id: &str, path: &str, o: PutOptions, tar: ByteSource) -> Result<()> {
        no()
    }
    pub async fn commit(&self, id: &str, o: CommitOptions) -> Result<String> {
        no()
    }
    pub async fn prune_containers(&self, filters: Filters) -> Result<ContainersPrune> {
        no()
    }
    pub async fn exec_create(&self, container: &str, c: ExecConfig) -> Result<String> {
        no()
    }
    pub async fn exec_start(&self, exec: &str, o: ExecStart) -> Result<ExecSession> {
        no()
    }
    pub async fn exec_resize(&self, exec: &str, height: u16, width: u16) -> Result<()> {
        no()
    }
    pub async fn exec_inspect(&self, exec: &str) -> Result<ExecInspect> {
        no()
    }
    pub async fn pull(
        &self,
        reference: Reference,
        platform: Option<Platform>,
        auth: Option<Auth>,
    ) -> Result<Receiver<ProgressMessage>> {
        no()
    }
    pub async fn push(&self, reference: Reference, auth: Option<Auth>) -> Result<Receiver<ProgressMessage>> {
        no()
    }
    pub async fn tag(&self, source: &str, target: Reference) -> Result<()> {
        no()
    }
    pub async fn images(&self, all: bool, filters: Filters) -> Result<Vec<ImageSummary>> {
        no()
    }
    pub async fn image_inspect(&self, name: &str) -> Result<ImageInspect> {
        no()
    }
    pub async fn image_history(&self, name: &str) -> Result<Vec<HistoryItem>> {
        no()
    }
    pub async fn image_remove(&self, name: &str, force: bool, prune: bool) -> Result<Vec<ImageDelete>> {
        no()
    }
    pub async fn image_prune(&self, filters: Filters) -> Result<ImagesPrune> {
        no()
    }
    pub async fn load(&self, tar: ByteSource, quiet: bool) -> Result<Receiver<ProgressMessage>> {
        no()
    }
    pub async fn save(&self, names: Vec<String>) -> Result<ByteStream> {
        no()
    }
    pub async fn import(&self, tar: ByteSource, o: ImportOptions) -> Result<Receiver<ProgressMessage>> {
        no()
    }
    pub async fn info(&self) -> Info {
        Info::default()
    }
    pub fn version(&self) -> Version {
        Version::default()
    }
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        no()
    }
    pub fn events(&self, since: Option<Timestamp>, filters: Filters) -> Receiver<Event> {
        tokio::sync::mpsc::channel(1).1
    }
}

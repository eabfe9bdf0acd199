//! Fetching an image's layers side by side and unpacking them in order.

use std::collections::HashSet;
use std::io::{self, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use creel_store::{ApplyOptions, LayerId, LayerRef, Lease, Store};
use creel_types::Digest;
use creel_types::image::Descriptor;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::fetch::Piece;
use crate::progress::{Meter, Progress, ProgressEvent};

/// How many pieces (of some 8 to 64 KiB each) may wait between a connection and the thread that unpacks them.
const PIECES: usize = 64;

/// One layer that an image wants.
#[derive(Debug, Clone)]
pub(crate) struct LayerJob {
    pub(crate) blob: Descriptor,
    pub(crate) diff_id: Digest,
}

impl LayerJob {
    fn id(&self) -> String {
        self.blob.digest.short()
    }

    fn what(&self) -> String {
        format!("layer {}", self.blob.digest)
    }
}

/// All that fetching needs.
pub(crate) struct Fetching {
    pub(crate) store: Arc<Store>,
    pub(crate) client: Arc<Client>,
    pub(crate) progress: Arc<dyn Progress>,
    pub(crate) downloads: usize,
    /// Keeps what is fetched from being collected; held by each thread that stores something.
    pub(crate) lease: Arc<Lease>,
}

/// What is unpacked so far.
struct Stack {
    done: Mutex<Vec<Option<LayerId>>>,
    /// How many layers from the bottom up are unpacked.
    height: watch::Sender<usize>,
}

impl Stack {
    fn set(&self, at: usize, layer: LayerId) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done[at] = Some(layer);
        let height = done.iter().take_while(|layer| layer.is_some()).count();
        self.height.send_replace(height);
    }

    /// The layers below `at`, if all of them are unpacked.
    fn below(&self, at: usize) -> Option<Vec<LayerId>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)[..at].iter().copied().collect()
    }

    async fn wait_below(&self, at: usize) -> Result<Vec<LayerId>> {
        let mut height = self.height.subscribe();
        let waited = height.wait_for(|height| *height >= at).await.is_ok();
        self.below(at).filter(|_| waited).ok_or_else(|| Error::Abandoned("a layer".to_owned()))
    }
}

/// What one layer still needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nothing.
    Nothing,
    /// Blob and layer are here, but nobody has said yet that one is the other's archive.
    Check(LayerId),
    /// The blob only: the layer is unpacked from another archive of the same content.
    Blob(LayerId),
    /// Unpacking only: the blob is there, or will be once the layer below that shares it is done.
    Unpack,
    /// Everything.
    All,
}

impl Fetching {
    /// Brings all layers in and returns them, the lowest first. When it returns, also with an error, no thread
    /// of it works any more.
    pub(crate) async fn run(self, jobs: Vec<LayerJob>) -> Result<Vec<LayerRef>> {
        let diff_ids: Vec<Digest> = jobs.iter().map(|job| job.diff_id).collect();
        let stack =
            Arc::new(Stack { done: Mutex::new(vec![None; jobs.len()]), height: watch::Sender::new(0) });
        let needs = self.needs(&jobs, &diff_ids, &stack);
        let permits = Arc::new(Semaphore::new(self.downloads));
        // Each blocking thread holds a clone; when the last is gone, so are the threads.
        let (working, mut finished) = mpsc::channel::<()>(1);
        let work = Arc::new(self);
        let mut tasks: JoinSet<Result<()>> = JoinSet::new();
        let result: Result<()> = async {
            for (at, (job, need)) in jobs.iter().zip(needs).enumerate() {
                if need == Need::Nothing {
                    continue;
                }
                let permit = if !matches!(need, Need::All | Need::Blob(_)) {
                    None
                } else {
                    loop {
                        tokio::select! {
                            permit = permits.clone().acquire_owned() => break permit.ok(),
                            Some(done) = tasks.join_next() => flatten(done)?,
                        }
                    }
                };
                let (work, stack, job, working) = (work.clone(), stack.clone(), job.clone(), working.clone());
                tasks.spawn(async move {
                    let layer = Layer { work, stack, job, at, working };
                    match need {
                        Need::Nothing => Ok(()),
                        Need::Check(unpacked) => layer.check_blob(unpacked).await,
                        Need::Blob(unpacked) => {
                            layer.fetch_blob().await?;
                            drop(permit);
                            layer.check_blob(unpacked).await
                        }
                        Need::Unpack => layer.unpack_blob().await,
                        Need::All => match layer.stack.below(at) {
                            Some(below) => layer.stream(below).await.map(|()| drop(permit)),
                            None => {
                                layer.fetch_blob().await?;
                                drop(permit);
                                layer.unpack_blob().await
                            }
                        },
                    }
                });
            }
            while let Some(done) = tasks.join_next().await {
                flatten(done)?;
            }
            Ok(())
        }
        .await;
        tasks.shutdown().await;
        drop(working);
        let _ = finished.recv().await;
        result?;
        let layers = stack.below(jobs.len()).ok_or_else(|| Error::Abandoned("a layer".to_owned()))?;
        Ok(jobs
            .into_iter()
            .zip(layers)
            .map(|(job, layer)| LayerRef { diff_id: job.diff_id, layer, blob: Some(job.blob) })
            .collect())
    }

    /// Looks at what is here already, and tells about it.
    fn needs(&self, jobs: &[LayerJob], diff_ids: &[Digest], stack: &Stack) -> Vec<Need> {
        let mut seen = HashSet::new();
        let pairs = known_pairs(&self.store);
        let mut needs = Vec::with_capacity(jobs.len());
        let mut waiting = 0;
        for (at, job) in jobs.iter().enumerate() {
            let repeated = !seen.insert(job.blob.digest);
            let has_blob = self.store.has_blob(&job.blob.digest);
            let need = match self.store.find_layer(&job.diff_id, &diff_ids[..at]) {
                Some(layer) if has_blob && pairs.contains(&(job.blob.digest, job.diff_id)) => {
                    stack.set(at, layer);
                    Need::Nothing
                }
                Some(layer) if has_blob => Need::Check(layer),
                // What a layer below brings in is here when its turn comes.
                _ if has_blob || repeated => Need::Unpack,
                Some(layer) => Need::Blob(layer),
                None => Need::All,
            };
            if !repeated {
                let exists = matches!(need, Need::Nothing | Need::Check(_));
                let status = if exists { "Already exists" } else { "Pulling fs layer" };
                self.progress.event(ProgressEvent::of(job.id(), status));
                if matches!(need, Need::All | Need::Blob(_)) {
                    waiting += 1;
                    if waiting > self.downloads {
                        self.progress.event(ProgressEvent::of(job.id(), "Waiting"));
                    }
                }
            }
            needs.push(need);
        }
        needs
    }
}

fn flatten(done: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    match done {
        Ok(result) => result,
        Err(error) => Err(Error::Io { action: "fetching a layer".to_owned(), reason: error.to_string() }),
    }
}

/// The work on one layer.
struct Layer {
    work: Arc<Fetching>,
    stack: Arc<Stack>,
    job: LayerJob,
    at: usize,
    working: mpsc::Sender<()>,
}

impl Layer {
    fn tell(&self, status: &str) {
        self.work.progress.event(ProgressEvent::of(self.job.id(), status));
    }

    /// What a thread holds while it works: first the lease is given back, then the thread counts as done.
    fn guard(&self) -> (Arc<Lease>, mpsc::Sender<()>) {
        (self.work.lease.clone(), self.working.clone())
    }

    /// Downloads and unpacks at once.
    async fn stream(&self, below: Vec<LayerId>) -> Result<()> {
        let (store, job) = (self.work.store.clone(), self.job.clone());
        let progress = self.work.progress.clone();
        let layer = self
            .receive(move |mut pieces| {
                let options = ApplyOptions {
                    media_type: Some(job.blob.media_type.clone()),
                    keep_blob: Some(job.blob.clone()),
                    limits: None,
                };
                let told =
                    Told { inner: &mut pieces, progress: &*progress, id: job.id(), bytes: job.blob.size };
                store.apply_layer(told, &job.diff_id, &below, &options)
            })
            .await?;
        self.stack.set(self.at, layer);
        self.tell("Pull complete");
        Ok(())
    }

    /// Downloads the blob alone.
    async fn fetch_blob(&self) -> Result<()> {
        let (store, blob) = (self.work.store.clone(), self.job.blob.clone());
        self.receive(move |pieces| store.copy_blob(pieces, Some(blob.digest), Some(blob.size))).await?;
        self.tell("Verifying Checksum");
        self.tell("Download complete");
        Ok(())
    }

    /// Verifies that the blob unpacks to what the layer was unpacked from, and so names the same content.
    async fn check_blob(&self, unpacked: LayerId) -> Result<()> {
        let (store, job, what) = (self.work.store.clone(), self.job.clone(), self.job.what());
        let guard = self.guard();
        let checking = tokio::task::spawn_blocking(move || {
            let result = check_diff_id(&store, &job.blob.digest, &job.diff_id, &what);
            drop(guard);
            result
        });
        checking.await.map_err(|error| Error::Io {
            action: format!("verifying {}", self.job.what()),
            reason: error.to_string(),
        })??;
        self.stack.set(self.at, unpacked);
        self.tell("Pull complete");
        Ok(())
    }

    /// Runs the download and, on a thread that may block, `consume`.
    async fn receive<T: Send + 'static>(
        &self,
        consume: impl FnOnce(Pieces) -> std::result::Result<T, creel_store::Error> + Send + 'static,
    ) -> Result<T> {
        let (sink, source) = mpsc::channel(PIECES);
        let what = self.job.what();
        let guard = self.guard();
        let blocking = tokio::task::spawn_blocking(move || {
            let result = consume(Pieces { source, current: Bytes::new(), ended: false });
            drop(guard);
            result
        });
        let mut meter =
            Meter::new(&*self.work.progress, &self.job.id(), "Downloading", Some(self.job.blob.size));
        let downloaded =
            self.work.client.download(&self.job.blob, &what, &sink, |received| meter.at(received)).await;
        drop(sink);
        let stored = blocking
            .await
            .map_err(|error| Error::Io { action: format!("storing {what}"), reason: error.to_string() })?;
        match (downloaded, stored) {
            (_, Ok(stored)) => Ok(stored),
            // The receiver failed because nothing more came: the download knows why.
            (Err(error), Err(_)) if !matches!(error, Error::Abandoned(_)) => Err(error),
            (_, Err(error)) => Err(storing(&what, error)),
        }
    }

    /// Unpacks a blob that is here when all layers below are unpacked.
    async fn unpack_blob(&self) -> Result<()> {
        let below = self.stack.wait_below(self.at).await?;
        let (store, job) = (self.work.store.clone(), self.job.clone());
        let progress = self.work.progress.clone();
        let guard = self.guard();
        let blocking = tokio::task::spawn_blocking(move || {
            let options = ApplyOptions {
                media_type: Some(job.blob.media_type.clone()),
                keep_blob: None,
                limits: None,
            };
            let mut meter = Meter::new(&*progress, &job.id(), "Extracting", Some(job.blob.size));
            let result = store.open_blob(&job.blob.digest).and_then(|file| {
                let counted = Counted { inner: file, bytes: 0, tell: |bytes| meter.at(bytes) };
                store.apply_layer(counted, &job.diff_id, &below, &options)
            });
            drop(guard);
            result
        });
        let what = self.job.what();
        let layer = blocking
            .await
            .map_err(|error| Error::Io { action: format!("unpacking {what}"), reason: error.to_string() })?
            .map_err(|error| storing(&what, error))?;
        self.stack.set(self.at, layer);
        self.tell("Pull complete");
        Ok(())
    }
}

/// The archives and diffIDs that images here name together, and that were held against each other for them.
pub(crate) fn known_pairs(store: &Store) -> HashSet<(Digest, Digest)> {
    let view = store.view();
    let layers = view.images().flat_map(|image| &image.layers);
    layers.filter_map(|layer| layer.blob.as_ref().map(|blob| (blob.digest, layer.diff_id))).collect()
}

/// Reads a stored archive to its end and compares its uncompressed digest with what was promised.
pub(crate) fn check_diff_id(store: &Arc<Store>, blob: &Digest, diff_id: &Digest, what: &str) -> Result<()> {
    if blob == diff_id {
        return Ok(());
    }
    let found = plain_digest(store, blob, what)?;
    if found == *diff_id {
        Ok(())
    } else {
        Err(Error::digest(format!("{what}, uncompressed,"), diff_id, &found))
    }
}

/// The digest of a stored archive without its compression: its diffID.
pub(crate) fn plain_digest(store: &Arc<Store>, blob: &Digest, what: &str) -> Result<Digest> {
    let file = store.open_blob(blob).map_err(Error::store(format!("reading {what}")))?;
    let damaged = |reason: String| Error::Corrupt { what: what.to_owned(), reason };
    let plain = creel_layer::decompress(BufReader::with_capacity(256 << 10, file))
        .map_err(|error| damaged(error.to_string()))?;
    let mut hashing = creel_layer::HashingReader::new(plain);
    io::copy(&mut hashing, &mut io::sink()).map_err(|error| damaged(error.to_string()))?;
    Ok(hashing.finish().0)
}

/// The store's failure on a layer; what is the content's fault is named as such.
pub(crate) fn storing(what: &str, error: creel_store::Error) -> Error {
    match error {
        creel_store::Error::DigestMismatch { expected, actual, .. } => {
            Error::digest(what, &expected, &actual)
        }
        creel_store::Error::SizeMismatch { expected, actual, .. } => Error::Corrupt {
            what: what.to_owned(),
            reason: format!("it has {actual} bytes or more where {expected} were promised"),
        },
        error => Error::store(format!("storing {what}"))(error),
    }
}

/// The pieces of a download as a stream of bytes, for a thread that may block.
struct Pieces {
    source: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.source.blocking_recv() {
                Some(Piece::Data(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                // The sender is gone without having said that all came: never take that for the end.
                None => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the download was given up"));
                }
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Says "Download complete" and "Extracting" when the last byte was read.
struct Told<'a> {
    inner: &'a mut Pieces,
    progress: &'a dyn Progress,
    id: String,
    bytes: u64,
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ended = self.inner.ended;
        let count = self.inner.read(buffer)?;
        if self.inner.ended && !ended {
            for status in ["Verifying Checksum", "Download complete"] {
                self.progress.event(ProgressEvent::of(self.id.clone(), status));
            }
            let done = ProgressEvent::amount(self.id.clone(), "Extracting", self.bytes, Some(self.bytes));
            self.progress.event(done);
        }
        Ok(count)
    }
}

/// Counts what is read.
struct Counted<R, F> {
    inner: R,
    bytes: u64,
    tell: F,
}

impl<R: Read, F: FnMut(u64)> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        (self.tell)(self.bytes);
        Ok(count)
    }
}

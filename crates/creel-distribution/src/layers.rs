//! Fetching an image's layers side by side and unpacking each while it comes in.
//!
//! A layer is unpacked alone, whether those below it are there or not. If it takes something from them (a hard link to
//! a file of theirs, a directory that it does not describe), its blob is kept, and it is unpacked when they are there.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use creel_store::{ApplyOptions, Claim, LayerId, LayerRef, Lease, PartialBlob, Store};
use creel_types::Digest;
use creel_types::image::Descriptor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::fetch::Piece;
use crate::progress::{Meter, Progress, ProgressEvent};

/// How many pieces (of up to 400 KiB each) may wait between a connection and the thread that takes them.
const PIECES: usize = 8;

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
    Nothing(LayerId),
    /// Blob and layer are here, but nobody has said yet that one is the other's archive.
    Check(LayerId),
    /// The blob only: the layer is unpacked from another archive of the same content.
    Blob(LayerId),
    /// Unpacking only.
    Unpack,
    /// Everything.
    All,
}

impl Need {
    fn is_download(self) -> bool {
        matches!(self, Need::All | Need::Blob(_))
    }
}

impl Fetching {
    /// Brings all layers in and returns them, the lowest first. When it returns, also with an error, no thread
    /// of it works any more.
    ///
    /// Who brings a blob in holds its claim, in this pull and in all others, and lets go of it before it waits for
    /// anything but its own download, a place among those at work, or a claim that it lacks: two pulls that want the
    /// same layers in another order never wait for each other.
    pub(crate) async fn run(self, jobs: Vec<LayerJob>) -> Result<Vec<LayerRef>> {
        let diff_ids: Vec<Digest> = jobs.iter().map(|job| job.diff_id).collect();
        let stack =
            Arc::new(Stack { done: Mutex::new(vec![None; jobs.len()]), height: watch::Sender::new(0) });
        let needs = self.look_at_all(&jobs, &diff_ids);
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let places = Arc::new(Places {
            downloads: Arc::new(Semaphore::new(self.downloads)),
            unpacking: Semaphore::new(processors),
        });
        // Each blocking thread holds a clone; when the last is gone, so are the threads.
        let (working, mut finished) = mpsc::channel::<()>(1);
        let work = Arc::new(self);
        let mut tasks: JoinSet<Result<()>> = JoinSet::new();
        let result: Result<()> = async {
            for (at, (job, need)) in jobs.iter().zip(needs).enumerate() {
                if let Need::Nothing(layer) = need {
                    stack.set(at, layer);
                    continue;
                }
                let claim = work.store.try_claim(&job.blob.digest).map(Arc::new);
                // Whoever had it until now may have brought it in since.
                let need = match &claim {
                    Some(_) => work.look(job, &diff_ids[..at], &known_pairs(&work.store)),
                    None => need,
                };
                // Downloads begin in the image's order, so that what others are put upon comes first.
                let permit = if claim.is_none() || !need.is_download() {
                    None
                } else {
                    loop {
                        tokio::select! {
                            permit = places.downloads.clone().acquire_owned() => break permit.ok(),
                            Some(done) = tasks.join_next() => flatten(done)?,
                        }
                    }
                };
                let layer = Layer {
                    work: work.clone(),
                    stack: stack.clone(),
                    places: places.clone(),
                    job: job.clone(),
                    below: diff_ids[..at].to_vec(),
                    at,
                    claim,
                    working: working.clone(),
                };
                tasks.spawn(layer.bring_in(need, permit));
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

    /// Looks at what is here of one layer.
    fn look(&self, job: &LayerJob, below: &[Digest], pairs: &HashSet<(Digest, Digest)>) -> Need {
        let known = pairs.contains(&(job.blob.digest, job.diff_id))
            || self.store.is_proven(&job.blob.digest, &job.diff_id);
        match (self.store.find_layer(&job.diff_id, below), self.store.has_blob(&job.blob.digest)) {
            (Some(layer), true) if known => Need::Nothing(layer),
            (Some(layer), true) => Need::Check(layer),
            (Some(layer), false) => Need::Blob(layer),
            (None, true) => Need::Unpack,
            (None, false) => Need::All,
        }
    }

    /// Looks at what is here already, and tells about it.
    fn look_at_all(&self, jobs: &[LayerJob], diff_ids: &[Digest]) -> Vec<Need> {
        let mut seen = HashSet::new();
        let pairs = known_pairs(&self.store);
        let mut waiting = 0;
        let look = |(at, job): (usize, &LayerJob)| {
            let need = self.look(job, &diff_ids[..at], &pairs);
            if seen.insert(job.blob.digest) {
                let exists = matches!(need, Need::Nothing(_) | Need::Check(_));
                let status = if exists { "Already exists" } else { "Pulling fs layer" };
                self.progress.event(ProgressEvent::of(job.id(), status));
                if need.is_download() {
                    waiting += 1;
                    if waiting > self.downloads {
                        self.progress.event(ProgressEvent::of(job.id(), "Waiting"));
                    }
                }
            }
            need
        };
        jobs.iter().enumerate().map(look).collect()
    }
}

/// How much goes on at a time.
struct Places {
    downloads: Arc<Semaphore>,
    /// Blobs that are unpacked from the disk: as many as there are processors. What is unpacked while it comes in has
    /// its place among the downloads.
    unpacking: Semaphore,
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
    places: Arc<Places>,
    job: LayerJob,
    /// The diffIDs of the layers below.
    below: Vec<Digest>,
    at: usize,
    /// While the blob is brought in.
    claim: Option<Arc<Claim>>,
    working: mpsc::Sender<()>,
}

/// What a thread holds while it works; dropped in this order.
type Guard = (Arc<Lease>, Option<Arc<Claim>>, mpsc::Sender<()>);

impl Layer {
    fn tell(&self, status: &str) {
        self.work.progress.event(ProgressEvent::of(self.job.id(), status));
    }

    /// First the lease and the claim are given back, then the thread counts as done.
    fn guard(&self) -> Guard {
        (self.work.lease.clone(), self.claim.clone(), self.working.clone())
    }

    /// All that has to be done, from what was found to be needed.
    async fn bring_in(mut self, mut need: Need, mut permit: Option<OwnedSemaphorePermit>) -> Result<()> {
        if self.claim.is_none() {
            // Another pull brings it in, or a layer of this one that has the same blob. It may fail, too.
            self.claim = Some(Arc::new(self.work.store.claim(&self.job.blob.digest).await));
            need = self.work.look(&self.job, &self.below, &known_pairs(&self.work.store));
            if need.is_download() {
                permit = self.places.downloads.clone().acquire_owned().await.ok();
            }
        }
        let unpacked = match need {
            Need::Nothing(layer) => Some(layer),
            Need::Check(layer) => {
                self.check_blob().await?;
                Some(layer)
            }
            Need::Blob(layer) => {
                self.fetch_blob().await?;
                drop(permit.take());
                self.check_blob().await?;
                Some(layer)
            }
            Need::Unpack => self.unpack_blob(self.stack.below(self.at)).await?,
            Need::All => self.stream().await?,
        };
        drop(permit);
        self.claim = None;
        let layer = match unpacked {
            Some(layer) => layer,
            None => {
                let below = self.stack.wait_below(self.at).await?;
                let layer = self.unpack_blob(Some(below)).await?;
                layer.ok_or_else(|| Error::Abandoned(self.job.what()))?
            }
        };
        self.stack.set(self.at, layer);
        self.tell("Pull complete");
        Ok(())
    }

    /// Downloads and unpacks at once; `None` if it turns out that the layers below are needed first: then the blob
    /// is here.
    async fn stream(&self) -> Result<Option<LayerId>> {
        let (store, job) = (self.work.store.clone(), self.job.clone());
        let progress = self.work.progress.clone();
        let (below, diff_ids) = (self.stack.below(self.at), self.below.clone());
        self.receive(move |mut pieces| {
            let options = ApplyOptions {
                media_type: Some(job.blob.media_type.clone()),
                keep_blob: Some(job.blob.clone()),
                ..ApplyOptions::default()
            };
            let told = Told { inner: &mut pieces, progress: &*progress, id: job.id(), bytes: job.blob.size };
            apply(&store, told, &job.diff_id, below.as_deref(), &diff_ids, &options)
        })
        .await
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
    async fn check_blob(&self) -> Result<()> {
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
        })?
    }

    /// Brings the blob in, from where an earlier attempt was interrupted. If what that one left turns out to be wrong,
    /// the blob is fetched once more from its beginning.
    async fn receive<T: Send + 'static>(
        &self,
        consume: impl Fn(Pieces) -> std::result::Result<T, creel_store::Error> + Clone + Send + 'static,
    ) -> Result<T> {
        let what = self.job.what();
        let partial = Arc::new(self.work.store.keep_partial(&self.job.blob.digest));
        let mut begun = partial.open().map_err(Error::store(format!("reading what is there of {what}")))?;
        loop {
            let resumed = begun.is_some();
            match self.receive_from(begun.take(), partial.clone(), consume.clone()).await {
                Err(error @ Error::Corrupt { .. }) if resumed => {
                    tracing::warn!(%error, "what was kept of a blob is wrong: it is fetched from the beginning");
                    partial.forget();
                }
                Err(error) => {
                    let passing = matches!(
                        error,
                        Error::Network { .. }
                            | Error::Status { .. }
                            | Error::Denied { .. }
                            | Error::Abandoned(_)
                    );
                    if !passing {
                        partial.forget();
                    }
                    return Err(error);
                }
                Ok(done) => {
                    partial.forget();
                    return Ok(done);
                }
            }
        }
    }

    /// Runs the download and, on a thread that may block, `consume`.
    async fn receive_from<T: Send + 'static>(
        &self,
        begun: Option<(File, u64)>,
        partial: Arc<PartialBlob>,
        consume: impl FnOnce(Pieces) -> std::result::Result<T, creel_store::Error> + Send + 'static,
    ) -> Result<T> {
        let (sink, source) = mpsc::channel(PIECES);
        let what = self.job.what();
        let guard = (self.guard(), partial);
        let blocking = tokio::task::spawn_blocking(move || {
            let result = consume(Pieces { source, current: Bytes::new(), ended: false });
            drop(guard);
            result
        });
        let mut meter =
            Meter::new(&*self.work.progress, &self.job.id(), "Downloading", Some(self.job.blob.size));
        let downloaded = self
            .work
            .client
            .download(&self.job.blob, begun, &what, &sink, |received| meter.at(received))
            .await;
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

    /// Unpacks a blob that is here, on top of these layers or, as far as it goes, alone.
    async fn unpack_blob(&self, below: Option<Vec<LayerId>>) -> Result<Option<LayerId>> {
        let _place = self.places.unpacking.acquire().await;
        let diff_ids = self.below.clone();
        let (store, job) = (self.work.store.clone(), self.job.clone());
        let progress = self.work.progress.clone();
        let guard = self.guard();
        let blocking = tokio::task::spawn_blocking(move || {
            let options =
                ApplyOptions { media_type: Some(job.blob.media_type.clone()), ..ApplyOptions::default() };
            let mut meter = Meter::new(&*progress, &job.id(), "Extracting", Some(job.blob.size));
            let result = store.open_blob(&job.blob.digest).and_then(|file| {
                let counted = Counted { inner: file, bytes: 0, tell: |bytes| meter.at(bytes) };
                apply(&store, counted, &job.diff_id, below.as_deref(), &diff_ids, &options)
            });
            drop(guard);
            result
        });
        let what = self.job.what();
        blocking
            .await
            .map_err(|error| Error::Io { action: format!("unpacking {what}"), reason: error.to_string() })?
            .map_err(|error| storing(&what, error))
    }
}

/// Applies a layer on top of those below, or alone if they are not there yet.
fn apply(
    store: &Arc<Store>,
    archive: impl Read + Send,
    diff_id: &Digest,
    below: Option<&[LayerId]>,
    diff_ids: &[Digest],
    options: &ApplyOptions,
) -> std::result::Result<Option<LayerId>, creel_store::Error> {
    match below {
        Some(below) => store.apply_layer(archive, diff_id, below, options).map(Some),
        None => store.apply_layer_alone(archive, diff_id, diff_ids, options),
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

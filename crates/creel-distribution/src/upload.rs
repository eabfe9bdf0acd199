//! Writing to a repository: blobs whole or in chunks, and manifests (distribution-spec, "Push").

use std::io::SeekFrom;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use creel_types::Digest;
use futures_util::StreamExt;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Body, Method, Response};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;
use url::Url;

use crate::client::{Call, Client, Failed, error_detail, status_error};
use crate::error::{Error, Result};
use crate::fetch::digest_header;

/// How much is sent at once where a whole blob does not get through, in bytes.
const CHUNK: u64 = 16 << 20;
/// How much is read from the disk at once, in bytes.
const BUFFER: usize = 128 << 10;

/// Opens the blob anew for each attempt.
pub(crate) type OpenBlob = Arc<dyn Fn() -> Result<std::fs::File> + Send + Sync>;

/// A blob that is to be uploaded.
pub(crate) struct Upload {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) open: OpenBlob,
    /// How many bytes have been handed to the connection; watched for progress.
    pub(crate) sent: Arc<AtomicU64>,
    /// What it is, for messages.
    pub(crate) what: String,
}

/// How a blob came to be in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Uploaded {
    /// It was there.
    Existed,
    /// The registry took it from this other repository.
    Mounted(String),
    /// It was sent.
    Pushed,
}

/// Where an upload goes on, and whether the blob came in by a mount.
enum Session {
    Open(Url),
    Mounted(String),
}

impl Client {
    /// Brings a blob into the repository, by not sending it if that can be.
    pub(crate) async fn upload(&self, blob: &Upload, sources: &[String]) -> Result<Uploaded> {
        if self.has_blob(blob).await? {
            return Ok(Uploaded::Existed);
        }
        let mut session = match self.begin(blob, sources).await? {
            Session::Mounted(from) => return Ok(Uploaded::Mounted(from)),
            Session::Open(url) => url,
        };
        let mut failed = 0;
        let mut in_chunks = false;
        loop {
            let sent = if in_chunks {
                self.send_chunks(blob, session).await
            } else {
                self.send_whole(blob, session).await
            };
            let (error, after) = match sent {
                Ok(()) => return Ok(Uploaded::Pushed),
                Err(Failed::Final(Error::Status { status: 413, .. })) if !in_chunks && blob.size > CHUNK => {
                    in_chunks = true;
                    session = self.open_session(blob).await?;
                    continue;
                }
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Passing(error, after)) => (error, after),
            };
            failed += 1;
            let Some(wait) = self.retry.wait(failed, after) else { return Err(error) };
            tracing::debug!(%error, ?wait, "an upload is tried again");
            tokio::time::sleep(wait).await;
            // What a broken upload left in its session is unknown; a new one begins at nothing.
            in_chunks = blob.size > CHUNK;
            session = self.open_session(blob).await?;
        }
    }

    async fn has_blob(&self, blob: &Upload) -> Result<bool> {
        let url = self.url(&format!("blobs/{}", blob.digest))?;
        let call = Call::new(Method::HEAD, url, format!("looking for {}", blob.what));
        let response = self.send(&call).await?;
        let length =
            response.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        Ok(response.status().is_success() && length.is_none_or(|length| length == blob.size))
    }

    async fn begin(&self, blob: &Upload, sources: &[String]) -> Result<Session> {
        for from in sources {
            let mut url = self.url("blobs/uploads/")?;
            url.query_pairs_mut().append_pair("mount", &blob.digest.to_string()).append_pair("from", from);
            let call = Call::new(Method::POST, url, format!("mounting {} from {from}", blob.what))
                .header(CONTENT_LENGTH, "0");
            let response = match self.send(&call).await {
                Ok(response) => response,
                // A mount only saves time: whoever may not read the source can still push.
                Err(error) => {
                    tracing::debug!(%error, "a mount was refused");
                    continue;
                }
            };
            match response.status().as_u16() {
                201 => return Ok(Session::Mounted(from.clone())),
                202 => return self.location(&call.action, &response).map(Session::Open),
                _ => {}
            }
        }
        self.open_session(blob).await.map(Session::Open)
    }

    async fn open_session(&self, blob: &Upload) -> Result<Url> {
        blob.sent.store(0, Ordering::Relaxed);
        let call = Call::new(
            Method::POST,
            self.url("blobs/uploads/")?,
            format!("beginning to upload {}", blob.what),
        )
        .header(CONTENT_LENGTH, "0");
        let response = self.send(&call).await?;
        match response.status().as_u16() {
            202 => self.location(&call.action, &response),
            403 => Err(self.forbidden(response).await),
            _ => Err(status_error(&call.action, response).await),
        }
    }

    async fn forbidden(&self, response: Response) -> Error {
        Error::Denied {
            what: self.repository.clone(),
            reason: format!("pushing is not allowed{}", error_detail(response).await),
        }
    }

    /// The next address of an upload, relative or not. A registry behind a TLS proxy may believe that it
    /// speaks plain HTTP; for its own host that is put right.
    fn location(&self, action: &str, response: &Response) -> Result<Url> {
        let wrong = |reason: String| Error::Protocol { action: action.to_owned(), reason };
        let header = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let header =
            header.ok_or_else(|| wrong("the registry does not say where the upload goes".to_owned()))?;
        let own = response.url();
        let mut url = own
            .join(header)
            .map_err(|error| wrong(format!("the registry's upload location is wrong: {error}")))?;
        if own.scheme() == "https" && url.scheme() == "http" && url.host() == own.host() {
            let _ = url.set_scheme("https");
            if url.port() == Some(80) {
                let _ = url.set_port(own.port());
            }
        }
        Ok(url)
    }

    fn with_digest(url: &Url, digest: &Digest) -> Url {
        let mut url = url.clone();
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        url
    }

    async fn send_whole(&self, blob: &Upload, session: Url) -> std::result::Result<(), Failed> {
        let body = || part(blob, 0, blob.size);
        let action = format!("uploading {}", blob.what);
        let call = Call::new(Method::PUT, Self::with_digest(&session, &blob.digest), &action)
            .header(CONTENT_LENGTH, &blob.size.to_string())
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(&body);
        let response = self.attempt(&call).await?;
        self.judge_end(&action, response).await
    }

    async fn judge_end(&self, action: &str, response: Response) -> std::result::Result<(), Failed> {
        match response.status().as_u16() {
            201 | 202 | 204 => Ok(()),
            // The session is gone: a new one may do.
            404 => Err(Failed::Passing(status_error(action, response).await, None)),
            403 => Err(Failed::Final(self.forbidden(response).await)),
            _ => Err(Failed::Final(status_error(action, response).await)),
        }
    }

    async fn send_chunks(&self, blob: &Upload, session: Url) -> std::result::Result<(), Failed> {
        let action = format!("uploading {} in chunks", blob.what);
        let mut session = session;
        let mut offset = 0;
        let mut failed = 0;
        while offset < blob.size {
            let length = CHUNK.min(blob.size - offset);
            let body = || part(blob, offset, length);
            let call = Call::new(Method::PATCH, session.clone(), &action)
                .header(CONTENT_LENGTH, &length.to_string())
                .header(CONTENT_RANGE, &format!("{offset}-{}", offset + length - 1))
                .header(CONTENT_TYPE, "application/octet-stream")
                .body(&body);
            let error = match self.attempt(&call).await {
                Ok(response) if response.status().as_u16() == 202 => {
                    session = self.location(&action, &response).map_err(Failed::Final)?;
                    offset = range_end(&response).unwrap_or(offset + length).min(blob.size);
                    failed = 0;
                    continue;
                }
                Ok(response) if response.status().as_u16() == 416 => status_error(&action, response).await,
                Ok(response) => return self.judge_end(&action, response).await,
                Err(Failed::Passing(error, _)) => error,
                Err(other) => return Err(other),
            };
            failed += 1;
            let Some(wait) = self.retry.wait(failed, None) else { return Err(Failed::Final(error)) };
            tokio::time::sleep(wait).await;
            // Ask how much arrived, and go on from there.
            let status = Call::new(Method::GET, session.clone(), &action);
            let response = self.attempt(&status).await?;
            if response.status().as_u16() != 204 {
                return Err(Failed::Passing(error, None));
            }
            offset = range_end(&response).unwrap_or(0).min(blob.size);
            if response.headers().contains_key(LOCATION) {
                session = self.location(&action, &response).map_err(Failed::Final)?;
            }
        }
        let call = Call::new(Method::PUT, Self::with_digest(&session, &blob.digest), &action)
            .header(CONTENT_LENGTH, "0");
        let response = self.attempt(&call).await?;
        self.judge_end(&action, response).await
    }

    /// Puts a manifest under a tag.
    pub(crate) async fn put_manifest(
        &self,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
        digest: &Digest,
    ) -> Result<()> {
        let action = format!("putting the manifest of {}:{tag}", self.repository);
        let body = || Ok(Body::from(bytes.to_vec()));
        let call = Call::new(Method::PUT, self.url(&format!("manifests/{tag}"))?, &action)
            .header(CONTENT_TYPE, media_type)
            .body(&body);
        let response = self.send(&call).await?;
        match response.status().as_u16() {
            200 | 201 | 202 | 204 => {}
            403 => return Err(self.forbidden(response).await),
            _ => return Err(status_error(&action, response).await),
        }
        match digest_header(&response) {
            Some(named) if named != *digest => Err(Error::Protocol {
                action,
                reason: format!("the registry names the manifest {named}, and {digest} was sent"),
            }),
            _ => Ok(()),
        }
    }
}

/// The part of a blob that a request sends, counted as it goes.
fn part(blob: &Upload, offset: u64, length: u64) -> Result<Body> {
    let file = tokio::fs::File::from_std((blob.open)()?);
    let sent = blob.sent.clone();
    sent.store(offset, Ordering::Relaxed);
    let stream = futures_util::stream::once(async move {
        let mut file = file;
        file.seek(SeekFrom::Start(offset)).await?;
        Ok::<_, std::io::Error>(ReaderStream::with_capacity(file.take(length), BUFFER))
    });
    let stream = stream.flat_map(move |opened| {
        let sent = sent.clone();
        match opened {
            Ok(stream) => stream
                .inspect(move |chunk| {
                    if let Ok(chunk) = chunk {
                        sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                    }
                })
                .boxed(),
            Err(error) => futures_util::stream::once(async move { Err(error) }).boxed(),
        }
    });
    Ok(Body::wrap_stream(stream))
}

/// The number of bytes that have arrived: `Range: 0-9` is ten (distribution-spec, "Pushing a blob in chunks").
fn range_end(response: &Response) -> Option<u64> {
    let value = response.headers().get(RANGE)?.to_str().ok()?;
    let (_, last) = value.strip_prefix("bytes=").unwrap_or(value).split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    // `0-0` is what registries answer before the first byte.
    Some(if last == 0 { 0 } else { last + 1 })
}

/// Runs `work` and tells how far it is, ten times a second.
pub(crate) async fn watched<T>(work: impl Future<Output = T>, mut tell: impl FnMut()) -> T {
    let mut work = pin!(work);
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(100));
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => tell(),
        }
    }
}

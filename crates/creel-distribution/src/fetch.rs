//! Reading from a repository: manifests, small blobs as a whole, big ones as a stream that survives cuts.

use bytes::Bytes;
use creel_types::Digest;
use creel_types::image::Descriptor;
use futures_util::StreamExt;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Method, Response};
use std::fs::File;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use crate::client::{Call, Client, error_detail, network, status_error, whole_body};
use crate::document::{Document, LIMIT, accept, parse};
use crate::error::{Error, Result};

/// A download that has come this far, in bytes, has earned a fresh count of attempts.
const EARNED: u64 = 64 << 10;

/// A manifest or index as it was sent.
pub(crate) struct Fetched {
    pub(crate) bytes: Bytes,
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) document: Document,
}

/// What flows from a download to whoever unpacks it.
pub(crate) enum Piece {
    /// The next bytes.
    Data(Bytes),
    /// All bytes have come.
    End,
}

/// The SHA-256 of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut sum = [0; 32];
    sum.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    Digest::from_sha256(sum)
}

impl Client {
    /// Asks for the digest behind a tag without fetching anything. `None` if the registry does not tell.
    pub(crate) async fn manifest_digest(&self, tag: &str, name: &str) -> Result<Option<Digest>> {
        let url = self.url(&format!("manifests/{tag}"))?;
        let call = Call::new(Method::HEAD, url, format!("asking for the digest of {name}"))
            .header(ACCEPT, &accept());
        let response = self.send(&call).await?;
        if response.status().as_u16() == 404 {
            return Err(unknown(name, response).await);
        }
        if !response.status().is_success() {
            return Ok(None);
        }
        Ok(digest_header(&response))
    }

    /// Fetches a manifest or index. `what` is a tag or digest; `promised` is the descriptor that led here.
    pub(crate) async fn manifest(
        &self,
        what: &str,
        digest: Option<Digest>,
        promised: Option<&Descriptor>,
        name: &str,
    ) -> Result<Fetched> {
        let action = format!("fetching the manifest of {name}");
        if let Some(promised) = promised.filter(|p| p.size > LIMIT) {
            return Err(Error::document(
                "manifest",
                name,
                format!("{} bytes are promised where {LIMIT} are the limit", promised.size),
            ));
        }
        let call = Call::new(Method::GET, self.url(&format!("manifests/{what}"))?, &action)
            .header(ACCEPT, &accept());
        let (response_type, response_digest, bytes) = self
            .whole(&call, LIMIT, async |response| match response.status().as_u16() {
                200 => Ok(response),
                404 => Err(unknown(name, response).await),
                403 => Err(denied(name, response).await),
                _ => Err(status_error(&action, response).await),
            })
            .await?;
        let found = sha256(&bytes);
        let expected = digest.or(promised.map(|p| p.digest)).or(response_digest);
        if let Some(expected) = expected
            && expected != found
        {
            return Err(Error::digest(format!("the manifest of {name}"), &expected, &found));
        }
        if let Some(promised) = promised
            && promised.size != bytes.len() as u64
        {
            return Err(Error::Corrupt {
                what: format!("the manifest of {name}"),
                reason: format!("it has {} bytes where its index promises {}", bytes.len(), promised.size),
            });
        }
        let declared = promised
            .map(|p| p.media_type.as_str())
            .filter(|media| !media.is_empty())
            .or(response_type.as_deref());
        let (document, media_type) = parse(&bytes, declared, name)?;
        Ok(Fetched { bytes, digest: found, media_type, document })
    }

    /// Fetches a small blob, such as a configuration, and verifies it.
    pub(crate) async fn small_blob(&self, blob: &Descriptor, what: &str) -> Result<Bytes> {
        let action = format!("fetching {what}");
        let call = Call::new(Method::GET, self.url(&format!("blobs/{}", blob.digest))?, &action);
        let (_, _, bytes) = self
            .whole(&call, LIMIT.min(blob.size), async |response| match response.status().as_u16() {
                200 => Ok(response),
                _ => Err(status_error(&action, response).await),
            })
            .await?;
        if bytes.len() as u64 != blob.size {
            return Err(Error::Corrupt {
                what: what.to_owned(),
                reason: format!("it has {} bytes where {} were promised", bytes.len(), blob.size),
            });
        }
        let found = sha256(&bytes);
        if found != blob.digest {
            return Err(Error::digest(what, &blob.digest, &found));
        }
        Ok(bytes)
    }

    /// The descriptors of what refers to a digest and is of this artifact type: by the referrers API, or, of a
    /// registry that lacks it, by the tag in its place (distribution-spec 1.1, "Unavailable Referrers API").
    pub(crate) async fn referrers(
        &self,
        digest: &Digest,
        artifact: &str,
        what: &str,
    ) -> Result<Vec<Descriptor>> {
        #[derive(serde::Deserialize)]
        struct Index {
            #[serde(default)]
            manifests: Vec<serde_json::Value>,
        }
        #[derive(serde::Deserialize)]
        struct Entry {
            #[serde(default, rename = "artifactType")]
            artifact: String,
            #[serde(flatten)]
            descriptor: Descriptor,
        }
        let action = format!("fetching {what}");
        let mut url = self.url(&format!("referrers/{digest}"))?;
        url.query_pairs_mut().append_pair("artifactType", artifact);
        let tag = self.url(&format!("manifests/sha256-{}", digest.hex()))?;
        for url in [url, tag] {
            let call = Call::new(Method::GET, url, &action)
                .header(ACCEPT, creel_types::image::media_type::OCI_INDEX);
            let response = self.send(&call).await?;
            match response.status().as_u16() {
                200 => {}
                // 400, 404, 405 and others: it does not know such a path.
                400..500 => continue,
                _ => return Err(status_error(&action, response).await),
            }
            let bytes = whole_body(&action, response, LIMIT).await??;
            // Some answer paths that they do not know with a page of theirs; and what cannot be read refers to nothing.
            let Ok(index) = serde_json::from_slice::<Index>(&bytes) else { continue };
            let entries =
                index.manifests.into_iter().filter_map(|value| serde_json::from_value::<Entry>(value).ok());
            // Whether the registry filters is its own business.
            return Ok(entries
                .filter(|entry| entry.artifact == artifact)
                .map(|entry| entry.descriptor)
                .collect());
        }
        Ok(Vec::new())
    }

    async fn whole(
        &self,
        call: &Call<'_>,
        limit: u64,
        judge: impl AsyncFn(Response) -> Result<Response>,
    ) -> Result<(Option<String>, Option<Digest>, Bytes)> {
        let mut failed = 0;
        loop {
            let response = judge(self.send(call).await?).await?;
            let media = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
            let digest = digest_header(&response);
            match whole_body(&call.action, response, limit).await? {
                Ok(bytes) => return Ok((media, digest, bytes)),
                Err(error) => {
                    failed += 1;
                    let Some(wait) = self.retry.wait(failed, None) else { return Err(error) };
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Streams a blob into `sink`, in order and without gaps, whatever happens to connections on the way: after a
    /// cut it goes on where it stopped, also with registries that ignore `Range`. Sends at most the promised
    /// number of bytes, then [`Piece::End`]; the digest is for the receiver to verify. `begun` is what an earlier
    /// download left, and how many bytes that is: they are not asked for again.
    pub(crate) async fn download(
        &self,
        blob: &Descriptor,
        begun: Option<(File, u64)>,
        what: &str,
        sink: &mpsc::Sender<Piece>,
        mut received_now: impl FnMut(u64),
    ) -> Result<()> {
        let action = format!("downloading {what}");
        let url = self.url(&format!("blobs/{}", blob.digest))?;
        let mut received = 0u64;
        if let Some((file, length)) = begun {
            let file = tokio::fs::File::from_std(file).take(length.min(blob.size));
            let mut kept = ReaderStream::with_capacity(file, 128 << 10);
            while let Some(piece) = kept.next().await {
                let piece =
                    piece.map_err(|error| Error::io(format!("reading what is there of {what}"), &error))?;
                received += piece.len() as u64;
                sink.send(Piece::Data(piece)).await.map_err(|_| Error::Abandoned(what.to_owned()))?;
            }
            received_now(received);
            if received == blob.size {
                return sink.send(Piece::End).await.map_err(|_| Error::Abandoned(what.to_owned()));
            }
        }
        let mut failed = 0;
        loop {
            let started_at = received;
            let mut call = Call::new(Method::GET, url.clone(), &action);
            if received > 0 {
                call = call.header(RANGE, &format!("bytes={received}-"));
            }
            let response = self.send(&call).await?;
            let mut skip = match response.status().as_u16() {
                200 => received,
                206 if range_start(&response) == Some(received) && received > 0 => 0,
                206 => {
                    return Err(Error::Protocol {
                        action,
                        reason: "the registry sent another part than was asked for".to_owned(),
                    });
                }
                403 => return Err(denied(what, response).await),
                _ => return Err(status_error(&action, response).await),
            };
            let coming: Option<u64> =
                response.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
            if let Some(coming) = coming {
                let whole = (received - skip).saturating_add(coming);
                if whole != blob.size {
                    return Err(wrong_size(what, blob.size, whole));
                }
            }
            let mut stream = response.bytes_stream();
            let broken = loop {
                if received == blob.size && skip == 0 {
                    if coming.is_none()
                        && let Ok(Some(Ok(more))) =
                            tokio::time::timeout(Duration::from_secs(5), stream.next()).await
                        && !more.is_empty()
                    {
                        return Err(wrong_size(what, blob.size, received + more.len() as u64));
                    }
                    return sink.send(Piece::End).await.map_err(|_| Error::Abandoned(what.to_owned()));
                }
                let mut chunk = match stream.next().await {
                    Some(Ok(chunk)) => chunk,
                    Some(Err(error)) => break network(&action, &error),
                    None => {
                        break Error::Network {
                            action: action.clone(),
                            reason: format!("the connection ended after {received} of {} bytes", blob.size),
                        };
                    }
                };
                let skipped = skip.min(chunk.len() as u64);
                let _ = chunk.split_to(usize::try_from(skipped).unwrap_or(chunk.len()));
                skip -= skipped;
                if chunk.is_empty() {
                    continue;
                }
                if received + chunk.len() as u64 > blob.size {
                    return Err(wrong_size(what, blob.size, received + chunk.len() as u64));
                }
                received += chunk.len() as u64;
                sink.send(Piece::Data(chunk)).await.map_err(|_| Error::Abandoned(what.to_owned()))?;
                received_now(received);
            };
            failed = if received - started_at >= EARNED { 1 } else { failed + 1 };
            let Some(wait) = self.retry.wait(failed, None) else { return Err(broken) };
            tracing::debug!(error = %broken, ?wait, received, "a download goes on where it was cut");
            tokio::time::sleep(wait).await;
        }
    }
}

fn wrong_size(what: &str, promised: u64, found: u64) -> Error {
    Error::Corrupt {
        what: what.to_owned(),
        reason: format!("the registry sends {found} bytes or more where {promised} were promised"),
    }
}

async fn unknown(name: &str, response: Response) -> Error {
    Error::UnknownImage { reference: name.to_owned(), detail: error_detail(response).await }
}

async fn denied(name: &str, response: Response) -> Error {
    Error::Denied {
        what: name.to_owned(),
        reason: format!("the registry forbids it{}", error_detail(response).await),
    }
}

/// The digest that a registry names in `Docker-Content-Digest`.
pub(crate) fn digest_header(response: &Response) -> Option<Digest> {
    response.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// The first byte of the part that came: `Content-Range: bytes 5-9/10` (RFC 9110, section 14.4).
fn range_start(response: &Response) -> Option<u64> {
    let value = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

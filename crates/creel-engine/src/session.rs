//! Bytes between a client and a shim's stream: both ways at once, half-closes passed on, detach keys looked for.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::containers::detach::Detector;
use crate::error::Result;
use crate::options::AttachEnd;

/// Bytes moved at a time.
const CHUNK: usize = 32 << 10;

/// Copies until the output has ended, the client is gone, or the detach keys were typed.
pub(crate) async fn run(
    io: impl AsyncRead + AsyncWrite + Unpin + Send,
    stream: UnixStream,
    first: Bytes,
    stdin: bool,
    detach: Option<Vec<u8>>,
) -> Result<AttachEnd> {
    let (mut from_client, mut to_client) = tokio::io::split(io);
    let (mut from_shim, mut to_shim) = stream.into_split();
    let output = async {
        if to_client.write_all(&first).await.is_err() {
            return AttachEnd::ClientGone;
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            // A shim that died has nothing more to say, either.
            let n = from_shim.read(&mut buffer).await.unwrap_or(0);
            if n == 0 {
                break;
            }
            if to_client.write_all(&buffer[..n]).await.is_err() || to_client.flush().await.is_err() {
                return AttachEnd::ClientGone;
            }
        }
        let _ = to_client.shutdown().await;
        AttachEnd::Ended
    };
    let input = async {
        let mut detector = Detector::new(detach.unwrap_or_default());
        let mut buffer = vec![0; if stdin { CHUNK } else { 512 }];
        let mut pass = Vec::new();
        let mut open = stdin;
        loop {
            match from_client.read(&mut buffer).await {
                Ok(0) => break,
                // A connection that broke is gone in both directions.
                Err(_) => return AttachEnd::ClientGone,
                Ok(n) => {
                    pass.clear();
                    let detached = detector.feed(&buffer[..n], &mut pass);
                    if open && !pass.is_empty() && to_shim.write_all(&pass).await.is_err() {
                        open = false;
                    }
                    if detached {
                        return AttachEnd::Detached;
                    }
                }
            }
        }
        if open {
            let rest = detector.rest().to_vec();
            let _ = to_shim.write_all(&rest).await;
            let _ = to_shim.shutdown().await;
        }
        // The client has no more to say; it may still listen.
        std::future::pending().await
    };
    Ok(tokio::select! {
        end = output => end,
        end = input => end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_directions_end_each_for_itself() {
        let (client, ours) = tokio::io::duplex(64);
        let (stream, mut shim) = UnixStream::pair().unwrap();
        let running = tokio::spawn(run(ours, stream, Bytes::from_static(b"first "), true, None));
        let (mut read, mut write) = tokio::io::split(client);
        write.write_all(b"question").await.unwrap();
        write.shutdown().await.unwrap();
        let mut asked = Vec::new();
        shim.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, b"question");
        shim.write_all(b"answer").await.unwrap();
        drop(shim);
        let mut answer = Vec::new();
        read.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"first answer");
        assert_eq!(running.await.unwrap().unwrap(), AttachEnd::Ended);
    }

    #[tokio::test]
    async fn the_keys_detach_and_are_not_passed_on() {
        let (client, ours) = tokio::io::duplex(64);
        let (stream, mut shim) = UnixStream::pair().unwrap();
        let running = tokio::spawn(run(ours, stream, Bytes::new(), true, Some(vec![16, 17])));
        let (_read, mut write) = tokio::io::split(client);
        write.write_all(b"ab\x10\x11cd").await.unwrap();
        assert_eq!(running.await.unwrap().unwrap(), AttachEnd::Detached);
        let mut got = Vec::new();
        shim.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"ab");
    }
}

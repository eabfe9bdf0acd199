//! Pushing to registries that break off, refuse large bodies, or send one around.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use common::*;
use creel_distribution::{Error, ImportOptions, Pushed, Silent, import, push};
use creel_types::{Classify, ErrorKind};

/// What a scripted registry has received.
#[derive(Default)]
struct Received {
    sessions: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: Vec<Vec<u8>>,
}

/// A registry that takes uploads, after `first` has had its say.
fn registry(
    first: impl Fn(&Seen, &mut Received) -> Option<Reply> + Send + Sync + 'static,
) -> (Server, Arc<Mutex<Received>>) {
    let received = Arc::new(Mutex::new(Received::default()));
    let state = received.clone();
    let server = Server::new(move |seen| {
        let mut state = state.lock().unwrap();
        if let Some(reply) = first(seen, &mut state) {
            return reply;
        }
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        let last = path.rsplit('/').next().unwrap().to_owned();
        let place = |id: &str| format!("/v2/test/image/blobs/uploads/{id}?state=a%2Fb");
        let arrived = |state: &Received, id: &str| {
            format!("0-{}", state.sessions.get(id).map_or(0, |bytes| bytes.len().saturating_sub(1)))
        };
        match seen.method.as_str() {
            "HEAD" => match state.blobs.get(&last) {
                Some(blob) => Reply::new(200, blob.clone()),
                None => Reply::new(404, ""),
            },
            "POST" => {
                let id = format!("s{}", state.sessions.len());
                state.sessions.insert(id.clone(), Vec::new());
                Reply::new(202, "").header("Location", place(&id))
            }
            "PATCH" => {
                let range = seen.header("content-range").unwrap();
                let start: usize = range.split('-').next().unwrap().parse().unwrap();
                let session = state.sessions.get_mut(&last).unwrap();
                if start != session.len() {
                    return Reply::new(416, "");
                }
                session.extend(&seen.body);
                Reply::new(202, "").header("Location", place(&last)).header("Range", arrived(&state, &last))
            }
            "GET" => {
                Reply::new(204, "").header("Location", place(&last)).header("Range", arrived(&state, &last))
            }
            "PUT" if path.contains("/manifests/") => {
                state.manifests.push(seen.body.clone());
                Reply::new(201, "")
            }
            "PUT" => {
                assert!(query.starts_with("state=a%2Fb&digest=sha256%3A"), "{query}");
                let mut bytes = state.sessions.remove(&last).unwrap();
                bytes.extend(&seen.body);
                let digest = sha256(&bytes).to_string();
                if !query.ends_with(&digest.replace(':', "%3A")) {
                    return Reply::new(400, r#"{"errors":[{"message":"provided digest did not match"}]}"#);
                }
                state.blobs.insert(digest, bytes);
                Reply::new(201, "")
            }
            _ => Reply::new(405, ""),
        }
    });
    (server, received)
}

async fn push_noise(server: &Server, bytes: usize) -> Result<Pushed, Error> {
    let store = TestStore::new();
    let name = server.image(":1");
    let options = ImportOptions { reference: Some(name.clone()), ..ImportOptions::default() };
    import(&store.store, &tar(&[("noise", &noise(1, bytes))])[..], &options).unwrap();
    push(&store.store, &name, &push_options(), &(Arc::new(Silent) as _)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_blob_is_sent_again_after_a_failure() {
    if !is_root() {
        return;
    }
    let failures = Mutex::new(0);
    let (server, received) = registry(move |seen, state| {
        let mut failures = failures.lock().unwrap();
        if seen.method != "PUT" || seen.path.contains("/manifests/") || *failures == 2 {
            return None;
        }
        *failures += 1;
        // The session keeps part of it, and must not be used again.
        if let Some(session) = state.sessions.values_mut().last() {
            session.extend(&seen.body[..seen.body.len() / 2]);
        }
        Some(Reply::new(500, ""))
    });
    let pushed = push_noise(&server, 100_000).await.unwrap();
    let received = received.lock().unwrap();
    assert_eq!(received.blobs.len(), 2);
    assert_eq!(sha256(&received.manifests[0]), pushed.digest);
    assert_eq!(server.count("POST", "uploads"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_goes_in_chunks_where_it_does_not_get_through_whole() {
    if !is_root() {
        return;
    }
    let broken = Mutex::new(false);
    let (server, received) = registry(move |seen, state| {
        if seen.method == "PUT" && seen.body.len() > 17 << 20 {
            return Some(Reply::new(413, ""));
        }
        let mut broken = broken.lock().unwrap();
        if seen.method == "PATCH" && !*broken && state.sessions.values().any(|s| s.len() == 16 << 20) {
            // Part of the second chunk arrives, and then the connection is lost.
            *broken = true;
            state.sessions.values_mut().last().unwrap().extend(&seen.body[..1_000_000]);
            return Some(Reply::new(202, vec![0; 100]).cut_after(0)).map(|mut reply| {
                reply.status = 502;
                reply
            });
        }
        None
    });
    let pushed = push_noise(&server, 40 << 20).await.unwrap();
    let received = received.lock().unwrap();
    assert_eq!(sha256(&received.manifests[0]), pushed.digest);
    assert!(received.blobs.values().any(|blob| blob.len() > 40 << 20));
    let starts: Vec<u64> = server
        .log()
        .iter()
        .filter_map(|seen| seen.header("content-range")?.split('-').next()?.parse().ok())
        .collect();
    assert_eq!(starts, [0, 16 << 20, (16 << 20) + 1_000_000, (32 << 20) + 1_000_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_refuses_is_quoted() {
    if !is_root() {
        return;
    }
    let (server, _) = registry(|seen, _| {
        (seen.method == "POST")
            .then(|| Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"quota exceeded"}]}"#))
    });
    let error = push_noise(&server, 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().contains("quota exceeded"), "{error}");

    let (server, _) = registry(|seen, _| {
        (seen.method == "PUT" && seen.path.contains("/manifests/"))
            .then(|| Reply::new(400, r#"{"errors":[{"message":"manifest invalid"}]}"#))
    });
    let error = push_noise(&server, 10).await.unwrap_err().to_string();
    assert!(error.contains("manifest invalid"), "{error}");

    let (server, _) = registry(|seen, _| {
        (seen.method == "POST").then(|| Reply::new(202, "").header("Location", "http://192.0.2.7/up"))
    });
    let error = push_noise(&server, 10).await.unwrap_err();
    assert!(matches!(error, Error::Insecure { .. }), "{error}");
}

/// Hands a request on to another server and its answer back.
fn forward(to: &str, seen: &Seen) -> Reply {
    use std::io::{Read as _, Write as _};
    let mut connection = std::net::TcpStream::connect(to).unwrap();
    let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", seen.method, seen.path);
    for (name, value) in &seen.headers {
        if name != "connection" {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    connection.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    connection.write_all(&seen.body).unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut reply = Reply::new(status, &answer[end + 4..]);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        if !["content-length", "connection"].contains(&name.to_ascii_lowercase().as_str()) {
            reply = reply.header(name, value);
        }
    }
    reply
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_registry_takes_the_chunks() {
    if !is_root() {
        return;
    }
    let Some(registry) = RealRegistry::start(None) else { return };
    let address = registry.address.clone();
    // What stands in between takes no large bodies, as many front ends do.
    let front = Server::new(move |seen| match seen.method.as_str() {
        "PUT" | "PATCH" if seen.body.len() > 17 << 20 => Reply::new(413, ""),
        _ => forward(&address, seen),
    });
    let pushed = push_noise(&front, 40 << 20).await.unwrap();
    assert_eq!(front.count("PATCH", "/blobs/uploads/"), 3);
    let store = TestStore::new();
    let silent: Arc<dyn creel_distribution::Progress> = Arc::new(Silent);
    let (name, options) = (registry.image(&format!("test/image@{}", pushed.digest)), pull_options());
    let pulled = creel_distribution::pull(&store.store, &name, &options, &silent).await.unwrap();
    assert_eq!(pulled.manifest_digest, pushed.digest);
    assert_whole(&store.store);
}

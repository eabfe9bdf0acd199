//! Whether a registry on this machine speaks TLS is asked once, and again when it answers as if it had learnt it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use creel_distribution::{Auth, Error, ImportOptions, Silent, import, login, pull, push};

/// A registry that takes every upload and gives `image`; once `tls` is set it answers as Go's servers do that are
/// spoken to in plain.
fn registry(image: TestImage, tls: Arc<AtomicBool>) -> Server {
    Server::new(move |seen| {
        if tls.load(Ordering::SeqCst) {
            return Reply::new(400, "Client sent an HTTP request to an HTTPS server.\n");
        }
        match seen.method.as_str() {
            "GET" if seen.path == "/v2/" => Reply::new(200, "{}"),
            "HEAD" if seen.path.contains("/blobs/") => Reply::new(404, ""),
            "POST" => Reply::new(202, "").header("Location", "/v2/test/image/blobs/uploads/1"),
            "PATCH" => Reply::new(202, "")
                .header("Location", "/v2/test/image/blobs/uploads/1")
                .header("Range", format!("0-{}", seen.body.len().saturating_sub(1))),
            "PUT" => Reply::new(201, ""),
            _ => answer(&image, seen),
        }
    })
}

struct Setting {
    server: Server,
    store: TestStore,
    tls: Arc<AtomicBool>,
}

impl Setting {
    fn new() -> Self {
        let tls = Arc::new(AtomicBool::new(false));
        let server = registry(TestImage::new(&[tar(&[("a", b"one")])]), tls.clone());
        let store = TestStore::new();
        let options = ImportOptions { reference: Some(server.image(":mine")), ..ImportOptions::default() };
        import(&store.store, &tar(&[("b", b"two")])[..], &options).unwrap();
        Self { server, store, tls }
    }

    async fn pull(&self) -> Result<(), Error> {
        let progress = Arc::new(Silent) as _;
        pull(&self.store.store, &self.server.image(":1"), &pull_options(), &progress).await.map(drop)
    }

    async fn push(&self) -> Result<(), Error> {
        let progress = Arc::new(Silent) as _;
        push(&self.store.store, &self.server.image(":mine"), &push_options(), &progress).await.map(drop)
    }

    async fn login(&self) -> Result<(), Error> {
        let auth = Auth {
            username: "adam".to_owned(),
            password: "secret".to_owned(),
            server_address: self.server.address.to_string(),
            ..Auth::default()
        };
        login(&auth, &pull_options().registry).await.map(drop)
    }

    fn probes(&self) -> usize {
        self.server.probes.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_asked_for_tls_once_whatever_is_done_with_it() {
    if !is_root() {
        return;
    }
    for first in ["pull", "push", "login"] {
        let setting = Setting::new();
        match first {
            "pull" => setting.pull().await.unwrap(),
            "push" => setting.push().await.unwrap(),
            _ => setting.login().await.unwrap(),
        }
        assert_eq!(setting.probes(), 1, "{first}");
        for _ in 0..2 {
            setting.pull().await.unwrap();
            setting.push().await.unwrap();
            setting.login().await.unwrap();
        }
        assert_eq!(setting.probes(), 1, "after {first} it was asked again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_answers_otherwise_is_asked_again() {
    if !is_root() {
        return;
    }
    for work in ["pull", "push", "login"] {
        let setting = Setting::new();
        setting.pull().await.unwrap();
        setting.tls.store(true, Ordering::SeqCst);
        let failed = match work {
            "pull" => setting.pull().await,
            "push" => setting.push().await,
            _ => setting.login().await,
        };
        // it does not really speak TLS: what it said is what is told
        let error = failed.unwrap_err().to_string();
        assert!(error.contains("400"), "{work}: {error}");
        assert_eq!(setting.probes(), 2, "{work}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_no_reason_to_ask_again() {
    if !is_root() {
        return;
    }
    let server = Server::new(|_| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""));
    let auth = Auth {
        username: "adam".to_owned(),
        password: "wrong".to_owned(),
        server_address: server.address.to_string(),
        ..Auth::default()
    };
    for _ in 0..3 {
        assert!(matches!(login(&auth, &pull_options().registry).await, Err(Error::Login { .. })));
    }
    assert_eq!(server.probes.load(Ordering::SeqCst), 1);
}

//! Debian's docker-registry behind TLS and with token authentication, both set up by the test: certificates in
//! Docker's layout, tokens signed with a key of the test's, identity tokens, mirrors.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use common::*;
use creel_distribution::{
    Auth, Error, ImportOptions, Progress, PullOptions, PushOptions, RegistryConfig, RegistryOptions, Silent,
    import, login, pull, push,
};
use creel_types::{Classify, ErrorKind, Reference};

fn silent() -> Arc<dyn Progress> {
    Arc::new(Silent)
}

/// An authority, a server's and a client's certificate; the server's is for 127.0.0.1.
fn make_certificates(dir: &Path) {
    let script = r#"set -e; cd "$1"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt
printf 'subjectAltName=IP:127.0.0.1,DNS:localhost' > server.ext
printf 'extendedKeyUsage=clientAuth' > client.ext
for who in server client; do
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=$who -keyout $who.key -out $who.csr
openssl x509 -req -in $who.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile $who.ext -out $who.crt
done
openssl x509 -in ca.crt -outform DER -out ca.der"#;
    run("sh", &["-c", script, "sh", dir.to_str().unwrap()]);
}

/// A store with an image under this name.
fn stocked(name: &Reference) -> TestStore {
    let store = TestStore::new();
    let options = ImportOptions { reference: Some(name.clone()), ..ImportOptions::default() };
    import(&store.store, &tar(&[("file", &noise(11, 100_000))])[..], &options).unwrap();
    store
}

fn options(certs: &Path, auth: Option<Auth>) -> RegistryOptions {
    let config = RegistryConfig { certs: vec![certs.to_owned()], ..RegistryConfig::default() };
    RegistryOptions { auth, config, retry: quick_retry() }
}

async fn push_with(store: &TestStore, name: &Reference, registry: &RegistryOptions) -> Result<(), Error> {
    let options = PushOptions { registry: registry.clone(), ..PushOptions::default() };
    push(&store.store, name, &options, &silent()).await.map(drop)
}

async fn pull_with(store: &TestStore, name: &Reference, registry: &RegistryOptions) -> Result<(), Error> {
    let options = PullOptions { registry: registry.clone(), ..PullOptions::default() };
    pull(&store.store, name, &options, &silent()).await.map(drop)
}

fn copy(from: PathBuf, to: PathBuf) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_decide_who_is_trusted_and_who_is_let_in() {
    if !is_root() || !has_tool("openssl") {
        return;
    }
    let files = scratch();
    make_certificates(files.path());
    let file = |name: &str| files.path().join(name);
    let tls = format!(
        "  tls:\n    certificate: {0}/server.crt\n    key: {0}/server.key\n    clientcas:\n      - {0}/ca.crt\n",
        files.path().display()
    );
    let Some(registry) = RealRegistry::start_with(&tls, "") else { return };
    let name = registry.image("secured/image:1");
    let store = stocked(&name);
    let certs = scratch();
    let own = certs.path().join(&registry.address);
    let with = options(certs.path(), None);

    // Nothing is set up: on this machine TLS is spoken without verifying, and the registry misses our certificate.
    let error = push_with(&store, &name, &with).await.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("certificate") || error.contains("client"), "{error}");
    // The registry's authority alone: the registry still misses our certificate.
    copy(file("ca.crt"), own.join("ca.crt"));
    push_with(&store, &name, &with).await.unwrap_err();
    // Half a pair is named in Docker's words.
    copy(file("client.crt"), own.join("client.cert"));
    let error = push_with(&store, &name, &with).await.unwrap_err().to_string();
    assert!(error.contains("missing key client.key for client certificate client.cert"), "{error}");
    copy(file("client.key"), own.join("client.key"));
    push_with(&store, &name, &with).await.unwrap();
    let other = TestStore::new();
    pull_with(&other, &name, &with).await.unwrap();
    assert_eq!(other.store.list_images().len(), 1);
    // An authority that has not signed the server's certificate: it is not trusted, although it is on this machine.
    let strange = scratch();
    make_certificates(strange.path());
    copy(strange.path().join("ca.crt"), own.join("ca.crt"));
    let third = TestStore::new();
    let error = pull_with(&third, &name, &with).await.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    third.assert_empty();
    // Who lists it as insecure wants no verification, and still shows the certificate.
    let mut insecure = with.clone();
    insecure.config.insecure = vec![registry.address.clone()];
    pull_with(&third, &name, &insecure).await.unwrap();
}

/// A token in the form that docker-registry verifies: RS256 with the authority's certificate in its head.
fn token(dir: &Path, service: &str, scopes: &[String]) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let chain = STANDARD.encode(std::fs::read(dir.join("ca.der")).unwrap());
    let head = serde_json::json!({"typ": "JWT", "alg": "RS256", "x5c": [chain]});
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let access: Vec<_> = scopes
        .iter()
        .map(|scope| {
            let parts: Vec<&str> = scope.split(':').collect();
            serde_json::json!({"type": parts[0], "name": parts[1], "actions": parts[2].split(',').collect::<Vec<_>>()})
        })
        .collect();
    let body = serde_json::json!({
        "iss": "test", "sub": "user", "aud": service, "exp": now + 300, "nbf": now - 10, "iat": now - 10,
        "jti": "1", "access": access
    });
    let text = format!("{}.{}", encode(head.to_string().as_bytes()), encode(body.to_string().as_bytes()));
    let input = tempfile::NamedTempFile::new_in(dir).unwrap();
    std::fs::write(input.path(), &text).unwrap();
    let signed = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(dir.join("ca.key"))
        .arg(input.path())
        .output()
        .unwrap();
    assert!(signed.status.success());
    format!("{text}.{}", encode(&signed.stdout))
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_open_a_real_registry_also_by_an_identity_token() {
    if !is_root() || !has_tool("openssl") {
        return;
    }
    let files = scratch();
    make_certificates(files.path());
    let dir = files.path().to_owned();
    let basic = format!("Basic {}", STANDARD.encode("user:secret"));
    let tokens = Server::new(move |seen| {
        let posted = String::from_utf8(seen.body.clone()).unwrap();
        let query =
            if seen.method == "POST" { posted.as_str() } else { seen.path.split_once('?').unwrap().1 };
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let all =
            |name: &str| pairs.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect::<Vec<_>>();
        let right = if seen.method == "POST" {
            all("grant_type") == ["refresh_token"] && all("refresh_token") == ["identity"]
        } else {
            seen.header("authorization") == Some(&basic)
        };
        if !right {
            return Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#);
        }
        let scopes: Vec<String> = all("scope").iter().flat_map(|s| s.split(' ')).map(str::to_owned).collect();
        let token = token(&dir, &all("service")[0], &scopes);
        let mut answer = serde_json::json!({"token": token});
        if all("offline_token") == ["true"] {
            answer["refresh_token"] = "identity".into();
        }
        Reply::new(200, answer.to_string())
    });
    let tls =
        format!("  tls:\n    certificate: {0}/server.crt\n    key: {0}/server.key\n", files.path().display());
    let auth = format!(
        "auth:\n  token:\n    realm: http://{}/token\n    service: test-service\n    issuer: test\n    rootcertbundle: {}/ca.crt\n",
        tokens.address,
        files.path().display()
    );
    let Some(registry) = RealRegistry::start_with(&tls, &auth) else { return };
    let certs = scratch();
    copy(files.path().join("ca.crt"), certs.path().join(&registry.address).join("ca.crt"));
    let name = registry.image("team/image:1");
    let store = stocked(&name);
    let anonymous = options(certs.path(), None);
    let error = push_with(&store, &name, &anonymous).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");

    let server_address = registry.address.clone();
    let wrong = Auth { server_address: server_address.clone(), ..Auth::basic("user", "wrong") };
    let error = login(&wrong, &anonymous).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(error.to_string(), format!("Get \"https://{server_address}/v2/\": unauthorized: who are you"));
    let right = Auth { server_address, ..Auth::basic("user", "secret") };
    let identity = login(&right, &anonymous).await.unwrap();
    assert_eq!(identity.as_deref(), Some("identity"));

    push_with(&store, &name, &options(certs.path(), Some(right))).await.unwrap();
    let kept = Auth { identity_token: identity.unwrap(), ..Auth::default() };
    let other = TestStore::new();
    let before = tokens.count("GET", "/token");
    pull_with(&other, &name, &options(certs.path(), Some(kept))).await.unwrap();
    assert_eq!(tokens.count("GET", "/token"), before, "a password's way was taken");
    assert!(tokens.count("POST", "/token") >= 1);
    let third = TestStore::new();
    let bad = Auth { identity_token: "stolen".into(), ..Auth::default() };
    let error = pull_with(&third, &name, &options(certs.path(), Some(bad))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    third.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_come_first_get_no_credentials_and_may_fail() {
    if !is_root() {
        return;
    }
    let image = TestImage::new(&[tar(&[("a", &noise(1, 50_000))])]);
    let name_of = |server: &Server| server.image(":1");
    for fault in ["none", "missing", "5xx", "damaged", "closed", "asks"] {
        let served = image.clone();
        let mirror = Server::new(move |seen| match fault {
            "missing" => Reply::new(404, ""),
            "5xx" => Reply::new(503, ""),
            "asks" => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"give me\""),
            "damaged" if seen.path.contains("/blobs/") => {
                let mut reply = answer(&served, seen);
                let middle = reply.body.len() / 2;
                reply.body[middle] ^= 1;
                reply
            }
            _ => answer(&served, seen),
        });
        let served = image.clone();
        let upstream = Server::new(move |seen| match seen.header("authorization") {
            None => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
            Some(_) => answer(&served, seen),
        });
        let address = match fault {
            "closed" => "http://127.0.0.1:1".to_owned(),
            _ => format!("http://{}", mirror.address),
        };
        let mut registry = RegistryOptions {
            auth: Some(Auth::basic("user", "secret")),
            retry: quick_retry(),
            ..RegistryOptions::default()
        };
        registry.config.mirrors = vec![format!("{}={address}", upstream.address).parse().unwrap()];
        let store = TestStore::new();
        pull_with(&store, &name_of(&upstream), &registry).await.unwrap_or_else(|e| panic!("{fault}: {e}"));
        assert_eq!(upstream.log().is_empty(), fault == "none", "{fault}");
        assert!(fault == "closed" || !mirror.log().is_empty(), "{fault}: the mirror was not asked");
        for seen in mirror.log() {
            assert_eq!(seen.header("authorization"), None, "{fault}: the mirror was given credentials");
        }
        common::assert_whole(&store.store);
        let name = name_of(&upstream).familiar();
        assert_eq!(store.store.resolve_image(&name).unwrap().id, image.config.digest, "{fault}");
    }
}

//! Content trust: signatures made by openssl as cosign makes and keeps them, served by a real registry; and all that
//! somebody without the key may try.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::*;
use creel_distribution::{
    ImportOptions, LoadOptions, PolicyFile, Progress, PullOptions, Silent, import, load, pull, save,
};
use creel_store::Store;
use creel_types::image::media_type;
use creel_types::{Classify, Digest, ErrorKind, Platform, Reference};
use serde_json::{Value, json};

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// A key pair made by openssl.
struct Key {
    private: PathBuf,
    public: PathBuf,
    edwards: bool,
}

impl Key {
    fn new(dir: &Path, name: &str, edwards: bool) -> Self {
        let key = Self { private: dir.join(name), public: dir.join(format!("{name}.pub")), edwards };
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (private, public) = (path(&key.private), path(&key.public));
        let kind: &[&str] = match edwards {
            true => &["-algorithm", "ed25519"],
            false => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        };
        run("openssl", &[&["genpkey"][..], kind, &["-out", &private]].concat());
        run("openssl", &["pkey", "-in", &private, "-pubout", "-out", &public]);
        key
    }

    /// The signature in base64, as cosign annotates it.
    fn sign(&self, payload: &[u8]) -> String {
        let file = self.private.with_extension("payload");
        let out = self.private.with_extension("signature");
        std::fs::write(&file, payload).unwrap();
        let (key, file, to) =
            (self.private.to_str().unwrap(), file.to_str().unwrap(), out.to_str().unwrap().to_owned());
        match self.edwards {
            true => run("openssl", &["pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", file, "-out", &to]),
            false => run("openssl", &["dgst", "-sha256", "-sign", key, "-out", &to, file]),
        };
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(std::fs::read(out).unwrap())
    }
}

/// What cosign signs.
fn payload(repository: &str, digest: &Digest) -> Vec<u8> {
    serde_json::to_vec(&json!({
        "critical": {
            "identity": {"docker-reference": repository},
            "image": {"docker-manifest-digest": digest.to_string()},
            "type": "cosign container image signature",
        },
        "optional": null,
    }))
    .unwrap()
}

/// Uploads to a registry by the bare protocol.
struct Raw(String);

impl Raw {
    async fn blob(&self, repository: &str, bytes: &[u8]) {
        let http = reqwest::Client::new();
        let base = reqwest::Url::parse(&format!("http://{}/v2/{repository}/blobs/uploads/", self.0)).unwrap();
        let session = http.post(base.clone()).header("Content-Length", "0").send().await.unwrap();
        let mut place = base.join(session.headers()["location"].to_str().unwrap()).unwrap();
        place.query_pairs_mut().append_pair("digest", &sha256(bytes).to_string());
        let put = http.put(place).header("Content-Type", "application/octet-stream").body(bytes.to_vec());
        assert_eq!(put.send().await.unwrap().status().as_u16(), 201);
    }

    async fn manifest(&self, repository: &str, tag: &str, media: &str, bytes: &[u8]) {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.0);
        let put = reqwest::Client::new().put(url).header("Content-Type", media).body(bytes.to_vec());
        let answer = put.send().await.unwrap();
        let status = answer.status().as_u16();
        assert_eq!(status, 201, "{}", answer.text().await.unwrap());
    }

    async fn image(&self, repository: &str, tag: &str, image: &TestImage) {
        for blob in image.blobs.values() {
            self.blob(repository, blob).await;
        }
        self.manifest(repository, tag, media_type::OCI_MANIFEST, &image.manifest).await;
    }

    /// Puts signatures of `digest` there: payloads, each with what is said to be its signature.
    async fn signatures(&self, repository: &str, digest: &Digest, all: &[(Vec<u8>, String)]) {
        let manifest = self.signature_manifest(repository, all).await;
        let tag = format!("sha256-{}.sig", digest.hex());
        self.manifest(repository, &tag, media_type::OCI_MANIFEST, &manifest).await;
    }

    async fn signature_manifest(&self, repository: &str, all: &[(Vec<u8>, String)]) -> Vec<u8> {
        let config = br#"{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        self.blob(repository, config).await;
        let mut layers = Vec::new();
        for (payload, signature) in all {
            self.blob(repository, payload).await;
            layers.push(
                json!({"mediaType": PAYLOAD, "digest": sha256(payload).to_string(), "size": payload.len(),
                "annotations": {"dev.cosignproject.cosign/signature": signature}}),
            );
        }
        let config = json!({"mediaType": media_type::OCI_CONFIG, "digest": sha256(config).to_string(), "size": config.len()});
        let media = media_type::OCI_MANIFEST;
        serde_json::to_vec(
            &json!({"schemaVersion": 2, "mediaType": media, "config": config, "layers": layers}),
        )
        .unwrap()
    }
}

fn image(seed: u32) -> TestImage {
    TestImage::new(&[tar(&[("file", &noise(seed, 2000))])])
}

/// A policy that wants this key for the registry and rejects everything else, and options that follow it.
fn options(dir: &Path, registry: &str, requirement: Value) -> PullOptions {
    let path = dir.join("policy.json");
    let policy =
        json!({"default": [{"type": "reject"}], "transports": {"docker": {registry: [requirement]}}});
    std::fs::write(&path, serde_json::to_vec(&policy).unwrap()).unwrap();
    let mut options = pull_options();
    options.registry.config.policy = Some(PolicyFile { path, required: true });
    options
}

fn signed_by(key: &Key) -> Value {
    json!({"type": "sigstoreSigned", "keyPath": key.public, "signedIdentity": {"type": "matchRepository"}})
}

async fn try_pull(
    store: &Arc<Store>,
    reference: &Reference,
    options: &PullOptions,
) -> Result<Digest, String> {
    let silent: Arc<dyn Progress> = Arc::new(Silent);
    match pull(store, reference, options, &silent).await {
        Ok(pulled) => Ok(pulled.image),
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::NotFound, "{error}");
            Err(error.to_string())
        }
    }
}

/// What skopeo makes of the same image and the same policy; Debian 12's has that part taken out.
fn skopeo_accepts(dir: &Path, reference: &Reference) -> Option<bool> {
    std::fs::create_dir_all(dir.join("registries.d")).unwrap();
    std::fs::write(dir.join("registries.d/x.yaml"), "default-docker:\n  use-sigstore-attachments: true\n")
        .unwrap();
    let output = std::process::Command::new("skopeo")
        .arg("--policy")
        .arg(dir.join("policy.json"))
        .arg("--registries.d")
        .arg(dir.join("registries.d"))
        .args(["copy", "--src-tls-verify=false", &format!("docker://{reference}")])
        .arg(format!("dir:{}", dir.join("copied").display()))
        .output()
        .unwrap();
    let _ = std::fs::remove_dir_all(dir.join("copied"));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if text.contains("sigstore disabled") || text.contains("Unknown policy requirement type") {
        println!("skipped: skopeo does not verify sigstore signatures here");
        return None;
    }
    println!("skopeo on {reference}: {} {text}", output.status);
    Some(output.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_image_comes_in_and_nothing_else() {
    if !is_root() || !has_tool("openssl") || !has_tool("skopeo") {
        return;
    }
    let Some(registry) = RealRegistry::start(None) else { return };
    let (raw, dir) = (Raw(registry.address.clone()), scratch());
    let key = Key::new(dir.path(), "good", false);
    let other = Key::new(dir.path(), "other", false);
    let edwards = Key::new(dir.path(), "edwards", true);
    let store = TestStore::new();
    let repository = |name: &str| format!("{}/{name}", registry.address);
    let mut options = options(dir.path(), &registry.address, signed_by(&key));

    // what its signatures are, and the words by which it is refused; none if it is accepted
    struct Case {
        name: &'static str,
        signatures: Vec<(Vec<u8>, String)>,
        refused: Option<&'static str>,
    }
    let images: Vec<TestImage> = (0..12).map(image).collect();
    let of = |name: &str, at: usize| payload(&repository(name), &images[at].digest());
    let signed = |key: &Key, payload: Vec<u8>| {
        let signature = key.sign(&payload);
        (payload, signature)
    };
    let changed = {
        // the signature of what the signer meant, over what somebody would like it to be
        let (honest, signature) = signed(&key, of("t/changed", 0));
        let text = String::from_utf8(honest).unwrap();
        let forged = text.replace(&images[0].digest().to_string(), &images[5].digest().to_string());
        (forged.into_bytes(), signature)
    };
    let mut typed: Value = serde_json::from_slice(&of("t/type", 6)).unwrap();
    typed["critical"]["type"] = json!("atomic container signature");
    let mut more: Value = serde_json::from_slice(&of("t/more", 7)).unwrap();
    more["critical"]["expires"] = json!("2001-01-01");
    let cases = vec![
        Case { name: "t/good", signatures: vec![signed(&key, of("t/good", 0))], refused: None },
        Case {
            name: "t/second",
            signatures: vec![signed(&other, of("t/second", 1)), signed(&key, of("t/second", 1))],
            refused: None,
        },
        Case { name: "t/missing", signatures: vec![], refused: Some("has no signature of sha256:") },
        Case {
            name: "t/digest",
            signatures: vec![signed(&key, of("t/digest", 0))],
            refused: Some("it signs another image, sha256:"),
        },
        Case {
            name: "t/repository",
            signatures: vec![signed(&key, of("t/good", 4))],
            refused: Some("/t/good, not for"),
        },
        Case {
            name: "t/changed",
            signatures: vec![changed],
            refused: Some("was not made by that key, or what it signs was changed"),
        },
        Case {
            name: "t/type",
            signatures: vec![signed(&key, serde_json::to_vec(&typed).unwrap())],
            refused: Some("its type is `atomic container signature`"),
        },
        Case {
            name: "t/more",
            signatures: vec![signed(&key, serde_json::to_vec(&more).unwrap())],
            refused: Some("unknown field `expires`"),
        },
        Case {
            name: "t/key",
            signatures: vec![signed(&other, of("t/key", 8))],
            refused: Some("was not made by that key"),
        },
        Case {
            name: "t/edwards",
            signatures: vec![signed(&edwards, of("t/edwards", 9))],
            refused: Some("was not made by that key"),
        },
        Case {
            name: "t/noise",
            signatures: vec![
                (of("t/noise", 10), "AAAA".to_owned()),
                (of("t/noise", 10), "not base64!".to_owned()),
            ],
            refused: Some("was not made by that key"),
        },
    ];
    for (at, case) in cases.iter().enumerate() {
        raw.image(case.name, "v1", &images[at]).await;
        if !case.signatures.is_empty() {
            raw.signatures(case.name, &images[at].digest(), &case.signatures).await;
        }
        let reference = registry.image(&format!("{}:v1", case.name));
        let pulled = try_pull(&store.store, &reference, &options).await;
        match case.refused {
            None => assert_eq!(pulled, Ok(images[at].config.digest), "{}", case.name),
            Some(words) => {
                let why = pulled.unwrap_err();
                let scope = format!("(scope `{}`)", registry.address);
                assert!(
                    why.contains(words) && why.contains("policy.json") && why.contains(&scope),
                    "{}: {why}",
                    case.name
                );
                assert!(store.store.image(&images[at].config.digest).is_none(), "{}", case.name);
            }
        }
        // an implementation of somebody else's agrees
        if let Some(accepted) = skopeo_accepts(dir.path(), &reference) {
            assert_eq!(accepted, case.refused.is_none(), "{}", case.name);
        }
    }
    let images_in = store.store.list_images().len();
    assert_eq!(images_in, 2);
    // by digest as well, and again when it is here already
    let by_digest = registry.image(&format!("t/good@{}", images[0].digest()));
    assert!(try_pull(&store.store, &by_digest, &options).await.is_ok());
    assert!(try_pull(&store.store, &registry.image("t/good:v1"), &options).await.is_ok());

    // other keys by the same words
    let good = registry.image("t/good:v1");
    for (requirement, accepted) in [
        (
            json!({"type": "sigstoreSigned", "keyPaths": [other.public, key.public], "signedIdentity": {"type": "matchRepository"}}),
            true,
        ),
        (signed_by(&other), false),
        (signed_by(&edwards), false),
        (json!({"type": "sigstoreSigned", "keyPath": "/no/such.pub"}), false),
        (json!({"type": "sigstoreSigned", "keyPath": key.private}), false),
        // cosign's signatures name no tag, and the default wants it
        (json!({"type": "sigstoreSigned", "keyPath": key.public}), false),
        (json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}), false),
        (json!({"type": "reject"}), false),
        (json!({"type": "insecureAcceptAnything"}), true),
    ] {
        options = self::options(dir.path(), &registry.address, requirement.clone());
        let pulled = try_pull(&store.store, &good, &options).await;
        assert_eq!(pulled.is_ok(), accepted, "{requirement}: {pulled:?}");
        let by_digest = try_pull(&store.store, &by_digest, &options).await;
        // of a digest the default asks for the repository alone
        let by_default =
            requirement.get("signedIdentity").is_none() && requirement["keyPath"] == json!(key.public);
        assert_eq!(by_digest.is_ok(), accepted || by_default, "{requirement}: {by_digest:?}");
    }
    options = self::options(dir.path(), "another.example", signed_by(&key));
    let why = try_pull(&store.store, &good, &options).await.unwrap_err();
    assert!(why.contains("scope `default`") && why.contains("rejects all images"), "{why}");
    options = self::options(dir.path(), &registry.address, signed_by(&edwards));
    assert!(try_pull(&TestStore::new().store, &registry.image("t/edwards:v1"), &options).await.is_ok());

    // a policy that cannot be read accepts nothing; one that need not be there everything
    let policy = dir.path().join("policy.json");
    std::fs::write(&policy, "{").unwrap();
    let why = try_pull(&store.store, &good, &options).await.unwrap_err();
    assert!(why.contains("cannot be used, so no image is accepted"), "{why}");
    std::fs::remove_file(&policy).unwrap();
    assert!(try_pull(&store.store, &good, &options).await.unwrap_err().contains("No such file"));
    options.registry.config.policy = Some(PolicyFile { path: policy, required: false });
    assert!(try_pull(&store.store, &registry.image("t/missing:v1"), &options).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_of_the_index_covers_what_it_leads_to() {
    if !is_root() || !has_tool("openssl") {
        return;
    }
    let Some(registry) = RealRegistry::start(None) else { return };
    let (raw, dir) = (Raw(registry.address.clone()), scratch());
    let key = Key::new(dir.path(), "key", true);
    let options = options(dir.path(), &registry.address, signed_by(&key));
    let (ours, theirs) = (image(1), image(2));
    let list = index(&[(&ours, &Platform::host()), (&theirs, &"linux/s390x".parse().unwrap())]);
    let digest = sha256(&list);
    let store = TestStore::new();
    for name in ["i/index", "i/manifest", "i/other", "i/none", "i/referrer"] {
        raw.image(name, "ours", &ours).await;
        raw.image(name, "theirs", &theirs).await;
        raw.manifest(name, "all", media_type::OCI_INDEX, &list).await;
        let payload = |digest: &Digest| {
            let payload = payload(&format!("{}/{name}", registry.address), digest);
            let signature = key.sign(&payload);
            vec![(payload, signature)]
        };
        let accepted = match name {
            "i/index" => {
                raw.signatures(name, &digest, &payload(&digest)).await;
                true
            }
            "i/manifest" => {
                raw.signatures(name, &ours.digest(), &payload(&ours.digest())).await;
                true
            }
            // a signature of another platform's image says nothing of ours
            "i/other" => {
                raw.signatures(name, &theirs.digest(), &payload(&theirs.digest())).await;
                raw.signatures(name, &digest, &payload(&theirs.digest())).await;
                false
            }
            // as a referrer, by the tag that stands for the API in a registry without it
            "i/referrer" => {
                let manifest = raw.signature_manifest(name, &payload(&digest)).await;
                raw.manifest(name, "any", media_type::OCI_MANIFEST, &manifest).await;
                let entry = json!({"mediaType": media_type::OCI_MANIFEST, "digest": sha256(&manifest).to_string(),
                    "size": manifest.len(), "artifactType": ARTIFACT});
                let other = json!({"mediaType": media_type::OCI_MANIFEST, "digest": ours.digest().to_string(),
                    "size": ours.manifest.len(), "artifactType": "text/sbom"});
                let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [other, entry]});
                let tag = format!("sha256-{}", digest.hex());
                raw.manifest(name, &tag, media_type::OCI_INDEX, &serde_json::to_vec(&index).unwrap()).await;
                true
            }
            _ => false,
        };
        let pulled = try_pull(&store.store, &registry.image(&format!("{name}:all")), &options).await;
        assert_eq!(pulled.is_ok(), accepted, "{name}: {pulled:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_are_found_by_the_referrers_api() {
    if !is_root() || !has_tool("openssl") {
        return;
    }
    let dir = scratch();
    let key = Key::new(dir.path(), "key", false);
    let image = image(1);
    for garbage in [false, true] {
        let served = image.clone();
        let (private, public) = (key.private.clone(), key.public.clone());
        let server = Server::new(move |seen| {
            let key = Key { private: private.clone(), public: public.clone(), edwards: false };
            let repository = format!("{}/test/image", seen.header("host").unwrap());
            let payload = payload(&repository, &served.digest());
            let layer = |payload: &[u8]| {
                json!({"mediaType": PAYLOAD, "digest": sha256(payload).to_string(), "size": payload.len(),
                    "annotations": {"dev.cosignproject.cosign/signature": key.sign(payload)}})
            };
            let path = seen.path.split('?').next().unwrap();
            if path.ends_with(".sig") {
                return Reply::new(404, "{}");
            }
            if path.contains("/referrers/") {
                assert!(
                    seen.path.contains("artifactType=application%2Fvnd.dev.cosign.artifact.sig.v1%2Bjson"),
                    "{}",
                    seen.path
                );
                if garbage {
                    return Reply::new(200, "<html>");
                }
                let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
                    "config": {"mediaType": ARTIFACT, "digest": sha256(b"{}").to_string(), "size": 2}, "layers": [layer(&payload)]});
                let bytes = serde_json::to_vec(&manifest).unwrap();
                let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [
                    {"mediaType": media_type::OCI_MANIFEST, "digest": sha256(&bytes).to_string(), "size": bytes.len(), "artifactType": ARTIFACT}]});
                *LAST.lock().unwrap() = bytes;
                return Reply::new(200, serde_json::to_vec(&index).unwrap())
                    .header("Content-Type", media_type::OCI_INDEX);
            }
            let last = LAST.lock().unwrap().clone();
            if path.ends_with(&sha256(&last).to_string()) {
                return Reply::new(200, last).header("Content-Type", media_type::OCI_MANIFEST);
            }
            if path.ends_with(&sha256(&payload).to_string()) {
                return Reply::new(200, payload);
            }
            if path.contains("/manifests/sha256-") {
                return Reply::new(404, "{}");
            }
            answer(&served, seen)
        });
        let mut options = options(dir.path(), &server.address.to_string(), signed_by(&key));
        options.registry.retry = quick_retry();
        let pulled = try_pull(&TestStore::new().store, &server.image(":v1"), &options).await;
        assert_eq!(pulled.is_ok(), !garbage, "{pulled:?}");
        assert!(server.count("GET", "/referrers/") == 1);
        // no layer was asked for before the signature was seen
        let log: Vec<String> = server.log().into_iter().map(|seen| seen.path).collect();
        let layer = log.iter().position(|path| path.ends_with(&image.layers[0].digest.to_string()));
        let referrers = log.iter().position(|path| path.contains("/referrers/"));
        assert!(
            layer.is_none_or(|layer| layer > referrers.unwrap()) && layer.is_none() == garbage,
            "{log:?}"
        );
    }
}

static LAST: std::sync::Mutex<Vec<u8>> = std::sync::Mutex::new(Vec::new());

#[test]
fn archives_come_in_only_where_no_signature_is_asked_for() {
    if !is_root() {
        return;
    }
    let (store, dir) = (TestStore::new(), scratch());
    let tar = tar(&[("file", b"content")]);
    let named = |policy: Option<PolicyFile>| ImportOptions {
        reference: Some(reference("made:1")),
        policy,
        ..ImportOptions::default()
    };
    import(&store.store, &tar[..], &named(None)).unwrap();
    let mut saved = Vec::new();
    save(&store.store, &["made:1".to_owned()], &mut saved).unwrap();
    let path = dir.path().join("policy.json");
    let policy = Some(PolicyFile { path: path.clone(), required: true });
    let fresh = TestStore::new();
    for (transports, imported, loaded) in [
        ("{}", false, false),
        (r#"{"tarball":{"":[{"type":"insecureAcceptAnything"}]}}"#, true, false),
        (r#"{"oci-archive":{"":[{"type":"insecureAcceptAnything"}]}}"#, false, true),
        (r#"{"oci-archive":{"":[{"type":"sigstoreSigned","keyPath":"/k"}]}}"#, false, false),
    ] {
        std::fs::write(&path, format!(r#"{{"default":[{{"type":"reject"}}],"transports":{transports}}}"#))
            .unwrap();
        let made = import(&fresh.store, &tar[..], &named(policy.clone()));
        assert_eq!(made.is_ok(), imported, "{transports}: {made:?}");
        let options = LoadOptions { policy: policy.clone(), ..LoadOptions::default() };
        let came = load(&fresh.store, &saved[..], &options, &Silent);
        assert_eq!(came.is_ok(), loaded, "{transports}: {came:?}");
        for image in fresh.store.list_images() {
            fresh.store.delete_image(&image.id).unwrap();
        }
        fresh.assert_empty();
    }
}

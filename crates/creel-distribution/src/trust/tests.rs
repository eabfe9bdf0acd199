//! Policies and signatures without any registry; with one, see `tests/trust.rs`.

use expect_test::expect;
use proptest::prelude::*;

use super::policy::Policy;
use super::*;

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn policy(text: &str) -> std::result::Result<Policy, PolicyError> {
    Policy::parse(text.as_bytes())
}

const KEY: &str = r#"{"type":"sigstoreSigned","keyPath":"/k.pub"}"#;

#[test]
fn the_most_specific_scope_speaks_for_an_image() {
    let accept = r#"[{"type":"insecureAcceptAnything"}]"#;
    let policy = policy(&format!(
        r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{
            "reg.example/team/app:v1":{accept},"reg.example/team/app":{accept},"reg.example/team":{accept},
            "reg.example":{accept},"*.example":{accept},"*.sub.example":{accept},"docker.io/library":{accept},
            "127.0.0.1:5000":{accept}}},
            "oci-archive":{{"":{accept}}}}}}}"#
    ))
    .unwrap();
    let scope = |text: &str| policy.of_image(&reference(text)).0.to_owned();
    let all = [
        "reg.example/team/app:v1",
        "reg.example/team/app:v2",
        "reg.example/team/other/deep",
        "reg.example/teams/app",
        "other.example/x",
        "a.sub.example/x",
        "sub.example/x",
        "busybox",
        "docker.io/user/app",
        "127.0.0.1:5000/x",
        "127.0.0.1:5001/x",
        "example/x",
    ]
    .map(|text| format!("{text} -> {}", scope(text)))
    .join("\n");
    expect![[r#"
        reg.example/team/app:v1 -> reg.example/team/app:v1
        reg.example/team/app:v2 -> reg.example/team/app
        reg.example/team/other/deep -> reg.example/team
        reg.example/teams/app -> reg.example
        other.example/x -> *.example
        a.sub.example/x -> *.sub.example
        sub.example/x -> *.example
        busybox -> docker.io/library
        docker.io/user/app -> default
        127.0.0.1:5000/x -> 127.0.0.1:5000
        127.0.0.1:5001/x -> default
        example/x -> default"#]]
    .assert_eq(&all);
    assert_eq!(policy.of_transport("oci-archive").0, "the transport's default");
    assert_eq!(policy.of_transport("tarball").1, [Requirement::Reject]);
}

#[test]
fn a_policy_that_is_not_understood_is_refused() {
    let all: Vec<String> = [
        "{}",
        r#"{"default":[]}"#,
        r#"{"default":[{"type":"accept"}]}"#,
        r#"{"default":[{"type":"reject","keyPath":"/k"}]}"#,
        r#"{"default":[{"type":"reject"}],"more":1}"#,
        r#"{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}"#,
        r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":[{"type":"reject"}],"a":[{"type":"reject"}]}}}"#,
        r#"{"default":[{"type":"sigstoreSigned"}]}"#,
        r#"{"default":[{"type":"sigstoreSigned","keyPath":"/a","keyData":"YQ=="}]}"#,
        r#"{"default":[{"type":"sigstoreSigned","keyPaths":[]}]}"#,
        r#"{"default":[{"type":"sigstoreSigned","keyPath":"/a","keypath":"/b"}]}"#,
        r#"{"default":[{"type":"sigstoreSigned","keyPath":"/a","signedIdentity":{"type":"matchAll"}}]}"#,
        r#"{"default":[{"type":"sigstoreSigned","keyPath":"/a","signedIdentity":{"type":"matchRepository","prefix":"x"}}]}"#,
    ]
    .iter()
    .map(|text| policy(text).unwrap_err().to_string())
    .collect();
    expect![[r#"
        it is not a policy: missing field `default` at line 1 column 2
        it is not a policy: the list of `default` is empty
        it is not a policy: in `default`: there is no requirement `accept`
        it is not a policy: in `default`: `reject` takes no other fields
        it is not a policy: unknown field `more`, expected `default` or `transports` at line 1 column 37
        it is not a policy: duplicate field `default` at line 1 column 40
        it is not a policy: `a` comes twice at line 1 column 103
        it is not a policy: in `default`: `sigstoreSigned` wants exactly one of keyPath, keyPaths, keyData, keyDatas
        it is not a policy: in `default`: `sigstoreSigned` wants exactly one of keyPath, keyPaths, keyData, keyDatas
        it is not a policy: in `default`: `sigstoreSigned` has an empty list of keys
        it is not a policy: unknown field `keypath`, expected one of `type`, `keyPath`, `keyPaths`, `keyData`, `keyDatas`, `signedIdentity`, `keyType`, `fulcio`, `pki`, `rekorPublicKeyPath`, `rekorPublicKeyPaths`, `rekorPublicKeyData`, `rekorPublicKeyDatas` at line 1 column 61
        it is not a policy: in `default`: the signedIdentity `matchAll` or its fields are wrong
        it is not a policy: in `default`: the signedIdentity `matchRepository` or its fields are wrong"#]]
    .assert_eq(&all.join("\n"));
    // what cannot be verified is known, and never fulfilled
    for more in [r#""fulcio":{}"#, r#""rekorPublicKeyPath":"/r""#, r#""pki":{}"#] {
        let text = KEY.replace('}', &format!(",{more}}}"));
        let read = policy(&format!(r#"{{"default":[{text}]}}"#)).unwrap();
        assert!(matches!(read.of_transport("x").1, [Requirement::Unverifiable(_)]), "{more}");
    }
    let read = policy(r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}]}"#).unwrap();
    assert!(matches!(read.of_transport("x").1, [Requirement::Unverifiable(_)]));
}

#[test]
fn names_in_signatures_match_as_the_policy_says() {
    let identity = |text: &str| -> identity::Match {
        let text = KEY.replace('}', &format!(r#","signedIdentity":{text}}}"#));
        let read = policy(&format!(r#"{{"default":[{text}]}}"#)).unwrap();
        match &read.of_transport("x").1[0] {
            Requirement::SigstoreSigned(signed) => signed.identity.clone(),
            other => panic!("{other:?}"),
        }
    };
    let digest = format!("sha256:{}", "a".repeat(64));
    let by_digest = format!("r.io/a@{digest}");
    let check = |matching: &identity::Match, asked: &str, signed: &str| {
        matching.accepts(&reference(asked), &reference(signed)).is_ok()
    };
    let default = identity(r#"{"type":"matchRepoDigestOrExact"}"#);
    assert!(check(&default, "r.io/a:1", "r.io/a:1") && !check(&default, "r.io/a:1", "r.io/a:2"));
    assert!(!check(&default, "r.io/a:1", "r.io/a") && check(&default, &by_digest, "r.io/a"));
    assert!(!check(&default, &by_digest, "r.io/b"));
    let exact = identity(r#"{"type":"matchExact"}"#);
    assert!(check(&exact, "r.io/a:1", "r.io/a:1") && !check(&exact, &by_digest, "r.io/a"));
    let repository = identity(r#"{"type":"matchRepository"}"#);
    assert!(check(&repository, "r.io/a:1", "r.io/a") && check(&repository, "r.io/a:1", "r.io/a:2"));
    assert!(!check(&repository, "r.io/a:1", "r.io/ab") && !check(&repository, "r.io/a:1", "s.io/a"));
    assert!(check(&repository, "busybox:1", "index.docker.io/library/busybox"));
    let one = identity(r#"{"type":"exactReference","dockerReference":"r.io/b:1"}"#);
    assert!(check(&one, "r.io/a:1", "r.io/b:1") && !check(&one, "r.io/a:1", "r.io/a:1"));
    let one = identity(r#"{"type":"exactRepository","dockerRepository":"r.io/b"}"#);
    assert!(check(&one, "r.io/a:1", "r.io/b:7") && !check(&one, "r.io/a:1", "r.io/a"));
    let remap = identity(r#"{"type":"remapIdentity","prefix":"mirror.io/up","signedPrefix":"r.io"}"#);
    assert!(
        check(&remap, "mirror.io/up/a:1", "r.io/a:1")
            && !check(&remap, "mirror.io/upper/a:1", "r.io/per/a:1")
    );
    let why = default.accepts(&reference("r.io/a:1"), &reference("r.io/a")).unwrap_err();
    assert!(why.contains("matchRepository"), "{why}");
}

#[test]
fn a_payload_says_digest_and_name_and_nothing_unknown() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let good = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"r.io/a"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
    );
    let payload = payload::parse(good.as_bytes()).unwrap();
    assert_eq!((payload.digest.to_string(), payload.identity), (digest, reference("r.io/a")));
    for (from, to) in [
        ("cosign container", "atomic container"),
        (r#""type""#, r#""more":1,"type""#),
        (r#""docker-reference":"r.io/a""#, r#""docker-reference":"r.io/a","docker-reference":"r.io/b""#),
        ("r.io/a", "R.io//a"),
        ("sha256:aa", "sha256:zz"),
        (r#"{"docker-reference":"r.io/a"}"#, "{}"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert!(bad != good && payload::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn keys_are_read_from_pem_alone() {
    for bad in [
        "",
        "-----BEGIN PUBLIC KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\n!!!\n-----END PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
    ] {
        assert!(PublicKey::from_pem(bad.as_bytes()).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(bytes: Vec<u8>) {
        let _ = Policy::parse(&bytes);
        let _ = payload::parse(&bytes);
        let _ = PublicKey::from_pem(&bytes);
        let _ = PublicKey::Ed25519([7; 32]).verifies(&bytes, &bytes);
        let _ = PublicKey::P256([4; 65]).verifies(&bytes, &bytes);
    }

    #[test]
    fn odd_policies_are_read_or_refused(
        kind in "reject|insecureAcceptAnything|sigstoreSigned|signedBy|x",
        key in "keyPath|keyPaths|keyData|signedIdentity|fulcio|zzz",
        value in r#""[a-z/]{0,8}"|\[\]|\{\}|null|1"#,
    ) {
        if let Ok(read) = policy(&format!(r#"{{"default":[{{"type":"{kind}","{key}":{value}}}]}}"#)) {
            // nothing that is not said to be accepted is
            let accepts = read.of_transport("x").1 == [Requirement::AcceptAnything];
            prop_assert!(!accepts || kind == "insecureAcceptAnything");
        }
    }
}

//! The policy file (containers-policy.json(5)): read strictly, since what is passed over could be what was meant.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use creel_types::Reference;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::identity::Match;

/// What images must fulfil, all of a list.
pub(crate) type Requirements = Vec<Requirement>;

/// One thing that an image must fulfil.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// Nothing.
    AcceptAnything,
    /// The impossible.
    Reject,
    /// A signature of cosign's.
    SigstoreSigned(SigstoreSigned),
    /// Something that is known and cannot be verified here; in words.
    Unverifiable(&'static str),
}

/// Who must have signed what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SigstoreSigned {
    /// Files of public keys, any of which may have signed.
    pub(crate) paths: Vec<PathBuf>,
    /// Such keys themselves, as PEM.
    pub(crate) data: Vec<Vec<u8>>,
    /// How the name in the signature relates to the image's.
    pub(crate) identity: Match,
}

/// A policy file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    default: Requirements,
    transports: BTreeMap<String, BTreeMap<String, Requirements>>,
}

/// Why a text is not a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not a policy: {0}")]
pub struct PolicyError(String);

/// A JSON object in which no name may come twice: two readers would take different ones of the two.
struct Unique<T>(BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Unique<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    if found.contains_key(&name) {
                        return Err(serde::de::Error::custom(format_args!("`{name}` comes twice")));
                    }
                    found.insert(name, value);
                }
                Ok(Unique(found))
            }
        }
        deserializer.deserialize_map(Reader(PhantomData))
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Vec<Entry>,
    #[serde(default = "none")]
    transports: Unique<Unique<Vec<Entry>>>,
}

fn none() -> Unique<Unique<Vec<Entry>>> {
    Unique(BTreeMap::new())
}

/// A requirement as it is written. Fields that belong to something that is not verified are taken as they come.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, rename = "keyPath")]
    key_path: Option<PathBuf>,
    #[serde(default, rename = "keyPaths")]
    key_paths: Option<Vec<PathBuf>>,
    #[serde(default, rename = "keyData")]
    key_data: Option<String>,
    #[serde(default, rename = "keyDatas")]
    key_datas: Option<Vec<String>>,
    #[serde(default, rename = "signedIdentity")]
    identity: Option<Identity>,
    #[serde(default, rename = "keyType")]
    key_type: Option<serde_json::Value>,
    #[serde(default)]
    fulcio: Option<serde_json::Value>,
    #[serde(default)]
    pki: Option<serde_json::Value>,
    #[serde(default, rename = "rekorPublicKeyPath")]
    rekor_path: Option<serde_json::Value>,
    #[serde(default, rename = "rekorPublicKeyPaths")]
    rekor_paths: Option<serde_json::Value>,
    #[serde(default, rename = "rekorPublicKeyData")]
    rekor_data: Option<serde_json::Value>,
    #[serde(default, rename = "rekorPublicKeyDatas")]
    rekor_datas: Option<serde_json::Value>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, rename = "dockerReference")]
    reference: Option<String>,
    #[serde(default, rename = "dockerRepository")]
    repository: Option<String>,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default, rename = "signedPrefix")]
    signed_prefix: Option<String>,
}

impl Entry {
    fn read(self) -> Result<Requirement, String> {
        let has_keys = self.key_path.is_some()
            || self.key_paths.is_some()
            || self.key_data.is_some()
            || self.key_datas.is_some();
        let rekor = [&self.rekor_path, &self.rekor_paths, &self.rekor_data, &self.rekor_datas];
        let needs_rekor = rekor.iter().any(|field| field.is_some());
        let bare = !has_keys && self.identity.is_none() && self.key_type.is_none();
        let bare = bare && self.fulcio.is_none() && self.pki.is_none() && !needs_rekor;
        match self.kind.as_str() {
            "insecureAcceptAnything" if bare => Ok(Requirement::AcceptAnything),
            "reject" if bare => Ok(Requirement::Reject),
            "insecureAcceptAnything" | "reject" => Err(format!("`{}` takes no other fields", self.kind)),
            "signedBy" => Ok(Requirement::Unverifiable("a GPG signature (signedBy)")),
            "sigstoreSigned" if self.fulcio.is_some() || self.pki.is_some() => {
                Ok(Requirement::Unverifiable("a signature with a certificate (fulcio, pki)"))
            }
            "sigstoreSigned" if needs_rekor => {
                Ok(Requirement::Unverifiable("an entry in Rekor's log (rekorPublicKey…)"))
            }
            "sigstoreSigned" => {
                let given = [
                    self.key_path.is_some(),
                    self.key_paths.is_some(),
                    self.key_data.is_some(),
                    self.key_datas.is_some(),
                ];
                if given.iter().filter(|given| **given).count() != 1 || self.key_type.is_some() {
                    let why = "`sigstoreSigned` wants exactly one of keyPath, keyPaths, keyData, keyDatas";
                    return Err(why.to_owned());
                }
                let paths: Vec<PathBuf> =
                    self.key_path.into_iter().chain(self.key_paths.unwrap_or_default()).collect();
                let texts = self.key_data.into_iter().chain(self.key_datas.unwrap_or_default());
                let data = texts
                    .map(|text| STANDARD.decode(text).map_err(|_| "a key's base64 is damaged".to_owned()))
                    .collect::<Result<Vec<_>, _>>()?;
                if paths.is_empty() && data.is_empty() {
                    return Err("`sigstoreSigned` has an empty list of keys".to_owned());
                }
                let identity = self.identity.map_or(Ok(Match::RepoDigestOrExact), Identity::read)?;
                Ok(Requirement::SigstoreSigned(SigstoreSigned { paths, data, identity }))
            }
            other => Err(format!("there is no requirement `{}`", other.escape_debug())),
        }
    }
}

impl Identity {
    fn read(self) -> Result<Match, String> {
        let name = |text: &str| text.parse::<Reference>().map_err(|error| error.to_string());
        match (
            self.kind.as_str(),
            self.reference.as_deref(),
            self.repository.as_deref(),
            self.prefix,
            self.signed_prefix,
        ) {
            ("matchExact", None, None, None, None) => Ok(Match::Exact),
            ("matchRepoDigestOrExact", None, None, None, None) => Ok(Match::RepoDigestOrExact),
            ("matchRepository", None, None, None, None) => Ok(Match::Repository),
            ("exactReference", Some(text), None, None, None) => {
                let reference = name(text)?;
                if reference.tag().is_none() && reference.digest().is_none() {
                    return Err("`dockerReference` has neither tag nor digest".to_owned());
                }
                Ok(Match::ExactReference(reference))
            }
            ("exactRepository", None, Some(text), None, None) => name(text).map(Match::ExactRepository),
            ("remapIdentity", None, None, Some(prefix), Some(signed))
                if !prefix.is_empty() && !signed.is_empty() =>
            {
                Ok(Match::Remap { prefix, signed })
            }
            (kind, ..) => {
                Err(format!("the signedIdentity `{}` or its fields are wrong", kind.escape_debug()))
            }
        }
    }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// The text is no JSON, has unknown or doubled names, or asks for something that does not exist.
    pub fn parse(text: &[u8]) -> Result<Self, PolicyError> {
        let file: File = serde_json::from_slice(text).map_err(|error| PolicyError(error.to_string()))?;
        let list = |what: &str, entries: Vec<Entry>| -> Result<Requirements, PolicyError> {
            if entries.is_empty() {
                return Err(PolicyError(format!("the list of `{what}` is empty")));
            }
            let read = entries.into_iter().map(Entry::read).collect::<Result<_, _>>();
            read.map_err(|why| PolicyError(format!("in `{what}`: {why}")))
        };
        let default = list("default", file.default)?;
        let mut transports = BTreeMap::new();
        for (transport, scopes) in file.transports.0 {
            let mut read = BTreeMap::new();
            for (scope, entries) in scopes.0 {
                read.insert(scope.clone(), list(&format!("{transport}: {scope}"), entries)?);
            }
            transports.insert(transport, read);
        }
        Ok(Self { default, transports })
    }

    /// What an image of a registry must fulfil, and by which scope: the most specific one that there is.
    pub(crate) fn of_image(&self, reference: &Reference) -> (&str, &[Requirement]) {
        let scopes = self.transports.get("docker");
        let found = |scope: &str| scopes.and_then(|scopes| scopes.get_key_value(scope));
        let found = candidates(reference).iter().find_map(|scope| found(scope));
        self.or_default(found)
    }

    /// What content must fulfil that comes by a transport without names.
    pub(crate) fn of_transport(&self, transport: &str) -> (&str, &[Requirement]) {
        self.or_default(self.transports.get(transport).and_then(|scopes| scopes.get_key_value("")))
    }

    fn or_default<'a>(
        &'a self,
        found: Option<(&'a String, &'a Requirements)>,
    ) -> (&'a str, &'a [Requirement]) {
        match found {
            Some((scope, requirements)) if scope.is_empty() => ("the transport's default", requirements),
            Some((scope, requirements)) => (scope, requirements),
            None => ("default", &self.default),
        }
    }
}

/// The scopes that may speak for an image, the most specific first: itself, its repository, what that lies in, its
/// registry, wildcards over the registry's domain, the transport's default.
fn candidates(reference: &Reference) -> Vec<String> {
    let (host, repository) = (reference.registry(), reference.repository());
    let mut scopes = vec![reference.to_string()];
    let mut name = format!("{host}/{repository}");
    while name.len() > host.len() {
        scopes.push(name.clone());
        name.truncate(name.rfind('/').unwrap_or(0));
    }
    scopes.push(host.to_owned());
    let mut rest = host;
    while let Some((_, parent)) = rest.split_once('.') {
        scopes.push(format!("*.{parent}"));
        rest = parent;
    }
    scopes.push(String::new());
    scopes
}

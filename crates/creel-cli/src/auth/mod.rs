//! Credentials of registries where Docker's own client keeps them: in `~/.docker/config.json`, or with the helper
//! programs that it names.
//!
//! `file` reads and writes that file, `helper` speaks to the programs, `store` decides which of them it is.

mod base64;
mod file;
mod helper;
mod store;

use serde_json::{Value, json};

pub(crate) use file::set_directory;
pub(crate) use store::{Store, Stored};

use crate::output::complain;

/// The name of Docker Hub among credentials.
pub(crate) const HUB: &str = "https://index.docker.io/v1/";

/// What is known of a user in a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) password: String,
    /// A token from an earlier login; it takes the password's place.
    pub(crate) identity_token: String,
    /// A bearer token that is sent as it is.
    pub(crate) registry_token: String,
}

impl std::fmt::Debug for Credentials {
    // A password must never come into a message.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// The object that the Docker Engine API wants.
    pub(crate) fn json(&self, server: &str) -> Value {
        let mut object = serde_json::Map::new();
        if !self.identity_token.is_empty() {
            object.insert("identitytoken".to_owned(), json!(self.identity_token));
        } else {
            object.insert("username".to_owned(), json!(self.username));
            object.insert("password".to_owned(), json!(self.password));
        }
        if !self.registry_token.is_empty() {
            object.insert("registrytoken".to_owned(), json!(self.registry_token));
        }
        object.insert("serveraddress".to_owned(), json!(server));
        Value::Object(object)
    }
}

/// Credentials for a registry as the header `X-Registry-Auth` wants them; `None` without any. What keeps them from
/// being read is told, and the registry is asked without, as Docker's client does.
pub(crate) fn header(registry: &str) -> Option<String> {
    let server = server(registry);
    let found = Store::open().and_then(|store| store.get(server));
    match found {
        Ok(credentials) => credentials.map(|c| base64::encode_url(c.json(server).to_string().as_bytes())),
        Err(why) => {
            complain(&format!("WARNING: {why}"));
            None
        }
    }
}

/// What must hold of a `config.json`, whatever stands in it: what is read is written as it was; what is put in is found
/// and can be taken out again, and nobody else's is touched.
pub(crate) fn holds(text: &str, registry: &str) -> bool {
    let Ok(config) = file::ConfigFile::parse(text) else { return true };
    let server = server(registry);
    let others = |config: &file::ConfigFile| {
        ["other.example", HUB]
            .into_iter()
            .filter(|other| hostname(other) != hostname(server))
            .map(|other| config.get(other))
            .collect::<Vec<_>>()
    };
    let reread = |config: &file::ConfigFile| {
        String::from_utf8(config.text()).ok().and_then(|text| file::ConfigFile::parse(&text).ok())
    };
    let before = (others(&config), config.helper(server).map(str::to_owned));
    let same = reread(&config).is_some_and(|again| again == config);
    let stored =
        Credentials { username: "u".to_owned(), password: "p:w".to_owned(), ..Credentials::default() };
    let mut changed = config.clone();
    changed.put(server, Some(&stored));
    let found = reread(&changed).and_then(|again| again.get(server)) == Some(stored);
    let apart = (others(&changed), changed.helper(server).map(str::to_owned)) == before;
    same && found && apart && changed.remove(server)
}

/// What a registry is called among credentials.
pub(crate) fn server(registry: &str) -> &str {
    if matches!(registry, "" | "docker.io" | "index.docker.io" | HUB) { HUB } else { hostname(registry) }
}

/// An address without scheme and path, as older clients have stored them.
pub(crate) fn hostname(address: &str) -> &str {
    let bare =
        address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    bare.split('/').next().unwrap_or(bare)
}

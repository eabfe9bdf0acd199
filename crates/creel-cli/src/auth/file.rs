//! Docker's `config.json`: reading what concerns credentials, and writing it back with everything else in it.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Serialize as _;
use serde_json::{Map, Value, json};

use super::base64;
use super::{Credentials, hostname};

static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// Takes the file from this directory (`--config`).
pub(crate) fn set_directory(path: &str) {
    let _ = DIRECTORY.set(PathBuf::from(path));
}

/// Where the file lies: `--config`, `DOCKER_CONFIG`, or `~/.docker`.
pub(super) fn path() -> Result<PathBuf, String> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = DIRECTORY
        .get()
        .cloned()
        .or_else(|| set("DOCKER_CONFIG"))
        .or_else(|| set("HOME").map(|home| home.join(".docker")))
        .ok_or("no directory for credentials: neither DOCKER_CONFIG nor HOME is set")?;
    Ok(directory.join("config.json"))
}

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ConfigFile(Map<String, Value>);

impl ConfigFile {
    /// Reads the file; one that is missing or empty has nothing in it.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let wrong = |why: String| format!("Error loading config file: {}: {why}", path.display());
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(wrong),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(wrong(crate::os_words(&e))),
        }
    }

    /// Reads the file's text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let config: Map<String, Value> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        for name in ["auths", "credHelpers"] {
            if config.get(name).is_some_and(|value| !value.is_object() && !value.is_null()) {
                return Err(format!("`{name}` is not an object"));
            }
        }
        Ok(Self(config))
    }

    /// Writes the file anew, readable by nobody else; a symbolic link to it stays one. It is there as it was or as it
    /// shall be, whatever happens.
    pub(super) fn save(&self, path: &Path) -> Result<(), String> {
        let wrong = |what: &str, path: &Path, e: std::io::Error| {
            format!("{what} {}: {}", path.display(), crate::os_words(&e))
        };
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let directory = path.parent().unwrap_or(Path::new("/"));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|e| wrong("making", directory, e))?;
        let mode = std::fs::metadata(&path).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
        let temporary = directory.join(format!(".config.json.{}", std::process::id()));
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(&self.text())?;
                file.set_permissions(std::fs::Permissions::from_mode(mode))?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&temporary, &path));
        written.map_err(|e| {
            let _ = std::fs::remove_file(&temporary);
            wrong("writing", &path, e)
        })
    }

    /// The text, indented as Docker's client does.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut writer = serde_json::Serializer::with_formatter(&mut text, indent);
        // Writing a map of strings into memory cannot fail.
        let _ = self.0.serialize(&mut writer);
        text.push(b'\n');
        text
    }

    /// The program that keeps a registry's credentials, if it is not this file: one of its own, or that of all.
    pub(super) fn helper(&self, server: &str) -> Option<&str> {
        let own = self.0.get("credHelpers").and_then(Value::as_object);
        let own = own.and_then(|helpers| {
            let names = [server, hostname(server), if server == super::HUB { "docker.io" } else { server }];
            names.iter().find_map(|name| helpers.get(*name))
        });
        let text = |value: &'_ Value| value.as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        match own {
            // An empty name says: in this file.
            Some(own) => own.as_str().filter(|_| text(own).is_some()),
            None => self.0.get("credsStore").and_then(Value::as_str).filter(|name| !name.is_empty()),
        }
    }

    /// The credentials in the file itself.
    pub(super) fn get(&self, server: &str) -> Option<Credentials> {
        let auths = self.0.get("auths")?.as_object()?;
        let same = |(name, _): &(&String, &Value)| hostname(name) == hostname(server);
        let entry = auths.get(server).or_else(|| auths.iter().find(same).map(|(_, entry)| entry))?;
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut found = Credentials {
            username: text("username"),
            password: text("password"),
            identity_token: text("identitytoken"),
            registry_token: text("registrytoken"),
        };
        if let Some(joined) = base64::decode(&text("auth")).and_then(|bytes| String::from_utf8(bytes).ok())
            && let Some((user, password)) = joined.split_once(':')
        {
            found.username = user.to_owned();
            found.password = password.trim_end_matches('\0').to_owned();
        }
        Some(found).filter(|found| *found != Credentials::default())
    }

    /// Puts credentials into the file; with `None` it only says that a helper has some.
    pub(super) fn put(&mut self, server: &str, credentials: Option<&Credentials>) {
        let mut entry = Map::new();
        if let Some(credentials) = credentials {
            let joined = format!("{}:{}", credentials.username, credentials.password);
            entry.insert("auth".to_owned(), json!(base64::encode_standard(joined.as_bytes())));
            if !credentials.identity_token.is_empty() {
                entry.insert("identitytoken".to_owned(), json!(credentials.identity_token));
            }
        }
        let auths = self.0.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(server.to_owned(), Value::Object(entry));
        }
    }

    /// Takes credentials out; whether any were there.
    pub(super) fn remove(&mut self, server: &str) -> bool {
        let auths = self.0.get_mut("auths").and_then(Value::as_object_mut);
        auths.is_some_and(|auths| auths.remove(server).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::super::HUB;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn credentials_are_found_however_they_were_stored() {
        let config = ConfigFile::parse(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnc="},"http://localhost:5000/":{"identitytoken":"t"},
                "https://quay.io/v2/":{"username":"a","password":"b"},"empty.example":{}}}"#,
        )
        .unwrap();
        let pair = |found: Credentials| (found.username, found.password, found.identity_token);
        let read = |server: &str| config.get(server).map(pair);
        let of = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(read(HUB), of("u", "p:w", ""));
        assert_eq!(read("localhost:5000"), of("", "", "t"));
        assert_eq!(read("quay.io"), of("a", "b", ""));
        assert_eq!((read("ghcr.io"), read("empty.example")), (None, None));
        assert!(ConfigFile::parse("garbage").is_err() && ConfigFile::parse(r#"{"auths":[]}"#).is_err());
        assert!(ConfigFile::parse("[]").is_err() && ConfigFile::parse(" \n").is_ok());
    }

    #[test]
    fn a_registrys_helper_comes_before_the_store_of_all() {
        let config = ConfigFile::parse(
            r#"{"credsStore":"all","credHelpers":{"ecr.example":"ecr","docker.io":"hub","plain.example":""}}"#,
        )
        .unwrap();
        assert_eq!(config.helper("ecr.example"), Some("ecr"));
        assert_eq!(config.helper(HUB), Some("hub"));
        assert_eq!(config.helper("quay.io"), Some("all"));
        assert_eq!(config.helper("plain.example"), None);
        assert_eq!(ConfigFile::parse(r#"{"credsStore":""}"#).unwrap().helper("x"), None);
    }

    #[test]
    fn saving_keeps_what_is_not_ours_the_link_and_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.json"), dir.path().join("config.json"));
        std::fs::write(
            &real,
            r#"{"detachKeys":"ctrl-q","auths":{"a.example":{"auth":"dTpw"}},"x":[1,{"y":null}]}"#,
        )
        .unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real.json", &link).unwrap();
        let mut config = ConfigFile::load(&link).unwrap();
        config.put(
            "b.example",
            Some(&Credentials { username: "ü".into(), password: "?>".into(), ..Default::default() }),
        );
        config.save(&link).unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        let text = std::fs::read_to_string(&real).unwrap();
        assert!(text.contains("\t\"detachKeys\": \"ctrl-q\"") && text.contains("\"y\": null"), "{text}");
        let again = ConfigFile::load(&link).unwrap();
        assert_eq!(again.get("b.example").unwrap().password, "?>");
        assert!(again.get("a.example").is_some());

        let new = dir.path().join("sub/dir/config.json");
        again.save(&new).unwrap();
        assert_eq!(std::fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(new.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "a temporary file is left");
    }

    proptest! {
        #[test]
        fn no_file_makes_the_reader_panic(text in "[\\[\\]{}\":,a-z0-9= ]{0,60}", server in "\\PC{0,12}") {
            if let Ok(config) = ConfigFile::parse(&text) {
                let _ = (config.get(&server), config.helper(&server));
            }
            prop_assert!(super::super::holds(&text, &server));
        }

        #[test]
        fn odd_entries_are_survived(auth in "\\PC{0,16}", token in proptest::option::of("\\PC{0,4}"), number in any::<i32>()) {
            let text = json!({"auths": {"s": {"auth": auth, "identitytoken": token, "username": number}, "t": number}, "credsStore": number});
            let config = ConfigFile::parse(&text.to_string()).unwrap();
            let _ = (config.get("s"), config.get("t"), config.helper("s"));
        }

        #[test]
        fn what_is_stored_is_found(user in "[^:\\x00]{1,8}", password in "[^\\x00]{0,8}", token in "[a-z]{0,4}") {
            let stored = Credentials { username: user, password, identity_token: token, registry_token: String::new() };
            let mut config = ConfigFile::default();
            config.put("host:1", Some(&stored));
            let text = String::from_utf8(config.text()).unwrap();
            let mut config = ConfigFile::parse(&text).unwrap();
            prop_assert_eq!(config.get("host:1"), Some(stored));
            prop_assert!(config.remove("host:1") && !config.remove("host:1"));
            prop_assert_eq!(config.get("host:1"), None);
        }
    }
}

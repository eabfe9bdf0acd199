//! The programs that keep credentials for Docker's client, `docker-credential-NAME` on the path. They are called with
//! `get`, `store` or `erase`, read the registry (or, for `store`, a JSON object) from standard input and write an
//! object to standard output; what goes wrong they write there too, and end with another code than 0.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Credentials;

/// What a helper says when it has nothing: in the first versions of the protocol, and so in all.
const NOTHING: &str = "credentials not found in native keychain";
/// The name under which helpers keep identity tokens.
const TOKEN: &str = "<token>";

/// One helper.
pub(super) struct Helper<'a>(pub(super) &'a str);

impl Helper<'_> {
    fn program(&self) -> String {
        format!("docker-credential-{}", self.0)
    }

    /// Calls the program; its answer, or its complaint in `Err` with how it ended.
    fn call(&self, verb: &str, input: &str) -> Result<String, (String, String)> {
        let program = self.program();
        if self.0.contains('/') {
            return Err((format!("`{program}` is not the name of a program"), String::new()));
        }
        let child = Command::new(&program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn();
        let mut child = child.map_err(|e| {
            let why = match e.kind() {
                ErrorKind::NotFound => "executable file not found in $PATH".to_owned(),
                _ => crate::os_words(&e),
            };
            (format!("exec: \"{program}\": {why}"), String::new())
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that reads nothing says by its end what it thinks of it.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(|e| (crate::os_words(&e), String::new()))?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err((output.status.to_string().replace("exit status:", "exit status"), text))
    }

    /// The credentials of a registry, if it has any.
    pub(super) fn get(&self, server: &str) -> Result<Option<Credentials>, String> {
        let text = match self.call("get", server) {
            Ok(text) => text,
            Err((_, said)) if said.contains(NOTHING) => return Ok(None),
            Err((why, said)) => return Err(format!("error getting credentials - err: {why}, out: `{said}`")),
        };
        let answer: Value = serde_json::from_str(&text)
            .map_err(|e| format!("error getting credentials - {} answers no JSON: {e}", self.program()))?;
        let member = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (username, secret) = (member("Username"), member("Secret"));
        let mut found = Credentials::default();
        if username == TOKEN {
            found.identity_token = secret;
        } else {
            (found.username, found.password) = (username, secret);
        }
        Ok(Some(found).filter(|found| *found != Credentials::default()))
    }

    /// Keeps credentials.
    pub(super) fn store(&self, server: &str, credentials: &Credentials) -> Result<(), String> {
        let (name, secret) = if credentials.identity_token.is_empty() {
            (credentials.username.as_str(), &credentials.password)
        } else {
            (TOKEN, &credentials.identity_token)
        };
        let object = json!({"ServerURL": server, "Username": name, "Secret": secret});
        let done = self.call("store", &object.to_string());
        done.map(drop).map_err(|(why, said)| format!("error storing credentials - err: {why}, out: `{said}`"))
    }

    /// Forgets credentials; it is no error if there were none.
    pub(super) fn erase(&self, server: &str) -> Result<(), String> {
        match self.call("erase", server) {
            Ok(_) => Ok(()),
            Err((_, said)) if said.contains(NOTHING) => Ok(()),
            Err((why, said)) => Err(format!("error erasing credentials - err: {why}, out: `{said}`")),
        }
    }
}

//! Credentials and the two ways in which registries ask for them (distribution-spec, "Authentication";
//! distribution's `auth/token` documents; RFC 7235 for the challenge's grammar).

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

/// Credentials for one registry: the content of Docker's `X-Registry-Auth`.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Auth {
    /// The user's name.
    pub username: String,
    /// The password or access token.
    pub password: String,
    /// A refresh token from an earlier login, used instead of name and password.
    #[serde(rename = "identitytoken")]
    pub identity_token: String,
    /// A bearer token to be sent as it is.
    #[serde(rename = "registrytoken")]
    pub registry_token: String,
    /// The registry that these are for; informative.
    #[serde(rename = "serveraddress")]
    pub server_address: String,
}

impl std::fmt::Debug for Auth {
    // A password must never come into a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Why an `X-Registry-Auth` header cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It is not base64.
    #[error("the registry credentials (X-Registry-Auth) are not base64")]
    Base64,
    /// What is in it is not the JSON object that is wanted.
    #[error("the registry credentials (X-Registry-Auth) are not such a JSON object: {0}")]
    Json(String),
}

impl creel_types::Classify for AuthError {
    fn kind(&self) -> creel_types::ErrorKind {
        creel_types::ErrorKind::InvalidArgument
    }
}

impl Auth {
    /// Credentials of a name and a password.
    pub fn basic(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: password.into(), ..Self::default() }
    }

    /// Reads Docker's `X-Registry-Auth`: base64 (either alphabet, padded or not) of a JSON object. An empty
    /// header or an object without credentials is no credentials.
    pub fn from_header(header: &str) -> Result<Option<Self>, AuthError> {
        let header = header.trim();
        if header.is_empty() {
            return Ok(None);
        }
        let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let bytes = GeneralPurpose::new(&alphabet::URL_SAFE, lenient)
            .decode(header)
            .or_else(|_| GeneralPurpose::new(&alphabet::STANDARD, lenient).decode(header))
            .map_err(|_| AuthError::Base64)?;
        Self::from_json(&bytes)
    }

    /// Reads the object itself, as `POST /auth` of the Docker Engine API has it. Nothing, `null` and an object without
    /// credentials are no credentials.
    ///
    /// # Errors
    /// [`AuthError::Json`] if it is no such object.
    pub fn from_json(bytes: &[u8]) -> Result<Option<Self>, AuthError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let mut auth: Self = match serde_json::from_slice::<Option<Wire>>(bytes) {
            Ok(Some(wire)) => wire.into(),
            Ok(None) => return Ok(None),
            Err(error) => return Err(AuthError::Json(error.to_string())),
        };
        if auth.username == "<token>" {
            // Docker's convention for a stored refresh token.
            auth.identity_token = std::mem::take(&mut auth.password);
            auth.username.clear();
        }
        Ok(Some(auth).filter(|auth| !auth.is_empty()))
    }

    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        self.username.is_empty()
            && self.password.is_empty()
            && self.identity_token.is_empty()
            && self.registry_token.is_empty()
    }

    /// The `Authorization` of Basic authentication, if there is a name.
    pub(crate) fn basic_header(&self) -> Option<String> {
        if self.username.is_empty() {
            return None;
        }
        let plain = format!("{}:{}", self.username, self.password);
        Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain)))
    }
}

/// The object as clients send it, with nulls and an `auth` member that holds `name:password` in base64.
#[derive(Deserialize)]
struct Wire {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
    serveraddress: Option<String>,
}

impl From<Wire> for Auth {
    fn from(wire: Wire) -> Self {
        let mut auth = Self {
            username: wire.username.unwrap_or_default(),
            password: wire.password.unwrap_or_default(),
            identity_token: wire.identitytoken.unwrap_or_default(),
            registry_token: wire.registrytoken.unwrap_or_default(),
            server_address: wire.serveraddress.unwrap_or_default(),
        };
        if auth.username.is_empty()
            && let Some(joined) = wire.auth
            && let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(joined)
            && let Ok(text) = String::from_utf8(bytes)
            && let Some((name, password)) = text.split_once(':')
        {
            auth.username = name.to_owned();
            auth.password = password.trim_end_matches('\0').to_owned();
        }
        auth
    }
}

/// What a registry wants, out of its `WWW-Authenticate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password in each request.
    Basic,
    /// A token from `realm`.
    Bearer {
        /// The token server's URL.
        realm: String,
        /// What the token server calls the registry.
        service: Option<String>,
        /// What the token must allow, as the registry sees it.
        scope: Option<String>,
    },
}

/// Reads all challenges of one header; schemes that creel does not speak are left out.
pub(crate) fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut scheme: Option<(String, Vec<(String, String)>)> = None;
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let word = &rest[..end];
        let after = rest[end..].trim_start();
        if word.is_empty() {
            // A stray separator: step over it.
            let mut characters = rest.chars();
            characters.next();
            rest = characters.as_str().trim_start();
            continue;
        }
        if let Some(value) = after.strip_prefix('=')
            && let Some((_, parameters)) = &mut scheme
        {
            let (value, remaining) = parameter_value(value.trim_start());
            parameters.push((word.to_ascii_lowercase(), value));
            rest = remaining.trim_start().trim_start_matches(',').trim_start();
            continue;
        }
        if let Some(done) = scheme.take() {
            found.extend(challenge(done));
        }
        scheme = Some((word.to_ascii_lowercase(), Vec::new()));
        rest = after.trim_start_matches(',').trim_start();
    }
    found.extend(scheme.and_then(challenge));
    found
}

fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

fn challenge((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let find = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: find("realm")?,
            service: find("service"),
            scope: find("scope").filter(|scope| !scope.is_empty()),
        }),
        _ => None,
    }
}

/// A token server's answer (distribution's `auth/token`, "Token Response Fields").
#[derive(Deserialize)]
pub(crate) struct TokenResponse {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    refresh_token: Option<String>,
}

impl TokenResponse {
    /// A token that is kept for later logins instead of the password.
    pub(crate) fn refresh_token(&self) -> Option<&str> {
        self.refresh_token.as_deref().filter(|token| !token.is_empty())
    }

    /// The token under whichever of its two names was given.
    pub(crate) fn into_token(self) -> Option<String> {
        self.token.filter(|t| !t.is_empty()).or(self.access_token).filter(|t| !t.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_of_known_registries_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull""#;
        assert_eq!(
            parse_challenges(hub),
            [bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/busybox:pull")
            )]
        );
        assert_eq!(parse_challenges(r#"Basic realm="Registry, \"inner\"""#), [Challenge::Basic]);
        assert_eq!(
            parse_challenges(r#"Negotiate, Basic realm="x", bearer Realm = https://a/t , scope="""#),
            [Challenge::Basic, bearer("https://a/t", None, None)]
        );
        assert_eq!(parse_challenges("Bearer service=\"no realm\""), []);
    }

    #[test]
    fn the_api_header_is_read_in_either_alphabet() {
        let encode = |json: &str| base64::engine::general_purpose::URL_SAFE.encode(json);
        let auth = Auth::from_header(&encode(r#"{"username":"a","password":"b?>","email":null}"#)).unwrap();
        assert_eq!(auth, Some(Auth::basic("a", "b?>")));
        assert_eq!(Auth::from_header(&encode("{}")), Ok(None));
        assert_eq!(Auth::from_header(&encode("null")), Ok(None));
        assert_eq!(Auth::from_header(""), Ok(None));
        let joined = encode(r#"{"auth":"dTpw"}"#);
        assert_eq!(Auth::from_header(joined.trim_end_matches('=')), Ok(Some(Auth::basic("u", "p"))));
        let token = Auth::from_header(&encode(r#"{"username":"<token>","password":"t"}"#)).unwrap().unwrap();
        assert_eq!((token.identity_token.as_str(), token.username.as_str()), ("t", ""));
        assert_eq!(Auth::from_header("%%"), Err(AuthError::Base64));
        assert!(matches!(Auth::from_header(&encode("[")), Err(AuthError::Json(_))));
        assert!(!format!("{:?}", Auth::basic("a", "secret")).contains("secret"));
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parsers_panic_or_loop(text in "\\PC{0,80}") {
            let _ = parse_challenges(&text);
            let _ = Auth::from_header(&text);
        }

        #[test]
        fn odd_separators_are_survived(text in "[a-zA-Z =,\"\\\\\t]{0,60}") {
            let _ = parse_challenges(&text);
        }
    }
}

//! A client of one repository in one registry (OCI distribution-spec 1.1): authentication, redirects and retries
//! around single requests. What the requests mean is `fetch`'s and `upload`'s business.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{Body, Method, Response, StatusCode};
use url::Url;

use crate::auth::{Auth, Challenge, TokenResponse, parse_challenges};
use crate::config::{Mirror, RegistryConfig};
use crate::endpoint::{same_origin, without_secrets};
use crate::error::{Error, Result};
use crate::retry::{RetryPolicy, is_passing, retry_after};
use crate::transport::Transport;

/// How many redirects one request may take.
const REDIRECTS: usize = 10;
/// How much of an error's or a token's body is read, in bytes.
const SMALL_BODY: usize = 64 << 10;

/// What is common to all ways of moving images to and from registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Credentials; anonymous without.
    pub auth: Option<Auth>,
    /// What the user set about registries.
    pub config: RegistryConfig,
    /// When to try again.
    pub retry: RetryPolicy,
}

/// Makes a request's body anew for each attempt.
pub(crate) type MakeBody<'a> = &'a (dyn Fn() -> Result<Body> + Sync);

/// One request, as often as it has to be sent.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<MakeBody<'a>>,
    /// What is being done, for messages: "fetching the manifest of x".
    pub(crate) action: String,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, url: Url, action: impl Into<String>) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: None, action: action.into() }
    }

    pub(crate) fn header(mut self, name: reqwest::header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(crate) fn body(mut self, body: MakeBody<'a>) -> Self {
        self.body = Some(body);
        self
    }

    fn describe(&self) -> String {
        format!("{} ({})", self.action, without_secrets(&self.url))
    }
}

/// How an attempt ended that may be repeated.
pub(crate) enum Failed {
    /// It may pass: try again.
    Passing(Error, Option<Duration>),
    /// It will not.
    Final(Error),
}

/// A request that got no answer. Where nobody listens, asking again for half a minute only hides the reason.
fn broken(action: &str, error: &reqwest::Error) -> Failed {
    let refused = error.is_connect() && error.source_text().contains("refused");
    let error = network(action, error);
    if refused { Failed::Final(error) } else { Failed::Passing(error, None) }
}

/// One repository in one registry.
pub(crate) struct Client {
    transport: Transport,
    base: Url,
    pub(crate) repository: String,
    auth: Option<Auth>,
    /// The scopes that are asked for, `repository:name:pull` first.
    scopes: Vec<String>,
    /// The `Authorization` that the registry last accepted.
    authorization: Mutex<Option<HeaderValue>>,
    /// Serializes logins, so that parallel downloads fetch one token and not one each.
    login: tokio::sync::Mutex<()>,
    /// Whether a token that outlives this client is wanted, and the one that came.
    offline: bool,
    refresh: Mutex<Option<String>>,
    pub(crate) retry: RetryPolicy,
}

impl Client {
    /// A client for `repository` that may do `actions`: `pull` or `pull,push`.
    pub(crate) async fn connect(
        registry: &str,
        repository: &str,
        actions: &str,
        options: &RegistryOptions,
    ) -> Result<Self> {
        let transport = Transport::to(registry, &options.config).await?;
        Ok(Self::over(transport, repository, actions, options.auth.clone(), options.retry.clone()))
    }

    /// The same without asking an insecure registry for TLS that it did not speak when it was last asked; `None` if that
    /// is not known. Whoever uses it must be ready for a registry that does by now: its answers are none, or 400.
    pub(crate) async fn connect_as_before(
        registry: &str,
        repository: &str,
        actions: &str,
        options: &RegistryOptions,
    ) -> Result<Option<Self>> {
        let transport = Transport::plain_as_before(registry, &options.config).await?;
        Ok(transport.map(|transport| {
            let retry = RetryPolicy { attempts: options.retry.attempts.min(2), ..options.retry.clone() };
            Self::over(transport, repository, actions, options.auth.clone(), retry)
        }))
    }

    /// The client to do something with once more that one of [`Client::connect_as_before`] has failed with: the registry
    /// may speak TLS by now, and is asked.
    ///
    /// # Errors
    /// `error`, if that is no reason to believe so: it holds. It also does when the registry still speaks no TLS and has
    /// said no by a status that does not pass.
    pub(crate) async fn connect_after(
        error: Error,
        registry: &str,
        repository: &str,
        actions: &str,
        options: &RegistryOptions,
    ) -> Result<Self> {
        let final_status = match &error {
            Error::Status { status, .. } => !is_passing(*status),
            Error::Network { .. } | Error::Protocol { .. } => false,
            _ => return Err(error),
        };
        tracing::debug!(%error, "{registry} is asked for TLS again");
        let client = Self::connect(registry, repository, actions, options).await?;
        if final_status && client.base.scheme() == "http" { Err(error) } else { Ok(client) }
    }

    /// A client for a mirror's copy of `repository`. Credentials are the registry's, not the mirror's; and as the
    /// registry can be asked too, a mirror gets few attempts.
    pub(crate) fn of_mirror(mirror: &Mirror, repository: &str, options: &RegistryOptions) -> Result<Self> {
        let transport = Transport::to_url(&mirror.url, &options.config)?;
        let retry = RetryPolicy { attempts: options.retry.attempts.min(2), ..options.retry.clone() };
        Ok(Self::over(transport, repository, "pull", None, retry))
    }

    /// The client as one that asks for nothing but whether credentials are right, and for a token to keep.
    pub(crate) fn for_login(mut self) -> Self {
        self.scopes.clear();
        self.offline = true;
        self
    }

    fn over(
        transport: Transport,
        repository: &str,
        actions: &str,
        auth: Option<Auth>,
        retry: RetryPolicy,
    ) -> Self {
        let auth = auth.filter(|auth| !auth.is_empty());
        // A registry token is sent from the first request on: there is nobody to exchange it with.
        let authorization = auth
            .as_ref()
            .filter(|auth| !auth.registry_token.is_empty())
            .and_then(|auth| secret(&format!("Bearer {}", auth.registry_token)));
        Self {
            base: transport.base().clone(),
            transport,
            repository: repository.to_owned(),
            auth,
            scopes: vec![format!("repository:{repository}:{actions}")],
            authorization: Mutex::new(authorization),
            login: tokio::sync::Mutex::new(()),
            offline: false,
            refresh: Mutex::default(),
            retry,
        }
    }

    /// The address of the registry's API.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// The token to keep that the last login brought, if any.
    pub(crate) fn take_refresh(&self) -> Option<String> {
        self.refresh.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Asks for the right to read another repository too, as cross-repository mounts need.
    pub(crate) fn also_pull(&mut self, repository: &str) {
        let scope = format!("repository:{repository}:pull");
        if !self.scopes.contains(&scope) {
            self.scopes.push(scope);
        }
    }

    /// The address of something in the repository: `manifests/latest`, `blobs/sha256:…`.
    pub(crate) fn url(&self, rest: &str) -> Result<Url> {
        self.base.join(&format!("{}/{rest}", self.repository)).map_err(|error| Error::Protocol {
            action: format!("addressing {rest} in {}", self.repository),
            reason: error.to_string(),
        })
    }

    /// Sends a request until it is answered with a status that will not pass by itself, logging in and
    /// following redirects on the way. The status of the answer is for the caller to judge.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Response> {
        let mut failed = 0;
        loop {
            let (error, after) = match self.attempt(call).await {
                Ok(response) => return Ok(response),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Passing(error, after)) => (error, after),
            };
            failed += 1;
            let Some(wait) = self.retry.wait(failed, after) else { return Err(error) };
            tracing::debug!(%error, ?wait, failed, "the registry is asked again");
            tokio::time::sleep(wait).await;
        }
    }

    pub(crate) async fn attempt(&self, call: &Call<'_>) -> std::result::Result<Response, Failed> {
        let used = self.current_authorization();
        let response = self.follow(call, used.clone()).await?;
        let response = if response.status() == StatusCode::UNAUTHORIZED {
            // A token may have run out in the middle of a transfer; one new login a request is enough.
            self.log_in(&response, used).await?;
            self.follow(call, self.current_authorization()).await?
        } else {
            response
        };
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            let reason = error_detail(response).await;
            return Err(Failed::Final(self.denied(&reason)));
        }
        if is_passing(status.as_u16()) {
            let after =
                response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(retry_after);
            return Err(Failed::Passing(status_error(&call.describe(), response).await, after));
        }
        Ok(response)
    }

    fn denied(&self, reason: &str) -> Error {
        let hint = if self.auth.is_some() {
            "the credentials were not accepted"
        } else {
            "the repository does not exist or needs a login"
        };
        Error::Denied { what: format!("{}{}", self.base, self.repository), reason: format!("{hint}{reason}") }
    }

    /// Sends once and follows redirects. `Authorization` goes to the registry's own origin only.
    async fn follow(
        &self,
        call: &Call<'_>,
        authorization: Option<HeaderValue>,
    ) -> std::result::Result<Response, Failed> {
        let mut url = call.url.clone();
        for _ in 0..=REDIRECTS {
            self.transport.check(&url).map_err(Failed::Final)?;
            let http = self.transport.client(&url).map_err(Failed::Final)?;
            let mut request = http.request(call.method.clone(), url.clone()).headers(call.headers.clone());
            if let Some(authorization) = authorization.as_ref().filter(|_| same_origin(&self.base, &url)) {
                request = request.header(AUTHORIZATION, authorization.clone());
            }
            if let Some(body) = call.body {
                request = request.body(body().map_err(Failed::Final)?);
            }
            let response = request.send().await.map_err(|error| broken(&call.describe(), &error))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let protocol =
                |reason: String| Failed::Final(Error::Protocol { action: call.describe(), reason });
            let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
            let location = location.ok_or_else(|| protocol("a redirect names no address".to_owned()))?;
            url = url
                .join(location)
                .map_err(|error| protocol(format!("a redirect's address is wrong: {error}")))?;
        }
        Err(Failed::Final(Error::Protocol {
            action: call.describe(),
            reason: format!("the registry redirected more than {REDIRECTS} times"),
        }))
    }

    fn current_authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers a challenge; `used` is what the refused request was sent with.
    async fn log_in(&self, refused: &Response, used: Option<HeaderValue>) -> std::result::Result<(), Failed> {
        // Only the registry itself may ask for its credentials, not whoever it redirected to.
        if !same_origin(&self.base, refused.url()) {
            return Ok(());
        }
        let challenges: Vec<Challenge> = refused
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        let _one_at_a_time = self.login.lock().await;
        if self.current_authorization() != used {
            return Ok(()); // another request has logged in meanwhile
        }
        let mut answer = None;
        for challenge in challenges {
            answer = match challenge {
                Challenge::Bearer { realm, service, scope } => {
                    Some(self.fetch_token(&realm, service.as_deref(), scope).await?)
                }
                Challenge::Basic => self.auth.as_ref().and_then(Auth::basic_header),
            };
            if answer.is_some() {
                break;
            }
        }
        let header = answer.as_deref().and_then(secret);
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = header;
        Ok(())
    }

    /// Fetches a bearer token (distribution's `auth/token` and `auth/oauth`).
    async fn fetch_token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<String>,
    ) -> std::result::Result<String, Failed> {
        let action = "fetching an access token";
        let mut url = Url::parse(realm).map_err(|error| {
            Failed::Final(Error::Protocol {
                action: action.to_owned(),
                reason: format!("the registry names `{realm}` as its token server: {error}"),
            })
        })?;
        self.transport.check(&url).map_err(Failed::Final)?;
        let http = self.transport.client(&url).map_err(Failed::Final)?;
        let mut scopes = self.scopes.clone();
        scopes.extend(scope.filter(|scope| !self.scopes.contains(scope)));
        let refresh = self.auth.as_ref().map(|a| a.identity_token.as_str()).filter(|t| !t.is_empty());
        let request = if let Some(refresh) = refresh {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token")
                .append_pair("refresh_token", refresh)
                .append_pair("client_id", "creel");
            if !scopes.is_empty() {
                form.append_pair("scope", &scopes.join(" "));
            }
            if let Some(service) = service {
                form.append_pair("service", service);
            }
            let form = form.finish();
            http.post(url.clone())
                .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form)
        } else {
            {
                let mut query = url.query_pairs_mut();
                if let Some(service) = service {
                    query.append_pair("service", service);
                }
                for scope in &scopes {
                    query.append_pair("scope", scope);
                }
                if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.username.is_empty()) {
                    query.append_pair("account", &auth.username);
                }
                if self.offline {
                    query.append_pair("client_id", "creel").append_pair("offline_token", "true");
                }
            }
            let mut request = http.get(url.clone());
            if let Some(basic) = self.auth.as_ref().and_then(Auth::basic_header).as_deref().and_then(secret) {
                request = request.header(AUTHORIZATION, basic);
            }
            request
        };
        let describe = format!("{action} ({})", without_secrets(&url));
        let response = request
            .header(ACCEPT, "application/json")
            .send()
            .await
            .map_err(|error| broken(&describe, &error))?;
        let status = response.status();
        if is_passing(status.as_u16()) {
            let after =
                response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(retry_after);
            return Err(Failed::Passing(status_error(&describe, response).await, after));
        }
        if !status.is_success() {
            let reason = error_detail(response).await;
            return Err(Failed::Final(match status.as_u16() {
                400 | 401 | 403 => self.denied(&reason),
                status => Error::Status { action: describe, status, detail: reason },
            }));
        }
        let body = small_body(response, SMALL_BODY).await;
        let answer = serde_json::from_slice::<TokenResponse>(&body).ok();
        if self.offline {
            *self.refresh.lock().unwrap_or_else(PoisonError::into_inner) =
                answer.as_ref().and_then(|answer| answer.refresh_token().map(str::to_owned));
        }
        answer.and_then(TokenResponse::into_token).map(|token| format!("Bearer {token}")).ok_or_else(|| {
            Failed::Final(Error::Protocol {
                action: describe,
                reason: "the answer holds no token".to_owned(),
            })
        })
    }
}

/// A header value that is kept out of debug output.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// An error with its causes in one line: reqwest's own text hides why.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

/// The error of a request that was not answered.
pub(crate) fn network(action: &str, error: &reqwest::Error) -> Error {
    let mut reason = error.source_text();
    if error.is_timeout() {
        reason.push_str(" (no answer in time)");
    }
    Error::Network { action: action.to_owned(), reason }
}

trait SourceText {
    fn source_text(&self) -> String;
}

impl SourceText for reqwest::Error {
    // reqwest's outermost text repeats the address, which the action has already (and may hold a signature).
    fn source_text(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => chain(source),
            None => "the connection failed".to_owned(),
        }
    }
}

/// The error of an answer whose status is not a good one.
pub(crate) async fn status_error(action: &str, response: Response) -> Error {
    let status = response.status().as_u16();
    Error::Status { action: action.to_owned(), status, detail: error_detail(response).await }
}

/// What an error's body says, with a colon in front, or nothing (distribution-spec, "Error Codes").
pub(crate) async fn error_detail(response: Response) -> String {
    let body = small_body(response, SMALL_BODY).await;
    detail_of(&body)
}

fn detail_of(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(parsed) = serde_json::from_slice::<Errors>(body) else { return String::new() };
    let parts: Vec<String> = parsed
        .errors
        .into_iter()
        .take(3)
        .map(|one| if one.message.is_empty() { one.code.to_lowercase() } else { one.message })
        .filter(|text| !text.is_empty())
        .collect();
    if parts.is_empty() { String::new() } else { format!(": {}", clean(&parts.join("; "))) }
}

/// A stranger's text, fit for a terminal: no control characters, not endless.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

/// The first `limit` bytes of a body, or what came until it broke or ten seconds were over.
async fn small_body(response: Response, limit: usize) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        let mut stream = response.bytes_stream();
        while let Some(Ok(chunk)) = stream.next().await {
            let room = limit - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if body.len() == limit {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(10), read).await;
    body
}

/// A whole body of at most `limit` bytes. The inner error is one that may pass by itself.
pub(crate) async fn whole_body(
    action: &str,
    response: Response,
    limit: u64,
) -> Result<std::result::Result<Bytes, Error>> {
    let too_long = || Error::Corrupt {
        what: action.to_owned(),
        reason: format!("the registry sends more than the {limit} bytes that such a document may have"),
    };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_long());
    }
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) if body.len() as u64 + chunk.len() as u64 > limit => return Err(too_long()),
            Ok(chunk) => body.extend_from_slice(&chunk),
            Err(error) => return Ok(Err(network(action, &error))),
        }
    }
    Ok(Ok(body.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_bodies_are_quoted_without_their_tricks() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no \u001b[31m entry"},{"code":"UNKNOWN"}]}"#;
        assert_eq!(detail_of(body), ": no [31m entry; unknown");
        assert_eq!(detail_of(b"<html>"), "");
        assert_eq!(detail_of(br#"{"errors":[]}"#), "");
    }

    #[tokio::test]
    async fn https_begins_with_a_tls_handshake() {
        use std::io::Read;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("https://{}/v2/", listener.local_addr().unwrap())).unwrap();
        let first = std::thread::spawn(move || {
            let mut byte = [0];
            listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
            byte[0]
        });
        let transport = Transport::to_url(&url.join("/").unwrap(), &RegistryConfig::default()).unwrap();
        let error = transport.client(&url).unwrap().get(url).send().await.unwrap_err();
        assert_eq!(first.join().unwrap(), 0x16, "{error}");
        let error = network("asking", &error).to_string();
        assert!(error.starts_with("asking failed: ") && !error.contains("error sending request"), "{error}");
    }
}

//! Trying credentials.

use reqwest::Method;

use crate::auth::Auth;
use crate::client::{Call, Client, RegistryOptions, status_error};
use crate::endpoint::registry_of;
use crate::error::{Error, Result};

/// Tries `auth` on the registry that it names (Docker Hub if none) as `docker login` does: `GET /v2/`, answering what
/// the registry asks for. Returns the identity token that takes the password's place from now on, if the registry's
/// token server gives one.
///
/// # Errors
/// [`Error::Login`] if the registry does not accept them; [`Error::Network`] and others if it cannot be asked.
pub async fn login(auth: &Auth, options: &RegistryOptions) -> Result<Option<String>> {
    let options = RegistryOptions { auth: Some(auth.clone()), ..options.clone() };
    let registry = registry_of(&auth.server_address);
    let Some(client) = Client::connect_as_before(registry, "", "", &options).await? else {
        return login_over(Client::connect(registry, "", "", &options).await?).await;
    };
    match login_over(client).await {
        Err(error) => login_over(Client::connect_after(error, registry, "", "", &options).await?).await,
        done => done,
    }
}

async fn login_over(client: Client) -> Result<Option<String>> {
    let client = client.for_login();
    let url = client.base().clone();
    let action = format!("logging in to {}", url.host_str().unwrap_or_default());
    let call = Call::new(Method::GET, url.clone(), &action);
    match client.send(&call).await {
        Ok(response) if response.status().is_success() => Ok(client.take_refresh()),
        Ok(response) if response.status().as_u16() == 403 => {
            let reason = status_error(&action, response).await.to_string();
            Err(Error::Login { url: url.to_string(), reason })
        }
        Ok(response) => Err(status_error(&action, response).await),
        Err(Error::Denied { reason, .. }) => {
            // The registry's own words, if it has any, stand behind the colon.
            let said = reason.split_once(": ").map_or("incorrect username or password", |(_, said)| said);
            Err(Error::Login { url: url.to_string(), reason: said.to_owned() })
        }
        Err(error) => Err(error),
    }
}

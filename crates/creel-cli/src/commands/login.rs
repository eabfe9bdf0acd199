//! `login` and `logout`.

use std::io::{Read as _, Write as _};

use creel_client::Client;

use crate::auth::{Credentials, HUB, Store, Stored, server};
use crate::command::{Arity, Command, Context, Outcome, run};
use crate::failure::Failure;
use crate::flags::Flag;
use crate::output::{complain, print, print_line};
use crate::terminal;

/// `login` and `logout`.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["login"],
        usage: &["[OPTIONS] [SERVER]"],
        about: "Authenticate to a registry",
        long: "Defaults to Docker Hub if no server is specified. The credentials go where ~/.docker/config.json says: to\n\
               the helper under credHelpers or credsStore, or into that file.",
        flags: &[&[
            Flag::text("password", "string", "Password or personal access token").short('p'),
            Flag::switch("password-stdin", "Take the password from standard input"),
            Flag::text("username", "string", "Username").short('u'),
        ]],
        interspersed: true,
        arity: Arity::AtMost(1),
        run: run!(login),
    },
    Command {
        paths: &["logout"],
        usage: &["[SERVER]"],
        about: "Log out from a registry",
        long: "Forgets the credentials of the registry, or of Docker Hub if no server is specified.",
        flags: &[&[]],
        interspersed: true,
        arity: Arity::AtMost(1),
        run: run!(logout),
    },
];

async fn login(c: Context) -> Outcome {
    let mut user = c.parsed.some("username").unwrap_or_default().trim().to_owned();
    let mut password = c.parsed.some("password").unwrap_or_default().to_owned();
    if !password.is_empty() {
        complain("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        if c.parsed.on("password-stdin") {
            return Err(Failure::new("--password and --password-stdin are mutually exclusive"));
        }
    }
    if c.parsed.on("password-stdin") {
        if user.is_empty() {
            return Err(Failure::new("Must provide --username with --password-stdin"));
        }
        password = from_stdin()?;
    }
    let server = server(c.arg(0));
    let mut store = Store::open().map_err(Failure::new)?;
    let mut known = None;
    if user.is_empty() && password.is_empty() {
        known = store.get(server).unwrap_or_else(|why| {
            complain(&format!("WARNING: {why}"));
            None
        });
    }
    if let Some(stored) =
        known.as_ref().filter(|known| !known.username.is_empty() && !known.password.is_empty())
    {
        print_line(&format!("Authenticating with existing credentials... [Username: {}]", stored.username))?;
        print_line("To login with a different account, run 'creel logout' followed by 'creel login'\n")?;
        match try_out(&c.client, server, stored.clone()).await {
            Ok((status, credentials)) => return finish(&mut store, server, &status, &credentials),
            Err(e) if e.status() == Some(401) => complain("Stored credentials invalid or expired"),
            Err(e) => complain(&format!("Login did not succeed, error: {e}")),
        }
    }
    if (user.is_empty() || password.is_empty()) && !terminal::stdin_is_terminal() {
        return Err(Failure::new("Error: Cannot perform an interactive login from a non TTY device"));
    }
    if user.is_empty() {
        let default = known.map(|known| known.username).unwrap_or_default();
        if server == HUB {
            print_line(
                "Log in with your Docker ID or email address to push and pull images from Docker Hub.",
            )?;
        }
        print(&if default.is_empty() { "Username: ".to_owned() } else { format!("Username ({default}): ") })?;
        user = line()?;
        if user.is_empty() {
            user = default;
        }
        if user.is_empty() {
            return Err(Failure::new("error: username is required"));
        }
    }
    if password.is_empty() {
        let typed = terminal::hidden_line("Password: ")
            .map_err(|e| Failure::new(format!("reading the password: {}", crate::os_words(&e))))?;
        print("\n")?;
        password = typed.ok_or_else(|| Failure::silent(130))?;
        if password.is_empty() {
            return Err(Failure::new("error: password is required"));
        }
    }
    let credentials = Credentials { username: user, password, ..Credentials::default() };
    let (status, credentials) = try_out(&c.client, server, credentials).await?;
    finish(&mut store, server, &status, &credentials)
}

/// Has the daemon try credentials; returns its words, and what is to be kept: the token that came, if one did.
async fn try_out(
    client: &Client,
    server: &str,
    mut credentials: Credentials,
) -> Result<(String, Credentials), creel_client::Error> {
    let answer = client.auth(&credentials.json(server)).await?;
    if !answer.identity_token.is_empty() {
        credentials.password.clear();
        credentials.identity_token = answer.identity_token;
    }
    Ok((answer.status, credentials))
}

fn finish(store: &mut Store, server: &str, status: &str, credentials: &Credentials) -> Outcome {
    let stored = store
        .put(server, credentials)
        .map_err(|why| Failure::new(format!("Error saving credentials: {why}")))?;
    if let Stored::File(path) = stored
        && !credentials.password.is_empty()
    {
        complain(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this \
             warning. See\nhttps://docs.docker.com/go/credential-store/\n",
            path.display()
        ));
    }
    print_line(status)?;
    Ok(0)
}

async fn logout(c: Context) -> Outcome {
    let server = server(c.arg(0));
    print_line(&format!("Removing login credentials for {server}"))?;
    let mut store = Store::open().map_err(Failure::new)?;
    if let Err(wrong) = store.erase(server) {
        complain("WARNING: could not erase credentials:");
        for (name, why) in wrong {
            complain(&format!("{name}: {why}"));
        }
    }
    Ok(0)
}

/// All of standard input without its last line break.
fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(1 << 20)
        .read_to_string(&mut text)
        .map_err(|e| Failure::new(format!("reading the password: {}", crate::os_words(&e))))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// One line from the terminal.
fn line() -> Result<String, Failure> {
    let _ = std::io::stdout().flush();
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|e| Failure::new(format!("reading the user name: {}", crate::os_words(&e))))?;
    Ok(line.trim().to_owned())
}

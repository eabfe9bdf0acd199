//! `login`, `logout` and what is done with the credentials, against a registry with TLS, a certificate authority of
//! the test's own and a user, on loopback in the daemon's own network namespace.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::{CREEL, Daemon, eventually, path, scratch};
use crate::terminal::Terminal;

const ADDRESS: &str = "127.0.0.1:5443";

/// docker-registry behind TLS, where `user` has the password `secret`.
struct Registry(Child);

impl Registry {
    fn start(daemon: &Daemon, dir: &Path) -> Self {
        let script = r#"set -e; cd "$1"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=registry -keyout tls.key -out tls.csr
printf 'subjectAltName=IP:127.0.0.1,DNS:localhost' > san
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out tls.crt"#;
        let made = Command::new("sh").args(["-c", script, "sh", path(dir)]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // `secret` in bcrypt, the only form that the registry reads.
        fs::write(
            dir.join("htpasswd"),
            "user:$2b$04$GVooWkN.AJYnkQTYgMruhuYYLwa3LeM40.JktVT3WsG4yum2H2Pz2\n",
        )
        .unwrap();
        let d = dir.display();
        let config = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {d}/data}}}}\n\
             http: {{addr: \"{ADDRESS}\", tls: {{certificate: {d}/tls.crt, key: {d}/tls.key}}}}\n\
             auth: {{htpasswd: {{realm: test, path: {d}/htpasswd}}}}\n"
        );
        fs::write(dir.join("registry.yml"), config).unwrap();
        let child = daemon
            .inside("docker-registry")
            .args(["serve", path(&dir.join("registry.yml"))])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is not installed: run dev/setup");
        eventually("the registry's start", || {
            let try_it = format!("exec 3<>/dev/tcp/{}", ADDRESS.replace(':', "/"));
            daemon.inside("bash").args(["-c", &try_it]).stderr(Stdio::null()).status().unwrap().success()
        });
        Self(child)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon that trusts the registry's authority, and that registry.
fn start() -> Option<(Daemon, Registry, PathBuf)> {
    let dir = scratch();
    let certs = dir.path().join("certs.d");
    fs::create_dir_all(certs.join(ADDRESS)).unwrap();
    let flags = ["--registry-certs".to_owned(), path(&certs).to_owned()];
    let files = dir.path().join("registry");
    fs::create_dir(&files).unwrap();
    let daemon = Daemon::start_in(dir, &[flags[0].as_str(), flags[1].as_str()])?;
    daemon.ok(&["import", "-c", "CMD [\"sh\"]", path(crate::support::busybox_tar()), "busybox:latest"]);
    let registry = Registry::start(&daemon, &files);
    fs::copy(files.join("ca.crt"), certs.join(ADDRESS).join("ca.crt")).unwrap();
    let home = daemon.dir.path().join("home");
    Some((daemon, registry, home))
}

/// Runs a command with this directory of credentials and this on its standard input.
fn with(daemon: &Daemon, config: &Path, input: &str, args: &[&str]) -> Output {
    let socket = format!("unix://{}", daemon.socket().display());
    let helpers = daemon.dir.path().join("helpers");
    let search = format!("{}:{}", helpers.display(), std::env::var("PATH").unwrap());
    let mut child = Command::new(CREEL)
        .args(["-H", &socket])
        .args(args)
        .env("DOCKER_CONFIG", config)
        .env("PATH", search)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may have ended.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes());
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_login_opens_a_registry_and_a_logout_closes_it() {
    let Some((daemon, registry, home)) = start() else { return };
    let image = format!("{ADDRESS}/team/app:v1");
    daemon.ok(&["tag", "busybox", &image]);
    let run = |input: &str, args: &[&str]| with(&daemon, &home, input, args);
    let denied = run("", &["push", &image]);
    assert!(!denied.status.success() && err(&denied).contains("needs a login"), "{}", err(&denied));

    // What is refused is said in Docker's words, and nothing is stored.
    let wrong = run("wrong", &["login", "-u", "user", "--password-stdin", ADDRESS]);
    assert_eq!(wrong.status.code(), Some(1));
    let words = format!("Get \"https://{ADDRESS}/v2/\": unauthorized: ");
    assert!(err(&wrong).contains(&words) && !err(&wrong).contains("wrong"), "{}", err(&wrong));
    assert!(!home.exists(), "refused credentials were stored");
    for (input, args, wanted) in [
        ("x", &["login", "--password-stdin", ADDRESS][..], "Must provide --username with --password-stdin"),
        ("x", &["login", "-u", "u", "-p", "p", "--password-stdin"], "are mutually exclusive"),
        ("", &["login", ADDRESS], "Cannot perform an interactive login from a non TTY device"),
        ("", &["login", "a", "b"], "requires at most 1 argument"),
    ] {
        let output = run(input, args);
        assert!(!output.status.success() && err(&output).contains(wanted), "{args:?}: {}", err(&output));
    }

    let login =
        run("secret\n", &["login", "-u", "user", "--password-stdin", &format!("https://{ADDRESS}/v2/")]);
    assert!(login.status.success(), "{}", err(&login));
    assert_eq!(out(&login), "Login Succeeded\n");
    assert!(err(&login).contains("stored unencrypted in '"), "{}", err(&login));
    let file = home.join("config.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&file).unwrap().contains("dXNlcjpzZWNyZXQ="));
    let again = run("", &["login", ADDRESS]);
    assert!(again.status.success(), "{}", err(&again));
    assert!(out(&again).starts_with("Authenticating with existing credentials... [Username: user]"));

    let pushed = run("", &["push", &image]);
    assert!(pushed.status.success(), "{}", err(&pushed));
    daemon.ok(&["rmi", &image, "busybox"]);
    let pulled = run("", &["pull", &image]);
    assert!(out(&pulled).contains("Downloaded newer image"), "{}", err(&pulled));
    assert!(!daemon.log().contains("secret"), "the password is in the daemon's log");

    let logout = run("", &["logout", ADDRESS]);
    assert_eq!(out(&logout), format!("Removing login credentials for {ADDRESS}\n"));
    assert!(!fs::read_to_string(&file).unwrap().contains("dXNlc"));
    daemon.ok(&["rmi", &image]);
    let denied = run("", &["pull", &image]);
    assert!(!denied.status.success() && err(&denied).contains("denied"), "{}", err(&denied));

    // Without the authority's certificate nothing is trusted, and no password is sent anywhere.
    fs::remove_file(daemon.dir.path().join("certs.d").join(ADDRESS).join("ca.crt")).unwrap();
    fs::copy(
        daemon.dir.path().join("registry/tls.crt"),
        daemon.dir.path().join("certs.d").join(ADDRESS).join("x.crt"),
    )
    .unwrap();
    fs::write(daemon.dir.path().join("certs.d").join(ADDRESS).join("x.crt"), other_authority()).unwrap();
    let stranger = run("secret", &["login", "-u", "user", "--password-stdin", ADDRESS]);
    assert!(
        !stranger.status.success() && err(&stranger).to_lowercase().contains("certificate"),
        "{}",
        err(&stranger)
    );
    drop(registry);
    daemon.finish();
}

/// The certificate of an authority that has signed nothing.
fn other_authority() -> Vec<u8> {
    let made = Command::new("openssl")
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=other -keyout /dev/null".split(' '))
        .output()
        .unwrap();
    assert!(made.status.success());
    made.stdout
}

/// A helper in the protocol of Docker's: it keeps one file for each registry, and notes how it was called.
const HELPER: &str = r#"#!/bin/sh
# get: the registry on standard input; store: an object; erase: the registry
echo "$1" >> "$(dirname "$0")/calls"
case "$1" in
store) python3 -c 'import json,sys,os; d=json.load(sys.stdin); open(os.path.join(sys.argv[1], d["ServerURL"].replace("/","_")),"w").write(json.dumps(d))' "$(dirname "$0")" ;;
get) f="$(dirname "$0")/$(tr / _)"; if [ -e "$f" ]; then cat "$f"; else echo "credentials not found in native keychain"; exit 1; fi ;;
erase) rm "$(dirname "$0")/$(tr / _)" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
esac
"#;

#[test]
fn helpers_keep_the_credentials() {
    let Some((daemon, registry, home)) = start() else { return };
    let helpers = daemon.dir.path().join("helpers");
    fs::create_dir(&helpers).unwrap();
    let program = helpers.join("docker-credential-test");
    fs::write(&program, HELPER).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(&home).unwrap();
    let file = home.join("config.json");
    let image = format!("{ADDRESS}/team/app:v1");
    daemon.ok(&["tag", "busybox", &image]);
    let run = |input: &str, args: &[&str]| with(&daemon, &home, input, args);
    for config in [
        r#"{"credsStore": "test", "HttpHeaders": {"a": "b"}}"#.to_owned(),
        format!(r#"{{"credsStore": "missing", "credHelpers": {{"{ADDRESS}": "test"}}}}"#),
    ] {
        fs::write(&file, &config).unwrap();
        let login = run("secret", &["login", "-u", "user", "--password-stdin", ADDRESS]);
        assert!(login.status.success(), "{}", err(&login));
        assert!(!err(&login).contains("unencrypted"), "{}", err(&login));
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(ADDRESS) && !text.contains("dXNlc"), "{text}");
        assert_eq!(text.contains("HttpHeaders"), config.contains("HttpHeaders"), "{text}");
        let kept = fs::read_to_string(helpers.join(ADDRESS)).unwrap();
        assert!(kept.contains(r#""Username": "user""#) && kept.contains(r#""Secret": "secret""#), "{kept}");
        let pushed = run("", &["push", &image]);
        assert!(pushed.status.success(), "{}", err(&pushed));
        let logout = run("", &["logout", ADDRESS]);
        assert!(logout.status.success() && err(&logout).is_empty(), "{}", err(&logout));
        assert!(!helpers.join(ADDRESS).exists(), "the helper was not told to forget");
        let denied = run("", &["push", &image]);
        assert!(!denied.status.success() && err(&denied).contains("needs a login"), "{}", err(&denied));
    }
    // A helper that is missing is named; the registry is asked without credentials, as Docker does.
    fs::write(&file, r#"{"credsStore": "missing"}"#).unwrap();
    let login = run("secret", &["login", "-u", "user", "--password-stdin", ADDRESS]);
    let words = "Error saving credentials: error storing credentials - err: exec: \"docker-credential-missing\": \
                 executable file not found in $PATH";
    assert!(!login.status.success() && err(&login).contains(words), "{}", err(&login));
    let pushed = run("", &["push", &image]);
    assert!(
        err(&pushed).contains("WARNING: error getting credentials") && err(&pushed).contains("needs a login")
    );
    // A file that cannot be read is never written over.
    fs::write(&file, "{broken").unwrap();
    let login = run("secret", &["login", "-u", "user", "--password-stdin", ADDRESS]);
    assert!(!login.status.success() && err(&login).contains("Error loading config file"), "{}", err(&login));
    assert_eq!(fs::read_to_string(&file).unwrap(), "{broken");
    drop(registry);
    daemon.finish();
}

#[test]
fn on_a_terminal_it_asks_and_shows_no_password() {
    let Some((daemon, registry, home)) = start() else { return };
    let env = [("DOCKER_CONFIG", path(&home))];
    let login = || Terminal::spawn_with(&daemon, &["login", ADDRESS], &env);
    // Ctrl-C at the password
    let mut terminal = login();
    terminal.expect("Username: ");
    terminal.send("user\n");
    terminal.expect("Password: ");
    terminal.send("half\x03");
    assert_eq!(terminal.end(), Some(130));
    // a wrong one
    let mut terminal = login();
    terminal.expect("Username: ");
    terminal.send("user\n");
    terminal.expect("Password: ");
    terminal.send("nonsense\r");
    terminal.expect("unauthorized");
    assert_eq!(terminal.end(), Some(1));
    assert!(!home.exists(), "refused credentials were stored");
    // none at all
    let mut terminal = login();
    terminal.expect("Username: ");
    terminal.send("\n");
    terminal.expect("username is required");
    assert_eq!(terminal.end(), Some(1));
    // the right one, corrected on the way; what is typed at the password is not shown
    let mut terminal = login();
    terminal.expect("Username: ");
    terminal.send("user\n");
    terminal.expect("Password: ");
    terminal.send("secrxx\x7f\x7fet\n");
    let shown = terminal.expect("Login Succeeded");
    assert!(!shown.contains("secr") && !shown.contains("et\r"), "the password was shown: {shown:?}");
    assert_eq!(terminal.end(), Some(0));
    assert!(fs::read_to_string(home.join("config.json")).unwrap().contains("dXNlcjpzZWNyZXQ="));
    // the next one offers the name that it knows, when the password no longer is right
    fs::write(
        home.join("config.json"),
        format!(r#"{{"auths":{{"{ADDRESS}":{{"auth":"dXNlcjp3cm9uZw=="}}}}}}"#),
    )
    .unwrap();
    let mut terminal = login();
    terminal.expect("Username (user): ");
    terminal.send("\n");
    terminal.expect("Password: ");
    terminal.send("secret\n");
    terminal.expect("Login Succeeded");
    assert_eq!(terminal.end(), Some(0));
    drop(registry);
    daemon.finish();
}

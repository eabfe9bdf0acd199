//! A daemon that is killed in the middle of a download, and what the next one makes of it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::registry::{Registry, name};
use crate::support::{Daemon, eventually, path};

/// Between the daemon and the registry: the first request for a large blob gets half of it and then nothing more.
const PROXY: &str = r#"
import http.client, http.server, socketserver, sys, time
log = open(sys.argv[1], "a", buffering=1); held = set()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_GET(self):
        asked = self.headers.get("Range", "all")
        c = http.client.HTTPConnection("127.0.0.1:5000"); c.request(self.command, self.path, headers=dict(self.headers))
        r = c.getresponse(); data = r.read()
        self.send_response(r.status)
        for k, v in r.getheaders():
            if k.lower() not in ("transfer-encoding", "content-length", "connection"): self.send_header(k, v)
        self.send_header("Content-Length", r.getheader("Content-Length", str(len(data)))); self.end_headers()
        if self.command == "HEAD": return
        if "/blobs/" in self.path and len(data) > 100000:
            log.write(asked + "\n")
            if self.path not in held:
                held.add(self.path); self.wfile.write(data[:len(data) // 2]); self.wfile.flush(); time.sleep(1000)
        self.wfile.write(data)
    do_HEAD = do_GET
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer): daemon_threads = True
Server(("127.0.0.1", 5001), Handler).serve_forever()
"#;

struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_a_killed_daemon_had_fetched_is_not_fetched_again() {
    let Some(mut daemon) = Daemon::with_busybox() else { return };
    let registry = Registry::start(&daemon);
    daemon.ok(&["tag", "busybox", &name("app:1")]);
    daemon.ok(&["push", &name("app:1")]);
    daemon.ok(&["rmi", "busybox", &name("app:1")]);
    daemon.ok(&["image", "prune", "-f"]);
    // The daemon's network namespace goes with it: one that stays is held by the proxy, and the next daemon joins it.
    let log = daemon.dir.path().join("asked");
    let mut command = daemon.inside("python3");
    command.args(["-c", PROXY, path(&log)]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let proxy = Proxy(command.spawn().unwrap());
    eventually("the proxy's start", || {
        let try_it = "exec 3<>/dev/tcp/127.0.0.1/5001";
        daemon.inside("bash").args(["-c", try_it]).stderr(Stdio::null()).status().unwrap().success()
    });
    let image = "127.0.0.1:5001/app:1";
    let mut pulling = daemon
        .command(&["pull", image])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let unfinished = |daemon: &Daemon| -> Option<(PathBuf, u64)> {
        let all = fs::read_dir(daemon.root().join("tmp")).unwrap().flatten();
        let parts = all.filter(|entry| entry.file_name().to_string_lossy().starts_with("part-"));
        parts
            .map(|entry| (entry.path(), entry.metadata().map_or(0, |meta| meta.len())))
            .max_by_key(|part| part.1)
    };
    eventually("half of the download", || unfinished(&daemon).is_some_and(|(_, length)| length > 100_000));
    // no byte comes any more
    let mut length = 0;
    eventually("a rest", || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let now = unfinished(&daemon).map_or(0, |(_, length)| length);
        std::mem::replace(&mut length, now) == now
    });
    daemon.kill();
    pulling.wait().unwrap();
    daemon.spawn_beside(proxy.0.id());
    let parts: Vec<_> =
        fs::read_dir(daemon.root().join("partial")).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].metadata().unwrap().len(), length);
    let kept = format!("Partial Downloads: 1 ({length} bytes)");
    let info = daemon.ok(&["info"]);
    assert!(info.contains(&kept), "{info}");
    daemon.ok(&["pull", image]);
    assert_eq!(fs::read_to_string(&log).unwrap(), format!("all\nbytes={length}-\n"));
    assert_eq!(daemon.ok(&["run", "--rm", image, "echo", "whole"]), "whole");
    assert!(daemon.ok(&["image", "verify"]).ends_with("all whole"));
    assert_eq!(fs::read_dir(daemon.root().join("partial")).unwrap().count(), 0);
    drop((registry, proxy));
    daemon.finish();
}

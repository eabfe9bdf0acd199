//! Volume plugins: a driver of the test's own, which speaks Docker's plugin protocol on a unix socket.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{Daemon, eventually, path, scratch};
use crate::volume_mounts::image;

/// A driver that keeps volumes as directories, and a list of what it was asked.
#[derive(Default)]
struct Plugin {
    volumes: Mutex<BTreeMap<String, Value>>,
    users: Mutex<Vec<String>>,
    asked: Mutex<Vec<String>>,
    refuse: Mutex<Option<String>>,
}

impl Plugin {
    fn serve(socket: &Path, data: PathBuf) -> Arc<Plugin> {
        let plugin = Arc::new(Plugin::default());
        let listener = UnixListener::bind(socket).unwrap();
        let this = plugin.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, this, data) = (stream.unwrap(), this.clone(), data.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut first = String::new();
                    reader.read_line(&mut first).unwrap();
                    let (mut length, mut line) = (0, String::new());
                    while reader.read_line(&mut line).unwrap_or(0) > 2 {
                        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        line.clear();
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let Some(method) = first.split(' ').nth(1) else { return };
                    let question = serde_json::from_slice(&body).unwrap_or(Value::Null);
                    let answer = this.answer(method.trim_start_matches('/'), &question, &data).to_string();
                    let length = answer.len();
                    let _ = write!(
                        stream,
                        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}"
                    );
                });
            }
        });
        plugin
    }

    fn answer(&self, method: &str, question: &Value, data: &Path) -> Value {
        let name = question["Name"].as_str().unwrap_or_default().to_owned();
        if !matches!(
            method,
            "Plugin.Activate" | "VolumeDriver.Get" | "VolumeDriver.List" | "VolumeDriver.Capabilities"
        ) {
            self.asked.lock().unwrap().push(format!("{} {name}", method.trim_start_matches("VolumeDriver.")));
        }
        if self.refuse.lock().unwrap().as_deref() == Some(method) {
            return json!({"Err": "not today"});
        }
        let mut volumes = self.volumes.lock().unwrap();
        let place = data.join(&name);
        let told = |name: &String| json!({"Name": name, "Mountpoint": place, "Status": {"colour": "blue"}});
        match method {
            "Plugin.Activate" => json!({"Implements": ["VolumeDriver"]}),
            "VolumeDriver.Capabilities" => json!({"Capabilities": {"Scope": "global"}}),
            "VolumeDriver.Create" => {
                std::fs::create_dir_all(&place).unwrap();
                volumes.insert(name, question["Opts"].clone());
                json!({"Err": ""})
            }
            "VolumeDriver.Remove" => {
                volumes.remove(&name);
                json!({"Err": ""})
            }
            "VolumeDriver.Mount" => {
                self.users.lock().unwrap().push(question["ID"].as_str().unwrap().to_owned());
                json!({"Mountpoint": place, "Err": ""})
            }
            "VolumeDriver.Unmount" => {
                self.users.lock().unwrap().retain(|user| *user != question["ID"].as_str().unwrap());
                json!({"Err": ""})
            }
            "VolumeDriver.Get" if volumes.contains_key(&name) => json!({"Volume": told(&name), "Err": ""}),
            "VolumeDriver.Get" => json!({"Err": "no such volume"}),
            "VolumeDriver.List" => {
                json!({"Volumes": volumes.keys().map(|name| json!({"Name": name})).collect::<Vec<_>>()})
            }
            other => json!({"Err": format!("unknown: {other}")}),
        }
    }

    fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

#[test]
fn a_plugin_makes_mounts_and_removes_volumes() {
    let dir = scratch();
    let plugins = dir.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let Some(mut daemon) = Daemon::start_in(scratch(), &["--plugin-dir", path(&plugins)]) else { return };
    daemon.ok(&["import", "-c", "CMD [\"sh\"]", path(crate::support::busybox_tar()), "busybox:latest"]);
    let refused = daemon.fails(1, &["volume", "create", "-d", "blue", "sky"]);
    assert!(
        refused.contains("create sky: error looking up volume plugin blue: plugin \"blue\" not found"),
        "{refused}"
    );
    // By a file that says where the socket is.
    let socket = dir.path().join("somewhere.sock");
    let plugin = Plugin::serve(&socket, dir.path().join("data"));
    std::fs::write(plugins.join("blue.spec"), format!("unix://{}", socket.display())).unwrap();
    daemon.ok(&["volume", "create", "-d", "blue", "-o", "shade=light", "--label", "a=b", "sky"]);
    assert_eq!(plugin.volumes.lock().unwrap()["sky"], json!({"shade": "light"}));
    let inspect =
        "{{.Driver}} {{.Mountpoint}} {{.Status.colour}} {{.Scope}} {{.Labels.a}} {{.Options.shade}}";
    let place = dir.path().join("data/sky");
    assert_eq!(
        daemon.ok(&["volume", "inspect", "-f", inspect, "sky"]),
        format!("blue {} blue global b light", path(&place))
    );
    assert_eq!(plugin.take_asked(), ["Create sky"]);
    // A container has it mounted from its start to its end.
    let id = daemon.ok(&[
        "run",
        "-d",
        "--name",
        "box",
        "-v",
        "sky:/s",
        "-v",
        "sky:/again",
        "busybox",
        "sh",
        "-c",
        "echo cloud >/s/file; sleep 1000",
    ]);
    eventually("the file", || place.join("file").exists());
    assert_eq!(*plugin.users.lock().unwrap(), [id.as_str()]);
    assert!(daemon.fails(1, &["volume", "rm", "-f", "sky"]).contains("volume is in use"));
    let source = daemon.inspect("box", "{{range .Mounts}}{{.Source}} {{.Driver}} {{end}}");
    assert_eq!(source, format!("{0} blue {0} blue", path(&place)));
    // Also when the daemon was killed meanwhile.
    daemon.kill();
    daemon.spawn();
    daemon.ok(&["kill", "box"]);
    eventually("the unmount", || plugin.users.lock().unwrap().is_empty());
    daemon.ok(&["rm", "box"]);
    plugin.take_asked();
    let mount = "src=sky,dst=/s,volume-subpath=file,readonly";
    assert_eq!(daemon.ok(&["run", "--rm", "--mount", mount, "busybox", "cat", "/s"]), "cloud");
    eventually("the unmount", || plugin.users.lock().unwrap().is_empty());
    // First content, and a volume made on the way by its driver.
    image(&daemon, "filled", &[], |root| {
        std::fs::create_dir(root.join("srv")).unwrap();
        std::fs::write(root.join("srv/file"), "from the image").unwrap();
    });
    let mount = "src=sea,dst=/srv,volume-driver=blue,volume-opt=shade=deep";
    assert_eq!(daemon.ok(&["run", "--rm", "--mount", mount, "filled", "cat", "/srv/file"]), "from the image");
    assert_eq!(plugin.volumes.lock().unwrap()["sea"], json!({"shade": "deep"}));
    daemon.ok(&["run", "--rm", "--volume-driver", "blue", "-v", "lake:/l", "busybox", "true"]);
    // What goes wrong is said in the plugin's words, and undone.
    *plugin.refuse.lock().unwrap() = Some("VolumeDriver.Mount".to_owned());
    let said = daemon.fails(125, &["run", "--name", "sad", "-v", "sky:/s:nocopy", "busybox", "true"]);
    assert!(said.contains("error while mounting volume 'sky'") && said.contains("not today"), "{said}");
    daemon.ok(&["rm", "sad"]);
    *plugin.refuse.lock().unwrap() = Some("VolumeDriver.Create".to_owned());
    assert!(daemon.fails(1, &["volume", "create", "-d", "blue", "rain"]).contains("not today"));
    *plugin.refuse.lock().unwrap() = None;
    // A volume of another driver does not take the name; one that only the plugin knows is seen.
    assert!(
        daemon.fails(1, &["volume", "create", "-d", "local", "sky"]).contains("volume name must be unique")
    );
    plugin.volumes.lock().unwrap().insert("foreign".to_owned(), Value::Null);
    assert_eq!(daemon.ok(&["volume", "ls", "-qf", "driver=blue"]), "foreign\nlake\nsea\nsky");
    assert_eq!(daemon.ok(&["volume", "inspect", "-f", "{{.Driver}}", "foreign"]), "blue");
    daemon.ok(&["volume", "prune", "-af"]);
    assert_eq!(daemon.ok(&["volume", "rm", "sky", "sea", "foreign"]), "sky\nsea\nforeign");
    assert_eq!(plugin.volumes.lock().unwrap().keys().collect::<Vec<_>>(), ["lake"]);
    // A plugin that is gone: its volumes go by force only.
    std::fs::remove_file(plugins.join("blue.spec")).unwrap();
    let said = daemon.fails(1, &["volume", "rm", "lake"]);
    assert!(said.contains("plugin \"blue\" not found"), "{said}");
    daemon.ok(&["volume", "rm", "-f", "lake"]);
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "");
    daemon.finish();
}

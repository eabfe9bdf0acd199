//! `-v`, `--mount` and `--tmpfs`, as the API carries them, to [`MountRecord`]s. Pure.

use std::collections::BTreeMap;

use creel_wire::container::Config;
use creel_wire::host::{HostConfig, Mount};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::record::{MountKind, MountOf, MountRecord};

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
const TMPFS_FLAGS: [&str; 21] = [
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "ro",
    "rw",
    "sync",
    "async",
    "dirsync",
    "remount",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
];
const TMPFS_VALUES: [&str; 7] = ["mode", "uid", "gid", "nr_inodes", "nr_blocks", "size", "mpol"];

/// Removes `.`, `..`, and double slashes, as Go's `path.Clean` does of an absolute path.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn target(path: &str, spec: &str, kind: &str) -> Result<String> {
    let wrong = |why: &str| {
        let text = format!(
            "invalid volume specification: '{spec}': invalid mount config for type \"{kind}\": {why}"
        );
        Error::invalid(text)
    };
    if !path.starts_with('/') {
        return Err(wrong(&format!("invalid mount path: '{path}' mount path must be absolute")));
    }
    match clean(path).as_str() {
        "/" => Err(wrong("invalid specification: destination can't be '/'")),
        path => Ok(path.to_owned()),
    }
}

/// A volume whose name is made up, and which goes with its container.
fn anonymous(destination: String, driver: &str) -> MountRecord {
    let of = MountOf { driver: driver.to_owned(), anonymous: true, copy: true, ..MountOf::default() };
    MountRecord {
        kind: MountKind::Volume,
        destination,
        rw: true,
        options: vec!["rbind".to_owned()],
        of: Some(of),
        ..MountRecord::default()
    }
}

fn tmpfs_target(path: &str) -> Result<String> {
    match path.starts_with('/') {
        true => target(path, path, "tmpfs"),
        false => Err(Error::invalid(format!("invalid mount path: '{path}' mount path must be absolute"))),
    }
}

/// Everything to mount, in the order in which it is to be mounted. Volumes come without a source; the caller gives them
/// one. `taken` are the mounts of other containers (`--volumes-from`), which give way to what is asked for by name.
pub(crate) fn all(config: &Config, host: &HostConfig, taken: Vec<MountRecord>) -> Result<Vec<MountRecord>> {
    let mut mounts: Vec<MountRecord> = Vec::new();
    let mut add = |mount: MountRecord| {
        // The same mount twice says nothing new; Docker lets it pass.
        if mounts.contains(&mount) {
            return Ok(());
        }
        if mounts.iter().any(|other| other.destination == mount.destination) {
            return Err(Error::invalid(format!("Duplicate mount point: {}", mount.destination)));
        }
        mounts.push(mount);
        Ok(())
    };
    for spec in host.binds.iter().flatten() {
        add(bind(spec, &host.volume_driver)?)?;
    }
    for (path, options) in host.tmpfs.iter().flatten() {
        add(MountRecord {
            kind: MountKind::Tmpfs,
            destination: tmpfs_target(path)?,
            rw: true,
            options: tmpfs_options(options.split(',').filter(|o| !o.is_empty()))?,
            hidden: true,
            ..MountRecord::default()
        })?;
    }
    for mount in host.mounts.iter().flatten() {
        add(long(mount, &host.volume_driver)?)?;
    }
    // The last one of several containers with a mount there wins.
    for mount in taken.into_iter().rev() {
        if mounts.iter().all(|other| other.destination != mount.destination) {
            mounts.push(mount);
        }
    }
    for path in config.volumes.iter().flatten().map(|(path, _)| path) {
        let destination = target(path, path, "volume")?;
        // A volume of the image gives way to whatever was asked for at its place.
        if mounts.iter().all(|other| other.destination != destination) {
            mounts.push(anonymous(destination, &host.volume_driver));
        }
    }
    // A mount below another one must come after it.
    mounts.sort_by_key(|mount| mount.destination.matches('/').count());
    Ok(mounts)
}

/// `source:destination[:options]`: a path of the host, or a volume's name.
fn bind(spec: &str, driver: &str) -> Result<MountRecord> {
    let wrong = |why: String| Error::invalid(format!("invalid volume specification: '{spec}': {why}"));
    let parts: Vec<&str> = spec.split(':').collect();
    let (source, destination, mode) = match parts[..] {
        [destination] if destination.starts_with('/') => {
            return Ok(anonymous(target(destination, spec, "volume")?, driver));
        }
        [source, destination] => (source, destination, ""),
        [source, destination, mode] => (source, destination, mode),
        _ => return Err(Error::invalid(format!("invalid volume specification: '{spec}'"))),
    };
    if source.is_empty() || destination.is_empty() {
        return Err(wrong("source and destination must not be empty".into()));
    }
    let is_volume = !source.starts_with('/');
    let destination = target(destination, spec, if is_volume { "volume" } else { "bind" })?;
    let given: Vec<&str> = mode.split(',').filter(|option| !option.is_empty()).collect();
    let (mut rw, mut propagation, mut copy) = (true, None, true);
    let mut seen: Vec<&str> = Vec::new();
    for option in given {
        let kind = match option {
            "ro" | "rw" => {
                rw = option == "rw";
                "access"
            }
            // SELinux labels: without SELinux, which creel does not use, there is nothing to relabel.
            "z" | "Z" => "label",
            "nocopy" => {
                copy = false;
                "copy"
            }
            "consistent" | "cached" | "delegated" => "consistency",
            option if PROPAGATIONS.contains(&option) => {
                propagation = Some(option);
                "propagation"
            }
            _ => return Err(Error::invalid(format!("invalid mode: {mode}"))),
        };
        if seen.contains(&kind) {
            return Err(Error::invalid(format!("invalid mode: {mode}")));
        }
        seen.push(kind);
    }
    if is_volume {
        if propagation.is_some() {
            return Err(wrong(
                "invalid mount config for type \"volume\": field BindOptions must not be specified".into(),
            ));
        }
        let of = MountOf { name: source.to_owned(), driver: driver.to_owned(), copy, ..MountOf::default() };
        return Ok(MountRecord {
            kind: MountKind::Volume,
            destination,
            rw,
            // What Docker writes down where nothing was said.
            mode: if mode.is_empty() { "z".to_owned() } else { mode.to_owned() },
            options: bind_options(rw, "rprivate", true, true),
            of: Some(of),
            ..MountRecord::default()
        });
    }
    let propagation = propagation.unwrap_or("rprivate");
    Ok(MountRecord {
        kind: MountKind::Bind,
        source: clean(source),
        destination,
        rw,
        mode: mode.to_owned(),
        propagation: propagation.to_owned(),
        options: bind_options(rw, propagation, true, true),
        create_source: true,
        ..MountRecord::default()
    })
}

/// The mounts of another container, as `--volumes-from CONTAINER[:MODE]` takes them over.
pub(crate) fn taken_over(theirs: &[MountRecord], mode: &str) -> Result<Vec<MountRecord>> {
    let mut rw = true;
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "rw" => rw = option == "rw",
            "z" | "Z" => {}
            _ => return Err(Error::invalid(format!("invalid mode: {mode}"))),
        }
    }
    let one = |mount: &MountRecord| {
        let mut mount = MountRecord { mode: String::new(), rw: mount.rw && rw, ..mount.clone() };
        let has = |mount: &MountRecord, word: &str| mount.options.iter().any(|option| option == word);
        if !mount.rw && !has(&mount, "ro") {
            mount.options.push("ro".to_owned());
            if mount.kind != MountKind::Tmpfs && has(&mount, "rbind") {
                mount.options.push("rro".to_owned());
            }
        }
        mount
    };
    Ok(theirs.iter().filter(|mount| !mount.hidden).map(one).collect())
}

/// OCI's options of a bind mount.
fn bind_options(rw: bool, propagation: &str, recursive: bool, read_only_below: bool) -> Vec<String> {
    let bind = if recursive { "rbind" } else { "bind" };
    let mut options = vec![bind.to_owned(), propagation.to_owned()];
    if !rw {
        options.push("ro".to_owned());
        if recursive && read_only_below {
            options.push("rro".to_owned());
        }
    }
    options
}

fn long(mount: &Mount, default_driver: &str) -> Result<MountRecord> {
    let wrong =
        |why: &str| Error::invalid(format!("invalid mount config for type \"{}\": {why}", mount.kind));
    if mount.target.is_empty() {
        return Err(wrong("field Target must not be empty"));
    }
    if !mount.target.starts_with('/') {
        return Err(wrong(&format!("invalid mount path: '{}' mount path must be absolute", mount.target)));
    }
    let destination = clean(&mount.target);
    if destination == "/" {
        return Err(wrong("destination can't be '/'"));
    }
    let rw = !mount.read_only;
    let base = MountRecord {
        kind: MountKind::Bind,
        source: String::new(),
        destination,
        rw,
        ..MountRecord::default()
    };
    match mount.kind.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(wrong("field Source must not be empty"));
            }
            if !mount.source.starts_with('/') {
                return Err(wrong(&format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                )));
            }
            if mount.volume_options.is_some()
                || mount.tmpfs_options.is_some()
                || mount.image_options.is_some()
            {
                return Err(wrong("only BindOptions are allowed"));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            let propagation = match options.propagation.as_str() {
                "" => "rprivate",
                given if PROPAGATIONS.contains(&given) => given,
                given => return Err(wrong(&format!("invalid propagation mode: {given}"))),
            };
            if options.read_only_force_recursive
                && (rw || options.non_recursive || options.read_only_non_recursive)
            {
                return Err(wrong("ReadOnlyForceRecursive needs a recursive, read-only mount"));
            }
            if options.read_only_non_recursive && rw {
                return Err(wrong("ReadOnlyNonRecursive needs a read-only mount"));
            }
            let recursive = !options.non_recursive;
            Ok(MountRecord {
                source: clean(&mount.source),
                propagation: propagation.to_owned(),
                options: bind_options(rw, propagation, recursive, !options.read_only_non_recursive),
                create_source: options.create_mountpoint,
                ..base
            })
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(wrong("field Source must not be specified"));
            }
            if mount.bind_options.is_some() || mount.volume_options.is_some() || mount.image_options.is_some()
            {
                return Err(wrong("only TmpfsOptions are allowed"));
            }
            let given = mount.tmpfs_options.clone().unwrap_or_default();
            let mut options = Vec::new();
            if !rw {
                options.push("ro".to_owned());
            }
            if given.mode != 0 {
                options.push(format!("mode={:o}", given.mode));
            }
            if given.size_bytes < 0 {
                return Err(wrong("SizeBytes must not be negative"));
            }
            if given.size_bytes > 0 {
                options.push(format!("size={}", given.size_bytes));
            }
            options.extend(given.options.iter().flatten().map(|pair| pair.join("=")));
            Ok(MountRecord {
                kind: MountKind::Tmpfs,
                options: tmpfs_options(options.iter().map(String::as_str))?,
                ..base
            })
        }
        "volume" => volume(mount, base, default_driver).map_err(|why| wrong(&why)),
        "image" => image(mount, base).map_err(|why| wrong(&why)),
        "npipe" | "cluster" => Err(Error::unsupported(format!(
            "a mount of type {}: there is none on Linux without a swarm",
            mount.kind
        ))),
        _ => Err(wrong("mount type unknown")),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct VolumeOptions {
    no_copy: bool,
    subpath: String,
    labels: Option<BTreeMap<String, String>>,
    driver_config: Option<DriverConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DriverConfig {
    name: String,
    options: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct ImageOptions {
    subpath: String,
}

fn options_of<T: Default + serde::de::DeserializeOwned>(
    given: Option<&Value>,
    what: &str,
) -> std::result::Result<T, String> {
    let read = |value: &Value| T::deserialize(value).map_err(|e| format!("field {what}: {e}"));
    given.map_or_else(|| Ok(T::default()), read)
}

/// Fails for the options of another type of mount.
fn refuse_others(mount: &Mount, own: &str) -> std::result::Result<(), String> {
    let given = [
        ("BindOptions", mount.bind_options.is_some()),
        ("VolumeOptions", mount.volume_options.is_some()),
        ("ImageOptions", mount.image_options.is_some()),
        ("TmpfsOptions", mount.tmpfs_options.is_some()),
    ];
    match given.into_iter().find(|(name, given)| *given && *name != own) {
        Some((name, _)) => Err(format!("field {name} must not be specified")),
        None => Ok(()),
    }
}

/// Whether a path stays below where it begins, as far as its words say.
fn is_local(path: &str) -> bool {
    let mut depth = 0i32;
    for part in path.split('/') {
        depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        if depth < 0 {
            return false;
        }
    }
    !path.starts_with('/')
}

fn volume(mount: &Mount, base: MountRecord, driver: &str) -> std::result::Result<MountRecord, String> {
    refuse_others(mount, "VolumeOptions")?;
    let given: VolumeOptions = options_of(mount.volume_options.as_ref(), "VolumeOptions")?;
    let unnamed = mount.source.is_empty();
    if unnamed && mount.read_only {
        return Err("must not set ReadOnly mode when using anonymous volumes".to_owned());
    }
    if unnamed && !given.subpath.is_empty() {
        return Err("must not set Subpath when using anonymous volumes".to_owned());
    }
    if !is_local(&given.subpath) {
        return Err("subpath must be a relative path within the volume".to_owned());
    }
    let config = given.driver_config.unwrap_or_default();
    let of = MountOf {
        name: mount.source.clone(),
        driver: if config.name.is_empty() { driver.to_owned() } else { config.name },
        anonymous: unnamed,
        subpath: given.subpath,
        copy: !given.no_copy,
        options: config.options.unwrap_or_default(),
        labels: given.labels,
    };
    Ok(MountRecord {
        kind: MountKind::Volume,
        mode: "z".to_owned(),
        options: bind_options(base.rw, "rprivate", true, true),
        of: Some(of),
        ..base
    })
}

fn image(mount: &Mount, base: MountRecord) -> std::result::Result<MountRecord, String> {
    if mount.source.is_empty() {
        return Err("field Source must not be empty".to_owned());
    }
    refuse_others(mount, "ImageOptions")?;
    let given: ImageOptions = options_of(mount.image_options.as_ref(), "ImageOptions")?;
    if !is_local(&given.subpath) {
        return Err("subpath must be a relative path within the image".to_owned());
    }
    let of = MountOf { subpath: given.subpath, ..MountOf::default() };
    Ok(MountRecord {
        kind: MountKind::Image,
        source: mount.source.clone(),
        rw: false,
        propagation: "rprivate".to_owned(),
        options: bind_options(false, "rprivate", true, true),
        of: Some(of),
        ..base
    })
}

/// Docker's defaults (noexec, nosuid, nodev) with what was given over them.
fn tmpfs_options<'a>(given: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let mut options =
        vec!["noexec".to_owned(), "nosuid".to_owned(), "nodev".to_owned(), "rprivate".to_owned()];
    for option in given {
        let key = option.split_once('=').map_or(option, |(key, _)| key);
        let known = if option.contains('=') {
            TMPFS_VALUES.contains(&key)
        } else {
            TMPFS_FLAGS.contains(&key) || PROPAGATIONS.contains(&key)
        };
        if !known {
            return Err(Error::invalid(format!("invalid tmpfs option \"{option}\"")));
        }
        let opposite = |a: &str, b: &str| a.strip_prefix("no") == Some(b) || b.strip_prefix("no") == Some(a);
        options.retain(|old| {
            let old = old.split_once('=').map_or(old.as_str(), |(key, _)| key);
            let replaced = old == key
                || opposite(old, key)
                || matches!((old, key), ("ro", "rw") | ("rw", "ro"))
                || (PROPAGATIONS.contains(&old) && PROPAGATIONS.contains(&key));
            !replaced
        });
        options.push(option.to_owned());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(json: &str, expected: Expect) {
        let host: HostConfig = serde_json::from_str(json).unwrap();
        let config: Config = serde_json::from_str(r#"{"Volumes":{"/data":{}}}"#).unwrap();
        let text = match all(&config, &host, Vec::new()) {
            Ok(list) => list
                .iter()
                .map(|m| {
                    format!(
                        "{:?} {}:{} rw={} {}\n",
                        m.kind,
                        m.source,
                        m.destination,
                        m.rw,
                        m.options.join(",")
                    )
                })
                .collect(),
            Err(e) => e.to_string(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn binds() {
        check(
            r#"{"Binds":["/a//b/../c:/x:ro","/s:/data:rslave,z","/x:/x/y/z"]}"#,
            expect![[r#"
            Bind /a/c:/x rw=false rbind,rprivate,ro,rro
            Bind /s:/data rw=true rbind,rslave
            Bind /x:/x/y/z rw=true rbind,rprivate
        "#]],
        );
        check(
            r#"{"Binds":["/a:x"]}"#,
            expect![
                "invalid volume specification: '/a:x': invalid mount config for type \"bind\": invalid mount path: 'x' mount path must be absolute"
            ],
        );
        check(r#"{"Binds":["/a:/x:rw,ro"]}"#, expect!["invalid mode: rw,ro"]);
        check(r#"{"Binds":["/a:/x:y:z"]}"#, expect!["invalid volume specification: '/a:/x:y:z'"]);
        check(
            r#"{"Binds":["/a:/"]}"#,
            expect![
                "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'"
            ],
        );
        let twice = HostConfig { binds: Some(vec!["/a:/x".to_owned(); 2]), ..HostConfig::default() };
        assert_eq!(all(&Config::default(), &twice, Vec::new()).unwrap().len(), 1);
        check(r#"{"Binds":["/a:/x","/b:/x/."]}"#, expect!["Duplicate mount point: /x"]);
    }

    #[test]
    fn volumes_by_name() {
        let of = |spec: &str| match bind(spec, "d") {
            Ok(mount) => {
                let of = mount.of.unwrap();
                format!("{} {} {} {} {} {}", of.name, of.driver, of.copy, of.anonymous, mount.mode, mount.rw)
            }
            Err(e) => e.to_string(),
        };
        assert_eq!(of("name:/x"), "name d true false z true");
        assert_eq!(of("name:/x:ro,nocopy"), "name d false false ro,nocopy false");
        assert_eq!(of("/x"), " d true true  true");
        let wrong = |spec: &str, why: &str| {
            format!("invalid volume specification: '{spec}': invalid mount config for type \"volume\": {why}")
        };
        assert_eq!(of("v1:rel"), wrong("v1:rel", "invalid mount path: 'rel' mount path must be absolute"));
        assert_eq!(of("v1:/x:rslave"), wrong("v1:/x:rslave", "field BindOptions must not be specified"));
        for mode in ["zz", "ro,rw", "nocopy,nocopy", "copy"] {
            assert_eq!(of(&format!("v1:/x:{mode}")), format!("invalid mode: {mode}"));
        }
    }

    #[test]
    fn mounts_are_taken_over_with_their_own_rights_or_less() {
        let theirs: Vec<_> = ["v:/v", "w:/w:ro"].map(|spec| bind(spec, "").unwrap()).into();
        let shown = |mode: &str| -> Vec<String> {
            let taken = taken_over(&theirs, mode).unwrap();
            taken.iter().map(|m| format!("{} {}{}", m.rw, m.options.join(","), m.mode)).collect()
        };
        assert_eq!(shown(""), ["true rbind,rprivate", "false rbind,rprivate,ro,rro"]);
        assert_eq!(shown("ro,z"), ["false rbind,rprivate,ro,rro", "false rbind,rprivate,ro,rro"]);
        assert_eq!(shown("rw")[1], "false rbind,rprivate,ro,rro");
        assert!(taken_over(&theirs, "nocopy").is_err());
    }

    proptest! {
        #[test]
        fn a_local_path_does_not_climb(path in "[./a]{0,10}") {
            let clean = clean(&format!("/base/{path}"));
            prop_assert!(!is_local(&path) || clean.starts_with("/base"));
        }
    }

    #[test]
    fn tmpfs_and_long_mounts() {
        check(
            r#"{"Tmpfs":{"/t":"size=1m,exec","/u":""}}"#,
            expect![[r#"
            Tmpfs :/t rw=true nosuid,nodev,rprivate,size=1m,exec
            Tmpfs :/u rw=true noexec,nosuid,nodev,rprivate
            Volume :/data rw=true rbind
        "#]],
        );
        check(r#"{"Tmpfs":{"/t":"bogus"}}"#, expect![[r#"invalid tmpfs option "bogus""#]]);
        check(
            r#"{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,"BindOptions":{"NonRecursive":true,"Propagation":"rshared"}},
            {"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":4096,"Mode":448}}]}"#,
            expect![[r#"
            Bind /a:/b rw=false bind,rshared,ro
            Tmpfs :/t rw=true noexec,nosuid,nodev,rprivate,mode=700,size=4096
            Volume :/data rw=true rbind
        "#]],
        );
        check(
            r#"{"Mounts":[{"Type":"volume","Source":"v","Target":"/b","ReadOnly":true,"VolumeOptions":{"NoCopy":true,"Subpath":"s"}},
            {"Type":"image","Source":"i","Target":"/i"}],"Binds":["name:/n:nocopy"],"VolumeDriver":"d"}"#,
            expect![[r#"
            Volume :/n rw=true rbind,rprivate
            Volume :/b rw=false rbind,rprivate,ro,rro
            Image i:/i rw=false rbind,rprivate,ro,rro
            Volume :/data rw=true rbind
        "#]],
        );
        check(
            r#"{"Mounts":[{"Type":"bind","Source":"a","Target":"/b"}]}"#,
            expect![[
                r#"invalid mount config for type "bind": invalid mount path: 'a' mount path must be absolute"#
            ]],
        );
        check(
            r#"{"Mounts":[{"Type":"bind","Source":"/a"}]}"#,
            expect![[r#"invalid mount config for type "bind": field Target must not be empty"#]],
        );
    }

    proptest! {
        #[test]
        fn no_bind_makes_it_panic(spec in "\\PC{0,30}") {
            let _ = bind(&spec, "");
        }

        #[test]
        fn cleaned_paths_have_no_dots(path in "[./a]{0,20}") {
            let clean = clean(&path);
            prop_assert!(clean.starts_with('/'));
            prop_assert!(!clean.split('/').any(|part| part == ".." || part == "."));
        }
    }
}

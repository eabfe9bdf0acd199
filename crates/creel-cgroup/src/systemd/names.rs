//! Names of units and the groups that systemd makes for them (systemd.unit(5), systemd.slice(5)).

use crate::error::{Error, Result};

/// A container's unit: what `linux.cgroupsPath` says when systemd is the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The slice above it.
    pub(crate) slice: String,
    /// Its own name, with `.scope` or `.slice`.
    pub(crate) unit: String,
    /// The last part of what was given; runc puts it into the description.
    pub(crate) name: String,
}

impl Place {
    /// Reads `slice:prefix:name`. The slice may be empty (`system.slice`, for an ordinary user `user.slice`); a name
    /// that ends in `.slice` is a slice, any other becomes `prefix-name.scope`. Without a path it is `creel-ID.scope`.
    pub(crate) fn parse(cgroups_path: Option<&str>, id: &str, rootless: bool) -> Result<Place> {
        let path = cgroups_path.unwrap_or_default();
        let wrong = |why: &str| {
            Error::Invalid(format!(
                "cgroupsPath {path:?} {why}; with systemd it is of the form slice:prefix:name, like system.slice:creel:web"
            ))
        };
        let (slice, prefix, name) = match path.split(':').collect::<Vec<_>>().as_slice() {
            [""] => ("", "creel", id),
            [slice, prefix, name] => (*slice, *prefix, *name),
            _ => return Err(wrong("has not three parts between colons")),
        };
        let slice = match (slice, rootless) {
            ("", false) => "system.slice",
            ("", true) => "user.slice",
            (slice, _) => slice,
        };
        let unit = if name.ends_with(".slice") { name.to_owned() } else { format!("{prefix}-{name}.scope") };
        if name.is_empty() {
            return Err(wrong("has an empty name"));
        }
        if let Some(bad) = unit.chars().find(|c| !is_known(*c)) {
            return Err(wrong(&format!("has the character {bad:?}, which no unit can have in its name")));
        }
        if unit.len() > 255 {
            return Err(wrong("makes a unit's name of more than 255 bytes"));
        }
        expand(slice)?;
        if unit.ends_with(".slice") && expand(&unit)? == "/" {
            return Err(wrong("names the root of all slices, which is no container's"));
        }
        Ok(Place { slice: slice.to_owned(), unit, name: name.to_owned() })
    }

    /// The group's path below that of the manager.
    pub(crate) fn path(&self) -> Result<String> {
        if self.unit.ends_with(".slice") {
            // Where its name puts it, whatever was said to be above.
            return expand(&self.unit);
        }
        let above = expand(&self.slice)?;
        Ok(format!("{}/{}", above.trim_end_matches('/'), self.unit))
    }
}

/// Whether a character can be in a unit's name (systemd.unit(5)).
fn is_known(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@')
}

/// The path of a slice's group: each dash is a level, so that `a-b.slice` is `/a.slice/a-b.slice`; `-.slice` is the root.
pub(crate) fn expand(slice: &str) -> Result<String> {
    let wrong = || {
        Error::Invalid(format!(
            "{slice:?} is not the name of a slice; it is like machine.slice or a-b.slice, with no empty part"
        ))
    };
    let name = slice.strip_suffix(".slice").ok_or_else(wrong)?;
    if name == "-" {
        return Ok("/".into());
    }
    let good = |part: &str| !part.is_empty() && part.chars().all(is_known);
    if slice.len() > 255 {
        return Err(wrong());
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        if !good(part) {
            return Err(wrong());
        }
        path += &format!("/{prefix}{part}.slice");
        prefix += &format!("{part}-");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slices() {
        for (slice, want) in [
            ("-.slice", "/"),
            ("system.slice", "/system.slice"),
            ("test-a-b.slice", "/test.slice/test-a.slice/test-a-b.slice"),
        ] {
            assert_eq!(expand(slice).unwrap(), want);
        }
        for slice in [
            "",
            ".slice",
            "system",
            "-a.slice",
            "a-.slice",
            "a--b.slice",
            "a/b.slice",
            "a.slice/../b.slice",
            "a b.slice",
        ] {
            assert!(expand(slice).is_err(), "{slice}");
        }
    }

    #[test]
    fn places() {
        let place = |path, rootless| {
            let place = Place::parse(path, "abc", rootless).unwrap();
            format!("{} {} {}", place.slice, place.unit, place.path().unwrap())
        };
        assert_eq!(place(None, false), "system.slice creel-abc.scope /system.slice/creel-abc.scope");
        assert_eq!(place(Some(""), true), "user.slice creel-abc.scope /user.slice/creel-abc.scope");
        assert_eq!(
            place(Some("machine-x.slice:libpod:1"), false),
            "machine-x.slice libpod-1.scope /machine.slice/machine-x.slice/libpod-1.scope"
        );
        assert_eq!(place(Some(":cri:1"), false), "system.slice cri-1.scope /system.slice/cri-1.scope");
        assert_eq!(place(Some("-.slice:p:1"), false), "-.slice p-1.scope /p-1.scope");
        assert_eq!(place(Some("a.slice:p:a-pod.slice"), false), "a.slice a-pod.slice /a.slice/a-pod.slice");
        assert_eq!(place(Some("b.slice:p:a-pod.slice"), false), "b.slice a-pod.slice /a.slice/a-pod.slice");
        for path in [
            "a.slice:b:-.slice",
            "/a/b",
            "a.slice:b",
            "a.slice:b:c:d",
            "a:b:c",
            "a.slice:b:",
            "a.slice:b:c/d",
            "a.slice:b:c\n",
        ] {
            assert!(Place::parse(Some(path), "abc", false).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_path_stays_below(path in "(?s)([a.:/\\-]|\\.slice|.){0,30}", rootless: bool) {
            if let Ok(place) = Place::parse(Some(&path), "id", rootless) {
                let path = place.path().unwrap();
                prop_assert!(path.starts_with('/'));
                prop_assert!(crate::plan::components(&path).is_ok(), "{}", path);
            }
        }
    }
}

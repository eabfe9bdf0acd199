//! What the driver `local` takes: names and options, in Docker's words. Pure.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Longest name, in bytes: it is a directory's.
const LONGEST: usize = 255;

/// Fails for a name that a local volume cannot have.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.len() == 1 {
        return Err(Error::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(good) {
        return Err(Error::invalid(format!(
            "\"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    if name.len() > LONGEST {
        return Err(Error::invalid(format!("volume name is too long, {LONGEST} characters are the most")));
    }
    Ok(())
}

/// Fails for options that make no sense.
pub(crate) fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    const NEEDS: [(&str, &[&str]); 3] =
        [("device", &["type"]), ("o", &["device", "type"]), ("type", &["device"])];
    if let Some(size) = options.get("size") {
        return Err(match crate::containers::host::parse_size(size) {
            None => Error::invalid(format!("invalid size: '{size}'")),
            Some(_) => Error::invalid("quota size requested but no quota support"),
        });
    }
    if let Some(name) = options.keys().find(|name| !NEEDS.iter().any(|(known, _)| known == name)) {
        return Err(Error::invalid(format!("invalid option: \"{name}\"")));
    }
    for (name, needs) in NEEDS {
        if options.contains_key(name)
            && let Some(missing) = needs.iter().find(|needed| !options.contains_key(**needed))
        {
            return Err(Error::invalid(format!("missing required option: \"{missing}\"")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(pairs: &[(&str, &str)]) -> String {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        check_options(&pairs).map_or_else(|e| e.to_string(), |()| "good".to_owned())
    }

    #[test]
    fn options_are_dockers() {
        assert_eq!(options(&[]), "good");
        assert_eq!(options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]), "good");
        assert_eq!(options(&[("type", "tmpfs")]), "missing required option: \"device\"");
        assert_eq!(options(&[("device", "x")]), "missing required option: \"type\"");
        assert_eq!(options(&[("o", "x")]), "missing required option: \"device\"");
        assert_eq!(options(&[("x", "y")]), "invalid option: \"x\"");
        assert_eq!(options(&[("size", "xx")]), "invalid size: 'xx'");
        assert_eq!(options(&[("size", "1m")]), "quota size requested but no quota support");
    }

    #[test]
    fn names_are_dockers() {
        for good in ["ab", "A_.-", "0a", &"x".repeat(255)] {
            check_name(good).unwrap();
        }
        for bad in ["", "a", ".ab", "-ab", "a b", "a/b", "../ab", "äb", &"x".repeat(256)] {
            check_name(bad).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn a_good_name_is_one_component_and_not_hidden(name in "\\PC{0,12}") {
            if check_name(&name).is_ok() {
                prop_assert!(!name.contains('/') && !name.starts_with('.') && !name.is_empty());
            }
        }
    }
}

//! `--ulimit`.

use creel_wire::host::{ULIMITS, Ulimit};

/// Reads `name=soft[:hard]`; -1 is no limit.
///
/// # Errors
/// For an unknown name, a bad number, a soft limit above the hard one; in Docker's words.
pub fn parse(text: &str) -> Result<Ulimit, String> {
    let wrong = || format!("invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number =
        |t: &str| t.parse::<i64>().map_err(|_| format!("strconv.ParseInt: parsing {t:?}: invalid syntax"));
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => {
            if hard.contains(':') {
                return Err(format!(
                    "too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
                ));
            }
            (number(soft)?, number(hard)?)
        }
        None => (number(limits)?, number(limits)?),
    };
    if hard >= 0 && (soft < 0 || soft > hard) {
        let shown = if soft < 0 { "unlimited".to_owned() } else { soft.to_string() };
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {shown} > {hard}"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// A check for `--ulimit`.
///
/// # Errors
/// As [`parse`].
pub fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits() {
        assert_eq!(parse("nofile=10:20"), Ok(Ulimit { name: "nofile".to_owned(), soft: 10, hard: 20 }));
        assert_eq!(parse("core=-1"), Ok(Ulimit { name: "core".to_owned(), soft: -1, hard: -1 }));
        for wrong in ["x", "x=1", "nofile=a", "nofile=20:10", "nofile=-1:10", "nofile=1:2:3", "nofile="] {
            parse(wrong).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(nofile=)?\\PC{0,10}") {
            let _ = parse(&text);
        }

        #[test]
        fn pairs_are_read_back(a in 0i64..1000, b in 0i64..1000) {
            let parsed = parse(&format!("nproc={a}:{b}"));
            prop_assert_eq!(parsed.is_ok(), a <= b);
        }
    }
}

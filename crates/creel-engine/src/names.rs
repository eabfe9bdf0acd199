//! Names of containers: which are allowed, and one for those that bring none.

use std::collections::HashSet;

use crate::error::{Error, Result};

const ADJECTIVES: [&str; 72] = [
    "able", "amber", "ample", "apt", "brave", "bright", "brisk", "calm", "candid", "careful", "cheerful",
    "clear", "clever", "cosy", "crisp", "curious", "dapper", "daring", "deft", "eager", "early", "earnest",
    "fair", "fond", "frank", "free", "fresh", "gentle", "glad", "golden", "grand", "happy", "hardy",
    "honest", "humble", "jolly", "keen", "kind", "lively", "lucid", "mellow", "merry", "mild", "modest",
    "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "prompt", "proud", "quick", "quiet",
    "ready", "robust", "serene", "sharp", "silent", "sincere", "snug", "sober", "steady", "stout", "sunny",
    "swift", "tidy", "tender", "vivid", "warm", "witty",
];

const SURNAMES: [&str; 72] = [
    "abel",
    "ampere",
    "babbage",
    "banach",
    "bell",
    "bernoulli",
    "bohr",
    "boole",
    "cantor",
    "cauchy",
    "celsius",
    "cerf",
    "chebyshev",
    "church",
    "codd",
    "conway",
    "copernicus",
    "coulomb",
    "curie",
    "darwin",
    "dijkstra",
    "dirac",
    "edison",
    "einstein",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "fourier",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "godel",
    "goodall",
    "hamilton",
    "hamming",
    "heisenberg",
    "hertz",
    "hilbert",
    "hoare",
    "hooke",
    "hopper",
    "joule",
    "kepler",
    "knuth",
    "kovalevskaya",
    "lagrange",
    "lamport",
    "laplace",
    "liskov",
    "lovelace",
    "maxwell",
    "meitner",
    "mendel",
    "newton",
    "nightingale",
    "noether",
    "ohm",
    "pascal",
    "pasteur",
    "planck",
    "ramanujan",
    "riemann",
    "ritchie",
    "shannon",
    "turing",
    "volta",
];

/// Checks a name that was given, a leading slash allowed; returns it without the slash.
pub(crate) fn check(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && bare.len() >= 2 && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    {
        return Ok(bare);
    }
    Err(Error::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

/// A name that is free: `adjective_surname`, with a digit when those run out.
pub(crate) fn random(used: &HashSet<String>, mut number: impl FnMut() -> u64) -> String {
    let pick = |list: &[&'static str], n: u64| list[(n % list.len() as u64) as usize];
    for attempt in 0u64.. {
        let n = number();
        let mut name = format!("{}_{}", pick(&ADJECTIVES, n), pick(&SURNAMES, n >> 32));
        if attempt >= 8 {
            name.push_str(&(attempt * 10 + n % 10).to_string());
        }
        if !used.contains(&name) {
            return name;
        }
    }
    String::new()
}

/// 64 random bits of the kernel's.
pub(crate) fn random_number() -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&random_bytes::<8>());
    u64::from_ne_bytes(bytes)
}

/// Random bytes of the kernel's.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    let mut have = 0;
    while have < N {
        match rustix::rand::getrandom(&mut bytes[have..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => have += n,
            Err(rustix::io::Errno::INTR) => {}
            // Without any randomness (a kernel before 3.17) the clock must do.
            Err(_) => {
                let now = jiff::Timestamp::now().as_nanosecond().to_ne_bytes();
                for (byte, n) in bytes[have..].iter_mut().zip(now.iter().cycle()) {
                    *byte = *n;
                }
                have = N;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dockers_rule_for_names() {
        for good in ["ab", "/ab", "a.b-c_d", "0x"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a", "-ab", "a b", "ä1", "a/b", "//ab"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn random_names_are_allowed_and_free_even_when_most_are_taken() {
        let mut used = HashSet::new();
        for _ in 0..200 {
            let name = random(&used, || 0);
            assert!(check(&name).is_ok(), "{name}");
            assert!(used.insert(name));
        }
    }

    proptest! {
        #[test]
        fn every_number_gives_a_name(n: u64) {
            prop_assert!(check(&random(&HashSet::new(), || n)).is_ok());
        }
    }
}

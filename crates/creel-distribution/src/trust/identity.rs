//! Whether the name in a signature is the one that was asked for (containers-policy.json(5), `signedIdentity`).

use creel_types::Reference;

/// How the two names must relate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Match {
    /// The same repository and the same tag, or the same digest.
    Exact,
    /// The same repository and tag; if a digest was asked for, the repository is enough. The format's default.
    RepoDigestOrExact,
    /// The same repository.
    Repository,
    /// This image, whatever was asked for.
    ExactReference(Reference),
    /// This repository, whatever was asked for.
    ExactRepository(Reference),
    /// [`Match::RepoDigestOrExact`] after the beginning of the name that was asked for was replaced: for mirrors.
    Remap {
        /// What it begins with: a registry, or that with the first parts of the repository.
        prefix: String,
        /// What signatures have in its place.
        signed: String,
    },
}

fn same_repository(one: &Reference, other: &Reference) -> bool {
    (one.registry(), one.repository()) == (other.registry(), other.repository())
}

impl Match {
    /// Says why the name in a signature does not do.
    pub(crate) fn accepts(&self, asked: &Reference, signed: &Reference) -> Result<(), String> {
        let is_one = |matches: bool, wanted: &Reference| match matches {
            true => Ok(()),
            false => Err(another(wanted, signed)),
        };
        match self {
            Match::Exact => is_one(exact(asked, signed), asked),
            Match::RepoDigestOrExact => is_one(repo_digest_or_exact(asked, signed), asked),
            Match::Repository => is_one(same_repository(asked, signed), asked),
            Match::ExactReference(wanted) => is_one(exact(wanted, signed), wanted),
            Match::ExactRepository(wanted) => is_one(same_repository(wanted, signed), wanted),
            Match::Remap { prefix, signed: replacement } => {
                let full = asked.to_string();
                let rest = full
                    .strip_prefix(prefix.as_str())
                    .filter(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']));
                let Some(rest) = rest else { return is_one(repo_digest_or_exact(asked, signed), asked) };
                let remapped: Reference = format!("{replacement}{rest}")
                    .parse()
                    .map_err(|error| format!("the policy's remapIdentity does not make a name: {error}"))?;
                is_one(repo_digest_or_exact(&remapped, signed), &remapped)
            }
        }
    }
}

fn exact(asked: &Reference, signed: &Reference) -> bool {
    // A name that says neither tag nor digest is none that could be the same.
    let says = |reference: &Reference| reference.tag().is_some() || reference.digest().is_some();
    says(asked) && says(signed) && asked == signed
}

fn repo_digest_or_exact(asked: &Reference, signed: &Reference) -> bool {
    if asked.digest().is_some() { same_repository(asked, signed) } else { exact(asked, signed) }
}

fn another(asked: &Reference, signed: &Reference) -> String {
    if same_repository(asked, signed) && signed.tag().is_none() && signed.digest().is_none() {
        return format!(
            "it names the repository {} without a tag, as cosign does, where the policy wants {}: for such signatures \
             set `\"signedIdentity\": {{\"type\": \"matchRepository\"}}`",
            signed.familiar(),
            asked.familiar()
        );
    }
    format!("it is for {}, not for {}", signed.familiar(), asked.familiar())
}

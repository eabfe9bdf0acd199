//! Archives that mean harm, made here from a few lines each: what they are called, their bytes, and what has to come of
//! them. Used by whoever unpacks archives; each checks besides that nothing outside was touched.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod paths;
pub mod streams;

use creel_layer::Limits;

/// What is to come of an archive.
pub enum Outcome {
    /// It is refused; the error's text contains this.
    Refused(&'static str),
    /// The layer's directory then has this shape, one line for each file, without the root's.
    Made(String),
}

/// A closed set of words for the cases: `Made("...")` takes literals and texts that were put together.
#[allow(non_snake_case, reason = "stands where the variant would")]
pub fn Made(shape: impl Into<String>) -> Outcome {
    Outcome::Made(shape.into())
}

/// One archive.
pub struct Case {
    pub what: String,
    /// As it comes from the registry: plain, or compressed.
    pub archive: Vec<u8>,
    /// The layer below it, if there is one.
    pub below: Option<Vec<u8>>,
    pub limits: Limits,
    pub outcome: Outcome,
}

/// All of them.
#[derive(Default)]
pub struct Corpus(pub Vec<Case>);

impl Corpus {
    /// Everything that there is.
    pub fn all() -> Self {
        let mut corpus = Self::default();
        paths::climbing_out_by_name(&mut corpus);
        paths::climbing_out_through_links(&mut corpus);
        paths::hard_links(&mut corpus);
        paths::overlay_language(&mut corpus);
        paths::kinds_and_doubles(&mut corpus);
        paths::huge_and_cut(&mut corpus);
        streams::smuggling(&mut corpus);
        streams::whiteouts(&mut corpus);
        streams::through_a_lower_layer(&mut corpus);
        streams::attributes(&mut corpus);
        streams::compressed(&mut corpus);
        streams::bombs(&mut corpus);
        corpus
    }

    pub fn case(&mut self, what: &str, archive: Vec<u8>, outcome: Outcome) {
        self.add(what, archive, None, Limits::default(), outcome);
    }

    pub fn add(
        &mut self,
        what: &str,
        archive: Vec<u8>,
        below: Option<Vec<u8>>,
        limits: Limits,
        outcome: Outcome,
    ) {
        self.0.push(Case { what: what.to_owned(), archive, below, limits, outcome });
    }
}

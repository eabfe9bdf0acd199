//! Tests with a real store in a temporary directory.

/// Kills this process if the environment names this step.
pub(crate) fn failpoint(_step: &str) {}

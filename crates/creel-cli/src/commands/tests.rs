//! Commands against a daemon of the test's own.

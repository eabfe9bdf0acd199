//! The use cases: images, containers, exec, logs, events, and reconciliation after a restart.

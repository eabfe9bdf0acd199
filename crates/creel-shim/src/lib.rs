//! Supervises one container: stdio, logs, attach, exec, and the exit record.

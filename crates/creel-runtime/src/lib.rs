//! From an OCI Spec to a process: a pure InitPlan and the thin executor that applies it.

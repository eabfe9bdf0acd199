//! The Docker Engine API: routes, versions and streams over the engine.

//! System call filters.

use creel_sys::seccomp::Instruction;
use creel_types::spec::Seccomp;

use crate::Error;

/// Compiles a filter.
///
/// # Errors
/// Not yet written: always [`Error::Unsupported`].
pub fn compile(_filter: &Seccomp) -> Result<Vec<Instruction>, Error> {
    Err(Error::unsupported("linux.seccomp", "the compiler is not there yet"))
}

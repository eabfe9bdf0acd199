//! The commands, named and behaving as Docker's.

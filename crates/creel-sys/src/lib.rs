//! The only home of unsafe code: the kernel's interfaces that rustix does not wrap.

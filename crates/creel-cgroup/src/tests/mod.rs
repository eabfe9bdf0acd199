//! Plans as snapshots for the three layouts, and the executor over a kernel of the tests' own.

mod executor;
mod plans;
mod reading;

//! Values of the runtime specification, which speaks v1, in the units of v2.

use crate::error::{Error, Result};

/// CPU shares (v1, 2 to 262144, 1024 by default) as a CPU weight (v2, 1 to 10000, 100 by default).
///
/// runc's formula since 1.3.2: a quadratic in log2(shares) through the three points of minimum, default and maximum,
/// so that a container without `--cpu-shares` weighs as much as any other group. 0 means "not set" and stays 0.
pub fn shares_to_weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            // A hair below the exact value, lest rounding lift 100 to 101.
            (10f64.powf(exponent) - 1e-9).ceil().clamp(1.0, 10_000.0) as u64
        }
    }
}

/// Block I/O weight (v1, 10 to 1000) as an I/O weight (v2, 1 to 10000), linearly; 0 means "not set" and stays 0.
pub fn blkio_weight_to_io_weight(weight: u16) -> u64 {
    match u64::from(weight) {
        0 => 0,
        w => 1 + w.clamp(10, 1000).saturating_sub(10) * 9999 / 990,
    }
}

/// The specification's `swap` (memory and swap together) as v2's `memory.swap.max` (swap alone).
///
/// `None` means that nothing is to be written; -1 is "max". The rules are runc's.
pub(crate) fn swap_alone(limit: Option<i64>, swap: Option<i64>) -> Result<Option<i64>> {
    let (limit, swap) = (limit.unwrap_or(0), swap.unwrap_or(0));
    match (limit, swap) {
        // Lifting the memory limit lifts that of swap as well.
        (-1, 0) => Ok(Some(-1)),
        (_, 0) => Ok(None),
        (_, -1) => Ok(Some(-1)),
        // Memory without limit: nothing to take away.
        (-1, swap) if swap > 0 => Ok(Some(swap)),
        (0, _) => {
            Err(Error::Invalid("a limit of memory and swap together needs a memory limit besides it".into()))
        }
        (limit, swap) if limit < 0 || swap < 0 => {
            Err(Error::Invalid(format!("memory limit {limit} or memory and swap limit {swap} is negative")))
        }
        (limit, swap) if swap < limit => Err(Error::Invalid(format!(
            "the limit of memory and swap together ({swap}) must not be below the memory limit ({limit})"
        ))),
        (limit, swap) => Ok(Some(swap - limit)),
    }
}

/// A v2 limit: negative numbers are `max`.
pub(crate) fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fixed_points() {
        assert_eq!([0, 1, 2, 1024, 262_144, u64::MAX].map(shares_to_weight), [0, 1, 1, 100, 10_000, 10_000]);
        assert_eq!([0, 10, 500, 1000].map(blkio_weight_to_io_weight), [0, 1, 4950, 10_000]);
        for (limit, swap, want) in [
            (None, None, Some(None)),
            (Some(-1), None, Some(Some(-1))),
            (Some(64), Some(-1), Some(Some(-1))),
            (Some(64), Some(64), Some(Some(0))),
            (Some(64), Some(100), Some(Some(36))),
            (None, Some(100), None),
            (Some(64), Some(63), None),
            (Some(-1), Some(63), Some(Some(63))),
            (Some(-2), Some(63), None),
        ] {
            assert_eq!(swap_alone(limit, swap).ok(), want, "{limit:?} {swap:?}");
        }
    }

    proptest! {
        #[test]
        fn weights_are_monotonic_and_in_range(a in 1u64..400_000, b in 1u64..400_000) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(shares_to_weight(low) <= shares_to_weight(high));
            prop_assert!((1..=10_000).contains(&shares_to_weight(a)));
            let (low, high) = ((low % 65_536).max(1) as u16, (high % 65_536).max(1) as u16);
            prop_assert!((1..=10_000).contains(&blkio_weight_to_io_weight(low)));
            prop_assert!((1..=10_000).contains(&blkio_weight_to_io_weight(high)));
        }

        #[test]
        fn swap_never_panics(limit in any::<Option<i64>>(), swap in any::<Option<i64>>()) {
            let _ = swap_alone(limit, swap);
        }
    }
}

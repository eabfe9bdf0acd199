//! Control groups v1, hybrid and v2: limits, membership, statistics, freezing and killing.

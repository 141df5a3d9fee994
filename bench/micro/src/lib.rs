//! An empty library: the benchmarks are in `benches/`, one per measured crate.

//! Nothing of its own: the benchmarks are in `benches/`, one per crate that they measure.

//! The parts of a benchmark that no engine depends on: keys, values, distributions, workloads,
//! latencies.
//!
//! ```text
//! zipfian ──> ycsb, mixgraph, churn ──> the next key, and the operation on it
//!                                        keys ──> its bytes        values ──> the bytes of its value
//! schedule ──> the time it is due        latency ──> the time from when it was due to its end
//!                                        process ──> its cost: processor time, memory, bytes written
//! ```
//!
//! `db_bench` uses this library, and so do programs that measure other engines with the same
//! workloads. Given a seed, everything is deterministic except [`schedule`] and [`process`], which
//! read the state of the machine.
//!
//! The functions that run inside timed loops do not allocate and acquire no lock.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures with the real machine's clock")]

pub mod keys;
pub mod zipfian;
pub mod values;
pub mod ycsb;
pub mod mixgraph;
pub mod churn;
pub mod schedule;
pub mod histogram;
pub mod latency;
pub mod process;

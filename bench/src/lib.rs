//! What a benchmark asks of an engine: keys, values, distributions, workloads, and how latencies are counted.
//!
//! ```text
//! zipfian ──> ycsb, mixgraph, churn ──> which key comes next, and what is done with it
//!                                        keys ──> its bytes        values ──> the bytes of its value
//! schedule ──> when                      latency ──> how long it took, counted from when it should have begun
//!                                        process ──> what it cost: processor time, memory, bytes written
//! ```
//!
//! `db_bench` is one user of this library; programs that measure other engines with the same hand are others. Nothing
//! here knows an engine. Everything is deterministic, given a seed, but for [`schedule`] and [`process`], which ask the
//! machine.
//!
//! The functions that run inside timed loops allocate nothing and take no lock.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures with the real machine's clock")]

pub mod keys;
pub mod zipfian;
pub mod values;
pub mod ycsb;
pub mod mixgraph;
pub mod churn;
pub mod schedule;
pub mod latency;
pub mod process;

pub use sapwood_base::histogram;

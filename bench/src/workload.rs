//! The benchmarks by name, and the run of one: plan, fresh database, threads that start together,
//! merged report.
//!
//! A benchmark is a row of [`registry`]: a name, its requirements, and a function. Most functions
//! are the loop of one thread ([`Worker`]). They are in the modules below, by the calls that they
//! make to the engine.
mod registry;
mod parameters;
mod runner;
mod worker;
mod beside;
mod checksum;
mod codec;
mod fill;
mod index;
mod maintenance;
mod mixed;
mod mixgraph;
mod queue;
mod read;
mod rounds;
mod scan;
mod series;
mod ttl;
mod truth;
mod verified;
mod ycsb;
#[cfg(test)]
mod tests;

use parameters::Parameters;
use registry::Body;
pub use registry::{check, help, plan};
pub use runner::Bench;
use worker::{Worker, throttle_reads, throttle_writes, wrong};

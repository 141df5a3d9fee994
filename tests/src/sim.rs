//! Simulation: work that a seed determines, on a machine in memory, compared with an oracle, with
//! every kind of failure. `sapwood-sim` runs it in bulk, the integration tests run small portions,
//! and fuzz targets use the bytes of a fuzzer as the source of choices.
//!
//! A [`workload`] is a list of [`operation`]s that a seed determines. The [`driver`] runs it on a
//! database and on the [`oracle`](crate::oracle) and compares every result.
//!
//! | module | purpose |
//! |---|---|
//! | [`crash`] | captures the machine's state before and after every changing call, and recovers from the states that a power loss or a kill may leave |
//! | [`meta`] | runs the same operations under many settings and compares the results |
//! | [`fault`] | lets every call fail in every way |
//! | [`scarcity`] | lets handles, memory, threads and disk space run out temporarily |
//! | [`places`] | renames and replaces directories |
//! | [`sector`] | damages every sector of every file in every way |
//! | [`kill`], [`power`] | do the same with real processes and real file systems |
//! | [`shuttle`] | runs the engine with all its threads, scheduled in any order |
//! | [`shrink`] | reduces a failing list of operations |
//!
//! A run is reproducible only if a process runs one database at a time, in one thread or in the
//! threads of one schedule. So [`jobs`] starts a process for each share of the seeds.
pub mod draw;
pub mod indexes;
pub mod operation;
pub mod tuning;
pub mod workload;
pub mod verify;
pub mod positions;
pub mod driver;
pub mod shrink;
pub mod crash;
pub mod meta;
pub mod fault;
pub mod scarcity;
pub mod places;
pub mod sector;
pub mod kill;
pub mod power;
pub mod shuttle;
pub mod probe;
pub mod sabotage;
pub mod arguments;
pub mod report;
pub mod jobs;

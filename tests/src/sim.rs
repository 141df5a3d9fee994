//! Simulation: work that follows from a seed, on a machine in memory, against a model, with everything that can go
//! wrong going wrong. `sapwood-sim` runs it in bulk, the integration tests in small portions, fuzz targets with the
//! bytes of a fuzzer as the source of choices.
//!
//! A [`workload`] is a list of [`operation`]s that a seed decides. The [`driver`] runs it on a database and on the
//! [`model`] and compares every answer. [`crash`] does so while it takes the machine's state before and after every
//! changing call, and recovers from what a power loss or a kill may leave of each; [`meta`] does so with many settings
//! and compares them. What fails is made small by [`shrink`]. [`fault`] lets every call go wrong in every way,
//! [`scarcity`] lets handles, memory, threads and room run out for a while, [`places`] renames
//! and replaces directories, and [`sector`] every sector of every file. [`kill`] and [`power`] do to real processes and real file systems what the
//! others simulate. [`shuttle`] gives the engine all its threads, and lets them go on in any order.
//!
//! One database at a time, in one thread or in threads of one schedule, or a run does not repeat itself: [`jobs`] starts
//! a process for each share of the seeds.
pub mod draw;
pub mod indexes;
pub mod operation;
pub mod tuning;
pub mod workload;
pub mod model;
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

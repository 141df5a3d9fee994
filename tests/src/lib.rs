//! Shared by the integration tests and the fuzz targets: the oracle, generators, and replay
//! commands for failures.
pub mod oracle;
pub mod journal;
pub mod history;
pub mod patience;
pub mod golden;
pub mod harness;
pub mod resources;
pub mod sim;
pub mod targets;

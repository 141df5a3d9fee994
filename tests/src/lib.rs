//! Shared by the integration tests and the fuzz targets: models, generators, and replay commands
//! for failures.
pub mod model;
pub mod oracle;
pub mod history;
pub mod patience;
pub mod golden;
pub mod harness;
pub mod resources;
pub mod sim;
pub mod targets;

//! What the integration tests and the fuzz targets share: models, generators, and what prints how to replay a failure.
pub mod model;
pub mod oracle;
pub mod history;
pub mod patience;
pub mod golden;
pub mod harness;
pub mod resources;
pub mod sim;
pub mod targets;

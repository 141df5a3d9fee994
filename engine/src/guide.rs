//! How to do with the interface what it has no call for, and what it asks of the program around it.

#[doc = include_str!("guide/expiry.md")]
pub mod expiry {}

#[doc = include_str!("guide/counters.md")]
pub mod counters {}

#[doc = include_str!("guide/queues.md")]
pub mod queues {}

#[doc = include_str!("guide/retention.md")]
pub mod retention {}

#[doc = include_str!("guide/blocking.md")]
pub mod blocking {}

#[doc = include_str!("guide/process.md")]
pub mod process {}

#[doc = include_str!("guide/names.md")]
pub mod names {}

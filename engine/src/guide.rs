//! Recipes for tasks without a call of their own, and the demands on the program around the
//! database.

#[doc = include_str!("guide/expiry.md")]
#[doc = "```rust"]
#[doc = include_str!("../examples/expiry.rs")]
#[doc = "```"]
pub mod expiry {}

#[doc = include_str!("guide/counters.md")]
#[doc = "```rust"]
#[doc = include_str!("../examples/counters.rs")]
#[doc = "```"]
pub mod counters {}

#[doc = include_str!("guide/queues.md")]
#[doc = "```rust"]
#[doc = include_str!("../examples/queue.rs")]
#[doc = "```"]
pub mod queues {}

#[doc = include_str!("guide/retention.md")]
pub mod retention {}

#[doc = include_str!("guide/blocking.md")]
pub mod blocking {}

#[doc = include_str!("guide/process.md")]
pub mod process {}

#[doc = include_str!("guide/names.md")]
pub mod names {}

//! The sources that a read searched or passed over, and why: the report returned by
//! [`Keyspace::explain_get`], [`Iter::explain`] and [`IndexIter::explain`].
//!
//! A get is the ordinary one with an active observer; ordinary gets are compiled without it. A scan
//! is the ordinary one too; the blocks that it had to read follow from the state of the cache
//! before it.
//!
//! [`Keyspace::explain_get`]: crate::Keyspace::explain_get
//! [`Iter::explain`]: crate::Iter::explain
//! [`IndexIter::explain`]: crate::IndexIter::explain
mod report;
mod sources;
mod get;
mod scan;

pub(crate) use get::get;
pub(crate) use report::text;
pub use report::{Explain, ExplainedRows, ExplainedSource, Outcome, Place};
pub(crate) use sources::{Before, count_blocks, tables_before};

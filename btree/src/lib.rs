//! Copy-on-write B+ trees: one sorted file that changes in batches.
//!
//! A page is never changed while a root refers to it. A batch writes new versions of the touched
//! leaves and of the pages above them into free places, syncs the file, and returns a new
//! [`TreeRoot`]. The caller makes that root durable in its own store (a MANIFEST) and then calls
//! [`Tree::install`]. A crash therefore leaves the old tree or the new one; there is nothing to
//! redo and nothing to undo.
//!
//! The life of a page: *free* -> written by a batch -> reachable from a root -> replaced by a later
//! batch -> free again, once the later root is durable and every [`TreeView`] of the roots that
//! refer to the page is dropped. Free pages are not recorded: they are the pages that the root does
//! not reach.
//!
//! Readers hold a [`TreeView`], which is one root and so never changes. They take no latch, and any
//! number of them may read while the next batch is applied.
//!
//! Architecture invariant: this crate knows one file, its pages and its keys, but no keyspaces,
//! sequence numbers or logs. Modules are listed in data-flow order; the bytes are in
//! `sapwood_base::format`.
#![forbid(unsafe_code)]

pub mod options;
pub mod tree;
mod apply;
mod load;
mod pack;
mod writer;
mod space;
mod file;
mod slots;
mod directory;
pub mod view;
pub mod cursor;
mod walk;
pub mod verify;
mod planted;

pub use cursor::TreeCursor;
pub use options::{Change, TreeOptions};
pub use sapwood_base::format::btree_root::{TREE_ROOT_BYTES, TreeRoot};
pub use tree::Tree;
pub use verify::TreeReport;
pub use view::TreeView;

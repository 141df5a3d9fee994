//! Promises of handles without a method: they can be sent and shared between threads, held across
//! an `await` on any executor, and used after a panic that was caught.
use crate::{
    AdvancedOptions, Commit, Cursor, Db, DbBuilder, Entry, Health, Hit, Index, IndexCursor, IndexIter,
    IndexOptions, Iter, Keyspace, Slice, Snapshot, WriteBatch,
};
use std::panic::{RefUnwindSafe, UnwindSafe};

// A panic in code of the application (under `get_with`, in an extractor, in a batch that is being
// filled) leaves what the engine shares as good as it was: its locks are not held while such code
// runs, or hold nothing that is half done.
macro_rules! survives_panics {
    ($($handle:ty),* $(,)?) => {
        $(impl UnwindSafe for $handle {}
        impl RefUnwindSafe for $handle {}
        const _: () = is_shared::<$handle>();)*
    };
}

const fn is_shared<T: Send + Sync + 'static>() {}

survives_panics!(
    Db,
    DbBuilder,
    Keyspace,
    WriteBatch,
    Commit,
    Snapshot,
    Cursor,
    Iter,
    Entry,
    Slice,
    Index,
    IndexCursor,
    IndexIter,
    Hit,
    IndexOptions,
    AdvancedOptions,
    Health,
);

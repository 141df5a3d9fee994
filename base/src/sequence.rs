//! Sequence numbers: the order of commits, and positions in the log at the same time.
use crate::key::number;
use std::fmt;

number!(
    /// The position of an operation in the history of the database.
    ///
    /// It is the operation's place in the log, in units of eight bytes, so one atomic addition
    /// allocates both. Every operation has its own number. Numbers grow in commit order and are
    /// never reused, not even across crashes. A reader at sequence `s` sees exactly the operations
    /// numbered `<= s`.
    SequenceNumber,
    u64
);

impl SequenceNumber {
    /// Larger than every allocated number: a reader at `MAX` sees everything.
    pub const MAX: SequenceNumber = SequenceNumber((1 << 57) - 1);
    /// The number that the last level may write once no snapshot can distinguish versions.
    pub const ZERO: SequenceNumber = SequenceNumber(0);
}

//! Values without a copy where that pays.
use super::{Found, TOGETHER};
use sapwood_sstable::PinnedValue;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Values up to this size are copied into the slice itself, in bytes.
const INLINE_BYTES: usize = 46;
/// Values up to this size are copied rather than pinned: a pin costs two atomic operations on a shared line.
const COPY_BYTES: usize = 512;
/// Room for each of the first values that are read together.
const GUESSED_BYTES: usize = 128;

/// The bytes of a value.
///
/// Small values are copied. A large one may pin the block of the buffer cache that holds it, and one of a `multi_get` may
/// share its memory, up to 16 KiB, with others: keep such slices no longer than needed, or [`Slice::detach`] them. Cheap to
/// clone. It does not keep the database open (see [`Db`](crate::Db)), and stays as it is when that is closed.
#[derive(Clone)]
pub struct Slice(Repr);

#[derive(Clone)]
enum Repr {
    Inline(u8, [u8; INLINE_BYTES]),
    Shared(Arc<[u8]>),
    /// From one byte on up to another, of values that were read together.
    Part(Arc<Vec<u8>>, u32, u32),
    Pinned(PinnedValue),
}

impl Slice {
    #[inline]
    pub(crate) fn copied(bytes: &[u8]) -> Slice {
        if bytes.len() <= INLINE_BYTES {
            let mut inline = [0; INLINE_BYTES];
            inline[..bytes.len()].copy_from_slice(bytes);
            Slice(Repr::Inline(bytes.len() as u8, inline))
        } else {
            Slice(Repr::Shared(bytes.into()))
        }
    }

    #[inline]
    pub(crate) fn of_block(value: &sapwood_sstable::ValueRef<'_>) -> Slice {
        if value.len() <= COPY_BYTES { Slice::copied(value) } else { Slice(Repr::Pinned(value.pin())) }
    }

    /// The same bytes, in memory that holds nothing else.
    pub fn detach(self) -> Slice {
        match self.0 {
            Repr::Pinned(_) | Repr::Part(..) => Slice::copied(&self),
            other => Slice(other),
        }
    }

    /// The bytes in a vector of their own.
    pub fn into_owned(self) -> Vec<u8> {
        self.to_vec()
    }
}

/// Values that are read together. Those that a slice cannot hold itself are copied into one piece of memory for every few,
/// instead of one each.
pub(crate) struct Gathered {
    slices: Vec<Option<Slice>>,
    /// The values from `first` on, of which those without memory yet have a place in `bytes`.
    waiting: Vec<Waiting>,
    bytes: Vec<u8>,
}

enum Waiting {
    Ready(Option<Slice>),
    Placed(u32, u32),
}

impl Gathered {
    pub(crate) fn with_capacity(values: usize) -> Gathered {
        let together = values.min(TOGETHER);
        Gathered {
            slices: Vec::with_capacity(values),
            waiting: Vec::with_capacity(together),
            bytes: Vec::with_capacity(together * GUESSED_BYTES),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, found: Option<Found<'_>>) {
        let next = match found {
            Some(found) if (INLINE_BYTES + 1..=COPY_BYTES).contains(&found.bytes().len()) => {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(found.bytes());
                Waiting::Placed(start as u32, self.bytes.len() as u32)
            }
            other => Waiting::Ready(other.map(|found| found.to_slice())),
        };
        self.waiting.push(next);
        if self.waiting.len() == TOGETHER {
            // The next ones may need as much.
            let next = Vec::with_capacity(self.bytes.len());
            self.settle(next);
        }
    }

    fn settle(&mut self, next: Vec<u8>) {
        let bytes = Arc::new(std::mem::replace(&mut self.bytes, next));
        self.slices.extend(self.waiting.drain(..).map(|waiting| match waiting {
            Waiting::Ready(slice) => slice,
            Waiting::Placed(start, end) => Some(Slice(Repr::Part(Arc::clone(&bytes), start, end))),
        }));
    }

    /// All of them, in the order in which they came.
    pub(crate) fn finish(mut self) -> Vec<Option<Slice>> {
        self.settle(Vec::new());
        self.slices
    }
}

impl Deref for Slice {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
            Repr::Part(bytes, start, end) => &bytes[*start as usize..*end as usize],
            Repr::Pinned(value) => value,
        }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Slice) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Slice {}

impl PartialEq<[u8]> for Slice {
    fn eq(&self, other: &[u8]) -> bool {
        self[..] == *other
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

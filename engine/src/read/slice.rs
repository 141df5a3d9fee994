//! Values without a copy where that pays.
use sapwood_sstable::PinnedValue;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Values up to this size are copied into the slice itself, in bytes.
const INLINE_BYTES: usize = 46;
/// Values up to this size are copied rather than pinned: a pin costs two atomic operations on a shared line.
const COPY_BYTES: usize = 512;

/// The bytes of a value.
///
/// Small values are copied. A large one may pin the block of the buffer cache that holds it: keep such a slice no
/// longer than needed, or [`Slice::detach`] it. Cheap to clone.
#[derive(Clone)]
pub struct Slice(Repr);

#[derive(Clone)]
enum Repr {
    Inline(u8, [u8; INLINE_BYTES]),
    Shared(Arc<[u8]>),
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

    /// The same bytes without a pin.
    pub fn detach(self) -> Slice {
        match self.0 {
            Repr::Pinned(value) => Slice::copied(&value),
            other => Slice(other),
        }
    }

    /// The bytes in a vector of their own.
    pub fn into_owned(self) -> Vec<u8> {
        self.to_vec()
    }
}

impl Deref for Slice {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
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

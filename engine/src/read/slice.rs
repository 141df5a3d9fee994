//! Values without a copy where that pays.
use super::resolve::Found;
use sapwood_base::{Error, Result, memory};
use sapwood_sstable::PinnedValue;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// Values up to this size are copied into the slice itself, in bytes.
const INLINE_BYTES: usize = 46;
/// Keys of one call that wait for memory together.
pub(crate) const TOGETHER: usize = 32;
/// Values up to this size are copied rather than pinned: a pin costs two atomic operations on a
/// shared line.
const COPY_BYTES: usize = 512;
/// If a longer copy finds no memory, the read returns an error.
const SMALL_BYTES: usize = 64 << 10;
/// Room for each of the first values that are read together.
const GUESSED_BYTES: usize = 128;

/// The bytes of a value.
///
/// Small values are copied. A large one may pin its block of the buffer cache, and one of a
/// `multi_get` may share its memory, up to 16 KiB, with others: keep such slices no longer than
/// needed, or [`Slice::detach`] them. Cheap to clone. It does not keep the database open (see
/// [`Db`](crate::Db)), and stays valid after the database is closed.
///
/// It dereferences to `[u8]`, compares with everything that has bytes, and can be the key of a map:
///
/// ```
/// # fn main() -> sapwood::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let db = sapwood::Db::open(folder.path().join("data"))?;
/// # let users = db.default_keyspace();
/// users.put("u1", "Ann")?;
/// let value = users.get("u1")?.expect("it was put");
/// assert_eq!(value, "Ann");
/// assert_eq!(value, b"Ann");
/// assert_eq!(value.len(), 3);
/// let mut seen = std::collections::HashSet::new();
/// seen.insert(value.clone());
/// assert!(seen.contains(&b"Ann"[..]));
/// let owned: Vec<u8> = value.into();
/// assert_eq!(owned, b"Ann");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Slice(Repr);

#[derive(Clone)]
enum Repr {
    Inline(u8, [u8; INLINE_BYTES]),
    Shared(Arc<[u8]>),
    /// A range of bytes, start and end, of values that were read together.
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

    /// [`Slice::copied`] of a value; the allocation may fail.
    #[inline]
    pub(crate) fn of_value(bytes: &[u8]) -> Result<Slice> {
        if bytes.len() <= SMALL_BYTES { Ok(Slice::copied(bytes)) } else { Slice::of_large_value(bytes) }
    }

    #[cold]
    fn of_large_value(bytes: &[u8]) -> Result<Slice> {
        // An `Arc<[u8]>` would end the process without memory for it.
        let copy = memory::copy(bytes)?;
        let end = u32::try_from(copy.len()).expect("within the limit of values");
        Ok(Slice(Repr::Part(Arc::new(copy), 0, end)))
    }

    /// The value beyond the guard that it was read under.
    ///
    /// Errors: `OutOfResources` if a large copy finds no memory.
    #[inline]
    pub(crate) fn of(found: &Found<'_>) -> Result<Slice> {
        match found {
            Found::Memtable(value) => Slice::of_value(value),
            Found::Table(value) => Ok(Slice::of_block(value)),
        }
    }

    #[inline]
    pub(crate) fn of_block(value: &sapwood_sstable::ValueRef<'_>) -> Slice {
        if value.len() <= COPY_BYTES { Slice::copied(value) } else { Slice(Repr::Pinned(value.pin())) }
    }

    /// The same bytes, in memory that holds nothing else.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// let kept = users.get("u1")?.expect("it is there").detach();
    /// assert_eq!(kept, "Ann");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn detach(self) -> Slice {
        match self.0 {
            Repr::Pinned(_) | Repr::Part(..) => Slice::copied(&self),
            other => Slice(other),
        }
    }

    /// The bytes in a vector of their own.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// let owned: Vec<u8> = users.get("u1")?.expect("it is there").into_vec();
    /// assert_eq!(owned, b"Ann");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "to_owned")]
    pub fn into_vec(self) -> Vec<u8> {
        self.to_vec()
    }

    /// [`Slice::into_vec`] by its earlier name.
    #[doc(hidden)]
    pub fn into_owned(self) -> Vec<u8> {
        self.into_vec()
    }
}

/// Values that are read together. Values that a slice cannot hold itself are copied into one
/// allocation for several of them, instead of one each.
pub(crate) struct Gathered {
    slices: Vec<Option<Slice>>,
    /// The values from `first` on; those without memory yet have a place in `bytes`.
    waiting: Vec<Waiting>,
    bytes: Vec<u8>,
    /// The first value without memory for it.
    failed: Option<Error>,
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
            failed: None,
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
            other => match other.map(|found| Slice::of(&found)).transpose() {
                Ok(slice) => Waiting::Ready(slice),
                Err(error) => {
                    self.failed.get_or_insert(error);
                    Waiting::Ready(None)
                }
            },
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

    /// All of them, in the order in which they were added.
    pub(crate) fn finish(mut self) -> Result<Vec<Option<Slice>>> {
        self.settle(Vec::new());
        self.failed.map_or(Ok(self.slices), Err)
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

impl PartialOrd for Slice {
    fn partial_cmp(&self, other: &Slice) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slice {
    fn cmp(&self, other: &Slice) -> Ordering {
        self[..].cmp(&other[..])
    }
}

/// The hash of the bytes, so that a map with keys of this type is looked up with `&[u8]`.
impl Hash for Slice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl Borrow<[u8]> for Slice {
    fn borrow(&self) -> &[u8] {
        self
    }
}

/// No bytes.
impl Default for Slice {
    fn default() -> Slice {
        Slice::copied(&[])
    }
}

impl From<Slice> for Vec<u8> {
    fn from(slice: Slice) -> Vec<u8> {
        slice.into_vec()
    }
}

impl From<Slice> for Box<[u8]> {
    fn from(slice: Slice) -> Box<[u8]> {
        Box::from(&slice[..])
    }
}

impl From<Slice> for Arc<[u8]> {
    fn from(slice: Slice) -> Arc<[u8]> {
        match slice.0 {
            Repr::Shared(bytes) => bytes,
            other => Arc::from(&Slice(other)[..]),
        }
    }
}

/// Comparisons with other things that have bytes, from both sides.
macro_rules! compares_with {
    ($([$($generics:tt)*] $other:ty),* $(,)?) => {
        $(impl<$($generics)*> PartialEq<$other> for Slice {
            fn eq(&self, other: &$other) -> bool {
                let bytes: &[u8] = other.as_ref();
                self[..] == *bytes
            }
        }

        impl<$($generics)*> PartialEq<Slice> for $other {
            fn eq(&self, other: &Slice) -> bool {
                other == self
            }
        })*
    };
}

compares_with!(
    [] [u8],
    [] &[u8],
    [const N: usize] [u8; N],
    [const N: usize] &[u8; N],
    [] Vec<u8>,
    [] str,
    [] &str,
    [] String,
);

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

//! Ranges of keys as the calls of the interface take them.
use std::ops::{Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// A range of keys: `..`, `a..b`, `a..=b`, `a..`, `..b`, `..=b` or a pair of [`Bound`]s, whose ends
/// are anything that has bytes (`&str`, `&[u8]`, `Vec<u8>`, `&Vec<u8>`, an array).
///
/// Each type of range has one type of ends, so that the compiler never has to be told which it is.
/// `K` is that type; for `..` it is `&[u8]`. Both ends have the same type: of two arrays that
/// differ in length, write the first as a slice, `&b"a"[..]..b"bb"`. A function that hands ranges
/// on takes `impl KeyRange<K>`.
///
/// ```
/// use sapwood::{Db, Iter, KeyRange, Keyspace};
/// use std::ops::Bound;
///
/// fn newest_first<K>(keyspace: &Keyspace, range: impl KeyRange<K>) -> Iter {
///     keyspace.range(range).rev()
/// }
/// # fn main() -> sapwood::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let db = Db::open(folder.path().join("data"))?;
/// let keyspace = db.default_keyspace();
/// keyspace.put("a", "1")?;
/// keyspace.put("b", "2")?;
/// let from = vec![b'b'];
/// assert_eq!(newest_first(&keyspace, ..).count(), 2);
/// assert_eq!(newest_first(&keyspace, &from..).count(), 1);
/// assert_eq!(newest_first(&keyspace, (Bound::Excluded("a"), Bound::Unbounded)).count(), 1);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no range of keys",
    label = "no range of keys",
    note = "a range of keys is `..`, `a..b`, `a..=b`, `a..`, `..b`, `..=b` or a pair of `Bound`s, with ends that are bytes",
    note = "in a generic function, ask for `impl KeyRange<K>` in place of `impl RangeBounds<K>`"
)]
pub trait KeyRange<K> {
    /// The lower bound, then the upper one.
    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>);
}

impl KeyRange<&[u8]> for RangeFull {
    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

macro_rules! key_ranges {
    ($($range:ty),* $(,)?) => {
        $(impl<K: AsRef<[u8]>> KeyRange<K> for $range {
            fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
                let (lower, upper) = (RangeBounds::<K>::start_bound(self), RangeBounds::<K>::end_bound(self));
                (lower.map(K::as_ref), upper.map(K::as_ref))
            }
        })*
    };
}

key_ranges!(Range<K>, RangeInclusive<K>, RangeFrom<K>, RangeTo<K>, RangeToInclusive<K>, (Bound<K>, Bound<K>),);

//! Buffers whose length depends on a value, a file or a setting. If there is no memory for one, the
//! functions here return an error; the standard library would abort the process.
//!
//! Small buffers do not return such errors. Instead, no mapping takes the last [`ROOM_BYTES`] that
//! the process may use, and no work begins unless they are available: see [`check_room`].
use crate::planted;
use crate::{Error, ErrorKind, Result};

/// Memory and address space that are left for small allocations.
pub const ROOM_BYTES: usize = 8 << 20;

/// Checks that the process may use `bytes` more of memory and address space. Other threads and
/// processes may take them meanwhile.
pub fn check_room(bytes: usize) -> std::io::Result<()> {
    memmap2::MmapOptions::new().len(planted::needed_room(bytes)).map_anon().map(drop)
}

/// Makes a mapping, unless it takes the last room of the process.
pub fn map_with_room<M>(map: impl FnOnce() -> std::io::Result<M>) -> std::io::Result<M> {
    let map = map()?;
    check_room(ROOM_BYTES).map(|()| map)
}

/// Reserves room for `more` further elements.
///
/// # Errors
/// `OutOfResources` if there is no memory for them.
#[inline]
pub fn reserve<T>(buffer: &mut Vec<T>, more: usize) -> Result<()> {
    // Mostly there is room, and then this is all that a caller pays.
    if buffer.capacity() - buffer.len() >= more {
        return Ok(());
    }
    buffer.try_reserve(more).map_err(|_| none_for(more.saturating_mul(size_of::<T>())))
}

/// `len` copies of `element`.
///
/// # Errors
/// Those of [`reserve`].
pub fn filled<T: Clone>(element: T, len: usize) -> Result<Vec<T>> {
    let mut buffer = Vec::new();
    resize(&mut buffer, len, element).map(|()| buffer)
}

/// Changes the length of `buffer`; new elements are copies of `element`.
///
/// # Errors
/// Those of [`reserve`].
pub fn resize<T: Clone>(buffer: &mut Vec<T>, len: usize, element: T) -> Result<()> {
    if len > buffer.len() && buffer.try_reserve_exact(len - buffer.len()).is_err() {
        return Err(none_for(len.saturating_mul(size_of::<T>())));
    }
    buffer.resize(len, element);
    Ok(())
}

/// A copy of `bytes`.
///
/// # Errors
/// Those of [`reserve`].
pub fn copy(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| none_for(bytes.len()))?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Checks that `bytes` could be allocated now, for code that allocates them in many pieces.
///
/// # Errors
/// Those of [`reserve`].
pub fn check(bytes: usize) -> Result<()> {
    reserve(&mut Vec::<u8>::new(), bytes)
}

#[cold]
fn none_for(bytes: usize) -> Error {
    let message = format!(
        "no memory for a buffer of {bytes} bytes: free some, raise the limit, or lower memory_budget"
    );
    Error::new(ErrorKind::OutOfResources, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_can_be_is_an_error_and_leaves_the_buffer() {
        let mut buffer = vec![7u64];
        for error in [
            reserve(&mut buffer, usize::MAX / 8).unwrap_err(),
            resize(&mut buffer, usize::MAX / 8, 0).unwrap_err(),
            filled(0u64, usize::MAX / 8).unwrap_err(),
            check(isize::MAX as usize).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::OutOfResources);
            assert!(error.is_scarcity());
        }
        assert_eq!(buffer, [7]);
    }

    #[test]
    fn buffers_are_as_long_as_wanted() {
        let mut buffer = filled(3u8, 5).unwrap();
        assert_eq!(buffer, [3; 5]);
        resize(&mut buffer, 2, 0).unwrap();
        resize(&mut buffer, 4, 9).unwrap();
        assert_eq!(buffer, [3, 3, 9, 9]);
        reserve(&mut buffer, 100).unwrap();
        assert!(buffer.capacity() >= 104);
        assert_eq!(copy(b"abc").unwrap(), b"abc");
        check(1 << 10).unwrap();
    }
}

//! Zstandard through its C library: the feature `zstd`.
use sapwood_base::memory;
use sapwood_base::{Error, Result};
use std::cell::RefCell;
use zstd::zstd_safe::DCtx;

/// zstd's code for a destination that is too small. These numbers do not change (`zstd_errors.h`).
const DESTINATION_TOO_SMALL: usize = 0usize.wrapping_sub(70);

/// Compresses blocks at one level.
pub(super) struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    pub(super) fn new(level: i32) -> Result<Compressor> {
        let compressor = zstd::bulk::Compressor::new(level);
        compressor
            .map(Compressor)
            .map_err(|error| Error::invalid_argument(format!("zstd level {level} is not available: {error}")))
    }

    /// Compresses `image` into the beginning of `out`, which grows as needed, and returns the
    /// length.
    pub(super) fn compress(&mut self, image: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let bound = zstd::zstd_safe::compress_bound(image.len());
        if out.len() < bound {
            memory::resize(out, bound, 0).ok()?;
        }
        self.0.compress_to_buffer(image, &mut out[..]).ok()
    }
}

/// Decompresses into `image` and returns the length; `None` if `payload` is no frame, or a frame of
/// something longer.
pub(super) fn decompress(payload: &[u8], image: &mut [u8]) -> Result<Option<usize>> {
    Ok(with_context(|context| context.decompress(image, payload).ok()))
}

/// Decompresses `payload` into memory that starts at `room` bytes and doubles up to `len`, the
/// required length.
///
/// If a frame does not fit, it has filled the buffer except for less than one of its blocks, so it
/// may be twice as long. The decoder needs its output to stay in place, so each attempt starts from
/// the beginning.
pub(super) fn decompress_grown(payload: &[u8], mut room: usize, len: usize) -> Result<Option<Vec<u8>>> {
    with_context(|context| {
        loop {
            let mut image = match memory::filled(0, room.min(len)) {
                Ok(image) => image,
                Err(error) => return Some(Err(error)),
            };
            match context.decompress(&mut image[..], payload) {
                Ok(found) => return (found == len).then_some(Ok(image)),
                Err(DESTINATION_TOO_SMALL) if room < len => {
                    #[cfg(feature = "sim")]
                    crate::fuzzing::note_output(room);
                    room = room.saturating_mul(2);
                }
                Err(_) => return None,
            }
        }
    })
    .transpose()
}

fn with_context<T>(run: impl FnOnce(&mut DCtx<'static>) -> Option<T>) -> Option<T> {
    thread_local! {
        // Creating a zstd context costs more than decompressing a block.
        static ZSTD: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
    }
    // A thread that is shutting down keeps no context.
    let kept = ZSTD.try_with(RefCell::take).ok().flatten();
    let mut context = kept.or_else(DCtx::try_create)?;
    let result = run(&mut context);
    let _ = ZSTD.try_with(|kept| kept.replace(Some(context)));
    result
}

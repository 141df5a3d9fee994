//! Zstandard, by the library in C: the feature `zstd`.
use sapwood_base::memory;
use sapwood_base::{Error, Result};
use std::cell::RefCell;
use zstd::zstd_safe::DCtx;

/// zstd's code for a destination that is too small; these numbers do not change (`zstd_errors.h`).
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

    /// Compresses `image` into the beginning of `out`, which grows as needed, and gives the length.
    pub(super) fn compress(&mut self, image: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let bound = zstd::zstd_safe::compress_bound(image.len());
        if out.len() < bound {
            memory::resize(out, bound, 0).ok()?;
        }
        self.0.compress_to_buffer(image, &mut out[..]).ok()
    }
}

/// The length of what came out in `image`; `None` if `payload` is no frame, or one of something longer.
pub(super) fn decompress(payload: &[u8], image: &mut [u8]) -> Result<Option<usize>> {
    Ok(with_context(|context| context.decompress(image, payload).ok()))
}

/// The image of `payload` in memory that begins with `room` bytes and doubles up to `len`, the length that it must have.
///
/// A frame that does not fit has filled what there is but for less than one of its blocks, so there may be as much again.
/// The output must stay where it is while the decoder works, which begins from the start each time.
pub(super) fn decompress_grown(payload: &[u8], mut room: usize, len: usize) -> Result<Option<Vec<u8>>> {
    Ok(with_context(|context| {
        loop {
            let mut image = vec![0; room.min(len)];
            match context.decompress(&mut image[..], payload) {
                Ok(found) => return (found == len).then_some(image),
                Err(DESTINATION_TOO_SMALL) if room < len => {
                    #[cfg(feature = "sim")]
                    crate::fuzzing::note_output(room);
                    room = room.saturating_mul(2);
                }
                Err(_) => return None,
            }
        }
    }))
}

fn with_context<T>(run: impl FnOnce(&mut DCtx<'static>) -> Option<T>) -> Option<T> {
    thread_local! {
        // Creating a zstd context costs more than decompressing a block.
        static ZSTD: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
    }
    // A thread that is being torn down keeps none.
    let kept = ZSTD.try_with(RefCell::take).ok().flatten();
    let mut context = kept.or_else(DCtx::try_create)?;
    let result = run(&mut context);
    let _ = ZSTD.try_with(|kept| kept.replace(Some(context)));
    result
}

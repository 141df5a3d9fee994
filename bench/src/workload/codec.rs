//! Benchmarks of the codecs on the bytes of values. They touch no database.
use super::Worker;
use crate::report::Operation;
use sapwood_base::{Error, Result};

/// Bytes read by `compress`, as in RocksDB's.
const COMPRESSED_BYTES: u64 = 1 << 30;

/// Bytes written by `uncompress`.
const UNCOMPRESSED_BYTES: u64 = 5 << 30;

/// The codec of `--compression_type`; the default of both benchmarks is LZ4.
enum Codec {
    None,
    Lz4,
    Zstd(i32),
}

impl Codec {
    fn of(worker: &Worker<'_>) -> Codec {
        match worker.flags.compression_type.as_str() {
            "none" => Codec::None,
            "zstd" => Codec::Zstd(i32::try_from(worker.flags.compression_level).unwrap_or(3)),
            _ => Codec::Lz4,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Codec::None => "no codec",
            Codec::Lz4 => "lz4",
            Codec::Zstd(_) => "zstd",
        }
    }

    /// Compresses `input` into `output`, which is long enough, and returns the length.
    fn compress(&self, input: &[u8], output: &mut [u8]) -> Result<usize> {
        match self {
            Codec::None => {
                output[..input.len()].copy_from_slice(input);
                Ok(input.len())
            }
            Codec::Lz4 => lz4_flex::block::compress_into(input, output).map_err(failed),
            Codec::Zstd(level) => zstd::bulk::compress_to_buffer(input, output, *level).map_err(failed),
        }
    }

    /// The inverse.
    fn uncompress(&self, input: &[u8], output: &mut [u8]) -> Result<usize> {
        match self {
            Codec::None => {
                output[..input.len()].copy_from_slice(input);
                Ok(input.len())
            }
            Codec::Lz4 => lz4_flex::block::decompress_into(input, output).map_err(failed),
            Codec::Zstd(_) => zstd::bulk::decompress_to_buffer(input, output).map_err(failed),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::invalid_argument(format!("the codec failed: {error}"))
}

/// A block, and a buffer of sufficient size for any codec.
fn block(worker: &mut Worker<'_>) -> (Vec<u8>, Vec<u8>) {
    let size = worker.flags.block_size.clamp(1, 1 << 20) as usize;
    let input = worker.values.take(size).to_vec();
    let room = lz4_flex::block::get_maximum_output_size(input.len())
        .max(zstd::zstd_safe::compress_bound(input.len()));
    (input, vec![0; room])
}

/// compress.
pub fn compress(worker: &mut Worker<'_>) -> Result<()> {
    let codec = Codec::of(worker);
    let (input, mut output) = block(worker);
    let (mut read, mut written) = (0, 0);
    while read < COMPRESSED_BYTES {
        written += codec.compress(std::hint::black_box(&input), &mut output)? as u64;
        read += input.len() as u64;
        worker.stats.finish_operations(1, Operation::Compress);
    }
    worker.stats.add_bytes(read);
    let percent = 100.0 * written as f64 / read as f64;
    worker.stats.set_message(format!("(output: {percent:.1}%, {})", codec.name()));
    Ok(())
}

/// compressreject: random bytes, which a codec cannot reduce. A storage engine stores such a block
/// uncompressed.
pub fn compress_reject(worker: &mut Worker<'_>) -> Result<()> {
    let codec = Codec::of(worker);
    let (mut input, mut output) = block(worker);
    worker.random.fill(&mut input);
    let (mut read, mut blocks, mut rejected) = (0, 0, 0);
    while read < COMPRESSED_BYTES {
        let length = codec.compress(std::hint::black_box(&input), &mut output)?;
        rejected += u64::from(length >= input.len());
        blocks += 1;
        read += input.len() as u64;
        worker.stats.finish_operations(1, Operation::Compress);
    }
    worker.stats.add_bytes(read);
    let percent = 100.0 * rejected as f64 / f64::from(blocks);
    worker.stats.set_message(format!("(rejected: {percent:.1}%, {})", codec.name()));
    Ok(())
}

/// uncompress. The output is compared with the input once.
pub fn uncompress(worker: &mut Worker<'_>) -> Result<()> {
    let codec = Codec::of(worker);
    let (input, mut compressed) = block(worker);
    let length = codec.compress(&input, &mut compressed)?;
    let mut output = vec![0; input.len()];
    let mut written = 0;
    while written < UNCOMPRESSED_BYTES {
        let length = codec.uncompress(std::hint::black_box(&compressed[..length]), &mut output)?;
        written += length as u64;
        worker.stats.finish_operations(1, Operation::Uncompress);
    }
    if output != input {
        return Err(super::wrong(format!("{} returned other bytes than the original ones", codec.name())));
    }
    worker.stats.add_bytes(written);
    worker.stats.set_message(format!("({})", codec.name()));
    Ok(())
}

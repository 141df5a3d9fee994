//! Checksums: XXH3, seeded by where the bytes live, so that correct bytes in the wrong place fail
//! validation.
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The low 32 bits of XXH3-64 of `bytes` with `seed`.
#[inline]
pub fn checksum32(bytes: &[u8], seed: u64) -> u32 {
    xxh3_64_with_seed(bytes, seed) as u32
}

/// XXH3-64 of `bytes` with `seed`.
#[inline]
pub fn checksum64(bytes: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

/// A seed that binds a checksum to a place: `a` and `b` are for example a file's identity and an
/// offset.
#[inline]
pub fn place_seed(a: u64, b: u64) -> u64 {
    // Two odd multipliers (from splitmix64) spread nearby places. Multiplication by an odd number
    // is bijective, so none collide.
    a.wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ b.wrapping_mul(0x94D0_49BB_1331_11EB).rotate_left(32)
}

/// XXH3-64 of `bytes` without a seed, for fingerprints that never leave memory.
#[inline]
pub fn fingerprint(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

//! Filters: reject most absent keys by their hash alone.
//!
//! The blocked Bloom filter is our own (after Putze, Sanders and Singler, "Cache-, Hash- and
//! Space-Efficient Bloom Filters", 2007): the hash picks one line of 512 bits, which holds all its
//! bits. The standard one is the `bloomfilter` crate, with key hashes as items. Both are built from
//! the hashes collected while the table was written, so their size fits the number of keys exactly.
//!
//! Measured with 1 M keys, 10 bits per key, benchmark `table`; blocked is therefore the default:
//!
//! | | absent keys that pass | lookup of an absent key | build, per key |
//! |---|---|---|---|
//! | blocked | 0.94 % | 32 ns | 18 ns |
//! | standard | 0.80 % | 120 ns | 200 ns |
use crate::options::FilterKind;
use crate::vector::prefetch;
use bloomfilter::Bloom;
use sapwood_base::format::filter::{FILTER_LINE_BYTES, FilterId, FilterSection};
use sapwood_base::memory;
use sapwood_base::{Error, ErrorKind, Result};

/// A filter in memory. Immutable; safe for concurrent use.
pub enum Filter {
    /// No filter: every key may be present.
    None,
    /// See [`FilterKind::Blocked`].
    Blocked(BlockedFilter),
    /// See [`FilterKind::Standard`].
    Standard(Box<Bloom<u64>>),
}

impl Filter {
    /// Builds a filter of `kind` over these key hashes. `bits_per_key` is clamped to 1 to 64.
    pub fn build(kind: FilterKind, bits_per_key: f32, hashes: &[u64]) -> Result<Filter> {
        // `clamp` would pass a NaN through.
        let bits_per_key = if bits_per_key.is_nan() { 10.0 } else { bits_per_key.clamp(1.0, 64.0) };
        if hashes.is_empty() {
            return Ok(Filter::None);
        }
        match kind {
            FilterKind::None => Ok(Filter::None),
            FilterKind::Blocked => BlockedFilter::build(bits_per_key, hashes).map(Filter::Blocked),
            FilterKind::Standard => {
                let bytes = (hashes.len() as f64 * f64::from(bits_per_key) / 8.0).ceil() as usize;
                // The crate's number of probes grows with bits per key. More probes than the format
                // can record gain nothing.
                let items = hashes.len().max((bytes * 8).div_ceil(20));
                // The hash is already random, and a fixed seed makes equal tables equal. The halves
                // of the seed are the keys of two hash functions and must differ.
                let seed = std::array::from_fn(|i| i as u8);
                let mut bloom = Bloom::new_with_seed(bytes.max(1), items, &seed).map_err(|message| {
                    Error::invalid_argument(format!("cannot build the filter: {message}"))
                })?;
                hashes.iter().for_each(|hash| bloom.set(hash));
                Ok(Filter::Standard(Box::new(bloom)))
            }
        }
    }

    /// Whether a key with this hash may be in the table. Never `false` for one that is.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        match self {
            Filter::None => true,
            Filter::Blocked(filter) => filter.may_contain(hash),
            Filter::Standard(filter) => filter.check(&hash),
        }
    }

    /// Prefetches the memory that [`Filter::may_contain`] reads.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if let Filter::Blocked(filter) = self {
            filter.prefetch(hash);
        }
    }

    /// Memory in bytes.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Filter::None => 0,
            Filter::Blocked(filter) => filter.lines.len() * FILTER_LINE_BYTES,
            Filter::Standard(filter) => filter.as_slice().len(),
        }
    }

    /// Appends the payload of the filter section; nothing for [`Filter::None`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Filter::None => {}
            Filter::Blocked(filter) => {
                let bits: Vec<u8> =
                    filter.lines.iter().flat_map(|line| line.0).flat_map(u64::to_le_bytes).collect();
                FilterSection { id: FilterId::Blocked, probes: filter.probes, bits: &bits }.encode(out);
            }
            Filter::Standard(filter) => {
                let probes = filter.number_of_hash_functions();
                FilterSection { id: FilterId::Standard, probes, bits: filter.as_slice() }.encode(out);
            }
        }
    }

    /// Decodes the payload of a filter section.
    pub fn decode(payload: &[u8]) -> Result<Filter> {
        let corrupt = |message: &str| Error::new(ErrorKind::Corruption, message);
        let section = FilterSection::decode(payload)?;
        match section.id {
            FilterId::Blocked => {
                let words = section.bits.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
                let mut lines = memory::filled(Line([0; 8]), section.bits.len() / FILTER_LINE_BYTES)?;
                lines
                    .iter_mut()
                    .flat_map(|line| &mut line.0)
                    .zip(words)
                    .for_each(|(slot, word)| *slot = word);
                if u32::try_from(lines.len()).is_err() {
                    return Err(corrupt("filter has too many lines"));
                }
                if section.probes > 2 * FIELDS {
                    return Err(corrupt("filter has too many probes"));
                }
                Ok(Filter::Blocked(BlockedFilter { lines, probes: section.probes }))
            }
            FilterId::Standard => {
                let bloom = Bloom::from_slice(section.bits).map_err(corrupt)?;
                if bloom.number_of_hash_functions() != section.probes || bloom.is_empty() {
                    return Err(corrupt("filter header does not match the section"));
                }
                Ok(Filter::Standard(Box::new(bloom)))
            }
        }
    }
}

/// One cache line of bits.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u64; 8]);

/// The blocked Bloom filter.
///
/// The upper half of the hash picks the line. A product of the whole hash yields seven bit numbers
/// of nine bits, and a second product seven more. The multipliers are odd, so no hash is lost.
pub struct BlockedFilter {
    lines: Vec<Line>,
    probes: u32,
}

const FIELD_BITS: u32 = 9;
const FIELDS: u32 = 7;
const FIRST_MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
const SECOND_MULTIPLIER: u64 = 0xD6E8_FEB8_6659_FD93;

/// The best number of probes, by the exact false-positive rate of lines with Poisson-distributed
/// loads (see the test). It is less than the `0.69 * bits` of a standard filter, because crowded
/// lines dominate.
fn probes_for(bits_per_key: f32) -> u32 {
    // From each limit on, one more probe is better. Near a limit the smaller number is as good and
    // cheaper.
    const LIMITS: [f32; 13] = [2.3, 4.0, 5.5, 7.0, 9.0, 10.7, 12.5, 14.5, 16.5, 19.0, 21.5, 24.5, 28.0];
    1 + LIMITS.iter().filter(|limit| bits_per_key >= **limit).count() as u32
}

impl BlockedFilter {
    fn build(bits_per_key: f32, hashes: &[u64]) -> Result<BlockedFilter> {
        let bits = hashes.len() as f64 * f64::from(bits_per_key);
        let lines = (bits / (FILTER_LINE_BYTES * 8) as f64).ceil().clamp(1.0, f64::from(u32::MAX)) as usize;
        let lines = memory::filled(Line([0; 8]), lines)?;
        let mut filter = BlockedFilter { lines, probes: probes_for(bits_per_key) };
        // Lines are visited in random order. Prefetching them some keys ahead overlaps the misses.
        const AHEAD: usize = 16;
        for (i, hash) in hashes.iter().enumerate() {
            if let Some(ahead) = hashes.get(i + AHEAD) {
                filter.prefetch(*ahead);
            }
            filter.insert(*hash);
        }
        Ok(filter)
    }

    #[inline]
    fn line_of(&self, hash: u64) -> usize {
        (((hash >> 32) * self.lines.len() as u64) >> 32) as usize
    }

    #[inline]
    fn insert(&mut self, hash: u64) {
        let line = self.line_of(hash);
        let bits = &mut self.lines[line].0;
        let mut fields = hash.wrapping_mul(FIRST_MULTIPLIER);
        for probe in 0..self.probes {
            if probe == FIELDS {
                fields = hash.wrapping_mul(SECOND_MULTIPLIER);
            }
            fields = fields.rotate_left(FIELD_BITS);
            bits[fields as usize >> 6 & 7] |= 1 << (fields & 63);
        }
    }

    #[inline]
    fn may_contain(&self, hash: u64) -> bool {
        let bits = &self.lines[self.line_of(hash)].0;
        let mut fields = hash.wrapping_mul(FIRST_MULTIPLIER);
        let mut all = 1;
        // No early exit: the failing probe of an absent key is random, and a mispredicted branch
        // costs more than the remaining probes of a line that is already loaded.
        for _ in 0..self.probes.min(FIELDS) {
            fields = fields.rotate_left(FIELD_BITS);
            all &= bits[fields as usize >> 6 & 7] >> (fields & 63);
        }
        if self.probes > FIELDS {
            fields = hash.wrapping_mul(SECOND_MULTIPLIER);
            for _ in FIELDS..self.probes {
                fields = fields.rotate_left(FIELD_BITS);
                all &= bits[fields as usize >> 6 & 7] >> (fields & 63);
            }
        }
        all & 1 != 0
    }

    #[inline]
    fn prefetch(&self, hash: u64) {
        prefetch(&self.lines[self.line_of(hash)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sapwood_base::key::key_hash;

    fn hashes(count: u64, salt: u64) -> Vec<u64> {
        (0..count).map(|i| key_hash(&(i ^ salt << 40).to_le_bytes())).collect()
    }

    /// The false-positive rate of a filter whose lines hold `n` keys, Poisson-distributed around
    /// 512 / bits per key.
    fn blocked_theory(bits_per_key: f64, probes: u32) -> f64 {
        let mean = 512.0 / bits_per_key;
        let mut weight = (-mean).exp();
        let mut rate = 0.0;
        for load in 1..1000 {
            weight *= mean / f64::from(load);
            let full = 1.0 - (1.0f64 - 1.0 / 512.0).powi(load * probes as i32);
            rate += weight * full.powi(probes as i32);
        }
        rate
    }

    fn measured(filter: &Filter, absent: &[u64]) -> f64 {
        absent.iter().filter(|hash| filter.may_contain(**hash)).count() as f64 / absent.len() as f64
    }

    #[test]
    fn filters_of_few_keys_can_be_read_back() {
        for (kind, keys, bits) in [FilterKind::Blocked, FilterKind::Standard].into_iter().flat_map(|kind| {
            (1..12).flat_map(move |keys| (0..=64).map(move |bits| (kind, keys, bits as f32)))
        }) {
            let present = hashes(keys, 2);
            let mut payload = Vec::new();
            Filter::build(kind, bits, &present).unwrap().encode(&mut payload);
            let read =
                Filter::decode(&payload).unwrap_or_else(|error| panic!("{kind:?} {keys} {bits}: {error}"));
            assert!(present.iter().all(|hash| read.may_contain(*hash)));
        }
    }

    #[test]
    fn rates_of_false_positives_are_those_of_the_theory_and_none_is_negative() {
        let (present, absent) = (hashes(50_000, 0), hashes(400_000, 1));
        for bits in [2.0f32, 6.0, 8.5, 10.0, 12.0, 14.0, 17.0, 24.0] {
            let blocked = Filter::build(FilterKind::Blocked, bits, &present).unwrap();
            assert!(present.iter().all(|hash| blocked.may_contain(*hash)));
            let theory = blocked_theory(f64::from(bits), probes_for(bits));
            let rate = measured(&blocked, &absent);
            println!("blocked {bits}: {:.4} % (theory {:.4} %)", rate * 100.0, theory * 100.0);
            assert!(rate < theory * 1.15 + 5e-5, "{bits} bits: {rate} against {theory}");
        }
        let standard = Filter::build(FilterKind::Standard, 10.0, &present).unwrap();
        assert!(present.iter().all(|hash| standard.may_contain(*hash)));
        let rate = measured(&standard, &absent);
        println!("standard 10: {:.4} %", rate * 100.0);
        assert!(rate < 0.0095, "{rate}");
    }

    #[test]
    fn the_number_of_probes_is_near_the_best() {
        for bits in [2.0f32, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 22.0, 28.0] {
            let chosen = blocked_theory(f64::from(bits), probes_for(bits));
            let best = (1..=14).map(|probes| blocked_theory(f64::from(bits), probes)).fold(1.0, f64::min);
            assert!(chosen <= best * 1.05, "{bits} bits: {chosen} against {best}");
        }
    }

    #[test]
    fn filters_round_trip_and_wrong_bytes_never_panic() {
        let present = hashes(500, 0);
        for kind in [FilterKind::None, FilterKind::Blocked, FilterKind::Standard] {
            for bits in [f32::NAN, -1.0, 0.5, 10.0, 1000.0] {
                let filter = Filter::build(kind, bits, &present).unwrap();
                let mut payload = Vec::new();
                filter.encode(&mut payload);
                if kind == FilterKind::None {
                    assert!(payload.is_empty());
                    continue;
                }
                let decoded = Filter::decode(&payload).unwrap();
                assert!(present.iter().all(|hash| decoded.may_contain(*hash)));
                for at in 0..payload.len().min(100) {
                    assert!(Filter::decode(&payload[..at]).is_err());
                    let mut wrong = payload.clone();
                    wrong[at] ^= 0x41;
                    if let Ok(filter) = Filter::decode(&wrong) {
                        filter.prefetch(7);
                        filter.may_contain(7);
                    }
                }
            }
        }
    }
}

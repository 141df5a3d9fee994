//! The two operations that need vendor intrinsics: comparing sixteen tags at once, and prefetching.
//!
//! Both have a portable form with the same results.
#![allow(unsafe_code, reason = "vendor intrinsics have no safe form; nothing else in this crate is unsafe")]
use sapwood_base::format::block::TAG_GROUP;

/// A bit for every byte of `group` that equals `tag`. Bit `i` stands for byte `i`.
#[inline]
pub(crate) fn match_tags(group: &[u8; TAG_GROUP], tag: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
        // SAFETY: SSE2 is part of x86_64; `group` is valid for a sixteen-byte read, and the load
        // needs no alignment.
        unsafe {
            let tags = _mm_loadu_si128(group.as_ptr().cast());
            _mm_movemask_epi8(_mm_cmpeq_epi8(tags, _mm_set1_epi8(tag as i8))) as u32
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    match_tags_portable(group, tag)
}

/// [`match_tags`] in arithmetic on two words. A byte that equals `tag` becomes zero by XOR; adding
/// 0x7F to the low seven bits of a byte carries into its high bit unless they are all zero.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn match_tags_portable(group: &[u8; TAG_GROUP], tag: u8) -> u32 {
    const LOW_BITS: u64 = 0x7F7F_7F7F_7F7F_7F7F;
    let mut mask = 0;
    for (i, word) in group.as_chunks::<8>().0.iter().enumerate() {
        let difference = u64::from_le_bytes(*word) ^ (u64::from(tag) * 0x0101_0101_0101_0101);
        let zeros = !(((difference & LOW_BITS) + LOW_BITS) | difference | LOW_BITS);
        // Gathers the eight high bits into one byte: each partial product lands on its own bit of
        // the top byte.
        let gathered = (zeros >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= (gathered as u32) << (8 * i);
    }
    mask
}

/// Prefetches the cache line of `place`. A hint; never faults.
#[inline]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch has no effect that the program could observe, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_agree_with_a_loop() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            // A narrow range, so that matches and near-matches are frequent.
            let base = random.u8(..);
            let group: [u8; TAG_GROUP] = std::array::from_fn(|_| base.wrapping_add(random.u8(0..3)));
            let tag = base.wrapping_add(random.u8(0..3));
            let expected = (0..TAG_GROUP).fold(0, |mask, i| mask | u32::from(group[i] == tag) << i);
            assert_eq!(match_tags(&group, tag), expected);
            assert_eq!(match_tags_portable(&group, tag), expected);
        }
    }
}

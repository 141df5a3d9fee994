//! Numbers by rank among sampled keys, for keys such as paths: many share a prefix, and no place
//! distinguishes many.
//!
//! The samples split all keys into buckets of about equal size. A number begins with the bucket's
//! number. It continues with the bytes in which keys of the bucket can differ, after the common
//! prefix of the samples on both sides, scaled so that the lower sample has the least number of the
//! bucket and the upper one about the greatest.
//!
//! A tree over the samples finds the bucket, eight bytes deeper at each step.
use sapwood_base::key::{common_prefix_len, key_prefix};

/// Bits of a bucket number.
const BUCKET_BITS: u32 = 12;
/// Maximum of samples, so that bucket numbers fit.
const MOST_SAMPLES: usize = (1 << BUCKET_BITS) - 1;
/// Bytes of a sample that are kept after the first that distinguishes it from its neighbours.
const TOLD_APART_BYTES: usize = 16;
/// Maximum length of a kept sample.
const MOST_BYTES: usize = 512;
/// Bytes compared per step of the tree.
const WORD_BYTES: usize = size_of::<u64>();

/// Samples in order, as buckets.
#[derive(Clone, Debug)]
pub(super) struct RankCoding {
    samples: Vec<Box<[u8]>>,
    /// The keys below the first sample, between each and the next, and from the last one on.
    buckets: Vec<Bucket>,
    /// Every search begins at the first one.
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Length of the common prefix of its keys.
    skipped: u32,
    /// Left shift that scales the words of its keys to 64 bits.
    shift: u32,
    /// The least word.
    least: u64,
}

/// Samples with a common prefix, split by their next eight bytes.
#[derive(Clone, Debug, Default)]
struct Node {
    words: Vec<u64>,
    /// One per word, and one for the end.
    branches: Vec<Branch>,
}

/// The samples with one word.
#[derive(Clone, Copy, Debug)]
struct Branch {
    /// How many samples are below this group.
    below: u32,
    /// The node that splits them further; 0 if there is just one.
    node: u32,
}

impl RankCoding {
    /// Returns `None` if too few of the ascending `keys` are distinguishable.
    pub(super) fn of(keys: &[&[u8]]) -> Option<RankCoding> {
        let kept = |i: usize| {
            let alike = |other: usize| keys.get(other).map_or(0, |other| common_prefix_len(other, keys[i]));
            let alike = alike(i + 1).max(alike(i.wrapping_sub(1)));
            &keys[i][..keys[i].len().min(alike + TOLD_APART_BYTES).min(MOST_BYTES)]
        };
        let step = keys.len().div_ceil(MOST_SAMPLES).max(1);
        let mut samples: Vec<Box<[u8]>> = (0..keys.len()).step_by(step).map(|i| kept(i).into()).collect();
        samples.dedup();
        if samples.len() < 2 {
            return None;
        }
        let bucket = |number: usize| {
            let upper = samples.get(number).map(|sample| &**sample);
            let lower = number.checked_sub(1).map(|lower| &*samples[lower]);
            let skipped = upper.zip(lower).map_or(0, |(upper, lower)| common_prefix_len(upper, lower));
            let least = lower.map_or(0, |lower| word(lower, skipped));
            let greatest = upper.map_or(u64::MAX, |upper| word(upper, skipped));
            let shift = greatest.saturating_sub(least).leading_zeros().min(u64::BITS - 1);
            Bucket { skipped: skipped as u32, shift, least }
        };
        let buckets = (0..=samples.len()).map(bucket).collect();
        let mut nodes = vec![Node::default()];
        // Nodes to fill, with their samples and the length of the common prefix.
        let mut open = vec![(0, 0..samples.len(), 0)];
        while let Some((node, range, skipped)) = open.pop() {
            let mut at = range.start;
            for alike in samples[range].chunk_by(|a, b| word(a, skipped) == word(b, skipped)) {
                let mut branch = Branch { below: at as u32, node: 0 };
                // Exhausted samples differ only in trailing zeros: one of them suffices.
                if alike.len() > 1 && alike.iter().any(|sample| sample.len() > skipped + WORD_BYTES) {
                    branch.node = nodes.len() as u32;
                    nodes.push(Node::default());
                    open.push((branch.node as usize, at..at + alike.len(), skipped + WORD_BYTES));
                }
                nodes[node].words.push(word(&alike[0], skipped));
                nodes[node].branches.push(branch);
                at += alike.len();
            }
            nodes[node].branches.push(Branch { below: at as u32, node: 0 });
        }
        Some(RankCoding { samples, buckets, nodes })
    }

    #[inline]
    pub(super) fn number_of(&self, key: &[u8]) -> u64 {
        let number = self.bucket_of(key);
        let bucket = self.buckets[number];
        let word = word(key, bucket.skipped as usize).saturating_sub(bucket.least);
        // Keys that end in zeros may exceed the range.
        let stretched = if word.leading_zeros() < bucket.shift { u64::MAX } else { word << bucket.shift };
        (number as u64) << (u64::BITS - BUCKET_BITS) | stretched >> BUCKET_BITS
    }

    /// How many samples are `<= key`. (Keys and samples are treated as if padded with zeros, which
    /// preserves the order.)
    #[inline]
    fn bucket_of(&self, key: &[u8]) -> usize {
        let mut node = &self.nodes[0];
        let mut skipped = 0;
        loop {
            let word = word(key, skipped);
            let at = node.words.partition_point(|other| *other < word);
            let branch = node.branches[at];
            if node.words.get(at) != Some(&word) {
                return branch.below as usize;
            }
            skipped += WORD_BYTES;
            if branch.node == 0 {
                let below = branch.below as usize;
                let rest = |key: &[u8]| key.len().min(skipped);
                let sample = &self.samples[below];
                return below + usize::from(sample[rest(sample)..] <= key[rest(key)..]);
            }
            node = &self.nodes[branch.node as usize];
        }
    }
}

/// Eight bytes of `key` after the skipped ones.
#[inline]
fn word(key: &[u8], skipped: usize) -> u64 {
    key.get(skipped..).map_or(0, key_prefix)
}

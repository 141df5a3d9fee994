//! Fuzz targets as plain functions of bytes; a panic is a finding.
//!
//! `fuzz/` wraps each of them for libFuzzer; `it/corpora.rs` replays the committed corpora through
//! the same functions with the stable compiler. A target decodes its input and checks the promises
//! of decoders: no panic, no allocation that the input does not justify, termination, ordered
//! output, and one encoding per value. [`run`] adds the count of allocations. [`mutate`] repairs
//! checksums after a mutation, so that a fuzzer passes the first check.
use std::cell::RefCell;

pub mod allocation;
pub mod bytes;
pub mod memory;
pub mod repair;
pub mod coding;
pub mod options;
pub mod log;
pub mod batch;
pub mod manifest;
pub mod section;
pub mod table;
pub mod image;
pub mod index;
pub mod tree;
pub mod stateful;
pub mod seeds;

/// The number of every table in the targets.
pub const FILE: sapwood_base::FileNumber = sapwood_base::FileNumber(7);
/// The database that every log and MANIFEST in the targets belongs to.
pub const DATABASE: u64 = 42;

/// One fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name of the function, of the fuzzer's program, and of the corpus folder.
    pub name: &'static str,
    /// The target itself.
    pub function: fn(&[u8]),
    /// Repairs checksums, and lengths where possible; intact input stays unchanged.
    pub repair: fn(&mut [u8]),
    /// Whether the rule of `allocation` covers all of its allocations. A target that keeps a model
    /// of its own, or may allocate more for data that is really there, checks each call of a
    /// decoder instead.
    pub whole: bool,
    /// The longest useful input, in bytes.
    pub max_len: usize,
    /// Whether it only decodes. Other targets run an engine, whose memory the rule does not cover.
    pub decoder: bool,
}

const fn decoder(name: &'static str, function: fn(&[u8])) -> Target {
    Target { name, function, repair: repair::nothing, whole: true, max_len: 4096, decoder: true }
}

impl Target {
    const fn repaired(self, repair: fn(&mut [u8])) -> Target {
        Target { repair, ..self }
    }

    /// A target that allocates memory of its own: see [`Target::whole`].
    const fn with_model(self) -> Target {
        Target { whole: false, ..self }
    }

    const fn max_len(self, max_len: usize) -> Target {
        Target { max_len, ..self }
    }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    decoder("coding", coding::coding).max_len(512),
    decoder("options", options::options).max_len(256),
    decoder("file_name", options::file_name).max_len(64),
    decoder("log_segment", log::log_segment).max_len(512).repaired(repair::segment_header),
    decoder("wal_reader", log::wal_reader).max_len(8192).repaired(repair::log),
    decoder("wal_roundtrip", log::wal_roundtrip).max_len(1024).with_model(),
    decoder("batch_decode", batch::batch_decode),
    decoder("batch_roundtrip", batch::batch_roundtrip).max_len(1024).with_model(),
    decoder("manifest_edit", manifest::manifest_edit),
    decoder("manifest_replay", manifest::manifest_replay).with_model().repaired(repair::manifest),
    decoder("sst_block", section::sst_block),
    decoder("sst_stored", section::sst_stored).repaired(repair::stored_input).with_model(),
    decoder("sst_index", section::sst_index),
    decoder("sst_filter", section::sst_filter),
    decoder("sst_footer", section::sst_footer).max_len(104).repaired(repair::footer_input),
    decoder("sst_properties", section::sst_properties),
    decoder("decompress", section::decompress).with_model(),
    decoder("sst_open_scan", table::sst_open_scan).repaired(repair::table).with_model(),
    decoder("sst_roundtrip", table::sst_roundtrip).max_len(1024).with_model(),
    decoder("recover_image", image::recover_image).repaired(repair::image).with_model(),
    Target { decoder: false, ..decoder("open_dir", image::open_dir).repaired(repair::image) },
    Target { decoder: false, ..decoder("db_ops", stateful::db_ops).max_len(1024) },
    Target { decoder: false, ..decoder("db_crash", stateful::db_crash).max_len(512) },
    Target { decoder: false, ..decoder("db_fault", stateful::db_fault).max_len(1024) },
    decoder("ordered", index::ordered).max_len(256),
    decoder("index_definition", index::index_definition).max_len(512),
    decoder("extractor", index::extractor).max_len(1024),
    decoder("btree_page", tree::btree_page).repaired(tree::repair_page).with_model(),
    Target { decoder: false, ..decoder("btree_ops", tree::btree_ops).max_len(2048) },
];

/// The target of that name. In a constant, the program contains the code of this target only: a
/// fuzzer reads all of its counters after every execution.
///
/// # Panics
/// If there is no such target.
pub const fn target(name: &str) -> Target {
    let mut at = 0;
    while at < TARGETS.len() {
        if is_same(TARGETS[at].name.as_bytes(), name.as_bytes()) {
            return TARGETS[at];
        }
        at += 1;
    }
    panic!("no target has this name")
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// Runs a target on an input and checks the rule of memory.
pub fn run(target: &Target, data: &[u8]) {
    if !target.decoder {
        (target.function)(data);
        return;
    }
    thread_local!(static WARM: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) });
    let is_cold = WARM.with_borrow_mut(|warm| {
        let is_cold = !warm.contains(&target.name);
        warm.extend(is_cold.then_some(target.name));
        is_cold
    });
    if is_cold {
        allocation::warming(|| (target.function)(data));
    }
    match target.whole {
        true => allocation::decoding(target.name, data.len(), || (target.function)(data)),
        false => (target.function)(data),
    }
}

/// One mutation. `mutate` is libFuzzer's own: it changes the first `size` bytes of the buffer to at
/// most `max_size`, and returns their new number. Most mutations are followed by a repair of
/// checksums; some keep wrong ones, so that those are tested too.
pub fn mutate(
    target: &Target,
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    mutate: impl FnOnce(&mut [u8], usize, usize) -> usize,
) -> usize {
    // Longer inputs reach nothing new, and take longer.
    let size = mutate(data, size, max_size.min(target.max_len.max(size)));
    if !seed.is_multiple_of(16) {
        (target.repair)(&mut data[..size]);
    }
    size
}

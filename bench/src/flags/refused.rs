//! Flags of RocksDB that change the measured work in ways that this engine does not support: other
//! operations, another device, another kind of database. The value that turns such a flag off is
//! accepted. Any other value is refused, since the figures would have another meaning.

/// A flag that is accepted only when it is off.
pub struct Refused {
    /// Its name.
    pub name: &'static str,
    /// Whether its form is `--name` and `--noname`.
    pub boolean: bool,
    /// The values that turn it off, besides the empty one.
    off: &'static [&'static str],
    /// The reason for refusing it, and the alternative.
    why: &'static str,
}

impl Refused {
    /// The entry of a name.
    pub fn find(name: &str) -> Option<&'static Refused> {
        ALL.iter().find(|refused| refused.name == name)
    }

    /// Whether `value` turns the flag off; the error has the reason for refusing any other.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let switch: Option<bool> = super::table::FlagValue::parse(value);
        let off = match switch {
            Some(switch) if self.boolean => !switch,
            _ => value.is_empty() || self.off.contains(&value.to_ascii_lowercase().as_str()),
        };
        if off { Ok(()) } else { Err(format!("--{}={value} is refused: {}", self.name, self.why)) }
    }
}

const fn switch(name: &'static str, why: &'static str) -> Refused {
    Refused { name, boolean: true, off: &[], why }
}

const fn value(name: &'static str, off: &'static [&'static str], why: &'static str) -> Refused {
    Refused { name, boolean: false, off, why }
}

/// All refused flags.
#[rustfmt::skip]
pub static ALL: &[Refused] = &[
    switch("transaction_db", "Sapwood has no transactions of several steps"),
    switch("optimistic_transaction_db", "Sapwood has no transactions of several steps"),
    switch("use_uint64_comparator", "keys are ordered by their bytes; db_bench's numbers are big-endian, so the order is theirs"),
    switch("use_tailing_iterator", "Sapwood has no iterators that follow writes; --reuse_iterator keeps one iterator for all seeks"),
    switch("seek_missing_prefix", "prefixes are not told apart from keys; readmissing looks for keys that do not exist"),
    switch("use_secondary_db", "a database is opened by one process; --readonly opens it for reading"),
    switch("open_as_follower", "a database is opened by one process; --readonly opens it for reading"),
    switch("simulate_hdd", "files are those of the machine; no device is simulated"),
    value("simulate_hybrid_fs_file", &[], "files are those of the machine; no device is simulated"),
    value("env_uri", &[], "files are those of the machine; --db chooses the file system"),
    value("fs_uri", &[], "files are those of the machine; --db chooses the file system"),
    value("options_file", &[], "options files of RocksDB are not read; give the settings as flags"),
    value("cache_uri", &[], "the buffer cache is the engine's own; --cache_size sets its size"),
    value("secondary_cache_uri", &[], "there is no second cache; --cache_size sets the size of the one there is"),
    value("statistics_string", &[], "--statistics prints the engine's statistics"),
    value("compression_manager", &["none"], "a database has one codec for its levels; --compression_type chooses it"),
    value("trace_file", &[], "operations are not traced"),
    value("block_cache_trace_file", &[], "the buffer cache is not traced"),
    value("num_multi_db", &["0", "1"], "a run has one database; openclose measures many of them at once"),
    value("user_timestamp_size", &["0"], "keys have no timestamps"),
    value("writes_per_range_tombstone", &["0"], "Sapwood has no deletes of ranges"),
    value("num_hot_column_families", &["0"], "all keyspaces are used alike; --num_column_families sets their number"),
    value("column_family_distribution", &[], "all keyspaces are used alike; --num_column_families sets their number"),
];

//! The settings of memtables.

/// Settings of memtables and of the arenas they live in.
#[derive(Clone, Debug)]
pub struct MemtableOptions {
    /// The size at which a memtable requests rotation, in bytes. At most 31 GiB.
    pub size_bytes: usize,
}

impl Default for MemtableOptions {
    fn default() -> MemtableOptions {
        MemtableOptions { size_bytes: 128 << 20 }
    }
}

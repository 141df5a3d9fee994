//! Texts: options of keyspaces, durabilities, and the names of files.
use sapwood::{Codec, Durability, KeyspaceOptions};
use sapwood_base::format::file_name::FileName;

/// Parses the input as options of a keyspace and as a durability: an error, or settings within
/// bounds that survive a round trip through their text.
pub fn options(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(options) = text.parse::<KeyspaceOptions>() {
        assert!(options.filter_bits_per_key.is_none_or(|bits| (0.0..=32.0).contains(&bits)));
        assert!(options.block_bytes.is_none_or(|bytes| (256..=1 << 20).contains(&bytes)));
        if let Some(Codec::Zstd(level)) = options.compression {
            assert!((-131_072..=22).contains(&level), "level {level} is no level");
        }
        let again = options.to_text();
        assert_eq!(again.parse::<KeyspaceOptions>().expect("their own text"), options);
    }
    if let Ok(durability) = text.parse::<Durability>() {
        assert_eq!(durability.to_string().parse::<Durability>().expect("its own text"), durability);
    }
}

/// Parses the input as the name of a file: a foreign name, or one of the engine's in its only
/// spelling.
pub fn file_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(name) = FileName::parse(text) {
        assert_eq!(name.format(), text, "a file has one name");
        assert!(!text.contains(['/', '\\', '\0']), "a name stays in its directory");
        if let Some(number) = name.number() {
            // The next number is larger by one.
            assert!(number.0 < u64::MAX / 2, "{number} leaves no room for numbers above it");
        }
    }
}

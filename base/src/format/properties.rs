//! The properties section of a table: counts and sizes of its content, and its smallest and largest
//! key.
//!
//! A list of (identifier, bytes). Unknown ones with bit 6 are kept; others are refused.
use crate::coding::{Decoder, put_bytes, put_varint, varint_len};
use crate::error::{Error, Result};
use crate::key::{KeyspaceId, MAX_KEY_BYTES};
use crate::sequence::SequenceNumber;

const KEYSPACE: u64 = 1;
const ENTRIES: u64 = 2;
const TOMBSTONES: u64 = 3;
const RAW_KEY_BYTES: u64 = 4;
const RAW_VALUE_BYTES: u64 = 5;
const SMALLEST_KEY: u64 = 6;
const LARGEST_KEY: u64 = 7;
const MIN_SEQUENCE: u64 = 8;
const MAX_SEQUENCE: u64 = 9;
const USER_KEYS: u64 = 10;

/// The properties of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableProperties {
    /// The keyspace that the table belongs to.
    pub keyspace: KeyspaceId,
    /// The number of entries, tombstones included.
    pub entries: u64,
    /// The number of tombstones.
    pub tombstones: u64,
    /// The number of different user keys.
    pub user_keys: u64,
    /// The total length of all keys in bytes.
    pub raw_key_bytes: u64,
    /// The total length of all values in bytes.
    pub raw_value_bytes: u64,
    /// The smallest user key; empty in an empty table.
    pub smallest_key: Vec<u8>,
    /// The largest user key; empty in an empty table.
    pub largest_key: Vec<u8>,
    /// The smallest sequence number; 0 in an empty table.
    pub min_sequence: SequenceNumber,
    /// The largest sequence number; 0 in an empty table.
    pub max_sequence: SequenceNumber,
    /// Optional properties that this version does not know, in the order of the file.
    pub unknown: Vec<(u64, Vec<u8>)>,
}

impl TableProperties {
    /// Appends the section's payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let numbers = [
            (KEYSPACE, u64::from(self.keyspace.0)),
            (ENTRIES, self.entries),
            (TOMBSTONES, self.tombstones),
            (RAW_KEY_BYTES, self.raw_key_bytes),
            (RAW_VALUE_BYTES, self.raw_value_bytes),
            (MIN_SEQUENCE, self.min_sequence.0),
            (MAX_SEQUENCE, self.max_sequence.0),
            (USER_KEYS, self.user_keys),
        ];
        for (id, number) in numbers {
            put_varint(out, id);
            put_varint(out, varint_len(number) as u64);
            put_varint(out, number);
        }
        for (id, bytes) in [(SMALLEST_KEY, &self.smallest_key), (LARGEST_KEY, &self.largest_key)] {
            put_varint(out, id);
            put_bytes(out, bytes);
        }
        for (id, bytes) in &self.unknown {
            put_varint(out, *id);
            put_bytes(out, bytes);
        }
    }

    /// Decodes a section's payload.
    pub fn decode(payload: &[u8]) -> Result<TableProperties> {
        let mut properties = TableProperties::default();
        let mut seen = 0u64;
        let mut decoder = Decoder::new(payload);
        while !decoder.is_empty() {
            let id = decoder.varint()?;
            let bytes = decoder.length_prefixed()?;
            if id < 64 {
                if seen & 1 << id != 0 {
                    return Err(Error::malformed("a table property occurs twice"));
                }
                seen |= 1 << id;
            }
            let key = || match bytes.len() <= MAX_KEY_BYTES {
                true => Ok(bytes.to_vec()),
                false => Err(Error::malformed("a key in the table properties is too long")),
            };
            let number = || {
                let mut decoder = Decoder::new(bytes);
                let number = decoder.varint()?;
                if decoder.is_empty() {
                    Ok(number)
                } else {
                    Err(Error::malformed("a table property is not a number"))
                }
            };
            match id {
                KEYSPACE => {
                    let keyspace = u32::try_from(number()?);
                    properties.keyspace =
                        KeyspaceId(keyspace.map_err(|_| Error::malformed("keyspace is too large"))?);
                }
                ENTRIES => properties.entries = number()?,
                TOMBSTONES => properties.tombstones = number()?,
                RAW_KEY_BYTES => properties.raw_key_bytes = number()?,
                RAW_VALUE_BYTES => properties.raw_value_bytes = number()?,
                SMALLEST_KEY => properties.smallest_key = key()?,
                LARGEST_KEY => properties.largest_key = key()?,
                MIN_SEQUENCE => properties.min_sequence = SequenceNumber(number()?),
                MAX_SEQUENCE => properties.max_sequence = SequenceNumber(number()?),
                USER_KEYS => properties.user_keys = number()?,
                id if super::is_optional(id) => properties.unknown.push((id, bytes.to_vec())),
                id => return Err(super::unknown_field("table", id)),
            }
        }
        if properties.tombstones > properties.entries
            || properties.user_keys > properties.entries
            || properties.smallest_key > properties.largest_key
            || properties.min_sequence > properties.max_sequence
            || properties.max_sequence > SequenceNumber::MAX
        {
            return Err(Error::malformed("table properties contradict each other"));
        }
        Ok(properties)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn sample() -> TableProperties {
        TableProperties {
            keyspace: KeyspaceId(7),
            entries: 1000,
            tombstones: 3,
            user_keys: 900,
            raw_key_bytes: 16_000,
            raw_value_bytes: 1 << 40,
            smallest_key: b"a".to_vec(),
            largest_key: b"zz".to_vec(),
            min_sequence: SequenceNumber(5),
            max_sequence: SequenceNumber::MAX,
            unknown: vec![(64, b"kept".to_vec()), (u64::MAX, vec![])],
        }
    }

    #[test]
    fn properties_round_trip_with_the_unknown_optional_ones() {
        let mut payload = Vec::new();
        sample().encode(&mut payload);
        assert_eq!(TableProperties::decode(&payload).unwrap(), sample());
    }

    #[test]
    fn an_unknown_required_property_is_refused() {
        let mut payload = Vec::new();
        sample().encode(&mut payload);
        put_varint(&mut payload, 63);
        put_bytes(&mut payload, b"?");
        assert_eq!(TableProperties::decode(&payload).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn wrong_bytes_never_panic() {
        let mut payload = Vec::new();
        sample().encode(&mut payload);
        for at in 0..payload.len() {
            let _ = TableProperties::decode(&payload[..at]);
            for bit in 0..8 {
                let mut wrong = payload.clone();
                wrong[at] ^= 1 << bit;
                let _ = TableProperties::decode(&wrong);
            }
        }
    }
}

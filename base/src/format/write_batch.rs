//! The payload of a batch record: operations in the order in which they take effect.
//!
//! ```text
//! operation: u8 kind   varint keyspace   varint key length   [put: varint value length]   key
//!            [put: value]
//! padding:   u8 0xFF   the rest of the payload is ignored
//! ```
//!
//! Operation `i` of a record at position `p` has sequence number `p + i`, so a record takes at
//! least as many units as it has operations; padding makes up the difference for many tiny ones.
use super::log_record::{HEADER_BYTES, UNIT_BYTES};
use crate::coding::{Decoder, put_varint, varint_len};
use crate::error::{Error, Result};
use crate::key::{KeyspaceId, MAX_KEY_BYTES, MAX_VALUE_BYTES, ValueKind};
use crate::memory;

const PADDING: u8 = 0xFF;

/// One decoded operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation<'a> {
    /// Put or delete.
    pub kind: ValueKind,
    /// The keyspace it applies to.
    pub keyspace: KeyspaceId,
    /// The user key.
    pub key: &'a [u8],
    /// The value; empty for a delete.
    pub value: &'a [u8],
}

/// Appends one operation.
///
/// Errors: `OutOfResources` if there is no memory for it; `out` is then unchanged.
#[inline]
pub fn put_operation(
    out: &mut Vec<u8>,
    kind: ValueKind,
    keyspace: KeyspaceId,
    key: &[u8],
    value: &[u8],
) -> Result<()> {
    memory::reserve(out, 16 + key.len() + value.len())?;
    out.push(kind as u8);
    put_varint(out, u64::from(keyspace.0));
    put_varint(out, key.len() as u64);
    if kind == ValueKind::Put {
        put_varint(out, value.len() as u64);
    }
    out.extend_from_slice(key);
    if kind == ValueKind::Put {
        out.extend_from_slice(value);
    }
    Ok(())
}

/// The number of bytes that [`put_operation`] appends.
pub fn operation_bytes(kind: ValueKind, keyspace: KeyspaceId, key: &[u8], value: &[u8]) -> usize {
    let value_part = if kind == ValueKind::Put { varint_len(value.len() as u64) + value.len() } else { 0 };
    1 + varint_len(u64::from(keyspace.0)) + varint_len(key.len() as u64) + key.len() + value_part
}

/// Pads `record` (header room and payload) so that it takes at least as many units as it has
/// operations.
#[inline]
pub fn pad_for_sequences(record: &mut Vec<u8>, operations: usize) {
    let least = operations * UNIT_BYTES;
    if record.len() < least {
        record.push(PADDING);
        record.resize(least.max(record.len()), 0);
    }
    debug_assert!(record.len() >= HEADER_BYTES);
}

/// The operations of a payload, in order. Stops after the first error.
#[derive(Clone, Debug)]
pub struct Operations<'a> {
    decoder: Decoder<'a>,
    failed: bool,
}

impl<'a> Operations<'a> {
    /// The operations of `payload`.
    pub fn new(payload: &'a [u8]) -> Operations<'a> {
        Operations { decoder: Decoder::new(payload), failed: false }
    }

    /// The number of payload bytes that the operations so far took.
    #[inline]
    pub fn position(&self) -> usize {
        self.decoder.position()
    }

    #[inline]
    fn decode(&mut self) -> Result<Option<Operation<'a>>> {
        if self.decoder.is_empty() {
            return Ok(None);
        }
        let kind = self.decoder.u8()?;
        if kind == PADDING {
            return Ok(None);
        }
        let kind = ValueKind::from_u8(kind).ok_or_else(|| ValueKind::unknown(kind))?;
        let keyspace = u32::try_from(self.decoder.varint()?)
            .map_err(|_| Error::malformed("keyspace number exceeds 32 bits"))?;
        let key_len = self.decoder.varint()?;
        let value_len = if kind == ValueKind::Put { self.decoder.varint()? } else { 0 };
        if key_len > MAX_KEY_BYTES as u64 || value_len > MAX_VALUE_BYTES as u64 {
            return Err(Error::malformed("key or value length exceeds its limit"));
        }
        let key = self.decoder.bytes(key_len as usize)?;
        let value = self.decoder.bytes(value_len as usize)?;
        Ok(Some(Operation { kind, keyspace: KeyspaceId(keyspace), key, value }))
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Result<Operation<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = self.decode();
        self.failed = !matches!(result, Ok(Some(_)));
        result.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_and_round_trip() {
        let mut out = Vec::new();
        put_operation(&mut out, ValueKind::Put, KeyspaceId(300), b"key", b"value").unwrap();
        put_operation(&mut out, ValueKind::Delete, KeyspaceId(0), b"", b"").unwrap();
        assert_eq!(out, b"\x01\xac\x02\x03\x05keyvalue\x00\x00\x00");
        assert_eq!(
            out.len(),
            operation_bytes(ValueKind::Put, KeyspaceId(300), b"key", b"value")
                + operation_bytes(ValueKind::Delete, KeyspaceId(0), b"", b"")
        );
        let operations: Vec<_> = Operations::new(&out).map(|operation| operation.unwrap()).collect();
        assert_eq!(operations[0].key, b"key");
        assert_eq!(operations[0].value, b"value");
        assert_eq!(operations[1].kind, ValueKind::Delete);
        for cut in 1..out.len() - 3 {
            assert!(Operations::new(&out[..cut]).any(|operation| operation.is_err()), "cut at {cut}");
        }
    }

    #[test]
    fn many_tiny_operations_are_padded_to_their_sequence_numbers() {
        let mut record = vec![0; HEADER_BYTES];
        for _ in 0..100 {
            put_operation(&mut record, ValueKind::Delete, KeyspaceId(0), b"", b"").unwrap();
        }
        pad_for_sequences(&mut record, 100);
        assert_eq!(record.len(), 800);
        assert_eq!(Operations::new(&record[HEADER_BYTES..]).filter(|o| o.is_ok()).count(), 100);
    }
}

//! Varints, length-prefixed bytes, and functions of keys: one encoding per number, and order is
//! preserved.
use sapwood_base::coding::{Decoder, put_bytes, put_varint, varint_len};
use sapwood_base::key::{common_prefix_len, key_head, key_prefix, prefix_successor};

/// Reads the input as varints and strings, and as two keys.
pub fn coding(data: &[u8]) {
    let mut decoder = Decoder::new(data);
    let mut again = Vec::new();
    while !decoder.is_empty() {
        let before = decoder.position();
        let Ok(number) = decoder.varint() else { break };
        again.clear();
        put_varint(&mut again, number);
        assert_eq!(again, data[before..decoder.position()], "a number has one encoding");
        assert_eq!(again.len(), varint_len(number));
        let before = decoder.position();
        let mut peek = decoder.clone();
        let Ok(bytes) = peek.length_prefixed() else { continue };
        again.clear();
        put_bytes(&mut again, bytes);
        assert_eq!(again, data[before..peek.position()], "a string has one encoding");
        assert_eq!(peek.position() + peek.remaining(), data.len());
        if number % 2 == 0 {
            decoder = peek;
        }
    }
    let Some((first, rest)) = data.split_first() else { return };
    let (a, b) = rest.split_at(usize::from(*first).min(rest.len()));
    assert!(key_prefix(a) >= key_prefix(b) || a < b, "prefixes keep the order");
    assert!(key_prefix(b) >= key_prefix(a) || b < a, "prefixes keep the order");
    assert!(key_head(a) >= key_head(b) || a < b, "heads keep the order");
    assert_eq!(key_head(a), (key_prefix(a) >> 32) as u32);
    let shared = common_prefix_len(a, b);
    assert_eq!(a[..shared], b[..shared]);
    assert!(
        shared == a.len() || shared == b.len() || a[shared] != b[shared],
        "the shared part is the longest"
    );
    match prefix_successor(a) {
        None => assert!(a.iter().all(|byte| *byte == 0xFF)),
        Some(successor) => {
            assert!(successor.as_slice() > a && !successor.starts_with(a));
            assert!(
                !b.starts_with(a) || b < successor.as_slice(),
                "it is above all that start with the prefix"
            );
            assert!(
                b < a || b.starts_with(a) || b >= successor.as_slice(),
                "and below all others that are above"
            );
        }
    }
}

//! The encodings of indexes: ordered values, keys of entries, definitions, extractors.
use super::bytes::Bytes;
use sapwood::fuzzing::EmitBuffer;
use sapwood::ordered::composite::{
    Composite, composite_len, prefix_end, put_bound_after, put_bound_at, put_composite, put_escaped, unescape,
};
use sapwood::ordered::{FromOrdered, Ordered, OrderedReader};
use sapwood::{Builtin, BuiltinExtractor, Field, KeyKind};
use sapwood_base::format::index_definition::{ExtractorSpec, IndexDefinition};
use sapwood_base::{ErrorKind, MAX_KEY_BYTES};
use std::cmp::Reverse;

fn one_encoding<T: Ordered + FromOrdered>(data: &[u8]) {
    let mut reader = OrderedReader::new(data);
    match reader.read::<T>() {
        Ok(value) => assert_eq!(value.to_ordered(), data[..reader.position()], "a value has one encoding"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption),
    }
}

/// Reads the input as ordered values of many types and as the key of an entry, and as two values
/// that are compared.
pub fn ordered(data: &[u8]) {
    one_encoding::<(u8, i16, u32, i64)>(data);
    one_encoding::<(f32, f64, bool)>(data);
    one_encoding::<(Vec<u8>, Reverse<Vec<u8>>)>(data);
    one_encoding::<(String, char)>(data);
    one_encoding::<Option<(Reverse<Option<String>>, u128, i128)>>(data);
    one_encoding::<Reverse<(Reverse<f64>, [u8; 3], Option<Vec<u8>>)>>(data);
    if let Ok(composite) = Composite::split(data)
        && let Ok(index_key) = composite.index_key()
    {
        let mut again = Vec::new();
        put_composite(&mut again, &index_key, composite.primary_key);
        assert_eq!(again, data, "an entry has one key");
        assert_eq!(again.len(), composite_len(&index_key, composite.primary_key));
    }
    let Some((first, rest)) = data.split_first() else { return };
    let (a, b) = rest.split_at(usize::from(*first).min(rest.len()));
    assert_eq!(a.to_ordered().cmp(&b.to_ordered()), a.cmp(b));
    let (mut escaped, mut at, mut after, mut entry) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    put_escaped(&mut escaped, a);
    assert_eq!(unescape(&escaped).expect("its own escapes"), a);
    put_bound_at(&mut at, a);
    put_bound_after(&mut after, a);
    put_composite(&mut entry, b, a);
    assert_eq!(entry >= at, b >= a);
    assert_eq!(entry >= after, b > a);
    let inside = entry >= escaped && prefix_end(a).is_none_or(|end| entry < end);
    assert_eq!(inside, b.starts_with(a));
}

/// Reads the input as the definition of an index; a valid one survives a round trip, and its
/// extractor works.
pub fn index_definition(data: &[u8]) {
    match IndexDefinition::decode(data) {
        Ok(definition) => {
            definition.validate().expect("a decoded definition is valid");
            let again = definition.encode();
            assert_eq!(IndexDefinition::decode(&again).expect("its own bytes"), definition);
            // There may have been unknown fields, which are skipped.
            assert!(again.len() <= data.len() && (again.len() < data.len() || again == data));
            if let ExtractorSpec::Builtin(builtin) = definition.extractor {
                extract(builtin, b"key", data);
            }
        }
        Err(error) => assert!(matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Unsupported)),
    }
}

/// The entries of a row, which are in order and of this row.
fn extract(builtin: Builtin, key: &[u8], value: &[u8]) -> Vec<Vec<u8>> {
    let extractor = BuiltinExtractor::new(builtin).expect("a definition that is valid");
    let mut buffer = EmitBuffer::default();
    if buffer.fill(&extractor, key, value).is_err() {
        assert!(key.len() + value.len() > MAX_KEY_BYTES / 3, "a short row has short keys");
        return Vec::new();
    }
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for (composite, covering) in buffer.iter() {
        assert!(keys.last().is_none_or(|last| last.as_slice() < composite), "in order, each once");
        assert_eq!(Composite::split(composite).expect("a key of an entry").primary_key, key);
        assert!(covering.len() <= value.len().max(key.len()));
        keys.push(composite.to_vec());
    }
    keys
}

/// Takes the input as a short definition and a row of JSON text: the extractor returns the same
/// entries twice.
pub fn extractor(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let choice = bytes.u8();
    let field = match choice % 4 {
        0 => Field::value().pointer("/a/b"),
        1 => Field::value().pointer(["", "/a", "/a/1", "/"][usize::from(choice >> 4) % 4]),
        2 => {
            let pointer = String::from_utf8_lossy(bytes.string(8)).replace('~', "~0");
            Field::value().pointer(format!("/{pointer}"))
        }
        _ => Field::value().separated(choice, u32::from(bytes.u8() % 4)),
    };
    let kind =
        [KeyKind::Bytes, KeyKind::Decimal, KeyKind::Float, KeyKind::Boolean][usize::from(choice >> 2) % 4];
    let builtin = Builtin::new(field, kind).covering(Field::value().pointer("/a"));
    let text = bytes.all();
    let found = extract(builtin.clone(), b"pk", text);
    assert_eq!(found, extract(builtin.clone(), b"pk", text), "the same row has the same entries");
    // Bytes after the text change nothing, except for a word at its very end.
    let longer = [text, b" \0\"{["].concat();
    if matches!(text.last(), Some(b'}' | b']')) && choice % 4 < 3 {
        let more = extract(builtin, b"pk", &longer);
        assert!(found.iter().all(|key| more.contains(key)), "the entries remain");
    }
}

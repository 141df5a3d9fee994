//! Extractors that need no code: a field of key or value becomes the index key, another one the
//! covering bytes.
//!
//! Total functions: a row without the field, or with a value of another type there, emits no entry.
use super::{Emit, Extractor};
use sapwood_base::Result;
use sapwood_base::format::index_definition::{Builtin, Field, KeyKind, Place, RowPart};
use sapwood_base::json::{Pointer, Value};
use sapwood_base::ordered::Ordered;

/// A [`Builtin`] that is ready for rows.
#[derive(Clone, Debug)]
pub struct BuiltinExtractor {
    definition: Builtin,
    key_pointer: Pointer,
    covering_pointer: Pointer,
}

impl BuiltinExtractor {
    /// The extractor that `definition` describes.
    ///
    /// Errors: `InvalidArgument` if it cannot be used.
    pub fn new(definition: Builtin) -> Result<BuiltinExtractor> {
        definition.validate()?;
        let pointer = |field: &Field| match &field.place {
            Place::Pointer(pointer) => Pointer::new(pointer),
            _ => Pointer::default(),
        };
        let key_pointer = pointer(&definition.key);
        let covering_pointer = definition.covering.as_ref().map(pointer).unwrap_or_default();
        Ok(BuiltinExtractor { definition, key_pointer, covering_pointer })
    }

    /// The definition.
    pub fn definition(&self) -> &Builtin {
        &self.definition
    }
}

impl Extractor for BuiltinExtractor {
    fn extract(&self, key: &[u8], value: &[u8], emit: &mut Emit<'_>) {
        let field = &self.definition.key;
        let part = part(field, key, value);
        let covering = self.definition.covering.as_ref().and_then(|field| {
            let part = self::part(field, key, value);
            match &field.place {
                Place::Pointer(_) => self.covering_pointer.find(part)?.value_text(),
                place => bytes_at(place, part),
            }
        });
        let covering = covering.unwrap_or_default();
        let kind = self.definition.kind;
        if !matches!(field.place, Place::Pointer(_)) {
            if let Some(bytes) = bytes_at(&field.place, part) {
                emit_bytes(kind, bytes, covering, emit);
            }
        } else if let Some(mut scanner) = self.key_pointer.find(part) {
            match scanner.value() {
                Some(Value::Array) => scanner.elements(|value| emit_json(kind, value, covering, emit)),
                Some(value) => emit_json(kind, value, covering, emit),
                None => {}
            }
        }
    }
}

fn part<'a>(field: &Field, key: &'a [u8], value: &'a [u8]) -> &'a [u8] {
    match field.part {
        RowPart::Key => key,
        RowPart::Value => value,
    }
}

fn bytes_at<'a>(place: &Place, part: &'a [u8]) -> Option<&'a [u8]> {
    match place {
        Place::Whole => Some(part),
        Place::Range { offset, len } => {
            let rest = part.get(*offset as usize..)?;
            len.map_or(Some(rest), |len| rest.get(..len as usize))
        }
        Place::Separated { separator, number } => part.split(|byte| byte == separator).nth(*number as usize),
        // A pointer, or a place that a later version knows.
        _ => None,
    }
}

fn emit_bytes(kind: KeyKind, bytes: &[u8], covering: &[u8], emit: &mut Emit<'_>) {
    match kind {
        KeyKind::Bytes => emit.entry(bytes, covering),
        KeyKind::FixedInteger { bytes: width, signed, big_endian } => {
            // As big-endian bytes; sixteen hold the widest.
            let mut integer = [0; 16];
            let Some(integer) = integer.get_mut(..usize::from(width)) else { return };
            if bytes.len() != integer.len() {
                return;
            }
            integer.copy_from_slice(bytes);
            if !big_endian {
                integer.reverse();
            }
            // Negative ones come first when their sign is inverted, as in `ordered`.
            if signed {
                integer[0] ^= 0x80;
            }
            emit.entry(integer, covering);
        }
        KeyKind::Decimal | KeyKind::Float | KeyKind::Boolean => {
            if let Ok(text) = std::str::from_utf8(bytes.trim_ascii()) {
                emit_text(kind, text, covering, emit);
            }
        }
        // One that a later version knows: its definition was refused.
        _ => {}
    }
}

fn emit_text(kind: KeyKind, text: &str, covering: &[u8], emit: &mut Emit<'_>) {
    match kind {
        KeyKind::Decimal => emit_if(text.parse::<i64>().ok(), covering, emit),
        // Adding zero makes 0 of -0.
        KeyKind::Float => emit_if(
            text.parse::<f64>().ok().filter(|number| number.is_finite()).map(|n| n + 0.0),
            covering,
            emit,
        ),
        KeyKind::Boolean => emit_if(text.parse::<bool>().ok(), covering, emit),
        _ => {}
    }
}

fn emit_if<T: Ordered>(value: Option<T>, covering: &[u8], emit: &mut Emit<'_>) {
    if let Some(value) = value {
        emit.value_entry(&value, covering);
    }
}

fn emit_json(kind: KeyKind, value: Value<'_>, covering: &[u8], emit: &mut Emit<'_>) {
    match (kind, value) {
        (KeyKind::Bytes, Value::String(content)) => match content.plain() {
            Some(bytes) => emit.entry(bytes, covering),
            None => emit.with_scratch(covering, |scratch| content.append_to(scratch)),
        },
        (KeyKind::Decimal | KeyKind::Float, Value::Number(text)) => emit_text(kind, text, covering, emit),
        (KeyKind::Boolean, Value::Boolean(value)) => emit.value_entry(&value, covering),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::EmitBuffer;
    use super::*;
    use sapwood_base::ordered::composite::Composite;

    /// The index keys and covering bytes of a row, whose primary key is `id/7`.
    fn entries(definition: &Builtin, value: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let extractor = BuiltinExtractor::new(definition.clone()).unwrap();
        let mut buffer = EmitBuffer::default();
        buffer.fill(&extractor, b"id/7", value).unwrap();
        let entries = buffer.iter().map(|(key, covering)| {
            let composite = Composite::split(key).unwrap();
            assert_eq!(composite.primary_key, b"id/7");
            (composite.index_key().unwrap().into_owned(), covering.to_vec())
        });
        entries.collect()
    }

    fn keys(definition: &Builtin, value: &[u8]) -> Vec<Vec<u8>> {
        entries(definition, value).into_iter().map(|(key, _)| key).collect()
    }

    fn ordered<T: Ordered>(values: &[T]) -> Vec<Vec<u8>> {
        values.iter().map(Ordered::to_ordered).collect()
    }

    #[test]
    fn ranges_and_separated_fields_give_bytes() {
        let whole = Builtin::new(Field::value(), KeyKind::Bytes);
        assert_eq!(keys(&whole, b""), [b""]);
        let range = Builtin::new(Field::value().range(2, 3), KeyKind::Bytes);
        assert_eq!(keys(&range, b"abcdef"), [b"cde"]);
        assert_eq!(keys(&range, b"abcd"), [[0; 0]; 0]);
        let rest = Builtin::new(Field::value().rest_from(2), KeyKind::Bytes);
        assert_eq!(keys(&rest, b"ab"), [b""]);
        assert_eq!(keys(&rest, b"a"), [[0; 0]; 0]);
        let field = Builtin::new(Field::value().separated(b',', 1), KeyKind::Bytes);
        assert_eq!(keys(&field, b"a,b,c"), [b"b"]);
        assert_eq!(keys(&field, b"a,"), [b""]);
        assert_eq!(keys(&field, b"a"), [[0; 0]; 0]);
        let key = Builtin::new(Field::key().separated(b'/', 1), KeyKind::Decimal).covering(Field::value());
        assert_eq!(entries(&key, b"v"), [(7i64.to_ordered(), b"v".to_vec())]);
    }

    #[test]
    fn fixed_integers_sort_as_they_count() {
        let kind = |bytes, signed, big_endian| KeyKind::FixedInteger { bytes, signed, big_endian };
        let field = || Field::value().range(0, 8);
        let signed = Builtin::new(field(), kind(8, true, false));
        assert_eq!(keys(&signed, &(-5i64).to_le_bytes()), ordered(&[-5i64]));
        let unsigned = Builtin::new(field(), kind(8, false, true));
        assert_eq!(keys(&unsigned, &5u64.to_be_bytes()), ordered(&[5u64]));
        let wide = Builtin::new(Field::value(), kind(16, true, true));
        assert_eq!(keys(&wide, &i128::MIN.to_be_bytes()), ordered(&[i128::MIN]));
        let byte = Builtin::new(Field::value(), kind(1, true, true));
        assert_eq!(keys(&byte, b"\xFF"), ordered(&[-1i8]));
        assert_eq!(keys(&byte, b"\xFF\xFF"), [[0; 0]; 0]);
        assert_eq!(keys(&signed, b"1234567"), [[0; 0]; 0]);
    }

    #[test]
    fn text_becomes_numbers_and_truth_values() {
        let decimal = Builtin::new(Field::value().separated(b':', 1), KeyKind::Decimal);
        assert_eq!(keys(&decimal, b"Installed-Size: 1234\n"), ordered(&[1234i64]));
        assert_eq!(keys(&decimal, b"a:-9223372036854775808"), ordered(&[i64::MIN]));
        for other in [&b"a:9223372036854775808"[..], b"a:", b"a:1.5", b"a:\xFF", b"a:1 2"] {
            assert_eq!(keys(&decimal, other), [[0; 0]; 0], "{other:?}");
        }
        let float = Builtin::new(Field::value(), KeyKind::Float);
        assert_eq!(keys(&float, b"-1.5e3"), ordered(&[-1500.0]));
        assert_eq!(keys(&float, b"-0"), ordered(&[0.0]));
        for other in [&b"nan"[..], b"inf", b"1e999", b"x"] {
            assert_eq!(keys(&float, other), [[0; 0]; 0], "{other:?}");
        }
        let boolean = Builtin::new(Field::value(), KeyKind::Boolean);
        assert_eq!(keys(&boolean, b"true"), ordered(&[true]));
        assert_eq!(keys(&boolean, b"True"), [[0; 0]; 0]);
    }

    #[test]
    fn json_gives_a_key_for_a_value_and_one_for_each_element() {
        let text =
            br#"{"name": "Ann \u00e9", "age": 41, "tags": ["b", 1, "a", "b", ["c"]], "ok": true, "x": 1.5,
            "none": null, "place": {"city": "Oslo"}}"#;
        let definition = |pointer: &str, kind| Builtin::new(Field::value().pointer(pointer), kind);
        assert_eq!(keys(&definition("/name", KeyKind::Bytes), text), ["Ann é".as_bytes()]);
        assert_eq!(keys(&definition("/place/city", KeyKind::Bytes), text), [b"Oslo"]);
        assert_eq!(keys(&definition("/tags", KeyKind::Bytes), text), [b"a", b"b"]);
        assert_eq!(keys(&definition("/tags/2", KeyKind::Bytes), text), [b"a"]);
        assert_eq!(keys(&definition("/tags", KeyKind::Decimal), text), ordered(&[1i64]));
        assert_eq!(keys(&definition("/age", KeyKind::Decimal), text), ordered(&[41i64]));
        assert_eq!(keys(&definition("/age", KeyKind::Float), text), ordered(&[41.0]));
        assert_eq!(keys(&definition("/x", KeyKind::Float), text), ordered(&[1.5]));
        assert_eq!(keys(&definition("/ok", KeyKind::Boolean), text), ordered(&[true]));
        let nothing = [
            ("/x", KeyKind::Decimal),
            ("/age", KeyKind::Bytes),
            ("/none", KeyKind::Bytes),
            ("/place", KeyKind::Bytes),
            ("/missing", KeyKind::Bytes),
        ];
        for (pointer, kind) in nothing {
            assert_eq!(keys(&definition(pointer, kind), text), [[0; 0]; 0], "{pointer}");
        }
        let covered = definition("/age", KeyKind::Decimal).covering(Field::value().pointer("/place"));
        assert_eq!(entries(&covered, text)[0].1, br#"{"city": "Oslo"}"#);
        let without = definition("/age", KeyKind::Decimal).covering(Field::value().pointer("/missing"));
        assert_eq!(entries(&without, text), [(41i64.to_ordered(), Vec::new())]);
    }

    #[test]
    fn no_row_makes_it_panic_and_cuts_give_nothing_or_a_beginning() {
        let text = br#"{"a": [{"b": "\ud83d\ude00\n"}, -1.5e-3, [true, "x\\"]], "c": "d"}"#;
        for pointer in ["", "/a", "/a/0/b", "/a/2", "/c"] {
            for kind in [KeyKind::Bytes, KeyKind::Float, KeyKind::Boolean] {
                let definition = Builtin::new(Field::value().pointer(pointer), kind);
                for at in 0..text.len() {
                    keys(&definition, &text[..at]);
                    for byte in [0, b'"', b'\\', b'[', b']', b'{', b'}', b',', b'u', 0xFF] {
                        let mut changed = text.to_vec();
                        changed[at] = byte;
                        keys(&definition, &changed);
                    }
                }
            }
        }
    }
}

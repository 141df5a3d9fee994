//! The definition of a secondary index: its name, its keyspace, the source of its keys, and its
//! maintenance.
//!
//! Definitions stand in the MANIFEST, so a database knows its indexes before the application names
//! them. A [`Builtin`] extractor is persisted in full and needs no code. For a custom one only the
//! version is persisted; it reveals that the code has changed. The byte map is in `FORMAT.md`.
use crate::coding::{Decoder, put_bytes, put_varint};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeyspaceId, MAX_KEY_BYTES, MAX_KEYSPACES, MAX_VALUE_BYTES};

/// The longest name of an index in bytes.
pub const MAX_INDEX_NAME_BYTES: usize = 255;
/// The longest JSON pointer in bytes.
pub const MAX_POINTER_BYTES: usize = 1024;
/// The most tokens of a JSON pointer.
pub const MAX_POINTER_TOKENS: usize = 32;

/// One secondary index.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexDefinition {
    /// Its name, 1 to 255 bytes, unique in its keyspace.
    pub name: String,
    /// The keyspace whose rows it indexes.
    pub keyspace: KeyspaceId,
    /// The source of its keys.
    pub extractor: ExtractorSpec,
    /// Whether two rows may not have the same index key.
    pub unique: bool,
    /// How it follows changes of rows.
    pub maintenance: Maintenance,
}

/// The source of index keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExtractorSpec {
    /// Code of the application.
    Custom {
        /// Chosen by the application. A different number means that the code produces other keys,
        /// so the index is rebuilt.
        version: u64,
    },
    /// A part of key or value.
    Builtin(Builtin),
}

/// An extractor that needs no code: one field of a row is its index key, another one may be its
/// covering bytes.
///
/// Total: a row without the field, or with a value of another type there, gets no entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Builtin {
    /// The source of the index key. A JSON array yields one key per element.
    pub key: Field,
    /// The conversion into an index key.
    pub kind: KeyKind,
    /// The covering bytes, stored beside the key. For JSON, the text of the value as it stands. A
    /// row without the field gets an entry with no covering bytes.
    pub covering: Option<Field>,
}

/// A part of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// Which half of the row.
    pub part: RowPart,
    /// The place inside that half.
    pub place: Place,
}

/// A half of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowPart {
    /// The primary key.
    Key,
    /// The value.
    Value,
}

/// The place of a field in a half of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// All of the half.
    Whole,
    /// A fixed place.
    Range {
        /// The first byte.
        offset: u32,
        /// The number of bytes; all that follow if `None`.
        len: Option<u32>,
    },
    /// Between separators.
    Separated {
        /// The byte between two fields.
        separator: u8,
        /// The number of the field, counted from 0.
        number: u32,
    },
    /// A JSON pointer (RFC 6901) such as `/address/city` into JSON text. If a name occurs twice,
    /// the first counts.
    Pointer(String),
}

/// How a field becomes an index key. All kinds but [`KeyKind::Bytes`] use the encoding of
/// `sapwood::ordered` for the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyKind {
    /// The bytes as they are; for JSON, the unescaped content of a string.
    Bytes,
    /// A binary integer, which must have exactly this length. Not for JSON.
    FixedInteger {
        /// 1, 2, 4, 8 or 16.
        bytes: u8,
        /// Whether it is in two's complement.
        signed: bool,
        /// Whether the most significant byte comes first.
        big_endian: bool,
    },
    /// A decimal integer as text, such as `-12`, or a JSON number without fraction and exponent, as
    /// an `i64`.
    Decimal,
    /// A decimal number as text, or a JSON number, as a finite `f64`; -0 becomes 0.
    Float,
    /// `true` or `false`, as a `bool`.
    Boolean,
}

/// How an index follows changes of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Maintenance {
    /// A write reads nothing. Queries recognise stale entries; flushes and compactions clean them.
    #[default]
    Deferred = 0,
    /// A write reads the old row and removes its entries. So it must not be lost while a later
    /// write survives, and it is logged whatever durability the caller requested.
    Strict = 1,
    /// The application promises that rows with keys are neither changed nor removed.
    InsertOnly = 2,
}

impl IndexDefinition {
    /// Creates a definition from all its parts.
    #[doc(hidden)]
    pub fn new(
        name: impl Into<String>,
        keyspace: KeyspaceId,
        extractor: ExtractorSpec,
        unique: bool,
        maintenance: Maintenance,
    ) -> IndexDefinition {
        IndexDefinition { name: name.into(), keyspace, extractor, unique, maintenance }
    }
}

impl Field {
    /// All of the primary key.
    pub fn key() -> Field {
        Field { part: RowPart::Key, place: Place::Whole }
    }

    /// All of the value.
    pub fn value() -> Field {
        Field { part: RowPart::Value, place: Place::Whole }
    }

    /// `len` bytes at `offset` of the field's half.
    pub fn range(self, offset: u32, len: u32) -> Field {
        Field { place: Place::Range { offset, len: Some(len) }, ..self }
    }

    /// Everything from `offset` on.
    pub fn rest_from(self, offset: u32) -> Field {
        Field { place: Place::Range { offset, len: None }, ..self }
    }

    /// The field `number`, counted from 0, between bytes `separator`.
    pub fn separated(self, separator: u8, number: u32) -> Field {
        Field { place: Place::Separated { separator, number }, ..self }
    }

    /// The value that the JSON pointer `pointer` points to.
    pub fn pointer(self, pointer: impl Into<String>) -> Field {
        Field { place: Place::Pointer(pointer.into()), ..self }
    }

    fn validate(&self) -> Result<()> {
        match &self.place {
            Place::Whole | Place::Separated { .. } => Ok(()),
            Place::Range { offset, len } => {
                let most = if self.part == RowPart::Key { MAX_KEY_BYTES } else { MAX_VALUE_BYTES } as u64;
                if u64::from(*offset) + u64::from(len.unwrap_or(0)) > most {
                    return Err(Error::invalid_argument("a field of an index lies behind the longest row"));
                }
                Ok(())
            }
            Place::Pointer(pointer) => {
                let is_whole_or_path = pointer.is_empty() || pointer.starts_with('/');
                let tokens = pointer.bytes().filter(|byte| *byte == b'/').count();
                let tildes_are_escapes = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
                if !is_whole_or_path || !tildes_are_escapes {
                    return Err(Error::invalid_argument(format!(
                        "{pointer:?} is no JSON pointer: it is empty or starts with '/', and '~' stands only in ~0 and ~1"
                    )));
                }
                if pointer.len() > MAX_POINTER_BYTES || tokens > MAX_POINTER_TOKENS {
                    return Err(Error::invalid_argument(format!(
                        "a JSON pointer has at most {MAX_POINTER_BYTES} bytes and {MAX_POINTER_TOKENS} tokens"
                    )));
                }
                Ok(())
            }
        }
    }
}

impl Builtin {
    /// `field` as an index key of this kind.
    pub fn new(field: Field, kind: KeyKind) -> Builtin {
        Builtin { key: field, kind, covering: None }
    }

    /// The same, with `field` as covering bytes.
    pub fn covering(self, field: Field) -> Builtin {
        Builtin { covering: Some(field), ..self }
    }

    /// Checks that the extractor is valid.
    ///
    /// Errors: `InvalidArgument`.
    pub fn validate(&self) -> Result<()> {
        self.key.validate()?;
        self.covering.as_ref().map_or(Ok(()), Field::validate)?;
        if let KeyKind::FixedInteger { bytes, .. } = self.kind {
            if !matches!(bytes, 1 | 2 | 4 | 8 | 16) {
                return Err(Error::invalid_argument("a fixed integer has 1, 2, 4, 8 or 16 bytes"));
            }
            if matches!(self.key.place, Place::Pointer(_)) {
                return Err(Error::invalid_argument("JSON holds no binary integers"));
            }
        }
        Ok(())
    }
}

impl Maintenance {
    /// The kind with this number, or `None` for one that this version does not know.
    pub fn from_u8(byte: u8) -> Option<Maintenance> {
        match byte {
            0 => Some(Maintenance::Deferred),
            1 => Some(Maintenance::Strict),
            2 => Some(Maintenance::InsertOnly),
            _ => None,
        }
    }
}

const NAME: u64 = 1;
const KEYSPACE: u64 = 2;
const CUSTOM: u64 = 3;
const BUILTIN: u64 = 4;
const UNIQUE: u64 = 5;
const MAINTENANCE: u64 = 6;

const SIGNED: u8 = 1;
const BIG_ENDIAN: u8 = 2;

impl IndexDefinition {
    /// Checks that the definition is valid.
    ///
    /// Errors: `InvalidArgument`.
    pub fn validate(&self) -> Result<()> {
        if !(1..=MAX_INDEX_NAME_BYTES).contains(&self.name.len()) {
            return Err(Error::invalid_argument("an index's name has 1 to 255 bytes"));
        }
        match &self.extractor {
            ExtractorSpec::Custom { .. } => Ok(()),
            ExtractorSpec::Builtin(builtin) => builtin.validate(),
        }
    }

    /// The bytes for a MANIFEST. REQUIRES: [`IndexDefinition::validate`] succeeds.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut body = Vec::new();
        let mut put = |identifier: u64, fill: &mut dyn FnMut(&mut Vec<u8>)| {
            body.clear();
            fill(&mut body);
            put_varint(&mut out, identifier);
            put_bytes(&mut out, &body);
        };
        put(NAME, &mut |body| body.extend_from_slice(self.name.as_bytes()));
        put(KEYSPACE, &mut |body| put_varint(body, u64::from(self.keyspace.0)));
        match &self.extractor {
            ExtractorSpec::Custom { version } => put(CUSTOM, &mut |body| put_varint(body, *version)),
            ExtractorSpec::Builtin(builtin) => put(BUILTIN, &mut |body| put_builtin(body, builtin)),
        }
        put(UNIQUE, &mut |body| body.push(u8::from(self.unique)));
        put(MAINTENANCE, &mut |body| body.push(self.maintenance as u8));
        out
    }

    /// The definition in `bytes`.
    ///
    /// Errors: `Unsupported` for bytes that only a newer version can have written, `Corruption` for
    /// bytes that no version writes; both without a file.
    pub fn decode(bytes: &[u8]) -> Result<IndexDefinition> {
        let mut fields = Decoder::new(bytes);
        let mut last = 0;
        let (mut name, mut keyspace, mut extractor, mut unique, mut maintenance) =
            (None, None, None, None, None);
        while !fields.is_empty() {
            let identifier = fields.varint()?;
            if identifier <= last {
                return Err(corrupt("its fields are not in order"));
            }
            last = identifier;
            let mut body = Decoder::new(fields.length_prefixed()?);
            match identifier {
                NAME => name = Some(text(body.bytes(body.remaining())?)?),
                KEYSPACE => match body.varint()? {
                    id if id < u64::from(MAX_KEYSPACES) => keyspace = Some(KeyspaceId(id as u32)),
                    _ => return Err(corrupt("its keyspace is out of range")),
                },
                CUSTOM => extractor = Some(ExtractorSpec::Custom { version: body.varint()? }),
                BUILTIN if extractor.is_some() => return Err(corrupt("it has two extractors")),
                BUILTIN => extractor = Some(ExtractorSpec::Builtin(builtin(&mut body)?)),
                UNIQUE => unique = Some(flag(&mut body)?),
                MAINTENANCE => {
                    let number = body.u8()?;
                    maintenance =
                        Some(Maintenance::from_u8(number).ok_or_else(|| unknown("maintenance", number))?);
                }
                identifier if super::is_optional(identifier) => continue,
                _ => return Err(unknown("field", identifier)),
            }
            if !body.is_empty() {
                return Err(corrupt("one of its fields has bytes left over"));
            }
        }
        let (Some(name), Some(keyspace), Some(extractor), Some(unique), Some(maintenance)) =
            (name, keyspace, extractor, unique, maintenance)
        else {
            return Err(corrupt("one of its fields is missing"));
        };
        let definition = IndexDefinition { name, keyspace, extractor, unique, maintenance };
        definition.validate().map_err(|error| corrupt(&error.to_string()))?;
        Ok(definition)
    }
}

fn put_builtin(out: &mut Vec<u8>, builtin: &Builtin) {
    match builtin.kind {
        KeyKind::Bytes => out.push(0),
        KeyKind::FixedInteger { bytes, signed, big_endian } => {
            let flags = if signed { SIGNED } else { 0 } | if big_endian { BIG_ENDIAN } else { 0 };
            out.extend_from_slice(&[1, bytes, flags]);
        }
        KeyKind::Decimal => out.push(2),
        KeyKind::Float => out.push(3),
        KeyKind::Boolean => out.push(4),
    }
    put_field(out, &builtin.key);
    out.push(u8::from(builtin.covering.is_some()));
    if let Some(field) = &builtin.covering {
        put_field(out, field);
    }
}

fn put_field(out: &mut Vec<u8>, field: &Field) {
    out.push(match field.part {
        RowPart::Key => 0,
        RowPart::Value => 1,
    });
    match &field.place {
        Place::Whole => out.push(0),
        Place::Range { offset, len } => {
            out.push(1);
            put_varint(out, u64::from(*offset));
            // 0 stands for "to the end".
            put_varint(out, len.map_or(0, |len| u64::from(len) + 1));
        }
        Place::Separated { separator, number } => {
            out.extend_from_slice(&[2, *separator]);
            put_varint(out, u64::from(*number));
        }
        Place::Pointer(pointer) => {
            out.push(3);
            put_bytes(out, pointer.as_bytes());
        }
    }
}

fn builtin(decoder: &mut Decoder<'_>) -> Result<Builtin> {
    let kind = match decoder.u8()? {
        0 => KeyKind::Bytes,
        1 => {
            let (bytes, flags) = (decoder.u8()?, decoder.u8()?);
            if flags & !(SIGNED | BIG_ENDIAN) != 0 {
                return Err(unknown("flags of an integer", flags));
            }
            KeyKind::FixedInteger { bytes, signed: flags & SIGNED != 0, big_endian: flags & BIG_ENDIAN != 0 }
        }
        2 => KeyKind::Decimal,
        3 => KeyKind::Float,
        4 => KeyKind::Boolean,
        other => return Err(unknown("kind of key", other)),
    };
    let key = field(decoder)?;
    let covering = if flag(decoder)? { Some(field(decoder)?) } else { None };
    Ok(Builtin { key, kind, covering })
}

fn field(decoder: &mut Decoder<'_>) -> Result<Field> {
    let part = match decoder.u8()? {
        0 => RowPart::Key,
        1 => RowPart::Value,
        other => return Err(unknown("part of a row", other)),
    };
    let place = match decoder.u8()? {
        0 => Place::Whole,
        1 => {
            let offset = number(decoder, u32::MAX.into())?;
            let len = number(decoder, u64::from(u32::MAX) + 1)?;
            Place::Range { offset: offset as u32, len: len.checked_sub(1).map(|len| len as u32) }
        }
        2 => Place::Separated { separator: decoder.u8()?, number: number(decoder, u32::MAX.into())? as u32 },
        3 => Place::Pointer(text(decoder.length_prefixed()?)?),
        other => return Err(unknown("place of a field", other)),
    };
    Ok(Field { part, place })
}

fn number(decoder: &mut Decoder<'_>, most: u64) -> Result<u64> {
    match decoder.varint()? {
        number if number <= most => Ok(number),
        _ => Err(corrupt("a number is out of range")),
    }
}

fn flag(decoder: &mut Decoder<'_>) -> Result<bool> {
    match decoder.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(corrupt("a flag is neither 0 nor 1")),
    }
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| corrupt("its text is not UTF-8"))
}

#[cold]
fn corrupt(what: &str) -> Error {
    Error::malformed(format!("malformed definition of an index: {what}"))
}

#[cold]
fn unknown(what: &str, number: impl Into<u64>) -> Error {
    let message = format!("definition of an index has an unknown {what}, {}", number.into());
    Error::new(ErrorKind::Unsupported, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<IndexDefinition> {
        let integer = KeyKind::FixedInteger { bytes: 8, signed: true, big_endian: false };
        let builtins = [
            Builtin::new(Field::value().range(4, 8), integer).covering(Field::value().rest_from(12)),
            Builtin::new(Field::value().pointer("/address/city"), KeyKind::Bytes),
            Builtin::new(Field::key().separated(b'/', 2), KeyKind::Decimal).covering(Field::key()),
            Builtin::new(Field::value().pointer("/a~1b/m~0n"), KeyKind::Float)
                .covering(Field::value().pointer("")),
            Builtin::new(Field::value(), KeyKind::Boolean),
        ];
        let specs = builtins.into_iter().map(ExtractorSpec::Builtin);
        let specs = specs.chain([ExtractorSpec::Custom { version: 300 }]);
        let kinds = [Maintenance::Deferred, Maintenance::Strict, Maintenance::InsertOnly];
        specs
            .zip(kinds.into_iter().cycle())
            .enumerate()
            .map(|(i, (extractor, maintenance))| IndexDefinition {
                name: format!("index {i}"),
                keyspace: KeyspaceId(200 * i as u32),
                extractor,
                unique: i % 2 == 1,
                maintenance,
            })
            .collect()
    }

    #[test]
    fn definitions_have_these_bytes() {
        let bytes = samples()[0].encode();
        assert_eq!(
            bytes,
            b"\x01\x07index 0\x02\x01\x00\x04\x0C\x01\x08\x01\x01\x01\x04\x09\x01\x01\x01\x0C\x00\x05\x01\x00\x06\x01\x00"
        );
        let bytes = samples()[1].encode();
        assert_eq!(
            bytes,
            b"\x01\x07index 1\x02\x02\xC8\x01\x04\x12\x00\x01\x03\x0D/address/city\x00\x05\x01\x01\x06\x01\x01"
        );
        let bytes = samples()[5].encode();
        assert_eq!(bytes, b"\x01\x07index 5\x02\x02\xE8\x07\x03\x02\xAC\x02\x05\x01\x01\x06\x01\x02");
    }

    #[test]
    fn definitions_round_trip_and_cuts_are_found() {
        for definition in samples() {
            definition.validate().unwrap();
            let bytes = definition.encode();
            assert_eq!(IndexDefinition::decode(&bytes).unwrap(), definition);
            for cut in 0..bytes.len() {
                assert!(IndexDefinition::decode(&bytes[..cut]).is_err(), "{definition:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn unknown_fields_are_refused_below_64_and_skipped_from_64_on() {
        let mut bytes = samples()[0].encode();
        bytes.extend_from_slice(b"\x40\x01x");
        assert_eq!(IndexDefinition::decode(&bytes).unwrap(), samples()[0]);
        let at = bytes.len() - 3;
        bytes[at] = 63;
        assert_eq!(IndexDefinition::decode(&bytes).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn what_cannot_be_used_is_refused_before_and_after_encoding() {
        let builtin = |field: Field, kind| ExtractorSpec::Builtin(Builtin::new(field, kind));
        let integer = |bytes| KeyKind::FixedInteger { bytes, signed: false, big_endian: true };
        let specs = [
            builtin(Field::value(), integer(3)),
            builtin(Field::value().pointer("/a"), integer(8)),
            builtin(Field::value().pointer("a"), KeyKind::Bytes),
            builtin(Field::value().pointer("/a~2"), KeyKind::Bytes),
            builtin(Field::value().pointer("/a~"), KeyKind::Bytes),
            builtin(Field::value().pointer("/a".repeat(33)), KeyKind::Bytes),
            builtin(Field::value().pointer(format!("/{}", "a".repeat(1024))), KeyKind::Bytes),
            builtin(Field::key().range(65_536, 1), KeyKind::Bytes),
        ];
        for extractor in specs {
            let definition = IndexDefinition { extractor, ..samples()[0].clone() };
            assert_eq!(
                definition.validate().unwrap_err().kind(),
                ErrorKind::InvalidArgument,
                "{definition:?}"
            );
            assert!(IndexDefinition::decode(&definition.encode()).is_err(), "{definition:?}");
        }
        for name in ["", &"n".repeat(256)] {
            let definition = IndexDefinition { name: name.into(), ..samples()[0].clone() };
            assert!(definition.validate().is_err());
            assert!(IndexDefinition::decode(&definition.encode()).is_err());
        }
    }
}

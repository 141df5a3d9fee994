//! Secondary indexes of the package list: by section, maintainer, installed size, and dependency.
//! Every result is compared with the file.
use super::{Record, Result, field, timed};
use sapwood::ordered::Ordered;
use sapwood::{Emit, Hit, Index, IndexOptions, Keyspace};
use std::collections::{BTreeMap, BTreeSet};

/// One index key, and the positions of its records among the sorted ones.
type Expected = BTreeMap<Vec<u8>, BTreeSet<usize>>;

/// An index: its name, and the index keys of a stanza.
struct Definition {
    name: &'static str,
    keys: fn(&[u8]) -> Vec<Vec<u8>>,
}

const DEFINITIONS: [Definition; 4] = [
    Definition { name: "by section", keys: sections },
    Definition { name: "by maintainer", keys: maintainers },
    Definition { name: "by installed size", keys: sizes },
    Definition { name: "by dependency", keys: dependencies },
];

fn sections(stanza: &[u8]) -> Vec<Vec<u8>> {
    field(stanza, b"Section:").map(<[u8]>::to_vec).into_iter().collect()
}

fn maintainers(stanza: &[u8]) -> Vec<Vec<u8>> {
    field(stanza, b"Maintainer:").map(<[u8]>::to_vec).into_iter().collect()
}

/// A number, in kibibytes, as bytes in the order of numbers.
fn sizes(stanza: &[u8]) -> Vec<Vec<u8>> {
    let size =
        field(stanza, b"Installed-Size:").and_then(|size| std::str::from_utf8(size).ok()?.parse().ok());
    size.map(|size: u64| size.to_ordered()).into_iter().collect()
}

/// The names in `Depends` and `Pre-Depends`, including alternatives: many index keys for one
/// record.
fn dependencies(stanza: &[u8]) -> Vec<Vec<u8>> {
    let fields = [&b"Depends:"[..], b"Pre-Depends:"].into_iter().filter_map(|name| field(stanza, name));
    let names = fields.flat_map(|list| list.split(|byte| matches!(byte, b',' | b'|')));
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let names = names.map(|name| {
        let name = name.trim_ascii();
        name[..name.iter().take_while(|byte| is_name(byte)).count()].to_vec()
    });
    let mut names: Vec<Vec<u8>> = names.filter(|name| !name.is_empty()).collect();
    names.sort();
    names.dedup();
    names
}

/// Creates the indexes, or attaches the code of existing ones.
pub fn attach(packages: &Keyspace) -> Result<Vec<Index>> {
    let create = |definition: &Definition| {
        let keys = definition.keys;
        let options = IndexOptions::new(move |_key: &[u8], stanza: &[u8], emit: &mut Emit<'_>| {
            // Covered: a query reads the length of the stanza from the index alone.
            keys(stanza).iter().for_each(|key| emit.entry(key, (stanza.len() as u32).to_be_bytes()));
        });
        Ok(packages.create_index(definition.name, options)?)
    };
    DEFINITIONS.iter().map(create).collect()
}

/// Runs every kind of query on the indexes, and compares with `records`, which are sorted by key.
pub fn ask(packages: &Keyspace, records: &[&Record<'_>]) -> Result<()> {
    for definition in &DEFINITIONS {
        let index = packages.index(definition.name)?;
        let mut expected = Expected::new();
        for (place, record) in records.iter().enumerate() {
            for key in (definition.keys)(record.stanza) {
                expected.entry(key).or_default().insert(place);
            }
        }
        ask_one(&index, &expected, records)?;
    }
    Ok(())
}

fn ask_one(index: &Index, expected: &Expected, records: &[&Record<'_>]) -> Result<()> {
    let name = index.name();
    let all = || expected.iter().flat_map(|(key, places)| places.iter().map(move |place| (key, *place)));
    timed(&format!("{name}: each key, with its records ({})", expected.len()), || {
        let mut count = 0;
        for (key, places) in expected {
            let wanted = places.iter().map(|place| (key, *place));
            count += compare(index.get(key), wanted, records, true)?;
        }
        Ok(count)
    })?;
    timed(&format!("{name}: all entries, without records"), || compare(index.iter(), all(), records, false))?;
    timed(&format!("{name}: all entries, backwards"), || {
        let all: Vec<_> = all().collect();
        compare(index.iter().rev(), all.into_iter().rev(), records, false)
    })?;
    let keys: Vec<&Vec<u8>> = expected.keys().collect();
    let mut random = fastrand::Rng::with_seed(3);
    let ranges: Vec<(&Vec<u8>, &Vec<u8>)> = (0..200)
        .map(|_| {
            let (a, b) = (keys[random.usize(..keys.len())], keys[random.usize(..keys.len())]);
            (a.min(b), a.max(b))
        })
        .collect();
    timed(&format!("{name}: 200 counts of ranges"), || {
        for (low, high) in &ranges {
            let want: u64 =
                expected.range::<Vec<u8>, _>(*low..*high).map(|(_, places)| places.len() as u64).sum();
            let found = index.count(low.as_slice()..high.as_slice())?;
            if found != want {
                return Err(format!("{found} entries are counted instead of {want}").into());
            }
        }
        Ok(ranges.len())
    })?;
    timed(&format!("{name}: 200 ranges of 10 entries, with records"), || {
        let mut count = 0;
        for (low, high) in &ranges {
            let entries = expected.range::<Vec<u8>, _>(*low..=*high);
            let wanted = entries.flat_map(|(key, places)| places.iter().map(move |place| (key, *place)));
            let range = index.range(low.as_slice()..=high.as_slice()).limit(10);
            count += compare(range, wanted.take(10), records, true)?;
        }
        Ok(count)
    })
}

/// Compares hits with index keys and positions of records, one by one, and counts them.
fn compare<'a>(
    hits: impl Iterator<Item = sapwood::Result<Hit>>,
    mut wanted: impl Iterator<Item = (&'a Vec<u8>, usize)>,
    records: &[&Record<'_>],
    with_record: bool,
) -> Result<usize> {
    let mut count = 0;
    for hit in hits {
        let hit = hit?;
        let Some((key, place)) = wanted.next() else {
            return Err(format!("'{}' is there and should not be", hit.index_key().escape_ascii()).into());
        };
        let record = records[place];
        let length = (record.stanza.len() as u32).to_be_bytes();
        let is_right = hit.index_key() == key.as_slice()
            && hit.primary_key() == record.key
            && hit.covering() == length
            && (!with_record || hit.record()?[..] == *record.stanza);
        if !is_right {
            let (found, wanted) = (hit.primary_key().escape_ascii(), record.key.escape_ascii());
            return Err(format!("under '{}': '{found}', not '{wanted}'", key.escape_ascii()).into());
        }
        count += 1;
    }
    match wanted.next() {
        Some((key, _)) => Err(format!("an entry of '{}' is missing", key.escape_ascii()).into()),
        None => Ok(count),
    }
}

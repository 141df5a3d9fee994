//! The cost of keys other than sixteen evenly drawn bytes.
//!
//! ```text
//! cargo bench -p sapwood-bench --bench shapes                    500,000 rows, three rounds
//! cargo bench -p sapwood-bench --bench shapes -- 100000 1        rows, rounds
//! cargo bench -p sapwood-bench --bench shapes -- 100000 1 text   only the first shape and those with this in their names
//! ```
//!
//! Tags, heads and interpolation assume evenly spread keys until they detect otherwise. This
//! benchmark measures the cost of a wrong assumption. In each round each shape fills a database of
//! its own, settles it, and reads it in random order. Figures are processor time of all threads per
//! operation, background work included: the median of the rounds. Ratios are to the keys of the
//! first line. Long keys also cost more by their length; the shape with the same lengths and evenly
//! drawn bytes shows that part.
#![forbid(unsafe_code)]
use fastrand::Rng;
use sapwood::{Db, Result};
use sapwood_bench::process::Cpu;
use std::hint::black_box;
use std::process::ExitCode;

/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// Entries read after a seek.
const STEPS: usize = 10;
/// The measured columns.
const COLUMNS: [&str; 3] = ["fill and settle", "get", "seek, 10 entries"];

/// Keys of one kind.
struct Shape {
    name: &'static str,
    key: fn(u64, &mut Rng, &mut Vec<u8>),
    /// Whether keys are written from last to first.
    is_reversed: bool,
}

const SHAPES: [Shape; 6] = [
    Shape { name: "16 bytes, drawn evenly", key: even, is_reversed: false },
    Shape { name: "24 bytes that all share, then 16", key: shared, is_reversed: false },
    Shape { name: "text of 8 to 200 bytes", key: text, is_reversed: false },
    Shape { name: "8 to 200 bytes, drawn evenly", key: even_long, is_reversed: false },
    Shape { name: "decimal numbers in 20 digits", key: decimal, is_reversed: false },
    Shape { name: "16 bytes, written from last to first", key: counted, is_reversed: true },
];

fn even(number: u64, _: &mut Rng, key: &mut Vec<u8>) {
    let spread = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    key.extend_from_slice(&spread.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
}

fn shared(number: u64, random: &mut Rng, key: &mut Vec<u8>) {
    key.extend_from_slice(b"tenant/0000000042/users/");
    even(number, random, key);
}

/// Words of a small vocabulary, as in paths: some keys share long prefixes, of every length.
fn text(number: u64, random: &mut Rng, key: &mut Vec<u8>) {
    const WORDS: [&str; 12] =
        ["usr", "share", "lib", "doc", "a", "index", "main", "src", "en", "2026", "data", "x"];
    let length = random.usize(8..=200);
    // Digits of base 26 make the key unique; common words precede them.
    let mut unique = Vec::new();
    let mut rest = number;
    while unique.len() < 5 || rest > 0 {
        unique.push(b'a' + (rest % 26) as u8);
        rest /= 26;
    }
    while key.len() + unique.len() + 8 < length {
        key.extend_from_slice(random.choice(WORDS).unwrap_or_default().as_bytes());
        key.push(b'/');
    }
    key.extend_from_slice(&unique);
}

/// Lengths as in [`text`], all bytes drawn evenly.
fn even_long(number: u64, random: &mut Rng, key: &mut Vec<u8>) {
    let length = random.usize(8..=200);
    key.extend_from_slice(&number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    key.extend(std::iter::repeat_with(|| random.u8(..)).take(length - 8));
}

fn decimal(number: u64, random: &mut Rng, key: &mut Vec<u8>) {
    let _ = random;
    key.extend_from_slice(format!("{:020}", number.wrapping_mul(977)).as_bytes());
}

fn counted(number: u64, _: &mut Rng, key: &mut Vec<u8>) {
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(&[0; 8]);
}

fn main() -> ExitCode {
    // Cargo passes `--bench` of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |place: usize, default: u64| arguments.get(place).map_or(Ok(default), |text| text.parse());
    let (Ok(rows), Ok(rounds), 0..=3) = (number(0, 500_000), number(1, 3), arguments.len()) else {
        eprintln!("usage: cargo bench -p sapwood-bench --bench shapes -- [rows [rounds [part of a name]]]");
        return ExitCode::from(2);
    };
    let name = arguments.get(2).map_or("", String::as_str);
    match run(rows.max(1), rounds.max(1), name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(rows: u64, rounds: u64, name: &str) -> Result<()> {
    let (plain, others) = SHAPES.split_first().expect("there are shapes");
    let shapes: Vec<&Shape> =
        std::iter::once(plain).chain(others.iter().filter(|shape| shape.name.contains(name))).collect();
    let mut figures = vec![COLUMNS.map(|_| Vec::new()); shapes.len()];
    for round in 0..rounds {
        for (shape, figures) in shapes.iter().zip(&mut figures) {
            eprint!("\rround {} of {rounds}: {:<50}", round + 1, shape.name);
            for (column, nanos) in figures.iter_mut().zip(measure(shape, rows, round)?) {
                column.push(nanos);
            }
        }
    }
    eprint!("\r{:<80}\r", "");
    println!(
        "{rows} rows, values of {VALUE_BYTES} bytes; processor time per operation, and its ratio to the first line\n"
    );
    println!("| keys | {} |", COLUMNS.join(" | "));
    println!("|---|---:|---:|---:|");
    let medians: Vec<[f64; 3]> = figures.into_iter().map(|shape| shape.map(median)).collect();
    for (shape, row) in shapes.iter().zip(&medians) {
        print!("| {} |", shape.name);
        for (nanos, plain) in row.iter().zip(&medians[0]) {
            print!(" {:.0} ns, {:.2} |", nanos, nanos / plain);
        }
        println!();
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds of processor time for each column.
fn measure(shape: &Shape, rows: u64, round: u64) -> Result<[f64; 3]> {
    let mut random = Rng::with_seed(round);
    let mut keys: Vec<Vec<u8>> = (0..rows)
        .map(|number| {
            let mut key = Vec::new();
            (shape.key)(number, &mut random, &mut key);
            key
        })
        .collect();
    if shape.is_reversed {
        keys.reverse();
    } else {
        random.shuffle(&mut keys);
    }
    let folder = tempfile::tempdir().map_err(|error| {
        sapwood::Error::new(sapwood::ErrorKind::Io, format!("cannot make a temporary folder: {error}"))
    })?;
    let db = Db::builder(folder.path().join("db")).memory_budget(1 << 30).open()?;
    let keyspace = db.default_keyspace();
    let value = [7; VALUE_BYTES];
    let per = |cpu: Cpu, count: usize| Cpu::now().since(cpu).total.as_nanos() as f64 / count as f64;

    let start = Cpu::now();
    for key in &keys {
        keyspace.put(key, value)?;
    }
    db.settle()?;
    let fill = per(start, keys.len());

    // A first pass brings the blocks into the cache.
    random.shuffle(&mut keys);
    for key in &keys {
        assert!(keyspace.contains(key)?, "every written key exists");
    }
    let start = Cpu::now();
    for key in &keys {
        black_box(keyspace.get_with(key, |value| value[0])?);
    }
    let get = per(start, keys.len());

    let seeks = &keys[..keys.len().div_ceil(4)];
    let start = Cpu::now();
    for key in seeks {
        let mut cursor = keyspace.cursor()?;
        cursor.seek(key)?;
        for _ in 0..STEPS {
            if !cursor.valid() {
                break;
            }
            black_box(cursor.value().len());
            cursor.next()?;
        }
    }
    let seek = per(start, seeks.len());
    db.close()?;
    Ok([fill, get, seek])
}

//! Workloads: the keys that a memtable's worth of writes touches.
//!
//! The key axis is divided into cells, and the keys of a cell into classes of equal popularity.
//! Within a class, a flush touches a random subset of the keys, so the expected size of a union
//! follows from the sizes alone: the simulator needs no keys.
use std::fmt;

/// Keys of equal popularity in one cell.
#[derive(Clone, Copy, Default, Debug)]
pub struct Count {
    /// Keys whose newest version is a row.
    pub rows: f64,
    /// Keys whose newest version is a tombstone.
    pub tombstones: f64,
}

impl Count {
    pub fn entries(&self) -> f64 {
        self.rows + self.tombstones
    }
}

/// The order in which keys are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Each key drawn evenly from as many as there are writes: `fillrandom` of `db_bench`.
    Fill,
    /// Drawn evenly from keys that exist.
    Overwrite,
    /// Existing keys, drawn by Zipf's law with exponent 0.99; popular keys lie everywhere.
    Zipf,
    /// Ascending keys.
    Sequential,
    /// Ascending keys; one in twenty is late by up to a tenth of the data.
    Late,
    /// A fill in which one in three operations deletes a random existing key.
    Deletes,
    /// Ascending keys; each write deletes the oldest row once the queue has its depth, an eighth of
    /// all rows written.
    Queue,
}

impl Kind {
    pub const ALL: [Kind; 7] =
        [Kind::Fill, Kind::Overwrite, Kind::Zipf, Kind::Sequential, Kind::Late, Kind::Deletes, Kind::Queue];

    /// Whether it is measured on top of a database that was filled before.
    pub fn begins_full(self) -> bool {
        matches!(self, Kind::Overwrite | Kind::Zipf)
    }

    /// Whether keys follow each other, so that no key is written twice as a row.
    pub fn is_ordered(self) -> bool {
        matches!(self, Kind::Sequential | Kind::Late | Kind::Queue)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Fill => "fill",
            Kind::Overwrite => "overwrite",
            Kind::Zipf => "zipf",
            Kind::Sequential => "sequential",
            Kind::Late => "late",
            Kind::Deletes => "deletes",
            Kind::Queue => "queue",
        })
    }
}

/// The key space of a workload.
pub struct Workload {
    pub kind: Kind,
    /// Cells of the key axis.
    pub cells: usize,
    /// For each class, the keys of a cell and the share of writes that go to the class.
    pub classes: Vec<(f64, f64)>,
    /// All rows that are written.
    pub rows: f64,
}

impl Workload {
    /// Writes `rows` rows, of which a memtable holds `memtable`.
    pub fn new(kind: Kind, rows: f64, memtable: f64) -> Workload {
        let cells = match kind.is_ordered() {
            // A cell is no larger than a flush, as far as that is affordable.
            true => (rows / memtable).clamp(64.0, 2048.0) as usize,
            // A slice of a job is at least a cell, so small databases have fine ones.
            false if rows / memtable <= 2000.0 => 256,
            false => 64,
        };
        let keys = rows / cells as f64;
        let classes = match kind {
            Kind::Zipf => zipf(rows).into_iter().map(|(k, share)| (k / cells as f64, share)).collect(),
            _ => vec![(keys, 1.0)],
        };
        Workload { kind, cells, classes, rows }
    }

    /// The entries of the flush that begins after `written` rows, cell by cell, class by class.
    pub fn flush(&self, written: f64, memtable: f64) -> Vec<Count> {
        let mut counts = vec![Count::default(); self.cells * self.classes.len()];
        let cell = self.rows / self.cells as f64;
        match self.kind {
            Kind::Fill | Kind::Overwrite | Kind::Zipf => {
                for at in 0..self.cells {
                    for (class, (keys, share)) in self.classes.iter().enumerate() {
                        let draws = memtable * share / self.cells as f64;
                        counts[at * self.classes.len() + class].rows = distinct(*keys, draws);
                    }
                }
            }
            Kind::Deletes => {
                // Rows are drawn from all keys; tombstones from those written so far.
                let share = (written / self.rows).min(1.0);
                for count in &mut counts {
                    let draws = memtable / self.cells as f64;
                    count.rows = distinct(cell, draws * 2.0 / 3.0);
                    count.tombstones = distinct(cell, draws / 3.0) * share.max(1e-3);
                }
            }
            Kind::Sequential => spread(&mut counts, cell, written, memtable, |count| &mut count.rows),
            Kind::Late => {
                spread(&mut counts, cell, written, memtable * 0.95, |count| &mut count.rows);
                let back = (self.rows * 0.1).min(written);
                if back > 0.0 {
                    let late = memtable * 0.05;
                    let parts = 64;
                    for part in 0..parts {
                        let from = written - back + back * part as f64 / parts as f64;
                        spread(&mut counts, cell, from, late / parts as f64, |count| &mut count.rows);
                    }
                }
            }
            Kind::Queue => {
                // Half of the operations are deletions once the queue has its depth.
                let (depth, all) = (self.rows / 8.0, memtable / 2.0);
                let pushed = written / 2.0;
                let is_deep = pushed >= depth;
                let push = if is_deep { all } else { memtable };
                let begin = if is_deep { pushed } else { written };
                spread(&mut counts, cell, begin, push, |count| &mut count.rows);
                if is_deep {
                    spread(&mut counts, cell, begin - depth, all, |count| &mut count.tombstones);
                }
            }
        }
        counts
    }
}

/// Adds `amount` keys that follow each other from number `from` on.
fn spread(counts: &mut [Count], cell: f64, from: f64, amount: f64, part: impl Fn(&mut Count) -> &mut f64) {
    let (mut at, end) = (from, from + amount);
    while at < end {
        let number = (at / cell) as usize;
        let next = ((number + 1) as f64 * cell).min(end);
        if let Some(count) = counts.get_mut(number) {
            *part(count) += next - at;
        }
        at = next.max(at + cell * 1e-9);
    }
}

/// The expected number of different keys among `draws` from `keys`.
fn distinct(keys: f64, draws: f64) -> f64 {
    keys * -(-draws / keys).exp_m1()
}

/// Classes of keys with a popularity within a factor of two, and the share of draws of each.
fn zipf(keys: f64) -> Vec<(f64, f64)> {
    // The sum of 1/rank^0.99 from a to b, by its integral.
    let sum = |from: f64, to: f64| (to.powf(0.01) - from.powf(0.01)) / 0.01;
    let all = sum(1.0, keys + 1.0);
    let mut classes = Vec::new();
    let mut from = 1.0;
    while from < keys {
        let to = (from * 4.0f64).min(keys + 1.0);
        classes.push((to - from, sum(from, to) / all));
        from = to;
    }
    classes
}

//! A get that is observed.
use super::report::{Explain, ExplainedRows, ExplainedSource, Outcome, Place, text};
use super::sources::sources;
use crate::keyspace::KeyspaceState;
use crate::read::keyspace_views::KeyspaceView;
use crate::read::resolve::has_value;
use crate::read::view::View;
use crate::read::{Observer, get_observed};
use crate::runtime::Core;
use sapwood_base::{Result, SequenceNumber, ValueKind};
use sapwood_sstable::Table;
use sapwood_storage::Env;
use std::time::Duration;

/// Collects the steps of a get.
struct Listener<'e> {
    env: &'e Env,
    sources: Vec<ExplainedSource>,
    memtables: usize,
    sequence: SequenceNumber,
    /// The end of the previous source.
    last: Duration,
}

impl Listener<'_> {
    fn lap(&mut self) -> Option<Duration> {
        let now = self.env.now();
        let lap = now.saturating_sub(self.last);
        self.last = now;
        Some(lap)
    }
}

fn outcome(found: Option<(ValueKind, usize)>) -> Outcome {
    match found {
        None => Outcome::Absent,
        Some((kind, bytes)) if has_value(kind) => Outcome::Value { bytes: bytes as u64 },
        Some(_) => Outcome::Tombstone,
    }
}

impl Observer for Listener<'_> {
    const ACTIVE: bool = true;

    fn begin(&mut self, view: &View, keyspace: &KeyspaceView, sequence: SequenceNumber) {
        self.sources = sources(view, keyspace);
        self.memtables = view.generations.len();
        self.sequence = sequence;
        self.last = self.env.now();
    }

    fn memtable(&mut self, number: usize, may_contain: bool, found: Option<(ValueKind, usize)>) {
        let time = self.lap();
        let source = &mut self.sources[number];
        source.time = time;
        match source.outcome {
            Outcome::Empty => {}
            _ if may_contain => source.outcome = outcome(found),
            _ => source.outcome = Outcome::Filter,
        }
    }

    fn table(&mut self, run: usize, table: Option<&Table>, key: &[u8], may_contain: bool) {
        let time = self.lap();
        let source = &mut self.sources[self.memtables + run];
        source.time = time;
        source.outcome = if table.is_none() { Outcome::OutOfRange } else { Outcome::Filter };
        let Some(table) = table else { return };
        if let Place::Run { file, .. } = &mut source.place {
            *file = Some(table.number().0);
        }
        if may_contain && let Some(block) = table.locate(key) {
            source.count(table.block_state(block));
        }
        self.last = self.env.now();
    }

    fn answer(&mut self, run: usize, found: Option<(ValueKind, usize)>) {
        let time = self.lap();
        let source = &mut self.sources[self.memtables + run];
        source.time = Some(source.time.unwrap_or_default() + time.unwrap_or_default());
        source.outcome = outcome(found);
    }
}

pub(crate) fn get(
    core: &Core,
    keyspace: &KeyspaceState,
    key: &[u8],
    at: Option<SequenceNumber>,
) -> Result<Explain> {
    core.check_open()?;
    let env = &core.options.env;
    let guard = crossbeam_epoch::pin();
    let mut listener = Listener {
        env,
        sources: Vec::new(),
        memtables: 0,
        sequence: SequenceNumber(0),
        last: Duration::ZERO,
    };
    let start = env.now();
    let found = get_observed(core, keyspace, key, at, &guard, &mut listener)?;
    let time = env.now().saturating_sub(start);
    Ok(Explain {
        operation: "get",
        keyspace: keyspace.name.clone(),
        index: None,
        target: text(key),
        sequence: listener.sequence.0,
        sources: listener.sources,
        entries: u64::from(found.is_some()),
        bytes: found.map_or(0, |found| found.bytes().len() as u64),
        passed_versions: 0,
        stale_entries: 0,
        rows: None,
        time,
    })
}

impl ExplainedRows {
    /// Reads one more row, in the state of `at`; returns whether it exists.
    pub(crate) fn add(
        &mut self,
        core: &Core,
        keyspace: &KeyspaceState,
        key: &[u8],
        at: SequenceNumber,
    ) -> Result<bool> {
        let explain = get(core, keyspace, key, Some(at))?;
        self.rows += explain.entries;
        self.bytes += explain.bytes;
        self.time += explain.time;
        for source in &explain.sources {
            self.cached_blocks += source.cached_blocks;
            self.read_blocks += source.read_blocks;
            self.read_bytes += source.read_bytes;
        }
        Ok(explain.entries > 0)
    }
}

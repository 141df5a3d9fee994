//! `sapwood-sim probe`: small scenarios for promises that random work rarely reaches: edges of one
//! call, crafted bytes, waiting threads, space and memory.
//!
//! Each scenario is a function that panics if the promise is broken. `it/probe.rs` runs all of them
//! in a process of their own, since some schedule threads by a seed. `sabotage` runs one with a
//! planted bug that no other detector finds.
#![allow(clippy::disallowed_methods, reason = "waits for real threads")]
use crate::harness::{plant, within};
use crate::sim::arguments::{Command, Run, Settings};
use sapwood_base::planted;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

#[cfg(unix)]
mod address_space;
mod names;
mod cursors;
mod space;
mod failures;
mod damage;
mod waiting;
mod indexes;
mod bodies;
mod closing;
mod descriptors;
#[cfg(unix)]
mod fork;
mod late_sync;
mod place;
mod room;
mod leavings;
mod scarcity;
mod scans;
mod fence;
mod large;
mod periodic;
mod segments;
mod shape;

/// The sub-command.
pub const COMMAND: Command = Command {
    name: "probe",
    help: "small scenarios at the edges of promises",
    options: &[("--only", "NAME", "one scenario; all if not given")],
    run: Run::Whole(run),
};

/// A scenario.
pub struct Probe {
    /// Its name.
    pub name: &'static str,
    /// The question that it answers.
    pub asks: &'static str,
    /// Panics if the answer is no.
    pub run: fn(),
}

/// Every scenario.
pub const PROBES: &[Probe] = &[
    Probe { name: "lock", asks: "is a second open refused?", run: waiting::lock },
    Probe { name: "names", asks: "is a keyspace without a name refused?", run: names::names },
    Probe { name: "prefix", asks: "does a prefix end before its successor?", run: cursors::prefix },
    Probe {
        name: "keyspaces",
        asks: "do the creation and the drop of a keyspace survive a kill?",
        run: names::keyspaces,
    },
    Probe { name: "turning", asks: "does a cursor that reverses its direction move?", run: cursors::turning },
    Probe {
        name: "tiny-batch",
        asks: "does a snapshot see the last of many tiny operations?",
        run: cursors::tiny_batch,
    },
    Probe { name: "memory", asks: "do memtables stay within the budget?", run: space::memory },
    Probe {
        name: "descriptors",
        asks: "are more tables than descriptors read, merged and opened again?",
        run: descriptors::many_tables,
    },
    Probe {
        name: "no-descriptors",
        asks: "does the engine recover from a lack of descriptors without closing anything?",
        run: descriptors::none_left,
    },
    Probe {
        name: "replaced-table",
        asks: "is a reopened table the same table?",
        run: descriptors::replaced_table,
    },
    #[cfg(unix)]
    Probe {
        name: "fork",
        asks: "is a forked child refused, without an effect on its parent?",
        run: fork::fork_while_open,
    },
    #[cfg(unix)]
    Probe {
        name: "address-space",
        asks: "does a process with little address space get errors, and continue?",
        run: address_space::limited,
    },
    Probe {
        name: "leavings",
        asks: "does a closed database leave nothing in threads that continue?",
        run: leavings::closed,
    },
    Probe {
        name: "drained",
        asks: "does a long reader cost others no more of the cache than they use?",
        run: leavings::drained,
    },
    Probe {
        name: "closing",
        asks: "does a close wait for calls that write files?",
        run: closing::calls_are_awaited,
    },
    Probe { name: "space", asks: "is the space of overwritten data reclaimed?", run: space::space },
    Probe {
        name: "finished-slices",
        asks: "are finished slices removed if another one finds no space?",
        run: room::finished_slices,
    },
    Probe {
        name: "compaction-retries",
        asks: "are compactions on a full disk retried with increasing delays?",
        run: room::compaction_retries,
    },
    Probe {
        name: "hidden-garbage",
        asks: "is the space of large rows reclaimed after small deletions?",
        run: room::hidden_garbage,
    },
    Probe {
        name: "snapshot-garbage",
        asks: "are a snapshot's versions removed after it, and not rewritten before?",
        run: room::snapshot_garbage,
    },
    Probe {
        name: "leveled-idle",
        asks: "is an idle database merged under leveled compaction, too?",
        run: room::leveled_idle,
    },
    Probe {
        name: "shape",
        asks: "do runs, bytes written and space grow slowly with the data?",
        run: shape::of_tiers,
    },
    Probe {
        name: "yielding-merges",
        asks: "do merges that yield to those of newer runs continue, and keep versions in order?",
        run: shape::of_merges_that_yield,
    },
    Probe { name: "idle-cost", asks: "do tiny flushes not rewrite an idle database?", run: room::idle_cost },
    Probe {
        name: "fair-compactions",
        asks: "do other keyspaces get their compactions beside a busy one?",
        run: room::fair_compactions,
    },
    Probe { name: "full-disk", asks: "do writes continue once there is space again?", run: space::full_disk },
    Probe {
        name: "nameless-tree",
        asks: "is a tree removed whose name could not be made durable?",
        run: scarcity::tree_without_a_name,
    },
    Probe {
        name: "late-sequence",
        asks: "does a scan with a view older than its sequence number skip nothing that the view shows?",
        run: scans::late_sequence,
    },
    Probe {
        name: "vacancy-fence",
        asks: "do scans find a row whose commit was under way when its range became vacant?",
        run: fence::puts_under_way_are_found,
    },
    Probe {
        name: "full-disk-spares",
        asks: "does a flush on a full disk get the space of the log's spare segments?",
        run: scarcity::spares_on_full_disk,
    },
    Probe {
        name: "full-disk-flush",
        asks: "does a flush that does not fit remove its tables?",
        run: scarcity::flush_on_full_disk,
    },
    Probe { name: "flush-error", asks: "is a flush that fails reported?", run: failures::flush_error },
    Probe {
        name: "manifest-error",
        asks: "are tables kept when an edit fails?",
        run: failures::manifest_error,
    },
    Probe {
        name: "table-error",
        asks: "is an unreadable block reported instead of skipped?",
        run: failures::table_error,
    },
    Probe { name: "sync-error", asks: "is a failed sync final?", run: failures::sync_error },
    Probe {
        name: "read-error",
        asks: "is an unreadable log reported instead of shortened?",
        run: failures::read_error,
    },
    Probe {
        name: "log-damage",
        asks: "is damage below a sync reported instead of taken for the end of the log?",
        run: damage::log_damage,
    },
    Probe {
        name: "half-made-log",
        asks: "is a log file with the blocks of a removed one excluded from the log?",
        run: damage::half_made_log,
    },
    Probe {
        name: "replayed-awaited",
        asks: "does a sync after a recovery cover the replayed log, too?",
        run: late_sync::awaited,
    },
    Probe {
        name: "replayed-torn",
        asks: "are records after a lost replayed log lost with it?",
        run: late_sync::torn,
    },
    Probe {
        name: "replayed-sync-error",
        asks: "is a failed sync of a replayed log final?",
        run: late_sync::failed,
    },
    Probe {
        name: "replayed-noted",
        asks: "is damage of a synced replayed log reported instead of taken for a tear?",
        run: late_sync::noted,
    },
    Probe {
        name: "foreign-files",
        asks: "does an open leave the files of another engine unchanged?",
        run: place::foreign_files,
    },
    Probe { name: "destroy", asks: "does destroying a database remove nothing else?", run: place::destroy },
    Probe {
        name: "strange-table",
        asks: "is a foreign file under a name of the engine's form kept?",
        run: place::strange_table,
    },
    Probe {
        name: "lock-file-removed",
        asks: "is a second open refused whatever happens to the lock file?",
        run: place::lock_file_removed,
    },
    Probe {
        name: "directory-replaced",
        asks: "does a database stay in its directory when another one gets the name?",
        run: place::directory_replaced,
    },
    Probe {
        name: "table-of-another",
        asks: "is a table of another database with the right number and length detected?",
        run: place::table_of_another,
    },
    Probe {
        name: "periodic",
        asks: "does a power loss spare commits that are older than their interval and a sync?",
        run: periodic::kept,
    },
    Probe {
        name: "index-weight",
        asks: "is a batch refused whose index entries exceed a memtable, and a smaller one replayed?",
        run: large::index_weight,
    },
    Probe {
        name: "spare-segments",
        asks: "does the log release the segments of a large value?",
        run: segments::spare,
    },
    Probe {
        name: "short-segments",
        asks: "does a short log take little room, and a longer one longer segments?",
        run: segments::short,
    },
    Probe {
        name: "full-log",
        asks: "does a log with all segments in use wait for a flush?",
        run: segments::full,
    },
    Probe {
        name: "position-limit",
        asks: "does a database at the end of its positions report it, flush and close?",
        run: segments::position_limit,
    },
    Probe {
        name: "paused",
        asks: "is a write refused that would wait for a paused flush?",
        run: large::paused,
    },
    Probe {
        name: "bodies",
        asks: "does a payload that was written apart from its record survive with the record?",
        run: bodies::written_apart,
    },
    Probe {
        name: "long-log",
        asks: "does an open flush during replay if its memory is smaller than the log?",
        run: large::long_log,
    },
    Probe {
        name: "replayed-small",
        asks: "does an open fill memtables by the entries' size in memory, not in the log?",
        run: large::replayed_small,
    },
    Probe {
        name: "large-price",
        asks: "is a small write exempt from the delay of another thread's large one?",
        run: large::price,
    },
    Probe { name: "waiting", asks: "do all threads that wait for one sync return?", run: waiting::waiting },
    Probe {
        name: "gap",
        asks: "is nothing after a gap in the log acknowledged or counted as durable?",
        run: waiting::gap,
    },
    Probe {
        name: "swapped-blocks",
        asks: "is a block in the place of another detected?",
        run: damage::swapped_blocks,
    },
    Probe { name: "crafted-index", asks: "is a block of 4 GiB refused?", run: damage::crafted_index },
    Probe {
        name: "crafted-footer",
        asks: "are sections refused whose ends overflow?",
        run: damage::crafted_footer,
    },
    Probe {
        name: "reading-while-merging",
        asks: "do gets see the newest version while tables change?",
        run: waiting::merging,
    },
    Probe {
        name: "scan-bounds",
        asks: "does a scan stop at the end of its range, whatever was deleted after it?",
        run: scans::bounds_are_handed_on,
    },
    Probe {
        name: "queues",
        asks: "is the cost of popping the first or last entry constant?",
        run: scans::queues_are_linear,
    },
    Probe {
        name: "vacancies",
        asks: "are the vacancies that scans skip empty, for every state that they read?",
        run: scans::vacancies_are_exact,
    },
    Probe {
        name: "vacancy-growth",
        asks: "does a vacancy grow only by ranges that were watched during the scan?",
        run: scans::vacancies_grow_over_what_was_watched,
    },
    Probe {
        name: "hot-key",
        asks: "is a key with very many versions one step of a scan?",
        run: scans::a_hot_key_is_one_step,
    },
    Probe {
        name: "iterator-state",
        asks: "does an iterator see the state at its creation?",
        run: scans::iterators_fix_their_state,
    },
    Probe {
        name: "readers-and-close",
        asks: "do readers continue after a close, without keeping the database open?",
        run: scans::readers_do_not_keep_it_open,
    },
    Probe {
        name: "index-log",
        asks: "does a strict index survive a kill like its rows, whatever their durability?",
        run: indexes::index_log,
    },
    Probe {
        name: "index-snapshot",
        asks: "does a snapshot see the index of its time after a merge of everything?",
        run: indexes::index_snapshot,
    },
    Probe {
        name: "index-pages",
        asks: "does an index scan keep its tree while newer ones are written?",
        run: indexes::index_pages,
    },
    Probe {
        name: "index-named",
        asks: "is an index that an open names created, and an omitted one reported?",
        run: indexes::index_named,
    },
    Probe {
        name: "pause-guard",
        asks: "does background work continue after a pause?",
        run: indexes::pause_guard,
    },
    Probe {
        name: "inserting-together",
        asks: "are keys found while others are inserted?",
        run: waiting::inserting,
    },
];

/// The time after which a scenario hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// The same for a planted bug that may be a hang.
const PLANTED_LIMIT: Duration = Duration::from_secs(12);

/// Runs a scenario with a time limit.
pub fn check(probe: &'static Probe) {
    within(if planted::any() { PLANTED_LIMIT } else { LIMIT }, probe.name, probe.run);
}

fn run(settings: &Settings) -> ExitCode {
    plant();
    let only = settings.text("--only");
    let chosen: Vec<&Probe> =
        PROBES.iter().filter(|probe| only.is_none_or(|only| only == probe.name)).collect();
    if chosen.is_empty() {
        eprintln!(
            "no such probe; the probes are: {}",
            PROBES.iter().map(|p| p.name).collect::<Vec<_>>().join(", ")
        );
        return ExitCode::from(2);
    }
    let mut failed = 0;
    for probe in chosen {
        let kept = catch_unwind(AssertUnwindSafe(|| check(probe))).is_ok();
        println!("{:<24} {}", probe.name, if kept { "kept" } else { "BROKEN" });
        failed += u8::from(!kept);
    }
    ExitCode::from(failed.min(1))
}

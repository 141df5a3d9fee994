//! Models of the commit ring, of the rotation, and of the index epoch: all interleavings of small
//! runs.
//!
//! Run with `RUSTFLAGS="--cfg sapwood_loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release -p sapwood
//! --test loom`.
#![cfg(sapwood_loom)]
#![allow(dead_code, reason = "the models do not call all of the code that they include")]

#[path = "../src/wal/commit_ring.rs"]
mod commit_ring;
#[path = "../src/index/epoch.rs"]
mod index_epoch;
#[path = "../src/planted.rs"]
mod planted;
#[path = "../src/sync.rs"]
mod sync;

use commit_ring::{CommitRing, LogPoint, StartPosition, Tail, Taken};
use index_epoch::SharedIndexEpoch;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use sync::{AtomicU64, Ordering};

/// All interleavings of `run`, with the bug that `SAPWOOD_PLANTED` names if this build has the
/// feature `planted`.
fn model(run: impl Fn() + Sync + Send + 'static) {
    #[cfg(feature = "planted")]
    if let Ok(name) = std::env::var("SAPWOOD_PLANTED") {
        use sapwood_base::planted::{Bug, plant};
        plant(Bug::named(&name).expect("a bug of that name"));
    }
    loom::model(run);
}

/// Takes a place of one unit, which counts as a commit.
fn take(tail: &Tail, ring: &CommitRing) -> (Taken, u64) {
    loop {
        let next = tail.peek(0);
        if ring.has_room(next.ticket())
            && let Some(taken) = tail.take(&next, next.position + 1, true)
        {
            return (taken, next.position);
        }
        loom::thread::yield_now();
    }
}

fn finish(ring: &CommitRing, taken: &Taken, position: u64) {
    ring.complete(taken);
    while ring.published(0) <= position {
        ring.advance();
        loom::thread::yield_now();
    }
}

#[test]
fn what_is_published_was_inserted() {
    model(|| {
        let shared = Arc::new((Tail::new(LogPoint::default()), CommitRing::new(4, LogPoint::default())));
        let slots: Arc<Vec<AtomicU64>> = Arc::new((0..2).map(|_| AtomicU64::new(0)).collect());
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (shared, slots) = (shared.clone(), slots.clone());
                loom::thread::spawn(move || {
                    let (taken, position) = take(&shared.0, &shared.1);
                    assert_eq!(taken.commits, position, "each place is one commit");
                    // Relaxed, like the bytes of an insert: only publication orders it.
                    slots[position as usize].store(7, Ordering::Relaxed);
                    finish(&shared.1, &taken, position);
                })
            })
            .collect();
        let LogPoint { position: published, commits } = shared.0.published(&shared.1, 0);
        assert_eq!(commits, published, "both are of one state");
        for slot in &slots[..published as usize] {
            assert_eq!(slot.load(Ordering::Relaxed), 7);
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_eq!(shared.1.published(0), 2);
    });
}

#[test]
fn a_frozen_generation_holds_exactly_the_positions_before_the_rotation() {
    model(|| {
        struct Shared {
            tail: Tail,
            ring: CommitRing,
            /// 0: only the first generation; 1: the second lies above it.
            view: AtomicUsize,
            second_start: StartPosition,
            inserted: [AtomicU64; 2],
        }
        let shared = Arc::new(Shared {
            tail: Tail::new(LogPoint::default()),
            ring: CommitRing::new(4, LogPoint::default()),
            view: AtomicUsize::new(0),
            second_start: StartPosition::pending(),
            inserted: [AtomicU64::new(0), AtomicU64::new(0)],
        });
        let writer = {
            let shared = shared.clone();
            loom::thread::spawn(move || {
                let (taken, position) = take(&shared.tail, &shared.ring);
                let second =
                    shared.view.load(Ordering::Acquire) == 1 && shared.second_start.get() <= position;
                // A sum of 1 + position identifies the positions of a generation.
                shared.inserted[usize::from(second)].fetch_add(1 + position, Ordering::Relaxed);
                finish(&shared.ring, &taken, position);
                position
            })
        };
        // The rotation, then the flush that waits until the first generation is frozen.
        shared.view.store(1, Ordering::Release);
        let (taken, start) = take(&shared.tail, &shared.ring);
        shared.second_start.set(LogPoint { position: start, commits: taken.commits });
        finish(&shared.ring, &taken, start);
        assert_eq!(shared.second_start.point().commits, start);
        let frozen = shared.inserted[0].load(Ordering::Relaxed);
        let position = writer.join().unwrap();
        let expected = if position < start { [1 + position, 0] } else { [0, 1 + position] };
        assert_eq!(frozen, expected[0], "the frozen generation lacks an insert, or got one late");
        assert_eq!(shared.inserted[1].load(Ordering::Relaxed), expected[1]);
    });
}

#[test]
fn a_write_behind_the_start_of_an_index_has_entries() {
    model(|| {
        struct Shared {
            tail: Tail,
            ring: CommitRing,
            /// 1: the index is in the view.
            view: AtomicUsize,
            epoch: SharedIndexEpoch,
            /// Per position: 1 for a row, 2 for a row with its entries.
            written: [AtomicU64; 4],
        }
        let shared = Arc::new(Shared {
            tail: Tail::new(LogPoint::default()),
            ring: CommitRing::new(4, LogPoint::default()),
            view: AtomicUsize::new(0),
            epoch: SharedIndexEpoch::new(),
            written: std::array::from_fn(|_| AtomicU64::new(0)),
        });
        let writer = {
            let shared = shared.clone();
            loom::thread::spawn(move || {
                loop {
                    let epoch = shared.epoch.load();
                    // Acquire, like the pointer to the view.
                    let has_entries = epoch.has_indexes() && shared.view.load(Ordering::Acquire) == 1;
                    let (taken, position) = take(&shared.tail, &shared.ring);
                    let is_current = shared.epoch.load() == epoch;
                    if is_current {
                        let what = 1 + u64::from(has_entries);
                        shared.written[position as usize].store(what, Ordering::Relaxed);
                    }
                    finish(&shared.ring, &taken, position);
                    if is_current {
                        return position;
                    }
                }
            })
        };
        // The index is created: everything before `start` is read then, and must be there.
        shared.view.store(1, Ordering::Release);
        shared.epoch.change(true);
        let (taken, start) = take(&shared.tail, &shared.ring);
        finish(&shared.ring, &taken, start);
        let before: Vec<u64> =
            shared.written[..start as usize].iter().map(|it| it.load(Ordering::Relaxed)).collect();
        let position = writer.join().unwrap();
        if position < start {
            assert_ne!(before[position as usize], 0, "a row before the start is not there to be read");
        } else {
            let written = shared.written[position as usize].load(Ordering::Relaxed);
            assert_eq!(written, 2, "a row after the start of the index has no entries");
        }
    });
}

//! Status words that a `fork` marks in the child, and whether a child may begin again.
//!
//! A child has the memory of its parent, but none of its other threads: locks held by those stay
//! taken, and their work stands still. A mapped file is shared even for writing. So a child must
//! not continue with inherited state. `pthread_atfork` runs a handler in the child, which sets
//! [`FORKED`] in every status word of the process. Callers load their status anyway, so the check
//! needs no system call per operation.
//!
//! Nor can such a child begin with new locks of its own: waiting threads are kept in process-wide
//! tables (those of `parking_lot`), where the parent's threads stay forever, and the locks of the
//! tables may stay taken too. A [`Running`] counts the users of these tables. A child of a process
//! without any is as good as its parent.
//!
//! The handler only loads and stores atomics, as required of the child of a process with threads.
//! The words are therefore kept in a list that only grows: a word without an owner is reused.
//!
//! Children of `vfork`, of `posix_spawn` and of a raw `clone` do not run handlers.
#![allow(unsafe_code)]
#[cfg(all(unix, not(miri)))]
use crate::planted;
use sapwood_base::{Error, ErrorKind, Result};
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering};

/// The bit that the handler sets.
pub const FORKED: u8 = 1 << 7;

/// On a cache line of its own: callers load the status with every operation.
#[repr(align(64))]
struct Node {
    status: AtomicU8,
    has_owner: AtomicBool,
    next: AtomicPtr<Node>,
}

/// The newest node. Nodes are leaked.
static NEWEST: AtomicPtr<Node> = AtomicPtr::new(std::ptr::null_mut());

fn nodes() -> impl Iterator<Item = &'static Node> {
    // Acquire: pairs with the Release that published the node.
    let mut next = NEWEST.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: a pointer in the list is null or that of a leaked node.
        let node = unsafe { next.as_ref() }?;
        next = node.next.load(Ordering::Acquire);
        Some(node)
    })
}

/// An atomic status of one owner, in which a `fork` sets [`FORKED`] on the child's side.
pub struct StatusWord {
    node: &'static Node,
}

impl StatusWord {
    /// Creates a word with `status`.
    pub fn new(status: u8) -> StatusWord {
        install_handler();
        let free = nodes().find(|node| {
            // Acquire: pairs with the Release of the previous owner.
            node.has_owner.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
        });
        if let Some(node) = free {
            node.status.store(status, Ordering::Relaxed);
            return StatusWord { node };
        }
        let node: &'static Node = Box::leak(Box::new(Node {
            status: AtomicU8::new(status),
            has_owner: AtomicBool::new(true),
            next: AtomicPtr::default(),
        }));
        let mut newest = NEWEST.load(Ordering::Relaxed);
        loop {
            node.next.store(newest, Ordering::Relaxed);
            let own = std::ptr::from_ref(node).cast_mut();
            // Release: the node is complete before the list leads to it.
            match NEWEST.compare_exchange_weak(newest, own, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return StatusWord { node },
                Err(found) => newest = found,
            }
        }
    }

    /// Whether this process is a child that was forked after the word was made.
    #[inline]
    pub fn is_forked(&self) -> bool {
        self.node.status.load(Ordering::Relaxed) & FORKED != 0
    }
}

impl Deref for StatusWord {
    type Target = AtomicU8;

    #[inline]
    fn deref(&self) -> &AtomicU8 {
        &self.node.status
    }
}

impl fmt::Debug for StatusWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StatusWord").field(&self.node.status).finish()
    }
}

impl Drop for StatusWord {
    fn drop(&mut self) {
        // Release: pairs with the Acquire of the next owner.
        self.node.has_owner.store(false, Ordering::Release);
    }
}

/// Number of [`Running`] values.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Whether this process was forked from one that had a [`Running`], or is a descendant of such a
/// child.
static ORPHANED: AtomicBool = AtomicBool::new(false);

/// A component with threads and locks, until it is dropped.
#[derive(Debug)]
pub struct Running(());

impl Running {
    /// Errors: `Unsupported` in a child, or its descendant, of a process with a [`Running`].
    pub fn begin() -> Result<Running> {
        install_handler();
        if ORPHANED.load(Ordering::Relaxed) {
            let message = "this process was forked while a database was open in it, and cannot use one: locks of threads \
                           that only the parent has may stay taken; close every database before the fork, or run a new \
                           program in the child (exec)";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        // Relaxed: no other access depends on it. The child's copy of the memory has its value at
        // the fork.
        RUNNING.fetch_add(1, Ordering::Relaxed);
        Ok(Running(()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs in the child.
#[cfg(all(unix, not(miri)))]
extern "C" fn mark_all() {
    for node in nodes() {
        node.status.fetch_or(FORKED, Ordering::Relaxed);
    }
    if RUNNING.load(Ordering::Relaxed) > 0 {
        ORPHANED.store(true, Ordering::Relaxed);
    }
}

/// Makes every later `fork` of the process run [`mark_all`]. If the system has no room for the
/// handler, a child is not marked.
fn install_handler() {
    #[cfg(all(unix, not(miri)))]
    {
        static INSTALLED: std::sync::Once = std::sync::Once::new();
        INSTALLED.call_once(|| {
            // SAFETY: the handler only touches atomics in memory that is never freed, so it may run
            // between a fork and the child's next action.
            let _ = unsafe { libc::pthread_atfork(None, None, planted::child_handler(mark_all)) };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_used_again_without_the_mark_of_its_last_owner() {
        let words: Vec<StatusWord> = (0..3).map(StatusWord::new).collect();
        assert_eq!(words.iter().map(|word| word.load(Ordering::Relaxed)).collect::<Vec<_>>(), [0, 1, 2]);
        words[1].fetch_or(FORKED, Ordering::Relaxed);
        assert!(words[1].is_forked() && !words[2].is_forked());
        drop(words);
        let again: Vec<StatusWord> = (0..3).map(|_| StatusWord::new(0)).collect();
        assert!(again.iter().all(|word| !word.is_forked()));
        let distinct: std::collections::HashSet<*const Node> =
            again.iter().map(|word| std::ptr::from_ref(word.node)).collect();
        assert_eq!(distinct.len(), 3);
    }

    #[test]
    fn threads_that_make_words_at_once_get_words_of_their_own() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..if cfg!(miri) { 20 } else { 2000 } {
                        let word = StatusWord::new(0);
                        assert_eq!(word.fetch_add(1, Ordering::Relaxed), 0, "round {round}");
                        std::thread::yield_now();
                        assert_eq!(word.load(Ordering::Relaxed), 1, "round {round}");
                    }
                });
            }
        });
    }
}

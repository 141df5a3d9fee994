//! Seeded schedules of threads: the threads are real, but one at a time has the turn.
//!
//! [`Env::spawn`](crate::Env::spawn) on the schedule's machine starts a thread of the schedule. It
//! yields its turn before every lock (and so before every call of the simulated file system, which
//! takes one), while it waits for a lock, a condition, a message, a thread or a time, when it
//! spins, and at every [`step`](crate::sync::step). The seed decides which thread is next: by a
//! random walk, by a policy that rarely changes threads, or by priorities that change at a few
//! random moments. The last is the idea of Burckhardt, Kothari, Musuvathi, Nagarakatte, "A
//! randomized scheduler with probabilistic guarantees of finding bugs", ASPLOS 2010 (PCT).
//!
//! Time advances with every turn, and jumps to the next awaited time when no thread can run. It
//! occasionally jumps early, so that every wait may end before its event.
//!
//! The code between two of these places is one step: the order of single atomic operations and
//! memory accesses does not vary, and memtable code is never interrupted. The loom models cover
//! that.
//!
//! Invariants: between two turns no thread runs but the one that has it, also while a thread ends,
//! until the last of its thread-local values is gone; so the seed determines the whole run. Threads
//! that are started in other ways are not part of the schedule and may not block.
#![allow(
    clippy::disallowed_methods,
    reason = "this module is what the disallowed methods are reached through"
)]
use super::clock::SimClock;
use crossbeam::channel::{Receiver, TryRecvError};
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, ThreadId};
use std::time::Duration;

/// Turns after which a schedule counts as hung.
const MOST_TURNS: u64 = 2_000_000;
/// The time that a turn takes.
const TURN_NS: u64 = 200;
/// One in this many turns jumps to the next awaited time.
const EARLY: u32 = 100;
/// Polling interval of a channel.
const LOOK: Duration = Duration::from_millis(1);
/// A policy that rarely changes threads does so at one in this many places.
const RARELY: u32 = 12;
/// A ready thread without a turn for this many turns runs next, whatever the policy. Without this a
/// thread of low priority that holds a lock would starve while others wake from time to time, and
/// so would the threads that wait for the lock.
const PATIENCE: u64 = 20_000;
/// Priorities change within this many turns.
const CHANGES_WITHIN: u64 = 6_000;

/// The threads of one simulated machine, and the current turn. Clones are the same schedule.
#[derive(Clone)]
pub struct Schedule {
    inner: Arc<Inner>,
}

struct Inner {
    number: u64,
    clock: Arc<SimClock>,
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    random: fastrand::Rng,
    policy: Policy,
    threads: Vec<Thread>,
    by_id: HashMap<ThreadId, usize>,
    /// Thread starts to refuse: how many pass first, and how many are refused then.
    refused: (u64, u64),
    /// The name of threads whose work takes no time. See [`Schedule::keep_punctual`].
    punctual: Option<String>,
    /// The thread that has the turn.
    turn: Option<usize>,
    turns: u64,
    /// Hash of the sequence of turns.
    trace: u64,
    /// Why no thread will ever have the turn again, though not all have ended.
    stuck: Option<String>,
    panic: Option<String>,
}

enum Policy {
    /// Any thread at every place.
    Walk,
    /// The same thread, mostly.
    Rarely,
    /// The ready thread of highest priority; at these turns the thread that has the turn gets the
    /// lowest.
    Priorities(Vec<u64>),
}

struct Thread {
    name: String,
    status: Status,
    priority: i64,
    /// When it last had the turn.
    last_turn: u64,
    baton: Arc<Condvar>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Status {
    Ready,
    /// Spins: other threads go first.
    GivesWay,
    WaitsForLock(usize),
    WaitsForNotice(usize, Option<Duration>),
    Sleeps(Duration),
    WaitsForThread(usize),
    Ended,
}

impl Status {
    fn until(self) -> Option<Duration> {
        match self {
            Status::Sleeps(until) => Some(until),
            Status::WaitsForNotice(_, until) => until,
            _ => None,
        }
    }
}

/// All schedules with threads, by number. Not in thread-local values, whose destructors are part of
/// the schedule too; a number needs no destructor and remains until the very end.
static SCHEDULES: Mutex<Vec<Arc<Inner>>> = Mutex::new(Vec::new());
static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// Number of the schedule (0 for none), and of the thread in it.
    static CURRENT: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

impl Schedule {
    pub(crate) fn new(seed: u64, clock: Arc<SimClock>) -> Schedule {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5C4E_D01E);
        let policy = match random.u8(..3) {
            0 => Policy::Walk,
            1 => Policy::Rarely,
            _ => Policy::Priorities((0..random.u32(1..8)).map(|_| random.u64(..CHANGES_WITHIN)).collect()),
        };
        let state = State {
            random,
            policy,
            threads: Vec::new(),
            by_id: HashMap::new(),
            refused: (0, 0),
            punctual: None,
            turn: None,
            turns: 0,
            trace: 0,
            stuck: None,
            panic: None,
        };
        // Relaxed: the numbers only need to differ.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let inner = Inner { number, clock, state: Mutex::new(state), ended: Condvar::new() };
        Schedule { inner: Arc::new(inner) }
    }

    /// Runs `task` as the first thread of the schedule, and waits until all its threads have ended.
    /// Called once, by a thread outside of the schedule.
    ///
    /// Errors: a text, if a thread panicked (the first that did), or if no thread can ever
    /// continue; blocked threads then wait until the process ends.
    pub fn run(&self, task: impl FnOnce() + Send + 'static) -> Result<(), String> {
        lock(&SCHEDULES).push(Arc::clone(&self.inner));
        let handle = self.inner.spawn("main", Box::new(task)).map_err(|error| error.to_string())?;
        let mut state = self.inner.state();
        self.inner.pass_on(&mut state);
        while state.stuck.is_none() && state.threads.iter().any(|thread| thread.status != Status::Ended) {
            state = self.inner.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let outcome = match (&state.panic, &state.stuck) {
            (Some(panic), _) => Err(panic.clone()),
            (None, Some(stuck)) => Err(stuck.clone()),
            (None, None) => Ok(()),
        };
        if state.stuck.is_none() {
            drop(state);
            // Its panic is already recorded.
            let _ = handle.join();
            lock(&SCHEDULES).retain(|inner| inner.number != self.inner.number);
        }
        outcome
    }

    /// Turns so far.
    pub fn turns(&self) -> u64 {
        self.inner.state().turns
    }

    /// A hash of all turns so far: equal schedules have equal ones.
    pub fn trace(&self) -> u64 {
        self.inner.state().trace
    }

    /// Admits `pass` thread starts, then refuses `count`, like a system at its limit (`EAGAIN`).
    pub fn refuse_threads(&self, pass: u64, count: u64) {
        self.inner.state().refused = (pass, count);
    }

    /// Suppresses early jumps of time while a thread of this name works, or waits for anything but
    /// a time.
    ///
    /// A guarantee about such a thread's work assumes a machine on which it gets its turns. When
    /// all other runnable threads wait too, time still advances, so a long delay of the thread
    /// shows.
    pub fn keep_punctual(&self, name: &str) {
        self.inner.state().punctual = Some(name.to_owned());
    }

    /// The names of the threads that have not ended.
    pub fn live_threads(&self) -> Vec<String> {
        let state = self.inner.state();
        let live = state.threads.iter().filter(|thread| thread.status != Status::Ended);
        live.map(|thread| thread.name.clone()).collect()
    }

    pub(crate) fn spawn(
        &self,
        name: &str,
        task: Box<dyn FnOnce() + Send + 'static>,
    ) -> io::Result<JoinHandle<()>> {
        {
            let (pass, refused) = &mut self.inner.state().refused;
            if *pass > 0 {
                *pass -= 1;
            } else if *refused > 0 {
                *refused -= 1;
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        let handle = self.inner.spawn(name, task)?;
        step();
        Ok(handle)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").field("turns", &self.turns()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn spawn(
        self: &Arc<Inner>,
        name: &str,
        task: Box<dyn FnOnce() + Send + 'static>,
    ) -> io::Result<JoinHandle<()>> {
        let number = {
            let mut state = self.state();
            let priority = state.random.i64(0..1 << 40);
            let baton = Arc::new(Condvar::new());
            let turns = state.turns;
            state.threads.push(Thread {
                name: name.to_owned(),
                status: Status::Ready,
                priority,
                last_turn: turns,
                baton,
            });
            state.threads.len() - 1
        };
        let inner = Arc::clone(self);
        let thread_name = name.to_owned();
        // The outer thread keeps the turn until the inner one is completely gone, including
        // thread-local values.
        let handle = Builder::new().name(name.to_owned()).spawn(move || {
            let own = Arc::clone(&inner);
            let body = move || {
                CURRENT.set((own.number, number));
                drop(own.wait_for_turn(own.state(), number));
                std::panic::catch_unwind(AssertUnwindSafe(task))
            };
            let result = match Builder::new().name(thread_name).spawn(body) {
                Ok(body) => body.join().unwrap_or_else(Err),
                Err(error) => {
                    drop(inner.wait_for_turn(inner.state(), number));
                    Err(Box::new(error.to_string()) as Box<dyn std::any::Any + Send>)
                }
            };
            inner.end(number, result.as_ref().err().map(|panic| text_of(&**panic)));
            if let Err(panic) = result {
                std::panic::resume_unwind(panic);
            }
        })?;
        self.state().by_id.insert(handle.thread().id(), number);
        Ok(handle)
    }

    fn end(&self, number: usize, panic: Option<String>) {
        let mut state = self.state();
        if let Some(panic) = panic {
            let text = format!("thread {} panicked: {panic}", state.threads[number].name);
            state.panic.get_or_insert(text);
        }
        state.threads[number].status = Status::Ended;
        for thread in &mut state.threads {
            if thread.status == Status::WaitsForThread(number) {
                thread.status = Status::Ready;
            }
        }
        self.pass_on(&mut state);
    }

    /// Yields the turn and waits until it returns.
    fn hand_over(&self, number: usize, status: Status) {
        let mut state = self.state();
        state.threads[number].status = status;
        if status == Status::GivesWay {
            let lowest = state.threads.iter().map(|thread| thread.priority).min().unwrap_or_default();
            state.threads[number].priority = lowest - 1;
        }
        self.pass_on(&mut state);
        drop(self.wait_for_turn(state, number));
    }

    fn wait_for_turn<'s>(&'s self, mut state: MutexGuard<'s, State>, number: usize) -> MutexGuard<'s, State> {
        let baton = Arc::clone(&state.threads[number].baton);
        while state.turn != Some(number) {
            state = baton.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Chooses the next thread.
    fn pass_on(&self, state: &mut State) {
        let before = state.turn.take();
        state.turns += 1;
        let mut now = self.clock.advance(TURN_NS);
        if state.random.u32(..EARLY) == 0
            && !state.is_punctual_at_work()
            && let Some(until) = state.next_time()
        {
            now = self.go_on_to(now, until);
        }
        state.wake(now);
        if !state.threads.iter().any(|thread| thread.status == Status::Ready) {
            if let Some(until) = state.next_time() {
                now = self.go_on_to(now, until);
                state.wake(now);
            } else {
                state.end_giving_way();
            }
        }
        let ready: Vec<usize> =
            (0..state.threads.len()).filter(|at| state.threads[*at].status == Status::Ready).collect();
        if ready.is_empty() || state.turns > MOST_TURNS {
            if state.threads.iter().any(|thread| thread.status != Status::Ended) {
                let what = match ready.is_empty() {
                    true => "deadlock".to_owned(),
                    false => format!("not done after {MOST_TURNS} turns"),
                };
                let live = state.threads.iter().filter(|thread| thread.status != Status::Ended);
                let live: Vec<String> =
                    live.map(|thread| format!("{} {:?}", thread.name, thread.status)).collect();
                state.stuck = Some(format!("{what}: {}", live.join(", ")));
            }
            self.ended.notify_all();
            return;
        }
        let next = state.starving(&ready).unwrap_or_else(|| state.choose(&ready, before));
        state.threads[next].last_turn = state.turns;
        state.end_giving_way();
        state.trace = (state.trace ^ next as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        state.turn = Some(next);
        if before != Some(next) {
            state.threads[next].baton.notify_all();
        }
    }

    fn go_on_to(&self, now: Duration, until: Duration) -> Duration {
        let nanoseconds = u64::try_from(until.saturating_sub(now).as_nanos()).unwrap_or(u64::MAX / 4);
        self.clock.advance(nanoseconds)
    }
}

impl State {
    /// The earliest awaited time.
    fn next_time(&self) -> Option<Duration> {
        self.threads.iter().filter_map(|thread| thread.status.until()).min()
    }

    /// Whether a punctual thread has work to do.
    fn is_punctual_at_work(&self) -> bool {
        let Some(name) = &self.punctual else { return false };
        let is_at_work = |thread: &Thread| thread.status != Status::Ended && thread.status.until().is_none();
        self.threads.iter().any(|thread| thread.name == *name && is_at_work(thread))
    }

    fn wake(&mut self, now: Duration) {
        for thread in &mut self.threads {
            if thread.status.until().is_some_and(|until| until <= now) {
                thread.status = Status::Ready;
            }
        }
    }

    fn end_giving_way(&mut self) {
        for thread in &mut self.threads {
            if thread.status == Status::GivesWay {
                thread.status = Status::Ready;
            }
        }
    }

    /// The ready thread that has waited beyond the limit, if any; from now on it has the highest
    /// priority.
    fn starving(&mut self, ready: &[usize]) -> Option<usize> {
        let first = ready.iter().copied().min_by_key(|at| self.threads[*at].last_turn)?;
        if self.turns - self.threads[first].last_turn <= PATIENCE {
            return None;
        }
        let highest = self.threads.iter().map(|thread| thread.priority).max().unwrap_or_default();
        self.threads[first].priority = highest + 1;
        Some(first)
    }

    fn choose(&mut self, ready: &[usize], before: Option<usize>) -> usize {
        match &self.policy {
            Policy::Walk => ready[self.random.usize(..ready.len())],
            Policy::Rarely => match before.filter(|before| ready.contains(before)) {
                Some(before) if self.random.u32(..RARELY) > 0 => before,
                _ => ready[self.random.usize(..ready.len())],
            },
            Policy::Priorities(changes) => {
                if let Some(before) = before.filter(|_| changes.contains(&self.turns)) {
                    let lowest = self.threads.iter().map(|thread| thread.priority).min().unwrap_or_default();
                    self.threads[before].priority = lowest - 1;
                }
                let highest = ready.iter().max_by_key(|at| (self.threads[**at].priority, **at));
                *highest.expect("somebody is ready")
            }
        }
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a value that is not text".to_owned())
}

/// The schedule of this thread and the thread's number in it.
fn current() -> Option<(Arc<Inner>, usize)> {
    let (schedule, thread) = CURRENT.get();
    if schedule == 0 {
        return None;
    }
    let inner = lock(&SCHEDULES).iter().find(|inner| inner.number == schedule).cloned();
    inner.map(|inner| (inner, thread))
}

fn hand_over(status: Status) {
    if let Some((inner, thread)) = current() {
        inner.hand_over(thread, status);
    }
}

/// Whether this thread belongs to a schedule.
#[inline]
pub(crate) fn is_scheduled() -> bool {
    CURRENT.get().0 != 0
}

/// See [`crate::sync::step`].
#[inline]
pub(crate) fn step() {
    if is_scheduled() {
        hand_over(Status::Ready);
    }
}

/// See [`crate::sync::give_turn`].
#[inline]
pub(crate) fn give_turn() -> bool {
    if is_scheduled() {
        hand_over(Status::GivesWay);
        return true;
    }
    false
}

/// See [`crate::sync::receive`].
pub(crate) fn receive<T>(receiver: &Receiver<T>) -> Option<T> {
    loop {
        step();
        match receiver.try_recv() {
            Ok(message) => return Some(message),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => sleep(LOOK),
        }
    }
}

/// Waits until a lock is released.
pub(crate) fn wait_for_lock(place: usize) {
    hand_over(Status::WaitsForLock(place));
}

/// A lock was released.
#[inline]
pub(crate) fn released(place: usize) {
    if is_scheduled()
        && let Some((inner, _)) = current()
    {
        for thread in &mut inner.state().threads {
            if thread.status == Status::WaitsForLock(place) {
                thread.status = Status::Ready;
            }
        }
    }
}

/// Waits for [`notify`], at most for `limit`.
pub(crate) fn wait_for_notice(place: usize, limit: Option<Duration>) {
    if let Some((inner, thread)) = current() {
        let until = limit.map(|limit| inner.clock.advance(0) + limit);
        inner.hand_over(thread, Status::WaitsForNotice(place, until));
    }
}

/// Wakes the threads that wait at a place, or one of them, chosen by the seed.
#[inline]
pub(crate) fn notify(place: usize, all: bool) {
    if is_scheduled()
        && let Some((inner, _)) = current()
    {
        let mut state = inner.state();
        let mut waiting: Vec<usize> = (0..state.threads.len())
            .filter(|at| matches!(state.threads[*at].status, Status::WaitsForNotice(at, _) if at == place))
            .collect();
        if !all && !waiting.is_empty() {
            waiting = vec![waiting[state.random.usize(..waiting.len())]];
        }
        for at in waiting {
            state.threads[at].status = Status::Ready;
        }
    }
}

/// Waits for `duration`.
pub(crate) fn sleep(duration: Duration) {
    if let Some((inner, thread)) = current() {
        let until = inner.clock.advance(0) + duration;
        inner.hand_over(thread, Status::Sleeps(until));
    }
}

/// Waits for the end of a thread of the same schedule. The remaining work of any other thread is
/// short, so this does not wait for it.
pub(crate) fn wait_for_thread(id: ThreadId) {
    let Some((inner, thread)) = current() else { return };
    let (other, has_ended) = {
        let state = inner.state();
        let Some(other) = state.by_id.get(&id).copied() else { return };
        (other, state.threads[other].status == Status::Ended)
    };
    if !has_ended {
        inner.hand_over(thread, Status::WaitsForThread(other));
    }
}

//! Schedules: they are reproducible, differ between seeds, and end with a reason where threads are
//! stuck.
use crate::env::{Env, ThreadClass};
use crate::sync::{Condvar, Mutex, step};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Runs `body` on three threads; returns the outcome, and the hash of the turns.
fn on_three(seed: u64, body: impl Fn(usize, &Env) + Send + Sync + 'static) -> (Result<(), String>, u64) {
    let (env, _, schedule) = Env::sim_scheduled(seed);
    let body = Arc::new(body);
    let outcome = schedule.run(move || {
        let start = |number: usize| {
            let (own, body) = (env.clone(), Arc::clone(&body));
            env.spawn(&format!("thread-{number}"), ThreadClass::Latency, move || body(number, &own)).unwrap()
        };
        let threads: Vec<_> = (0..3).map(start).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    (outcome, schedule.trace())
}

#[test]
fn a_seed_decides_who_goes_first() {
    let order = |seed: u64| {
        let order = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&order);
        let (outcome, trace) = on_three(seed, move |number, _| {
            for _ in 0..4 {
                shared.lock().push(number);
                step();
            }
        });
        outcome.unwrap();
        (std::mem::take(&mut *order.lock()), trace)
    };
    for seed in 0..20 {
        assert_eq!(order(seed), order(seed), "seed {seed}");
    }
    let orders: BTreeSet<Vec<usize>> = (0..20).map(|seed| order(seed).0).collect();
    assert!(orders.len() > 10, "{}", orders.len());
}

#[test]
fn an_update_without_a_lock_is_lost_in_some_schedule() {
    let sum = |seed: u64| {
        let sum = Arc::new(Mutex::new(0));
        let shared = Arc::clone(&sum);
        let (outcome, _) = on_three(seed, move |_, _| {
            let read = *shared.lock();
            *shared.lock() = read + 1;
        });
        outcome.unwrap();
        *sum.lock()
    };
    let sums: BTreeSet<i32> = (0..60).map(sum).collect();
    assert_eq!(sums, BTreeSet::from([1, 2, 3]));
}

#[test]
fn a_deadlock_is_told_and_not_waited_for() {
    let outcomes: Vec<Result<(), String>> = (0..40)
        .map(|seed| {
            let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
            on_three(seed, move |number, _| {
                let _first = locks[number % 2].lock();
                let _second = locks[1 - number % 2].lock();
            })
            .0
        })
        .collect();
    assert!(outcomes.iter().any(Result::is_ok));
    let stuck = outcomes.into_iter().find_map(Result::err).expect("some schedule meets the deadlock");
    assert!(stuck.contains("deadlock") && stuck.contains("WaitsForLock"), "{stuck}");
}

#[test]
fn a_wait_ends_with_a_notice_or_in_time() {
    for seed in 0..20 {
        let shared = Arc::new((Mutex::new(false), Condvar::new()));
        let (outcome, _) = on_three(seed, move |number, env| {
            let (mutex, condition) = &*shared;
            match number {
                0 => {
                    env.sleep(Duration::from_secs(5));
                    *mutex.lock() = true;
                    condition.notify_all();
                }
                1 => {
                    let mut ready = mutex.lock();
                    while !*ready {
                        condition.wait(&mut ready);
                    }
                    assert!(env.now() >= Duration::from_secs(5));
                }
                _ => {
                    let before = env.now();
                    let mut ready = mutex.lock();
                    if !*ready {
                        condition.wait_for(&mut ready, Duration::from_millis(20));
                        assert!(*ready || env.now() - before >= Duration::from_millis(20));
                    }
                }
            }
        });
        outcome.unwrap();
    }
}

/// Returns the time that the first thread takes for a hundred steps beside two that sleep for a
/// second. With `waits` it needs a lock that one of them holds while it sleeps.
fn time_of_steps(seed: u64, is_punctual: bool, waits: bool) -> Duration {
    let (env, _, schedule) = Env::sim_scheduled(seed);
    if is_punctual {
        schedule.keep_punctual("steps");
    }
    let taken = Arc::new(Mutex::new(Duration::ZERO));
    let shared = Arc::clone(&taken);
    let second = Duration::from_secs(1);
    let outcome = schedule.run(move || {
        let start =
            |name: &str, body: Box<dyn FnOnce() + Send>| env.spawn(name, ThreadClass::Latency, body).unwrap();
        let (lock, is_locked) = (Arc::new(Mutex::new(())), Arc::new(AtomicBool::new(false)));
        let (own, held, says) = (env.clone(), Arc::clone(&lock), Arc::clone(&is_locked));
        let holder = start(
            "holds",
            Box::new(move || {
                let _held = held.lock();
                says.store(true, Ordering::Relaxed);
                own.sleep(second);
            }),
        );
        let own = env.clone();
        let sleeper = start("sleeps", Box::new(move || own.sleep(second)));
        let own = env.clone();
        let steps = start(
            "steps",
            Box::new(move || {
                while !is_locked.load(Ordering::Relaxed) {
                    own.sleep(Duration::from_micros(1));
                }
                let begin = own.now();
                (0..100).for_each(|_| step());
                if waits {
                    drop(lock.lock());
                }
                *shared.lock() = own.now() - begin;
            }),
        );
        [holder, sleeper, steps].into_iter().for_each(|thread| thread.join().unwrap());
    });
    outcome.unwrap();
    *taken.lock()
}

#[test]
fn no_time_goes_on_early_while_a_punctual_thread_works_and_all_that_it_waits_for_counts() {
    let most = |is_punctual| (0..40).map(|seed| time_of_steps(seed, is_punctual, false)).max().unwrap();
    assert!(most(true) < Duration::from_millis(1), "{:?}", most(true));
    assert!(most(false) > Duration::from_millis(900), "{:?}", most(false));
    for seed in 0..40 {
        let taken = time_of_steps(seed, true, true);
        assert!(taken > Duration::from_millis(900), "seed {seed}: {taken:?}");
    }
}

#[test]
fn who_waits_for_nothing_is_stuck() {
    let shared = Arc::new((Mutex::new(()), Condvar::new()));
    let (outcome, _) = on_three(1, move |number, _| {
        if number == 2 {
            shared.1.wait(&mut shared.0.lock());
        }
    });
    let stuck = outcome.unwrap_err();
    assert!(stuck.contains("thread-2 WaitsForNotice"), "{stuck}");
}

#[test]
fn a_panic_names_its_thread() {
    let (outcome, _) = on_three(3, |number, _| assert!(number != 1, "no luck"));
    let text = outcome.unwrap_err();
    assert!(text.contains("thread-1 panicked") && text.contains("no luck"), "{text}");
}

#[test]
fn nobody_starves_behind_those_that_wake_from_time_to_time() {
    for seed in 0..150 {
        let lock = Arc::new(Mutex::new(()));
        let done = Arc::new(AtomicBool::new(false));
        let (outcome, _) = on_three(seed, move |number, env| {
            if number == 0 {
                let held = lock.lock();
                (0..30).for_each(|_| step());
                drop(held);
                done.store(true, Ordering::Relaxed);
                return;
            }
            while !done.load(Ordering::Relaxed) {
                env.sleep(Duration::from_nanos(1));
            }
        });
        assert_eq!(outcome, Ok(()), "seed {seed}");
    }
}

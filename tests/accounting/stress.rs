//! Many threads at once, and somebody who looks at every moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use poolscope::error::CheckoutError;
use poolscope::labels::Outcome;
use poolscope::pool::Pool;
use poolscope::{Collector, Settings};

use super::backend::{Answer, End, Scripted};
use super::harness::{Attempt, Held, ms, totals};
use super::invariants;

const OPERATIONS: [&str; 4] = ["one", "two", "three", "four"];
const LENGTH: Duration = ms(2500);

/// What the callers themselves saw, by operation.
#[derive(Default)]
struct Seen {
    outcomes: [[AtomicU64; Outcome::COUNT]; OPERATIONS.len()],
}

impl Seen {
    fn count(&self, operation: usize, outcome: Outcome) {
        self.outcomes[operation][outcome.index()].fetch_add(1, Relaxed);
    }
}

fn pool(settings: &Settings) -> (Pool<Scripted>, Scripted) {
    let backend = Scripted::default();
    (Pool::new(backend.clone(), "stress", settings, &Collector::new()).unwrap(), backend)
}

/// Takes snapshots until it is told to stop; answers how many.
fn watch(core: &Pool<Scripted>, stop: &AtomicBool) -> u64 {
    let mut before = core.snapshot();
    let mut looks = 0;
    while !stop.load(Relaxed) {
        let after = core.snapshot();
        invariants::check(&after);
        invariants::check_monotone(&before, &after);
        before = after;
        looks += 1;
    }
    looks
}

/// A caller that has no patience, sometimes.
async fn call(core: &Pool<Scripted>, seen: &Seen, operation: usize) -> Option<Held> {
    let handle = core.operation(OPERATIONS[operation]);
    let patience = Duration::from_micros(fastrand::u64(0..2000));
    let attempt = async {
        let got = handle.get().await;
        // Counted before anybody could take the value away.
        seen.count(operation, got.as_ref().map_or_else(CheckoutError::outcome, |_| Outcome::Ok));
        got.ok()
    };
    tokio::select! {
        biased;
        held = attempt => held,
        () = tokio::time::sleep(patience) => {
            seen.count(operation, Outcome::Cancelled);
            None
        }
    }
}

/// What somebody does with a connection.
async fn use_it(held: Held) {
    match fastrand::u8(0..20) {
        0 => held.discard(),
        1 => held.break_it(),
        2 => drop(tokio::task::spawn_blocking(move || drop(held)).await),
        3..=6 => {
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..1500))).await;
            drop(held);
        }
        7..=12 => {
            tokio::task::yield_now().await;
            drop(held);
        }
        _ => drop(held),
    }
}

/// Sets the backend's mood from time to time.
fn disturb(backend: &Scripted) {
    let answer = || match fastrand::u8(0..10) {
        0 => Answer::Error,
        1 => Answer::Slow(End::Error),
        2 => Answer::Slow(End::Ok),
        3 => Answer::After(Duration::from_micros(fastrand::u64(0..3000)), End::Ok),
        _ => Answer::Ok,
    };
    backend.connects(answer());
    backend.answers_pings(answer());
    backend.break_one(fastrand::usize(0..4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_accounts_are_consistent_at_every_moment_whatever_many_threads_do() {
    let mut settings = Settings::default();
    settings.pool_size = 2;
    settings.max_overflow = 2;
    settings.checkout_timeout = ms(3);
    settings.wait_target = ms(1);
    settings.pre_ping_idle = Duration::ZERO;
    settings.ping_timeout = ms(2);
    settings.recycle_after = Some(ms(20));
    let (core, backend) = pool(&settings);
    let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));

    let watcher = std::thread::spawn({
        let (core, stop) = (core.clone(), Arc::clone(&stop));
        move || watch(&core, &stop)
    });
    let end = Instant::now() + LENGTH;
    let callers: Vec<_> = (0..24)
        .map(|caller| {
            let (core, backend, seen) = (core.clone(), backend.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                while Instant::now() < end {
                    if let Some(held) = call(&core, &seen, caller % OPERATIONS.len()).await {
                        use_it(held).await;
                    } else if caller == 0 {
                        disturb(&backend);
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    stop.store(true, Relaxed);
    let looks = watcher.join().unwrap();
    assert!(looks > 100, "{looks} snapshots");

    // Everything has come back: the accounts agree with what the callers saw and with what lives.
    let pool = core.snapshot();
    invariants::check(&pool);
    invariants::check_truth(&pool, &backend);
    assert_eq!((pool.in_flight, pool.queued, pool.connections.used, pool.connections.creating), (0, 0, 0, 0));
    assert!(pool.connections.idle <= pool.limits.pool_size, "{:?}", pool.connections);
    for (operation, seen) in OPERATIONS.iter().zip(&seen.outcomes) {
        let counted = totals(&pool, operation);
        for outcome in Outcome::ALL {
            let seen = seen[outcome.index()].load(Relaxed);
            // Whose patience was at an end before the first poll did not begin.
            assert_eq!(counted.outcomes[outcome.index()], seen, "{operation}: {outcome:?}");
        }
        assert_eq!(counted.returned, counted.outcomes[Outcome::Ok.index()], "{operation}: returned");
        assert!(counted.outcomes[Outcome::Ok.index()] > 100, "{operation}: {:?}", counted.outcomes);
    }
    assert_eq!(pool.use_time.count(), pool.operations.iter().map(|operation| operation.returned).sum::<u64>());
    for outcome in [Outcome::Cancelled, Outcome::Timeout, Outcome::Error] {
        let count: u64 = pool.operations.iter().map(|operation| operation.outcomes[outcome.index()]).sum();
        assert!(count > 0, "{outcome:?} was not tried");
    }

    core.close().await;
    let pool = core.snapshot();
    invariants::check_truth(&pool, &backend);
    assert_eq!((pool.connections.live(), backend.living()), (0, 0));
}

#[test]
fn no_use_is_lost_or_counted_twice_where_nobody_waits() {
    const THREADS: usize = 4;
    const USES: u64 = 20_000;
    let mut settings = Settings::default();
    settings.pool_size = 2;
    settings.max_overflow = THREADS - 2;
    let (core, backend) = pool(&settings);
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (core, stop) = (core.clone(), Arc::clone(&stop));
        move || watch(&core, &stop)
    });
    let callers: Vec<_> = (0..THREADS)
        .map(|caller| {
            let operation = core.operation(OPERATIONS[caller]);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                runtime.block_on(async {
                    for _ in 0..USES {
                        drop(operation.get().await.unwrap());
                    }
                });
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    stop.store(true, Relaxed);
    watcher.join().unwrap();
    let pool = core.snapshot();
    invariants::check(&pool);
    invariants::check_truth(&pool, &backend);
    for operation in OPERATIONS {
        let counted = totals(&pool, operation);
        assert_eq!((counted.started, counted.returned), (USES, USES), "{operation}");
        assert_eq!(counted.outcomes[Outcome::Ok.index()], USES, "{operation}");
    }
    assert!(pool.connections.idle <= pool.limits.pool_size, "{:?}", pool.connections);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_closed_under_load_ends_empty() {
    for _ in 0..40 {
        let mut settings = Settings::default();
        settings.pool_size = 1;
        settings.max_overflow = 2;
        settings.pre_ping_idle = Duration::ZERO;
        let (core, backend) = pool(&settings);
        backend.answers_pings(Answer::Slow(End::Ok));
        backend.connects(Answer::After(Duration::from_micros(200), End::Ok));
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let core = core.clone();
                tokio::spawn(async move {
                    loop {
                        match core.operation("caller").get().await {
                            Ok(held) => use_it(held).await,
                            Err(error) => return error.outcome(),
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..5000))).await;
        core.close_within(Duration::from_secs(20)).await.unwrap();
        let pool = core.snapshot();
        assert_eq!((pool.connections.live(), pool.in_flight), (0, 0));
        for caller in callers {
            assert_eq!(caller.await.unwrap(), Outcome::Closed);
        }
        invariants::check(&core.snapshot());
        assert_eq!(backend.living(), 0);
    }
}

#[test]
fn after_any_race_for_the_last_places_no_more_lie_idle_than_may() {
    const ROUNDS: usize = 2000;
    const RACERS: usize = 3;
    let mut settings = Settings::default();
    settings.pool_size = 1;
    settings.max_overflow = 1;
    let (core, backend) = pool(&settings);
    let start = Arc::new(Barrier::new(RACERS));
    let racers: Vec<_> = (0..RACERS)
        .map(|racer| {
            let (core, start) = (core.clone(), Arc::clone(&start));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                let _entered = runtime.enter();
                let mut most = 0;
                for _ in 0..ROUNDS {
                    start.wait();
                    for _ in 0..fastrand::usize(1..6) {
                        race(&core);
                    }
                    // Between the two, nobody does anything but look.
                    start.wait();
                    if racer == 0 {
                        most = core.status().idle.max(most);
                    }
                    start.wait();
                }
                most
            })
        })
        .collect();
    let most = racers.into_iter().map(|racer| racer.join().unwrap()).max();
    assert_eq!(most, Some(1), "of a pool that keeps one");
    let pool = core.snapshot();
    invariants::check(&pool);
    invariants::check_truth(&pool, &backend);
    assert_eq!((pool.connections.used, pool.in_flight), (0, 0));
}

/// Takes a connection or leaves the queue, and returns or discards what it got, all at random moments.
fn race(core: &Pool<Scripted>) {
    let dawdle = || (0..fastrand::usize(0..1000)).for_each(|_| std::hint::spin_loop());
    let operation = core.operation("racer");
    let mut attempt = Attempt::new(async move { operation.get().await });
    let got = (0..fastrand::usize(1..4)).find_map(|_| {
        dawdle();
        attempt.poll()
    });
    dawdle();
    match got.map(Result::unwrap) {
        Some(held) if fastrand::u8(0..5) == 0 => held.discard(),
        got => drop((got, attempt)),
    }
}

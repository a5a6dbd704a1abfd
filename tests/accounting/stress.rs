//! Many threads at once, while snapshots are checked all the time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use poolscope::error::CheckoutError;
use poolscope::labels::Outcome;
use poolscope::pool::Pool;
use poolscope::{Collector, Settings};

use super::backend::{Behavior, Completion, ScriptedBackend};
use super::harness::{ManualFuture, TestGuard, ms, totals};
use super::invariants;

const OPERATIONS: [&str; 4] = ["one", "two", "three", "four"];
const DURATION: Duration = ms(2500);

/// The callers' own counts, by operation.
#[derive(Default)]
struct CallerCounts {
    outcomes: [[AtomicU64; Outcome::COUNT]; OPERATIONS.len()],
}

impl CallerCounts {
    fn count(&self, operation: usize, outcome: Outcome) {
        self.outcomes[operation][outcome.index()].fetch_add(1, Relaxed);
    }
}

fn new_pool(settings: &Settings) -> (Pool<ScriptedBackend>, ScriptedBackend) {
    let backend = ScriptedBackend::default();
    (Pool::new(backend.clone(), "stress", settings, &Collector::new()).unwrap(), backend)
}

/// Takes and checks snapshots until `stop` is set. Returns how many.
fn check_snapshots(pool: &Pool<ScriptedBackend>, stop: &AtomicBool) -> u64 {
    let mut before = pool.snapshot();
    let mut snapshots = 0;
    while !stop.load(Relaxed) {
        let after = pool.snapshot();
        invariants::check(&after);
        invariants::check_monotonic(&before, &after);
        before = after;
        snapshots += 1;
    }
    snapshots
}

/// Checks out, and cancels the checkout after a random time.
async fn checkout_with_random_timeout(
    pool: &Pool<ScriptedBackend>,
    counts: &CallerCounts,
    operation: usize,
) -> Option<TestGuard> {
    let handle = pool.operation(OPERATIONS[operation]);
    let timeout = Duration::from_micros(fastrand::u64(0..2000));
    let attempt = async {
        let result = handle.get().await;
        // Counted before the value can be dropped.
        counts.count(operation, result.as_ref().map_or_else(CheckoutError::outcome, |_| Outcome::Ok));
        result.ok()
    };
    tokio::select! {
        biased;
        held = attempt => held,
        () = tokio::time::sleep(timeout) => {
            counts.count(operation, Outcome::Cancelled);
            None
        }
    }
}

/// Uses a connection for a random time, and returns, discards or breaks it.
async fn use_randomly(held: TestGuard) {
    match fastrand::u8(0..20) {
        0 => held.discard(),
        1 => held.mark_broken(),
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

/// Changes the backend's behavior at random.
fn randomize_backend(backend: &ScriptedBackend) {
    let behavior = || match fastrand::u8(0..10) {
        0 => Behavior::Error,
        1 => Behavior::Slow(Completion::Error),
        2 => Behavior::Slow(Completion::Ok),
        3 => Behavior::After(Duration::from_micros(fastrand::u64(0..3000)), Completion::Ok),
        _ => Behavior::Ok,
    };
    backend.set_connect(behavior());
    backend.set_ping(behavior());
    backend.break_connection(fastrand::usize(0..4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn every_snapshot_is_consistent_under_load() {
    let mut settings = Settings::default();
    settings.pool_size = 2;
    settings.max_overflow = 2;
    settings.checkout_timeout = ms(3);
    settings.wait_target = ms(1);
    settings.pre_ping_idle = Duration::ZERO;
    settings.ping_timeout = ms(2);
    settings.recycle_after = Some(ms(20));
    let (pool, backend) = new_pool(&settings);
    let (counts, stop) = (Arc::new(CallerCounts::default()), Arc::new(AtomicBool::new(false)));

    let checker = std::thread::spawn({
        let (pool, stop) = (pool.clone(), Arc::clone(&stop));
        move || check_snapshots(&pool, &stop)
    });
    let end = Instant::now() + DURATION;
    let callers: Vec<_> = (0..24)
        .map(|caller| {
            let (pool, backend, counts) = (pool.clone(), backend.clone(), Arc::clone(&counts));
            tokio::spawn(async move {
                while Instant::now() < end {
                    if let Some(held) = checkout_with_random_timeout(&pool, &counts, caller % OPERATIONS.len()).await {
                        use_randomly(held).await;
                    } else if caller == 0 {
                        randomize_backend(&backend);
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    stop.store(true, Relaxed);
    let snapshots = checker.join().unwrap();
    assert!(snapshots > 100, "{snapshots} snapshots");

    // An attempt whose checkout has ended goes on until it ends by itself.
    let deadline = Instant::now() + ms(30_000);
    while pool.snapshot().connections.creating > 0 {
        assert!(Instant::now() < deadline, "{:?}", pool.snapshot().connections);
        tokio::time::sleep(ms(1)).await;
    }
    // Everything was returned: the counters agree with the callers' counts and with the backend.
    let snapshot = pool.snapshot();
    invariants::check(&snapshot);
    invariants::check_against_backend(&snapshot, &backend);
    assert_eq!(
        (snapshot.in_flight, snapshot.queued, snapshot.connections.used, snapshot.connections.creating),
        (0, 0, 0, 0)
    );
    assert!(snapshot.connections.idle <= snapshot.limits.pool_size, "{:?}", snapshot.connections);
    for (operation, counts) in OPERATIONS.iter().zip(&counts.outcomes) {
        let counted = totals(&snapshot, operation);
        for outcome in Outcome::ALL {
            let counts = counts[outcome.index()].load(Relaxed);
            // Checkouts whose timeout passed before the first poll were not started.
            assert_eq!(counted.outcomes[outcome.index()], counts, "{operation}: {outcome:?}");
        }
        assert_eq!(counted.returned, counted.outcomes[Outcome::Ok.index()], "{operation}: returned");
        assert!(counted.outcomes[Outcome::Ok.index()] > 100, "{operation}: {:?}", counted.outcomes);
    }
    assert_eq!(snapshot.use_time.count(), snapshot.operations.iter().map(|operation| operation.returned).sum::<u64>());
    for outcome in [Outcome::Cancelled, Outcome::Timeout, Outcome::Error] {
        let count: u64 = snapshot.operations.iter().map(|operation| operation.outcomes[outcome.index()]).sum();
        assert!(count > 0, "{outcome:?} did not occur");
    }

    pool.close().await;
    let snapshot = pool.snapshot();
    invariants::check_against_backend(&snapshot, &backend);
    assert_eq!((snapshot.connections.live(), backend.live()), (0, 0));
}

#[test]
fn uncontended_uses_are_counted_exactly_once() {
    const THREADS: usize = 4;
    const USES: u64 = 20_000;
    let mut settings = Settings::default();
    settings.pool_size = 2;
    settings.max_overflow = THREADS - 2;
    let (pool, backend) = new_pool(&settings);
    let stop = Arc::new(AtomicBool::new(false));
    let checker = std::thread::spawn({
        let (pool, stop) = (pool.clone(), Arc::clone(&stop));
        move || check_snapshots(&pool, &stop)
    });
    let callers: Vec<_> = (0..THREADS)
        .map(|caller| {
            let operation = pool.operation(OPERATIONS[caller]);
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
    checker.join().unwrap();
    let snapshot = pool.snapshot();
    invariants::check(&snapshot);
    invariants::check_against_backend(&snapshot, &backend);
    for operation in OPERATIONS {
        let counted = totals(&snapshot, operation);
        assert_eq!((counted.started, counted.returned), (USES, USES), "{operation}");
        assert_eq!(counted.outcomes[Outcome::Ok.index()], USES, "{operation}");
    }
    assert!(snapshot.connections.idle <= snapshot.limits.pool_size, "{:?}", snapshot.connections);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_under_load_leaves_no_connections() {
    for _ in 0..40 {
        let mut settings = Settings::default();
        settings.pool_size = 1;
        settings.max_overflow = 2;
        settings.pre_ping_idle = Duration::ZERO;
        let (pool, backend) = new_pool(&settings);
        backend.set_ping(Behavior::Slow(Completion::Ok));
        backend.set_connect(Behavior::After(Duration::from_micros(200), Completion::Ok));
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    loop {
                        match pool.operation("caller").get().await {
                            Ok(held) => use_randomly(held).await,
                            Err(error) => return error.outcome(),
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..5000))).await;
        pool.close_within(Duration::from_secs(20)).await.unwrap();
        let snapshot = pool.snapshot();
        assert_eq!((snapshot.connections.live(), snapshot.in_flight), (0, 0));
        for caller in callers {
            assert_eq!(caller.await.unwrap(), Outcome::Closed);
        }
        invariants::check(&pool.snapshot());
        assert_eq!(backend.live(), 0);
    }
}

#[test]
fn races_for_capacity_leave_no_idle_surplus() {
    const ROUNDS: usize = 2000;
    const RACERS: usize = 3;
    let mut settings = Settings::default();
    settings.pool_size = 1;
    settings.max_overflow = 1;
    let (pool, backend) = new_pool(&settings);
    let start = Arc::new(Barrier::new(RACERS));
    let racers: Vec<_> = (0..RACERS)
        .map(|racer| {
            let (pool, start) = (pool.clone(), Arc::clone(&start));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                let _entered = runtime.enter();
                let mut max_idle = 0;
                for _ in 0..ROUNDS {
                    start.wait();
                    for _ in 0..fastrand::usize(1..6) {
                        race(&pool);
                    }
                    // Between these two barriers, threads only read the status.
                    start.wait();
                    if racer == 0 {
                        max_idle = pool.status().idle.max(max_idle);
                    }
                    start.wait();
                }
                max_idle
            })
        })
        .collect();
    let max_idle = racers.into_iter().map(|racer| racer.join().unwrap()).max();
    assert_eq!(max_idle, Some(1), "pool_size is one");
    let snapshot = pool.snapshot();
    invariants::check(&snapshot);
    invariants::check_against_backend(&snapshot, &backend);
    assert_eq!((snapshot.connections.used, snapshot.in_flight), (0, 0));
}

/// Checks out or leaves the queue, and returns or discards the connection, at random moments.
fn race(pool: &Pool<ScriptedBackend>) {
    let spin = || (0..fastrand::usize(0..1000)).for_each(|_| std::hint::spin_loop());
    let operation = pool.operation("racer");
    let mut attempt = ManualFuture::new(async move { operation.get().await });
    let result = (0..fastrand::usize(1..4)).find_map(|_| {
        spin();
        attempt.poll()
    });
    spin();
    match result.map(Result::unwrap) {
        Some(held) if fastrand::u8(0..5) == 0 => held.discard(),
        result => drop((result, attempt)),
    }
}

//! The invariants of snapshots, whatever the backend.

use poolscope::labels::{Outcome, Phase};
use poolscope::telemetry::{Histogram, PoolSnapshot};

/// Checks the invariants that hold at every moment, during any work of other threads, in a pool that had `before`
/// connections when it was resized.
#[track_caller]
pub(crate) fn check_accounts(snapshot: &PoolSnapshot, before: usize) {
    let max = snapshot.limits.max().max(before);
    assert!(snapshot.connections.live() <= max, "{:?} of at most {max}", snapshot.connections);
    for operation in &snapshot.operations {
        let ended: u64 = operation.outcomes.iter().sum();
        assert_eq!(operation.started, ended + operation.in_flight, "started = outcomes + in flight: {operation:?}");
    }
    let in_flight: u64 = snapshot.operations.iter().map(|operation| operation.in_flight).sum();
    assert_eq!(snapshot.in_flight as u64, in_flight, "in flight, of all operations");
    assert_eq!(snapshot.waiters.len(), snapshot.in_flight, "waiters");
    let queued = snapshot.waiters.iter().filter(|waiter| waiter.phase == Phase::Queue).count();
    assert_eq!(snapshot.queued, queued, "pending checkouts are queued");
    assert_eq!(snapshot.oldest_wait, snapshot.waiters.iter().map(|waiter| waiter.age).max().unwrap_or_default());

    let live = snapshot.connections.live();
    let gone: u64 = snapshot.closed.iter().sum();
    assert_eq!(
        snapshot.created,
        gone + live as u64,
        "created = closed + live: {:?} {:?}",
        snapshot.closed,
        snapshot.connections
    );
    assert_eq!(snapshot.holders.len(), snapshot.connections.used, "one holder per used connection");
    let created = snapshot.create_time.count();
    assert!(created <= snapshot.created, "{created} established of {} created", snapshot.created);

    let ended: u64 = snapshot.operations.iter().flat_map(|operation| operation.outcomes).sum();
    assert_eq!(snapshot.wait_time.count(), ended, "every ended checkout has a wait time");

    for cache in &snapshot.caches {
        let answered: u64 = cache.results.iter().sum();
        assert_eq!(cache.started, answered + cache.in_flight, "lookups started = answers + in flight: {cache:?}");
    }
}

/// Checks the invariants that hold between two steps of a single-threaded test with a paused clock.
#[track_caller]
pub(crate) fn check_quiescent(snapshot: &PoolSnapshot) {
    let sum = |of: fn(&poolscope::telemetry::OperationTotals) -> u64| snapshot.operations.iter().map(of).sum::<u64>();
    let phases: u64 = snapshot.phase_nanos.iter().sum();
    assert_eq!(sum(|operation| operation.wait_nanos), phases, "every wait is in one phase");
    assert_eq!(snapshot.use_time.count(), sum(|operation| operation.returned), "uses");
    assert_eq!(snapshot.use_time.sum_nanos, sum(|operation| operation.use_nanos), "use time");
    let held = sum(|operation| operation.outcomes[Outcome::Ok.index()] - operation.returned);
    let pinged = snapshot.waiters.iter().filter(|waiter| matches!(waiter.phase, Phase::Ping | Phase::Hook)).count();
    assert_eq!(
        snapshot.connections.used as u64,
        held + pinged as u64,
        "used = checked out + being pinged or passed to the hook"
    );
    let connecting = snapshot.waiters.iter().filter(|waiter| waiter.phase == Phase::Connect).count();
    // The others are attempts whose checkout has ended.
    assert!(
        snapshot.connections.creating >= connecting,
        "every connecting checkout has one connection being established"
    );
    let queue = snapshot.phase_nanos[Phase::Queue.index()];
    assert!(snapshot.saturated_nanos <= queue, "saturated {} ns, queued for {queue} ns", snapshot.saturated_nanos);
    let suspended =
        snapshot.waiters.iter().filter(|waiter| matches!(waiter.phase, Phase::Suspended | Phase::Share)).count();
    let allowed = snapshot.limits.pool_size + snapshot.queued + suspended;
    assert!(
        snapshot.connections.idle <= allowed,
        "{} idle connections, at most {allowed} allowed",
        snapshot.connections.idle
    );
}

/// Checks that no counter has decreased.
#[track_caller]
pub(crate) fn check_monotonic(before: &PoolSnapshot, after: &PoolSnapshot) {
    fn rises(what: &str, before: u64, after: u64) {
        assert!(before <= after, "{what} decreased from {before} to {after}");
    }
    fn histogram_rises(what: &str, before: &Histogram, after: &Histogram) {
        rises(what, before.sum_nanos, after.sum_nanos);
        for (before, after) in before.buckets.iter().zip(after.buckets) {
            rises(what, *before, after);
        }
    }
    assert!(before.operations.len() <= after.operations.len());
    for (before, after) in before.operations.iter().zip(&after.operations) {
        assert_eq!(before.name, after.name);
        rises("started", before.started, after.started);
        for (before, after) in before.outcomes.iter().zip(after.outcomes) {
            rises("outcomes", *before, after);
        }
        rises("wait_nanos", before.wait_nanos, after.wait_nanos);
        rises("use_nanos", before.use_nanos, after.use_nanos);
        rises("returned", before.returned, after.returned);
        for (before, after) in before.durations.iter().zip(&after.durations) {
            histogram_rises("durations", before, after);
        }
    }
    for (before, after) in before.phase_nanos.iter().zip(after.phase_nanos) {
        rises("phase_nanos", *before, after);
    }
    rises("saturated_nanos", before.saturated_nanos, after.saturated_nanos);
    rises("created", before.created, after.created);
    for (before, after) in before.closed.iter().zip(after.closed) {
        rises("closed", *before, after);
    }
    for before in &before.errors {
        let now = after.errors.iter().find(|after| (after.phase, after.code) == (before.phase, before.code));
        rises("errors", before.count, now.map_or(0, |after| after.count));
    }
    for (before, after) in before.caches.iter().zip(&after.caches) {
        assert_eq!(before.name, after.name);
        rises("lookups", before.started, after.started);
        for (before, after) in before.results.iter().zip(after.results) {
            rises("results of lookups", *before, after);
        }
        for (before, after) in before.loads.iter().zip(&after.loads) {
            histogram_rises("loads", before, after);
        }
        rises("saved_nanos", before.saved_nanos, after.saved_nanos);
    }
    histogram_rises("wait_time", &before.wait_time, &after.wait_time);
    histogram_rises("use_time", &before.use_time, &after.use_time);
    histogram_rises("create_time", &before.create_time, &after.create_time);
}

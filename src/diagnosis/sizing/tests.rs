//! What a recording yields, and what it does not while a fault inflates the demand.

use std::sync::Arc;
use std::time::Duration;

use super::Sizer;
use super::held::HeldTimes;
use super::recording::{Chunk, MAX_BYTES, Recording, SLOT, SLOT_NANOS};
use crate::labels::{Activity, BackendState, Cause};
use crate::telemetry::clock::{Clock, Nanos, nanos};
use crate::telemetry::ledger::Ledger;
use crate::telemetry::owned::UseTimes;
use crate::telemetry::sizing::LoadReading;
use crate::telemetry::{BlockedBackend, Evidence, Holder, Limits, PoolSnapshot, ServerPoll, ServerView, Verdict};

const TARGET: Duration = Duration::from_millis(10);

fn limits() -> Limits {
    let mut limits = Limits::for_tests();
    (limits.pool_size, limits.wait_target, limits.checkout_timeout) = (4, TARGET, Duration::from_secs(30));
    limits
}

fn snapshot() -> PoolSnapshot {
    Ledger::new("shop".into(), limits(), Clock::mock().0).snapshot()
}

fn verdict(cause: Cause, lasting: Duration) -> Verdict {
    Verdict {
        cause,
        lasting,
        operation: None,
        call_site: None,
        finding: String::new(),
        evidence: vec![Evidence { name: "sampled", value: 1.0, unit: "seconds", usual: None }],
        advice: String::new(),
        consequences: Vec::new(),
        sample_interval: Duration::from_secs(1),
    }
}

/// A pool whose load is read ten times per second, and sampled once per second.
struct Pool {
    sizer: Sizer,
    snapshot: PoolSnapshot,
    at: u64,
    arrivals: u64,
    uses: UseTimes,
}

impl Pool {
    fn new() -> Self {
        Self { sizer: Sizer::default(), snapshot: snapshot(), at: 1, arrivals: 0, uses: UseTimes::default() }
    }

    /// Records checkouts per 100 ms, of which `served` use a connection for `time`, and the verdict that the samples yield.
    fn run(&mut self, seconds: u64, arrivals: u64, served: u64, time: Duration, cause: Cause) {
        for slot in 0..seconds * 10 {
            let reading = LoadReading { at: Nanos::from_nanos(self.at), arrivals: self.arrivals, uses: self.uses };
            self.sizer.record(&reading);
            if slot % 10 == 9 {
                let lasting = Duration::from_secs(slot / 10);
                let verdict = verdict(cause, lasting);
                self.sizer.observe(Nanos::from_nanos(self.at), &self.snapshot, Some(&verdict));
                self.snapshot.diagnosis = Some(Arc::new(verdict));
            }
            self.at += SLOT_NANOS;
            self.arrivals += arrivals;
            for _ in 0..served {
                self.uses.observe(nanos(time));
            }
        }
        self.sizer.size(Nanos::from_nanos(self.at + nanos(Duration::from_secs(3600))), &limits());
        self.snapshot.sizing = self.sizer.sizing();
        self.snapshot.recommended_size = self.snapshot.recommendation();
    }
}

/// A hundred checkouts per second of 10 ms each.
fn healthy(pool: &mut Pool, seconds: u64) {
    pool.run(seconds, 10, 10, Duration::from_millis(10), Cause::Healthy);
}

#[test]
fn too_little_load_has_no_recommendation() {
    let mut pool = Pool::new();
    pool.run(60, 0, 0, TARGET, Cause::Healthy);
    assert_eq!((pool.snapshot.recommended_size, pool.snapshot.sizing.is_some()), (None, false));
    assert!(pool.snapshot.sizing_reason().starts_with("no size is recommended yet"));
    healthy(&mut pool, 6);
    let size = pool.snapshot.recommended_size;
    assert!(size.is_some_and(|size| (2..=5).contains(&size)), "{size:?}");
}

/// For each fault: the load meanwhile, and the size that was recommended for it by the mean load of five minutes.
#[test]
fn no_size_is_recommended_while_a_fault_lasts() {
    let seconds = Duration::from_secs;
    for (cause, arrivals, served, time, unfounded) in [
        // Connections of a pool of 3 + 1 are held idle for 300 ms: 11 were recommended.
        (Cause::HeldIdle, 3, 3, Duration::from_millis(300), 11..=20),
        // Each checkout of a pool of 3 waits for its own connection until it times out after 30 s: 92.
        (Cause::SelfDeadlock, 1, 1, seconds(9), 92..=130),
        // The executor of a pool of 5 does not poll the holders for a second: 63.
        (Cause::RuntimeStalled, 5, 5, seconds(1), 50..=80),
        // Ten connections were never returned, so that their uses are unknown: 2.
        (Cause::Leak, 2, 0, seconds(0), 1..=5),
    ] {
        let mut pool = Pool::new();
        healthy(&mut pool, 60);
        let usual = pool.snapshot.recommended_size.unwrap();
        pool.run(60, arrivals, served, time, cause);
        assert_eq!(pool.snapshot.recommended_size, None, "{cause:?}");
        assert_eq!(pool.snapshot.size_withheld_by(), Some(cause));
        let reason = pool.snapshot.sizing_reason();
        assert!(reason.starts_with(&format!("no size is recommended until {} ends: ", cause.as_str())), "{reason}");
        assert!(!reason.ends_with("it inflates the demand"), "{reason}");

        // Afterwards it is that of the load without the fault.
        healthy(&mut pool, 60);
        assert_eq!(pool.snapshot.recommended_size, Some(usual), "{cause:?}");
        let reason = pool.snapshot.sizing_reason();
        assert!(reason.contains("in which a fault inflated the demand are left out"), "{reason}");

        // Without the diagnosis it would be wrong, as it was.
        let mut blind = Pool::new();
        healthy(&mut blind, 10);
        blind.run(120, arrivals, served, time, Cause::Healthy);
        let wrong = blind.snapshot.recommended_size.unwrap();
        assert!(unfounded.contains(&wrong), "{cause:?}: {wrong}");
    }
}

#[test]
fn retries_as_a_consequence_withhold_the_size() {
    let mut full = verdict(Cause::ServerFull, Duration::ZERO);
    assert_eq!(full.withheld_by(), None);
    full.consequences.push(Cause::RetryStorm);
    assert_eq!(full.withheld_by(), Some(Cause::RetryStorm));
}

/// The mean load would fit into two connections.
#[test]
fn bursts_are_sized_for() {
    let mut pool = Pool::new();
    for _ in 0..30 {
        pool.run(1, 40, 40, Duration::from_millis(50), Cause::Healthy);
        pool.run(19, 0, 0, TARGET, Cause::Healthy);
    }
    let sizing = pool.snapshot.sizing.clone().unwrap();
    assert!(sizing.mean_in_use < 1.5 && (20..=32).contains(&sizing.needed), "{sizing:?}");
    let waits: Vec<_> = sizing.table.iter().map(|row| (row.size, row.wait_p99, row.waiting_share)).collect();
    assert!(waits.is_sorted_by(|a, b| a.0 < b.0 && a.1 >= b.1 && a.2 >= b.2), "{waits:?}");
    let is_met = |row: &&crate::telemetry::SizingRow| row.size >= sizing.needed;
    assert!(sizing.table.iter().filter(is_met).all(|row| row.wait_p99 < TARGET * 107 / 100), "{waits:?}");
    assert!(sizing.table.iter().any(|row| row.size == 4), "the pool's maximum");
}

#[test]
fn checkouts_that_time_out_are_counted() {
    let mut pool = Pool::new();
    // Ten connections' worth of load, and a maximum of four.
    pool.run(120, 10, 10, Duration::from_millis(100), Cause::Undersized);
    let sizing = pool.snapshot.sizing.clone().unwrap();
    assert!((12..=20).contains(&sizing.needed), "{sizing:?}");
    let four = sizing.table.iter().find(|row| row.size == 4).unwrap();
    assert!(four.timeout_share > 0.2 && four.wait_p99 == Duration::from_secs(30), "{four:?}");
}

#[test]
fn same_recording_yields_the_same_sizing() {
    let sizing = || {
        let mut pool = Pool::new();
        for second in 0..60 {
            pool.run(1, second % 7 * 3, second % 5, Duration::from_millis(second), Cause::Healthy);
        }
        pool.snapshot.sizing
    };
    assert!(sizing().is_some());
    assert_eq!(sizing(), sizing());
}

fn reading(at: Duration, arrivals: u64) -> LoadReading {
    LoadReading { at: Nanos::from_nanos(nanos(at)), arrivals, uses: UseTimes::default() }
}

#[test]
fn arrivals_of_a_long_interval_are_spread() {
    let mut recording = Recording::default();
    recording.push(&reading(SLOT, 0));
    // A second reader's, in between.
    recording.push(&reading(SLOT * 14 / 10, 3));
    recording.push(&reading(SLOT * 2, 7));
    recording.push(&reading(SLOT * 7, 18));
    let slots: Vec<_> = recording.load().slots().iter().map(|slot| slot.arrivals).collect();
    assert_eq!(slots, [7, 2, 2, 2, 2, 3]);
    // What arrived while the process was suspended is unknown.
    recording.push(&reading(Duration::from_secs(500), 9_000));
    recording.push(&reading(Duration::from_secs(500) + SLOT, 9_001));
    let load = recording.load();
    assert_eq!((load.checkouts(), load.recorded()), (19, SLOT * 7));
}

#[test]
fn recording_is_bounded() {
    assert!((size_of::<Chunk>() + size_of::<Box<Chunk>>()) * 180 + size_of::<Recording>() <= MAX_BYTES);
    let mut recording = Recording::default();
    for slot in 0..40_000_u32 {
        recording.push(&reading(SLOT * slot, u64::from(slot) * 100_000));
    }
    let load = recording.load();
    assert!(load.recorded() <= Duration::from_secs(1800) && load.recorded() > Duration::from_secs(1780));
    // More than a slot counts.
    assert_eq!(load.checkouts(), u64::try_from(load.recorded().as_millis() / 100).unwrap() * 65_535);
}

#[test]
fn clock_that_jumps_is_harmless() {
    let mut recording = Recording::default();
    for at in [5, 1, 900_000, 899_999, u64::MAX / 2_000_000_000, 3] {
        recording.push(&reading(Duration::from_secs(at), at));
    }
    assert!(recording.load().checkouts() <= u64::MAX / 2_000_000_000);
}

/// The holder of backend 7 with this activity, which has had no traffic since the checkout.
fn holder(age: Duration, activity: Activity) -> Holder {
    Holder {
        operation: "shop".into(),
        call_site: None,
        age,
        activity: Some(activity),
        silent: age,
        queries: 1,
        backend_pid: Some(7),
        maintenance: false,
        suspected_leak: false,
        waits_for_own_pool: false,
        trace: None,
        request: None,
    }
}

#[test]
fn pauses_beyond_a_second_are_left_out() {
    let mut pool = Pool::new();
    let mut held = HeldTimes::default();
    let mut snapshot = snapshot();
    let second = Duration::from_secs(1);
    for age in 1..=20_u32 {
        snapshot.holders = vec![holder(second * age, Activity::Idle)];
        assert_eq!(held.observe(Nanos::from_nanos(nanos(second * (age + 5))), &snapshot), []);
    }
    snapshot.holders.clear();
    let ended = held.observe(Nanos::from_nanos(nanos(second * 26)), &snapshot);
    // Held for 20.5 s, of which 19 s are left out.
    assert_eq!(ended, [(20_500_000_000, 19_000_000_000)]);

    healthy(&mut pool, 60);
    let usual = pool.snapshot.recommended_size;
    let (held, left_out) = ended[0];
    for _ in 0..20 {
        pool.uses.observe(held);
        pool.sizer.recording().leave_out(held, left_out);
        healthy(&mut pool, 1);
    }
    healthy(&mut pool, 1);
    let sizing = pool.snapshot.sizing.clone().unwrap();
    assert!((0.7..0.95).contains(&sizing.excluded_use_share), "{sizing:?}");
    assert!(pool.snapshot.recommended_size.unwrap() <= usual.unwrap() + 3, "{sizing:?}");
}

/// The view of a server where this backend waits for a lock.
fn server(blocked: Option<i32>) -> ServerPoll {
    let blocked = blocked.map(|pid| BlockedBackend {
        pid,
        waiting: Duration::from_secs(1),
        blocker_pid: 9,
        blocker_application: "psql".into(),
        blocker_user: "admin".into(),
        blocker_state: BackendState::IdleInTransaction,
        blocker_state_age: Duration::from_secs(2),
    });
    let blocked = blocked.into_iter().collect();
    ServerPoll::Seen(Arc::new(ServerView { lock_waiters: 1, blocked, ..ServerView::for_tests() }))
}

#[test]
fn waits_for_a_lock_are_left_out() {
    let second = Duration::from_secs(1);
    // A query of ten seconds, in the first six of which `blocked` waits for a lock.
    let ended = |blocked: Option<i32>| {
        let (mut held, mut snapshot) = (HeldTimes::default(), snapshot());
        for age in 1..=10_u32 {
            snapshot.holders = vec![holder(second * age, Activity::Executing)];
            snapshot.server = blocked.map(|pid| server((age <= 6).then_some(pid)));
            assert_eq!(held.observe(Nanos::from_nanos(nanos(second * (age + 5))), &snapshot), []);
        }
        snapshot.holders.clear();
        held.observe(Nanos::from_nanos(nanos(second * 16)), &snapshot)
    };
    // Five seconds passed between the six samples.
    assert_eq!(ended(Some(7)), [(10_500_000_000, 5_000_000_000)]);
    assert_eq!(ended(Some(8)), [], "the wait of another backend");
    assert_eq!(ended(None), [], "a server that is not watched");
}

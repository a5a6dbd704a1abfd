use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{History, MAX_NAMES, MAX_POINTS, PoolPoints, State, Tick};
use crate::labels::{Activity, ErrorCode, ErrorPhase, Outcome};
use crate::telemetry::ledger::{ConnectionErrors, OperationTotals, PoolSnapshot};

fn snapshot(name: &str) -> PoolSnapshot {
    let mut snapshot = PoolSnapshot::blank();
    snapshot.name = name.into();
    snapshot
}

fn operation(snapshot: &mut PoolSnapshot, name: &str) -> usize {
    snapshot.operations.push(OperationTotals::blank(name.into()));
    snapshot.operations.len() - 1
}

struct Recorder {
    history: History,
    begun: Instant,
    wall: SystemTime,
    seconds: u64,
}

impl Recorder {
    fn new() -> Self {
        Self { history: History::default(), begun: Instant::now(), wall: SystemTime::now(), seconds: 0 }
    }

    fn tick(&mut self, snapshots: &[&PoolSnapshot]) -> Tick {
        self.seconds += 1;
        let passed = Duration::from_secs(self.seconds);
        let tick = self.history.begin(self.begun + passed, self.wall + passed).unwrap();
        for snapshot in snapshots {
            self.history.record(tick, snapshot);
        }
        self.history.end(tick);
        tick
    }

    fn all(&self) -> Vec<PoolPoints> {
        self.history.select(|_| true, |_| false, |_| usize::MAX)
    }
}

#[test]
fn points_are_increases_between_readings() {
    let mut recorder = Recorder::new();
    let mut shop = snapshot("shop");
    let orders = operation(&mut shop, "orders");
    shop.operations[orders].activity_nanos[Activity::Idle.index()] = 7_000_000_000;
    shop.operations[orders].outcomes[Outcome::Ok.index()] = 100;
    recorder.tick(&[&shop]);
    shop.operations[orders].activity_nanos[Activity::Idle.index()] += 1_500_000_000;
    shop.operations[orders].outcomes[Outcome::Ok.index()] += 3;
    shop.operations[orders].outcomes[Outcome::Timeout.index()] += 1;
    shop.wait_time.buckets[0] += 4;
    let code = ErrorCode::new("40001");
    shop.errors.push(ConnectionErrors { phase: ErrorPhase::Query, code, count: 2 });
    shop.errors.push(ConnectionErrors { phase: ErrorPhase::Reset, code, count: 1 });
    shop.connections.used = 2;
    recorder.tick(&[&shop]);

    let pools = recorder.all();
    let [pool] = &*pools else { panic!("one pool") };
    let [first, second] = &*pool.points else { panic!("two points") };
    // What was counted before the first reading did not happen in the second before it.
    assert_eq!((first.seconds, first.outcomes, first.held), (0.0, [0; Outcome::COUNT], [0.0; Activity::COUNT]));
    assert_eq!((second.seconds, second.used), (1.0, 2));
    assert_eq!(second.outcomes[Outcome::Ok.index()], 3);
    assert_eq!(second.outcomes[Outcome::Timeout.index()], 1);
    assert_eq!(second.held[Activity::Idle.index()], 1.5);
    assert_eq!(second.operations.len(), 1);
    assert_eq!(pool.operation_name(&second.operations[0]), "orders");
    assert_eq!(second.operations[0].held, second.held);
    assert_eq!(&*second.errors, [(code, 3)]);
    assert_eq!(second.wait_p50, Some(0.000_25));
    assert_eq!(second.unix_millis - first.unix_millis, 1000);
}

#[test]
fn operations_that_move_keep_their_counters() {
    let mut recorder = Recorder::new();
    let mut shop = snapshot("shop");
    operation(&mut shop, "one");
    let two = operation(&mut shop, "two");
    shop.operations[two].activity_nanos = [9_000_000_000; Activity::COUNT];
    recorder.tick(&[&shop]);
    shop.operations.remove(0);
    recorder.tick(&[&shop]);
    assert_eq!(recorder.all()[0].points[1].held, [0.0; Activity::COUNT]);
}

#[test]
fn points_are_forgotten_after_15_minutes() {
    let mut recorder = Recorder::new();
    let (shop, jobs) = (snapshot("shop"), snapshot("jobs"));
    recorder.tick(&[&shop, &jobs]);
    let last = (0..MAX_POINTS + 9).map(|_| recorder.tick(&[&shop])).last().unwrap();
    let pools = recorder.all();
    assert_eq!(pools.len(), 1, "the pool that is gone has no points left");
    assert_eq!(pools[0].points.len(), MAX_POINTS);
    assert_eq!(pools[0].points.last().unwrap().tick, last.number);
    assert_eq!(recorder.history.latest(), last.number);
}

#[test]
fn pool_that_returns_begins_again() {
    let mut recorder = Recorder::new();
    let mut shop = snapshot("shop");
    let orders = operation(&mut shop, "orders");
    shop.operations[orders].outcomes[0] = 5;
    recorder.tick(&[&shop]);
    recorder.tick(&[]);
    assert!(recorder.history.pools_at(2).is_empty());
    shop.operations[orders].outcomes[0] = 7;
    recorder.tick(&[&shop]);
    assert_eq!(recorder.all()[0].points.last().unwrap().outcomes[0], 0);
    assert_eq!(recorder.history.pools_at(3), [Arc::from("shop")]);
}

#[test]
fn pools_share_the_bound_of_the_process() {
    let mut recorder = Recorder::new();
    let (shop, jobs) = (snapshot("shop"), snapshot("jobs"));
    let last = (0..10).map(|_| recorder.tick(&[&shop, &jobs])).last().unwrap();
    let mut state: State = std::mem::take(&mut *recorder.history.state());
    state.prune(last, 20);
    assert_eq!(state.pools.iter().map(|pool| pool.points.len()).collect::<Vec<_>>(), [10, 10]);
    state.prune(last, 13);
    assert_eq!(state.pools.iter().map(|pool| pool.points.len()).collect::<Vec<_>>(), [6, 6]);
}

#[test]
fn names_are_bounded() {
    let mut recorder = Recorder::new();
    for round in 0..MAX_NAMES / 2 {
        let mut shop = snapshot("shop");
        for name in 0..4 {
            let index = operation(&mut shop, &format!("{round}-{name}"));
            shop.operations[index].activity_nanos[0] = 1;
        }
        recorder.tick(&[&shop]);
    }
    let pools = recorder.all();
    assert_eq!(pools[0].names.len(), MAX_NAMES);
    assert!(pools[0].points.last().unwrap().operations.is_empty());
    assert!(pools[0].points.last().unwrap().held[0] > 0.0);
}

#[test]
fn second_sampler_adds_no_points() {
    let history = History::default();
    let (at, wall) = (Instant::now(), SystemTime::now());
    let first = history.begin(at, wall).unwrap();
    assert!(history.begin(at + Duration::from_millis(400), wall).is_none());
    // The clock was set back.
    let second = history.begin(at + Duration::from_secs(1), wall - Duration::from_secs(60)).unwrap();
    assert_eq!((first.number, second.number), (1, 2));
    assert!(second.unix_millis > first.unix_millis);
}

#[test]
fn selection_is_limited_by_age_and_number() {
    let mut recorder = Recorder::new();
    let (shop, jobs) = (snapshot("shop"), snapshot("jobs"));
    for _ in 0..10 {
        recorder.tick(&[&shop, &jobs]);
    }
    let select = |limit| recorder.history.select(|name| name == "shop", |point| point.tick <= 4, |_| limit);
    let ticks = |pools: &[PoolPoints]| pools[0].points.iter().map(|point| point.tick).collect::<Vec<_>>();
    let pools = select(100);
    assert_eq!((pools.len(), pools[0].is_truncated, ticks(&pools)), (1, false, vec![5, 6, 7, 8, 9, 10]));
    let pools = select(2);
    assert_eq!((pools[0].is_truncated, ticks(&pools)), (true, vec![9, 10]));
}

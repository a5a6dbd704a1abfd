//! A pool that replaces another under its name: the series of the name go on.

use poolscope::pool::Pool;
use poolscope::telemetry::PoolSnapshot;
use poolscope_testing::scrape::{MonotonicCheck, Scrape};
use prometheus::{Registry, TextEncoder};

use super::backend::ScriptedBackend;
use super::harness::{TestPool, settings};
use super::invariants;

/// Returns the series, after checking that there is one pool, that they add up, and that no counter decreased.
struct Observer {
    registry: Registry,
    monotonic: MonotonicCheck,
}

impl Observer {
    fn new(test: &TestPool) -> Self {
        let registry = Registry::new();
        registry.register(Box::new(test.collector.clone())).unwrap();
        Self { registry, monotonic: MonotonicCheck::default() }
    }

    fn scrape(&mut self) -> Scrape {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let scrape = Scrape::parse(&text);
        scrape.assert_adds_up("test");
        self.monotonic.observe(&scrape);
        assert!(!text.contains("test-2"), "{text}");
        scrape
    }
}

fn only(test: &TestPool) -> PoolSnapshot {
    let [snapshot] = &test.collector.snapshots()[..] else { panic!("one pool") };
    invariants::check(snapshot);
    snapshot.clone()
}

#[tokio::test(start_paused = true)]
async fn name_and_counters_survive_five_replacements() {
    let test = TestPool::new(1, 1);
    let mut observer = Observer::new(&test);
    let mut pool: Pool<ScriptedBackend> = test.pool.clone();
    let collector = test.collector.clone();
    drop(test.pool);
    for round in 1..=5u64 {
        let held = pool.get().await.unwrap();
        let new = Pool::new_replacing(ScriptedBackend::default(), &pool, &settings(1, 1), &collector).unwrap();
        assert_eq!((new.name(), pool.name()), ("test", "test"));
        // Both are in use.
        let scrape = observer.scrape();
        assert_eq!(scrape.count("db_client_connection_count", &[("db_client_connection_state", "used")]), 1);
        let also = new.get().await.unwrap();
        let scrape = observer.scrape();
        assert_eq!(scrape.count("db_client_connection_count", &[("db_client_connection_state", "used")]), 2);
        assert_eq!(scrape.count("poolscope_checkouts_started_total", &[]), 2 * round);
        assert_eq!(new.snapshot().operations.iter().map(|operation| operation.started).sum::<u64>(), 1);
        drop(held);
        let old = std::mem::replace(&mut pool, new);
        old.close().await;
        observer.scrape();
        drop(old);
        let scrape = observer.scrape();
        assert_eq!(scrape.count("poolscope_checkouts_started_total", &[]), 2 * round);
        assert_eq!(
            scrape.count("poolscope_connections_created_total", &[]),
            round + 1,
            "the one of `also` is used again"
        );
        drop(also);
    }
    assert_eq!(observer.scrape().count("db_client_connection_max", &[]), 2, "only the last pool's");
}

#[tokio::test(start_paused = true)]
async fn predecessor_outlives_two_successors() {
    let test = TestPool::new(1, 0);
    let mut observer = Observer::new(&test);
    let held = test.pool.get().await.unwrap();
    let replace = |pool: &Pool<ScriptedBackend>| {
        Pool::new_replacing(ScriptedBackend::default(), pool, &settings(1, 0), &test.collector).unwrap()
    };
    let second = replace(&test.pool);
    drop(second.get().await.unwrap());
    let third = replace(&second);
    drop(second);
    observer.scrape();
    let snapshot = only(&test);
    assert_eq!((snapshot.connections.used, snapshot.holders.len(), snapshot.created), (1, 1, 2));
    drop(held);
    drop(third.get().await.unwrap());
    assert_eq!(observer.scrape().count("poolscope_checkouts_started_total", &[]), 3);
    // A successor that is dropped first gives the name back, with the counters.
    drop(third);
    assert_eq!(observer.scrape().count("poolscope_checkouts_started_total", &[]), 3);
    let snapshot = only(&test);
    assert_eq!((&*snapshot.name, snapshot.created, snapshot.connections.live()), ("test", 3, 1));
}

#[tokio::test(start_paused = true)]
async fn counters_survive_replacements_that_are_undone() {
    let test = TestPool::new(1, 0);
    let mut observer = Observer::new(&test);
    let replace = |pool: &Pool<ScriptedBackend>| {
        Pool::new_replacing(ScriptedBackend::default(), pool, &settings(1, 0), &test.collector).unwrap()
    };
    for round in 1..=3 {
        drop(test.pool.get().await.unwrap());
        let new = replace(&test.pool);
        drop(new.get().await.unwrap());
        assert_eq!(observer.scrape().count("poolscope_checkouts_started_total", &[]), 2 * round);
        new.close().await;
        drop(new);
        assert_eq!(observer.scrape().count("poolscope_checkouts_started_total", &[]), 2 * round);
        assert_eq!(observer.scrape().count("db_client_connection_max", &[]), 1, "only the pool's own");
        only(&test);
    }
    // The pool that goes on is replaced for good.
    let new = replace(&test.pool);
    test.pool.close().await;
    drop(new.get().await.unwrap());
    assert_eq!(observer.scrape().count("poolscope_checkouts_started_total", &[]), 7);
    only(&test);
}

#[tokio::test(start_paused = true)]
async fn pool_is_replaced_by_one_other_in_its_collector() {
    let test = TestPool::new(1, 0);
    let replace = |collector: &poolscope::Collector| {
        Pool::new_replacing(ScriptedBackend::default(), &test.pool, &settings(1, 0), collector).unwrap()
    };
    let elsewhere = poolscope::Collector::new();
    let foreign = replace(&elsewhere);
    assert_eq!((foreign.name(), elsewhere.snapshots().len(), test.collector.snapshots().len()), ("test", 1, 1));
    let first = replace(&test.collector);
    let second = replace(&test.collector);
    assert_eq!((first.name(), second.name(), test.collector.snapshots().len()), ("test", "test-2", 2));
}

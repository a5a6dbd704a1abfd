//! Caches over a store in memory, with paused time.

mod memory_store;
mod property;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep, timeout};

use self::memory_store::{Fault, MemoryStore};
use super::codec::Json;
use super::core::{Core, Looked};
use super::entry::HEADER_BYTES;
use super::error::LoadError;
use super::settings::CacheSettings;
use super::storage::Locked;
use super::suspension::SUSPENSION;
use crate::labels::{CacheError, CacheResult, Outcome};
use crate::telemetry::CacheTotals;
use crate::telemetry::caches::CacheStats;

const SECOND: Duration = Duration::from_secs(1);

type TestCore = Core<u64, Json, MemoryStore>;

/// A cache, with the store behind it and the number of loads.
struct Harness {
    core: Arc<TestCore>,
    store: MemoryStore,
    loads: AtomicUsize,
}

/// Returns the settings of most tests: values live for 10 s, and are stale for 5 s more.
fn settings() -> CacheSettings {
    CacheSettings {
        time_to_live: 10 * SECOND,
        jitter: 0.0,
        stale_window: 5 * SECOND,
        negative_time_to_live: 2 * SECOND,
        max_loads: 3,
        load_wait: SECOND,
        ..CacheSettings::default()
    }
}

fn core(store: &MemoryStore, settings: CacheSettings) -> Arc<TestCore> {
    let began = Instant::now();
    let now = move || 1_700_000_000_000 + u64::try_from(began.elapsed().as_millis()).unwrap();
    let stats = Arc::new(CacheStats::new("products".into()));
    Arc::new(Core::new("products".into(), store.clone(), Json, settings, stats, Box::new(now)))
}

impl Harness {
    fn new(settings: CacheSettings) -> Self {
        let store = MemoryStore::default();
        Self { core: core(&store, settings), store, loads: AtomicUsize::new(0) }
    }

    /// Gets a key with a loader that takes 100 ms.
    async fn get(&self, key: &str, value: u64) -> Result<Option<u64>, LoadError<&'static str>> {
        self.get_with(key, async || {
            self.loads.fetch_add(1, SeqCst);
            sleep(SECOND / 10).await;
            Ok(Some(value))
        })
        .await
    }

    async fn get_with<E, F, L>(&self, key: &str, load: F) -> Result<Option<u64>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L,
        L: Future<Output = Result<Option<u64>, E>>,
    {
        let key = self.core.store_key(key);
        match self.core.look_up(&key, load).await? {
            Looked::Done(value) => Ok(value),
            Looked::Stale { value, refresh, load } => Ok(self.core.refresh(refresh, load).await.unwrap_or(value)),
        }
    }

    async fn value(&self, key: &str, value: u64) -> u64 {
        self.get(key, value).await.unwrap().unwrap()
    }

    fn loads(&self) -> usize {
        self.loads.load(SeqCst)
    }

    fn totals(&self) -> CacheTotals {
        self.core.stats().totals()
    }

    fn results(&self, result: CacheResult) -> u64 {
        self.totals().results[result.index()]
    }

    fn errors(&self, error: CacheError) -> u64 {
        self.totals().errors[error.index()]
    }

    #[track_caller]
    fn assert_idle(&self) {
        assert!(self.core.is_idle(), "flights and permits are returned");
        let totals = self.totals();
        assert_eq!((totals.in_flight, totals.loads_in_flight), (0, 0), "{totals:?}");
    }
}

fn is_too_many<E>(result: &Result<Option<u64>, LoadError<E>>) -> bool {
    matches!(result, Err(LoadError::TooManyLoads { .. }))
}

#[tokio::test(start_paused = true)]
async fn value_is_loaded_once_until_it_expires() {
    let cache = Harness::new(CacheSettings { stale_window: Duration::ZERO, ..settings() });
    assert_eq!(cache.value("a", 1).await, 1);
    assert_eq!(cache.value("a", 2).await, 1);
    assert_eq!(cache.value("b", 3).await, 3, "another key");
    advance(10 * SECOND).await;
    assert_eq!(cache.value("a", 4).await, 4);
    assert_eq!((cache.loads(), cache.results(CacheResult::Hit), cache.results(CacheResult::Miss)), (3, 1, 3));
    assert_eq!(cache.totals().saved_nanos, 100_000_000);
    cache.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_readers_of_a_cold_key_cause_one_load() {
    let cache = Harness::new(settings());
    let readers = (0..10_000).map(|reader| cache.value("a", reader));
    assert!(join_all(readers).await.iter().all(|value| *value == 0));
    assert_eq!((cache.loads(), cache.store.gets(), cache.store.sets()), (1, 1, 1));
    assert_eq!((cache.results(CacheResult::Miss), cache.results(CacheResult::Coalesced)), (1, 9999));
    cache.assert_idle();
}

/// A reader that comes while the value is being stored shares it.
#[tokio::test(start_paused = true)]
async fn reader_during_the_store_causes_no_load() {
    let cache = Harness::new(settings());
    cache.store.set_delay(SECOND / 50);
    let late = async {
        sleep(SECOND / 50 + SECOND / 10 + SECOND / 100).await;
        cache.value("a", 2).await
    };
    assert_eq!(tokio::join!(cache.value("a", 1), late), (1, 1));
    assert_eq!(cache.loads(), 1);
    cache.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn dropped_leader_is_succeeded_by_a_waiter() {
    let cache = Harness::new(settings());
    let leader = timeout(SECOND / 20, cache.value("a", 1));
    let waiters = (2..50).map(|value| {
        let cache = &cache;
        async move {
            yield_now().await;
            cache.value("a", value).await
        }
    });
    let (led, waited) = tokio::join!(leader, join_all(waiters));
    assert!(led.is_err());
    // One of those who wait loads for all.
    assert!(waited.iter().all(|value| *value == waited[0]), "{waited:?}");
    assert_eq!(cache.loads(), 2);
    assert_eq!(cache.totals().loads[Outcome::Cancelled.index()].count(), 1);
    cache.assert_idle();
}

/// Dropped at each of its polls, a lookup leaves nothing behind, and a waiter gets a value.
#[tokio::test(start_paused = true)]
async fn lookup_may_be_dropped_at_any_time() {
    for step in 0..40 {
        let cache = Harness::new(CacheSettings { lock: Some(SECOND), ..settings() });
        cache.store.set_delay(SECOND / 100);
        let leader = timeout(step * SECOND / 200, cache.value("a", 1));
        let waiter = async {
            sleep(SECOND / 200).await;
            cache.value("a", 2).await
        };
        let (_, waited) = tokio::join!(leader, waiter);
        assert!([1, 2].contains(&waited), "{step}");
        cache.assert_idle();
        let totals = cache.totals();
        assert_eq!((totals.started, totals.results.iter().sum::<u64>()), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn panic_of_a_loader_does_not_hang_waiters() {
    let cache = Arc::new(Harness::new(settings()));
    let panics = {
        let cache = Arc::clone(&cache);
        tokio::spawn(async move {
            let load = async || -> Result<_, Infallible> {
                sleep(SECOND).await;
                panic!("a defect of the loader")
            };
            cache.get_with("a", load).await
        })
    };
    yield_now().await;
    assert_eq!(cache.value("a", 2).await, 2);
    assert!(panics.await.unwrap_err().is_panic());
    assert_eq!(cache.totals().loads[Outcome::Error.index()].count(), 1);
    cache.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn failure_is_shared_and_not_stored() {
    let cache = Harness::new(settings());
    let fails = || {
        cache.get_with("a", async || {
            cache.loads.fetch_add(1, SeqCst);
            sleep(SECOND).await;
            Err("database is down")
        })
    };
    for result in join_all((0..100).map(|_| fails())).await {
        assert!(matches!(result, Err(LoadError::Loader(error)) if *error == "database is down"));
    }
    assert_eq!((cache.loads(), cache.store.sets()), (1, 0));
    // A waiter whose error is of another type calls its own loader.
    let (one, other) = tokio::join!(fails(), cache.get_with("a", async || Ok::<_, String>(Some(7))));
    assert!(one.is_err());
    assert_eq!(other.unwrap(), Some(7));
    cache.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn absence_is_stored_for_its_own_time() {
    let cache = Harness::new(settings());
    let absent = async || {
        cache.loads.fetch_add(1, SeqCst);
        Ok::<_, Infallible>(None)
    };
    assert_eq!(cache.get_with("a", absent).await.unwrap(), None);
    assert_eq!(cache.get("a", 1).await.unwrap(), None);
    assert_eq!(cache.results(CacheResult::Negative), 1);
    advance(2 * SECOND).await;
    assert_eq!(cache.get("a", 1).await.unwrap(), Some(1), "no stale window");

    let cache = Harness::new(CacheSettings { negative_time_to_live: Duration::ZERO, ..settings() });
    assert_eq!(cache.get_with("a", async || Ok::<_, Infallible>(None)).await.unwrap(), None);
    assert_eq!(cache.value("a", 1).await, 1);
}

#[tokio::test(start_paused = true)]
async fn stale_value_is_refreshed_by_one_caller() {
    let cache = Harness::new(settings());
    cache.value("a", 1).await;
    advance(10 * SECOND).await;
    let began = Instant::now();
    let values = join_all((2..100).map(|value| cache.value("a", value))).await;
    assert_eq!(values.iter().filter(|value| **value == 1).count(), 97, "{values:?}");
    assert_eq!((cache.loads(), began.elapsed()), (2, SECOND / 10));
    assert!(values.contains(&cache.value("a", 0).await));
    advance(15 * SECOND).await;
    assert_eq!(cache.value("a", 200).await, 200, "after the stale window");
    cache.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn stale_value_is_used_if_the_refresh_fails() {
    let cache = Harness::new(settings());
    cache.value("a", 1).await;
    advance(12 * SECOND).await;
    let value = cache.get_with("a", async || Err("database is down")).await;
    assert_eq!(value.unwrap(), Some(1));
    // All permits are in use.
    let busy = join_all(["b", "c", "d"].map(|key| cache.value(key, 5)));
    let stale = async {
        sleep(SECOND / 100).await;
        cache.value("a", 2).await
    };
    assert_eq!(tokio::join!(busy, stale).1, 1);
    assert_eq!(cache.totals().loads[Outcome::Shed.index()].count(), 1);
    cache.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn loads_are_bounded() {
    let cache = Harness::new(settings());
    let running = AtomicUsize::new(0);
    let most = AtomicUsize::new(0);
    let keys: Vec<_> = (0..40).map(|key| key.to_string()).collect();
    let loads = keys.iter().map(|key| {
        cache.get_with(key, async || {
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            sleep(SECOND / 5).await;
            running.fetch_sub(1, SeqCst);
            Ok::<_, Infallible>(Some(1))
        })
    });
    let results = join_all(loads).await;
    // Three at a time, five times within the second that the others wait; at its end, three more may begin.
    let loaded = results.iter().filter(|result| result.is_ok()).count();
    assert!((15..=18).contains(&loaded), "{loaded}");
    assert_eq!((most.into_inner(), results.iter().filter(|result| is_too_many(result)).count()), (3, 40 - loaded));
    let error = results.into_iter().find_map(Result::err).unwrap().to_string();
    assert_eq!(error, "cache `products`: all 3 loads that may run at a time were running for 1s");
    cache.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn store_that_is_away_delays_no_one_for_long() {
    for (fault, error) in [(Fault::Away, CacheError::Unavailable), (Fault::Paused, CacheError::Timeout)] {
        let cache = Harness::new(settings());
        cache.store.set_fault(fault);
        let began = Instant::now();
        for key in 0..20 {
            assert_eq!(cache.value(&key.to_string(), key).await, key);
        }
        // 20 loads take 2 s, and one lookup per second is tried after the first five.
        let tried = cache.errors(error);
        assert!((5..=8).contains(&tried), "{tried}");
        assert!(began.elapsed() <= 2 * SECOND + 8 * SECOND / 10, "{:?}", began.elapsed());
        assert_eq!((cache.results(CacheResult::Bypassed), cache.store.sets()), (20, 0));
        cache.store.set_fault(Fault::None);
        advance(SUSPENSION).await;
        cache.value("a", 1).await;
        assert_eq!(cache.value("a", 2).await, 1, "{fault:?}");
        cache.assert_idle();
    }
}

#[tokio::test(start_paused = true)]
async fn full_store_is_counted_and_harmless() {
    let cache = Harness::new(settings());
    cache.store.set_fault(Fault::Full);
    for value in 0..10 {
        assert_eq!(cache.value("a", value).await, value);
    }
    assert_eq!((cache.errors(CacheError::Server), cache.results(CacheResult::Miss)), (10, 10));
}

#[tokio::test(start_paused = true)]
async fn large_values_are_not_stored() {
    let cache = Harness::new(CacheSettings { max_value_bytes: 3, ..settings() });
    assert_eq!(cache.value("a", 1000).await, 1000);
    assert!(cache.store.keys().is_empty());
    assert_eq!(cache.errors(CacheError::TooLarge), 1);
    cache.value("a", 999).await;
    assert_eq!(cache.value("a", 1).await, 999);
}

#[tokio::test(start_paused = true)]
async fn foreign_and_broken_values_are_misses() {
    let changes: [fn(&mut Vec<u8>); 4] =
        [Vec::clear, |bytes| bytes[3] = 99, |bytes| bytes.truncate(HEADER_BYTES), |bytes| bytes[0] = b'{'];
    for change in changes {
        let cache = Harness::new(settings());
        cache.value("a", 12_345).await;
        cache.store.replace(change);
        assert_eq!(cache.value("a", 2).await, 2);
        assert_eq!((cache.errors(CacheError::Decode), cache.results(CacheResult::Miss)), (1, 2));
        assert_eq!(cache.value("a", 3).await, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn versions_do_not_share_values() {
    let cache = Harness::new(settings());
    cache.value("a", 1).await;
    let next = Harness {
        core: core(&cache.store, CacheSettings { version: 2, ..settings() }),
        store: cache.store.clone(),
        loads: AtomicUsize::new(0),
    };
    assert_eq!(next.value("a", 2).await, 2);
    assert_eq!(cache.value("a", 3).await, 1);
}

#[tokio::test(start_paused = true)]
async fn invalidated_value_is_loaded_again() {
    let cache = Harness::new(settings());
    cache.value("a", 1).await;
    advance(SECOND).await;
    cache.core.invalidate(&cache.core.store_key("a")).await.unwrap();
    assert!(cache.store.keys().is_empty());
    advance(SECOND).await;
    assert_eq!(cache.value("a", 2).await, 2);
    assert_eq!(cache.value("a", 3).await, 2);
}

#[tokio::test(start_paused = true)]
async fn load_in_flight_is_not_stored_after_an_invalidation() {
    for stale in [false, true] {
        let cache = Harness::new(settings());
        if stale {
            cache.value("a", 1).await;
            advance(12 * SECOND).await;
        }
        let later = async {
            sleep(SECOND / 20).await;
            cache.core.invalidate(&cache.core.store_key("a")).await.unwrap();
            // The same millisecond counts as before.
            sleep(SECOND / 100).await;
            // Does not join the load that began before.
            cache.value("a", 3).await
        };
        let (before, after) = tokio::join!(cache.value("a", 2), later);
        assert_eq!((before, after), (2, 3));
        assert_eq!(cache.value("a", 4).await, 3);
        cache.assert_idle();
    }
}

/// The value is being stored when the key is invalidated.
#[tokio::test(start_paused = true)]
async fn invalidation_waits_for_the_store() {
    let cache = Harness::new(settings());
    cache.store.set_delay(SECOND / 20);
    let invalidate = async {
        // After the lookup and the load.
        sleep(SECOND / 20 + SECOND / 10 + SECOND / 100).await;
        cache.core.invalidate(&cache.core.store_key("a")).await.unwrap();
    };
    tokio::join!(cache.value("a", 1), invalidate);
    assert_eq!((cache.store.sets(), cache.store.keys().len()), (1, 0));
    assert_eq!(cache.value("a", 2).await, 2);
}

/// Commands that timed out may be executed later, in any order.
#[tokio::test(start_paused = true)]
async fn value_stored_late_is_not_used_after_an_invalidation() {
    let cache = Harness::new(CacheSettings { time_to_live: 600 * SECOND, ..settings() });
    let paused = async {
        sleep(SECOND / 20).await;
        cache.store.set_fault(Fault::Paused);
    };
    tokio::join!(cache.value("a", 1), paused);
    cache.store.set_fault(Fault::Away);
    assert!(cache.core.invalidate(&cache.core.store_key("a")).await.is_err());
    cache.store.set_fault(Fault::None);
    sleep(61 * SECOND).await;
    assert_eq!((cache.store.sets(), cache.store.keys().len()), (1, 1), "the value is stored");
    assert_eq!(cache.value("a", 2).await, 2, "and not used");
    assert_eq!(cache.value("a", 3).await, 2);
}

#[tokio::test(start_paused = true)]
async fn lock_lets_one_process_load() {
    let settings = CacheSettings { lock: Some(5 * SECOND), ..settings() };
    let one = Harness::new(settings.clone());
    let other = Harness { core: core(&one.store, settings), store: one.store.clone(), loads: AtomicUsize::new(0) };
    assert_eq!(tokio::join!(one.value("a", 1), other.value("a", 2)), (1, 1));
    assert_eq!((one.loads(), other.loads(), other.results(CacheResult::Coalesced)), (1, 0, 1));
    assert_eq!(one.store.keys().len(), 1, "the lock is released");

    // The value is stored between the look for it and the lock.
    let locked = other.core.lock_or_await_value(&other.core.store_key("a"), 5 * SECOND).await;
    assert!(matches!(locked, Locked::Found(found) if found.value == Some(1)));
    assert_eq!(one.store.keys().len(), 1, "the lock is released");

    // The process that has the lock ends: after its time, the other one loads.
    let ended = timeout(SECOND / 20, one.value("b", 1));
    let began = Instant::now();
    let (ended, loaded) = tokio::join!(ended, other.value("b", 2));
    assert!(ended.is_err());
    assert_eq!(loaded, 2);
    assert!(began.elapsed() >= 5 * SECOND && began.elapsed() <= 6 * SECOND, "{:?}", began.elapsed());
}

/// The futures of lookups can be spawned, and loaders may borrow.
#[tokio::test(start_paused = true)]
async fn lookups_are_send() {
    fn assert_send<T: Send>(future: T) -> T {
        future
    }
    let cache = Harness::new(settings());
    let (text, done) = ("12".to_owned(), Notify::new());
    let load = || async {
        done.notify_one();
        text.parse().map(Some)
    };
    assert_eq!(assert_send(cache.get_with("a", load)).await.unwrap(), Some(12));
    done.notified().await;
}

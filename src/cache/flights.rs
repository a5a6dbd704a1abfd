//! Single flight: of the callers that need the same key at the same time, one leads, and the others share its result.
//!
//! A caller that leads does so in its own task, with its own loader. If it is dropped, or panics, before it has a result, one of
//! those who wait leads in its place; the others keep waiting.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::labels::CacheResult;
use crate::telemetry::names::fnv;

/// The number of parts that the keys are divided into, so that lookups of different keys seldom wait for the same lock.
const SHARDS: usize = 16;

/// A result that the leader shares.
#[derive(Debug)]
pub(super) enum Shared<V> {
    /// The answer of the store, and the time that loading the value had taken.
    Stored { value: Option<V>, result: CacheResult, load_time: Duration },
    /// The leader loaded the value, which took this time.
    Loaded { value: Option<V>, took: Duration },
    /// The leader's loader failed; the type is that of its error.
    Failed(Arc<dyn Any + Send + Sync>),
    /// Too many loads were running, for as long as this.
    TooManyLoads { waited: Duration },
}

/// The callers that need one key at the same time.
#[derive(Debug)]
pub(super) struct Flight<V> {
    /// Has a permit if no caller leads, and is closed once there is a result.
    turn: Semaphore,
    result: OnceLock<Shared<V>>,
    invalidated: AtomicBool,
    /// Has a permit unless a value is being stored.
    storing: Semaphore,
}

impl<V> Flight<V> {
    fn new() -> Self {
        Self {
            turn: Semaphore::new(1),
            result: OnceLock::new(),
            invalidated: AtomicBool::new(false),
            storing: Semaphore::new(1),
        }
    }

    /// Returns the right to store the value; `None` if the key has been invalidated since the load began.
    pub(super) async fn may_store(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.storing.acquire().await.ok()?;
        (!self.invalidated.load(Acquire)).then_some(permit)
    }

    /// Waits until the value is not being stored. It will not be afterwards.
    pub(super) async fn stored(&self) {
        drop(self.storing.acquire().await);
    }
}

type Shard<V> = Mutex<HashMap<Box<str>, Arc<Flight<V>>>>;

/// The flights of all keys.
#[derive(Debug)]
pub(super) struct Flights<V> {
    lookups: [Shard<V>; SHARDS],
    /// The refreshes of stale values.
    refreshes: Shard<V>,
}

fn lock<V>(shard: &Shard<V>) -> MutexGuard<'_, HashMap<Box<str>, Arc<Flight<V>>>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes a flight, if it is still that of the key.
fn remove<V>(flights: &mut HashMap<Box<str>, Arc<Flight<V>>>, key: &str, flight: &Arc<Flight<V>>) {
    if flights.get(key).is_some_and(|current| Arc::ptr_eq(current, flight)) {
        flights.remove(key);
    }
}

impl<V> Flights<V> {
    pub(super) fn new() -> Self {
        Self { lookups: std::array::from_fn(|_| Mutex::default()), refreshes: Mutex::default() }
    }

    fn shard(&self, key: &str) -> &Shard<V> {
        let shard = usize::try_from(fnv(key.as_bytes()) % SHARDS as u64).unwrap_or(0);
        &self.lookups[shard]
    }

    /// Joins the callers that need this key.
    pub(super) fn join<'a>(&'a self, key: &'a str) -> Participant<'a, V> {
        let mut flights = lock(self.shard(key));
        let flight = match flights.get(key) {
            Some(flight) => Arc::clone(flight),
            None => {
                let flight = Arc::new(Flight::new());
                flights.insert(key.into(), Arc::clone(&flight));
                flight
            }
        };
        Participant { flights: self, key, flight: Some(flight) }
    }

    /// Begins the refresh of a stale value; `None` if one is under way.
    pub(super) fn begin_refresh(self: &Arc<Self>, key: &str) -> Option<Refresh<V>> {
        let mut refreshes = lock(&self.refreshes);
        if refreshes.contains_key(key) {
            return None;
        }
        let flight = Arc::new(Flight::new());
        refreshes.insert(key.into(), Arc::clone(&flight));
        Some(Refresh { flights: Arc::clone(self), key: key.into(), flight })
    }

    /// Detaches what is under way for a key: callers that come later do not join it, and its result is not stored.
    pub(super) fn detach(&self, key: &str) -> [Option<Arc<Flight<V>>>; 2] {
        let detached = [self.shard(key), &self.refreshes].map(|shard| lock(shard).remove(key));
        for flight in detached.iter().flatten() {
            flight.invalidated.store(true, Release);
        }
        detached
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lookups.iter().chain([&self.refreshes]).all(|shard| lock(shard).is_empty())
    }
}

/// A caller that needs a key.
#[derive(Debug)]
pub(super) struct Participant<'a, V> {
    flights: &'a Flights<V>,
    key: &'a str,
    /// `None` only while it is dropped.
    flight: Option<Arc<Flight<V>>>,
}

impl<'a, V> Participant<'a, V> {
    /// Waits until the caller leads, or the leader has a result.
    pub(super) async fn turn(&self) -> Result<Lead<'_, 'a, V>, Option<&Shared<V>>> {
        let Some(flight) = &self.flight else { return Err(None) };
        match flight.turn.acquire().await {
            Ok(permit) => {
                // Returned when the lead is dropped without a result.
                permit.forget();
                Ok(Lead { participant: self, flight })
            }
            Err(_) => Err(flight.result.get()),
        }
    }
}

impl<V> Drop for Participant<'_, V> {
    fn drop(&mut self) {
        let Some(flight) = self.flight.take() else { return };
        if flight.result.get().is_some() {
            return;
        }
        // The last caller removes the flight. Each drops its handle under the lock, so that one of them is the last.
        let mut flights = lock(self.flights.shard(self.key));
        if Arc::strong_count(&flight) == 2 {
            remove(&mut flights, self.key, &flight);
        }
        drop(flight);
    }
}

/// The caller that looks up and loads the value of a key, for all that need it.
#[derive(Debug)]
pub(super) struct Lead<'p, 'a, V> {
    participant: &'p Participant<'a, V>,
    flight: &'p Arc<Flight<V>>,
}

impl<V> Lead<'_, '_, V> {
    pub(super) fn flight(&self) -> &Flight<V> {
        self.flight
    }

    /// Ends the flight with a result, which is made only if others wait for it.
    pub(super) fn complete(self, result: impl FnOnce() -> Shared<V>) {
        let Participant { flights, key, .. } = self.participant;
        let is_shared = {
            let mut flights = lock(flights.shard(key));
            remove(&mut flights, key, self.flight);
            Arc::strong_count(self.flight) > 1
        };
        if is_shared {
            self.publish(result());
        }
    }

    /// Shares the result with those who wait, and with those who come until the lead is dropped.
    pub(super) fn publish(&self, result: Shared<V>) {
        let _ = self.flight.result.set(result);
        self.flight.turn.close();
    }
}

impl<V> Drop for Lead<'_, '_, V> {
    fn drop(&mut self) {
        if self.flight.result.get().is_some() {
            let Participant { flights, key, .. } = self.participant;
            remove(&mut lock(flights.shard(key)), key, self.flight);
        } else {
            self.flight.turn.add_permits(1);
        }
    }
}

/// The refresh of a stale value.
#[derive(Debug)]
pub(super) struct Refresh<V> {
    flights: Arc<Flights<V>>,
    key: Box<str>,
    flight: Arc<Flight<V>>,
}

impl<V> Refresh<V> {
    pub(super) fn flight(&self) -> &Flight<V> {
        &self.flight
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

impl<V> Drop for Refresh<V> {
    fn drop(&mut self) {
        remove(&mut lock(&self.flights.refreshes), &self.key, &self.flight);
    }
}

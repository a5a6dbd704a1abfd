//! What a cache has in its store: entries, and locks on keys across processes.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use super::codec::Codec;
use super::core::{Core, millis};
use super::entry::{Entry, HEADER_BYTES};
use super::flights::Flight;
use super::store::{Store, StoreError};
use crate::labels::{CacheError, CacheResult, Direction, ErrorCode};

/// The bounds of the time between two looks for the value that another process is loading.
const LOCK_POLL: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(30)];

/// What the store has for a key.
pub(super) enum Read<V> {
    Found(Found<V>),
    Missing,
    /// The store was not called, or did not answer.
    Unavailable,
}

pub(super) struct Found<V> {
    pub(super) value: Option<V>,
    pub(super) is_fresh: bool,
    pub(super) load_time: Duration,
}

impl<V> Found<V> {
    pub(super) fn result(&self) -> CacheResult {
        match (&self.value, self.is_fresh) {
            (None, _) => CacheResult::Negative,
            (Some(_), true) => CacheResult::Hit,
            (Some(_), false) => CacheResult::Stale,
        }
    }
}

/// A value that was loaded, or that there is none.
pub(super) struct Loaded<V> {
    pub(super) value: Option<V>,
    /// By the wall clock, in milliseconds.
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) took: Duration,
}

/// A lock that this process holds.
pub(super) struct HeldLock {
    key: String,
    token: String,
}

/// Who loads.
pub(super) enum Locked<V> {
    /// This process, with a lock unless the store failed or the lock of another process lasts too long.
    Here(Option<HeldLock>),
    /// Another process has loaded the value.
    Found(Found<V>),
}

impl<V, C, S> Core<V, C, S>
where
    V: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    C: Codec,
    S: Store,
{
    /// Reads the store.
    pub(super) async fn read(&self, key: &str) -> Read<V> {
        if !self.suspension.permits_call() {
            return Read::Unavailable;
        }
        let bytes = match self.within_deadline(self.store.get(key)).await {
            Ok(bytes) => bytes,
            Err(error) => {
                self.count(error);
                if self.suspension.failed() {
                    self.log.suspended(error);
                } else {
                    self.log.failed(error);
                }
                return Read::Unavailable;
            }
        };
        if self.suspension.succeeded() {
            self.log.resumed();
        }
        match bytes {
            Some(bytes) => self.decode(key, &bytes).map_or(Read::Missing, Read::Found),
            None => Read::Missing,
        }
    }

    /// Decodes a stored value; `None` if it must not be used.
    fn decode(&self, key: &str, bytes: &[u8]) -> Option<Found<V>> {
        let Some((entry, value)) = Entry::read(bytes) else {
            self.failed(CacheError::Decode);
            return None;
        };
        let now = (self.now)();
        if now >= entry.stale_until || self.invalidations.cover(key, entry.load_began) {
            return None;
        }
        self.stats.transferred(Direction::Received, bytes.len());
        let value = match entry.codec {
            None => Ok(None),
            Some(codec) if codec != C::ID => Err(CacheError::Decode),
            // It was stored with another setting.
            Some(_) if value.len() > self.settings.max_value_bytes => Err(CacheError::TooLarge),
            Some(_) => self.codec.decode(value).map(Some).map_err(|_| CacheError::Decode),
        };
        let value = value.map_err(|error| self.failed(error)).ok()?;
        let load_time = Duration::from_micros(entry.load_micros.into());
        Some(Found { value, is_fresh: now < entry.fresh_until, load_time })
    }

    /// Stores a loaded value, unless its key has been invalidated since the load began.
    pub(super) async fn store(&self, flight: &Flight<V>, key: &str, loaded: &Loaded<V>) {
        let Some(bytes) = self.encode(loaded) else { return };
        let Some(_permit) = flight.may_store().await else { return };
        let now = (self.now)();
        let Some((entry, _)) = Entry::read(&bytes) else { return };
        let time_to_live = Duration::from_millis(entry.stale_until.saturating_sub(now));
        if time_to_live.is_zero() {
            return;
        }
        match self.within_deadline(self.store.set(key, &bytes, time_to_live)).await {
            Ok(()) => self.stats.transferred(Direction::Sent, bytes.len()),
            Err(error) => {
                self.count(error);
                self.log.failed(error);
            }
        }
    }

    /// Encodes a loaded value with its header; `None` if it is not to be stored.
    fn encode(&self, loaded: &Loaded<V>) -> Option<Vec<u8>> {
        let settings = &self.settings;
        let (fresh, stale) = match loaded.value {
            Some(_) => (settings.time_to_live, settings.stale_window),
            None => (settings.negative_time_to_live, Duration::ZERO),
        };
        if fresh.is_zero() {
            return None;
        }
        // Only shorter, so that no value becomes older than the setting.
        let jittered = fresh.mul_f64(1.0 - settings.jitter * fastrand::f64());
        let entry = Entry {
            codec: loaded.value.is_some().then_some(C::ID),
            load_began: loaded.began,
            load_micros: u32::try_from(loaded.took.as_micros()).unwrap_or(u32::MAX),
            fresh_until: loaded.ended.saturating_add(millis(jittered)),
            stale_until: loaded.ended.saturating_add(millis(jittered + stale)),
        };
        let mut bytes = Vec::new();
        entry.write(&mut bytes);
        if let Some(value) = &loaded.value
            && self.codec.encode(value, &mut bytes).is_err()
        {
            self.failed(CacheError::Encode);
            return None;
        }
        if bytes.len() - HEADER_BYTES > settings.max_value_bytes {
            self.failed(CacheError::TooLarge);
            return None;
        }
        Some(bytes)
    }

    /// Takes the lock of a key, or waits for the value that another process loads. Without either within the time for which a
    /// lock is held, this process loads as well.
    pub(super) async fn lock_or_await_value(&self, key: &str, time: Duration) -> Locked<V> {
        let until = Instant::now() + time;
        loop {
            match self.try_lock(key, time).await {
                Ok(Some(lock)) => {
                    // Another process may have stored the value since it was missed, and released the lock.
                    let Read::Found(found) = self.read(key).await else { return Locked::Here(Some(lock)) };
                    self.unlock(Some(lock)).await;
                    return Locked::Found(found);
                }
                Err(_) => return Locked::Here(None),
                Ok(None) if Instant::now() >= until => return Locked::Here(None),
                Ok(None) => {}
            }
            let [min, max] = LOCK_POLL;
            sleep(min + (max - min).mul_f64(fastrand::f64())).await;
            match self.read(key).await {
                Read::Found(found) => return Locked::Found(found),
                Read::Missing => {}
                Read::Unavailable => return Locked::Here(None),
            }
        }
    }

    /// Takes the lock of a key; `None` if another process has it.
    pub(super) async fn try_lock(&self, key: &str, time: Duration) -> Result<Option<HeldLock>, StoreError> {
        let lock = HeldLock { key: self.lock_key(key), token: format!("{:032x}", fastrand::u128(..)) };
        match self.within_deadline(self.store.lock(&lock.key, &lock.token, time)).await {
            Ok(is_taken) => Ok(is_taken.then_some(lock)),
            Err(error) => {
                self.count(error);
                self.log.failed(error);
                Err(error)
            }
        }
    }

    pub(super) async fn unlock(&self, lock: Option<HeldLock>) {
        let Some(lock) = lock else { return };
        if let Err(error) = self.within_deadline(self.store.unlock(&lock.key, &lock.token)).await {
            self.count(error);
        }
    }

    pub(super) async fn within_deadline<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        timeout(self.settings.deadline, call).await.unwrap_or(Err(StoreError::TIMEOUT))
    }

    /// Counts and logs an error that is not the store's.
    fn failed(&self, kind: CacheError) {
        let error = StoreError { kind, code: ErrorCode::NONE };
        self.count(error);
        self.log.failed(error);
    }

    pub(super) fn count(&self, error: StoreError) {
        self.stats.error(error.kind);
    }
}

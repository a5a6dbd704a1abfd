//! A store in memory, with faults, on tokio's clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cache::store::{Store, StoreError};
use crate::labels::{CacheError, ErrorCode};

/// How the store behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Fault {
    #[default]
    None,
    /// Each call fails at once.
    Away,
    /// Each call takes a minute, and is executed then, even if its caller gave up.
    Paused,
    /// Values are not stored, as if the memory were full.
    Full,
}

#[derive(Debug, Default)]
struct State {
    values: HashMap<String, (Vec<u8>, Instant)>,
    fault: Fault,
    gets: usize,
    sets: usize,
    delay: Duration,
}

/// Clones are handles to the same store.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryStore(Arc<Mutex<State>>);

impl MemoryStore {
    pub(super) fn set_fault(&self, fault: Fault) {
        self.0.lock().unwrap().fault = fault;
    }

    /// Sets how long each call takes.
    pub(super) fn set_delay(&self, delay: Duration) {
        self.0.lock().unwrap().delay = delay;
    }

    pub(super) fn gets(&self) -> usize {
        self.0.lock().unwrap().gets
    }

    pub(super) fn sets(&self) -> usize {
        self.0.lock().unwrap().sets
    }

    pub(super) fn keys(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let now = Instant::now();
        state.values.iter().filter(|(_, (_, until))| *until > now).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn replace(&self, change: impl Fn(&mut Vec<u8>)) {
        self.0.lock().unwrap().values.values_mut().for_each(|(value, _)| change(value));
    }

    /// Executes a command. A paused store executes it in a task, so that its caller's end does not prevent it.
    async fn execute<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (fault, delay) = {
            let state = self.0.lock().unwrap();
            (state.fault, state.delay)
        };
        if fault == Fault::Away {
            return Err(StoreError { kind: CacheError::Unavailable, code: ErrorCode::IO });
        }
        if fault == Fault::Paused {
            let state = Arc::clone(&self.0);
            let executed = tokio::spawn(async move {
                sleep(Duration::from_secs(60)).await;
                command(&mut state.lock().unwrap())
            });
            return executed.await.map_err(|_| StoreError::TIMEOUT);
        }
        if !delay.is_zero() {
            sleep(delay).await;
        }
        Ok(command(&mut self.0.lock().unwrap()))
    }
}

impl State {
    fn live(&mut self, key: &str) -> Option<&Vec<u8>> {
        let now = Instant::now();
        self.values.get(key).filter(|(_, until)| *until > now).map(|(value, _)| value)
    }
}

impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.to_owned();
        self.execute(move |state| {
            state.gets += 1;
            state.live(&key).cloned()
        })
        .await
    }

    async fn set(&self, key: &str, value: &[u8], time_to_live: Duration) -> Result<(), StoreError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        let stored = self.execute(move |state| {
            state.sets += 1;
            let is_full = state.fault == Fault::Full;
            if !is_full {
                state.values.insert(key, (value, Instant::now() + time_to_live));
            }
            is_full
        });
        match stored.await? {
            true => Err(StoreError { kind: CacheError::Server, code: ErrorCode::new("OOM") }),
            false => Ok(()),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.execute(move |state| drop(state.values.remove(&key))).await
    }

    async fn lock(&self, key: &str, token: &str, time_to_live: Duration) -> Result<bool, StoreError> {
        let (key, token) = (key.to_owned(), token.as_bytes().to_owned());
        self.execute(move |state| {
            let is_free = state.live(&key).is_none();
            if is_free {
                state.values.insert(key, (token, Instant::now() + time_to_live));
            }
            is_free
        })
        .await
    }

    async fn unlock(&self, key: &str, token: &str) -> Result<(), StoreError> {
        let (key, token) = (key.to_owned(), token.as_bytes().to_owned());
        self.execute(move |state| {
            if state.live(&key) == Some(&token) {
                state.values.remove(&key);
            }
        })
        .await
    }
}

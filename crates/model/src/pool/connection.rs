//! Stands for `src/pool/connection`, and for deadpool's pool with its lock.

use std::marker::PhantomData;
use std::ops::Deref;

use super::backend::Backend;
use crate::labels::CloseReason;
use crate::sync::Mutex;
use crate::telemetry::clock::Nanos;
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::ledger::Recorder;
use crate::telemetry::operations::OperationId;

#[allow(dead_code, unreachable_pub, reason = "a model uses only a part of the file")]
#[path = "../../../../src/pool/connection/places.rs"]
mod places;

pub(in crate::pool) use self::places::Places;

impl<M: Backend> Places<M> {
    pub(in crate::pool) fn with_maximum(max: usize) -> Self {
        Self::new(max)
    }
}

// What wakers refer to has to be in the standard library's, and so has what the modelled files share.
type Shared<T> = std::sync::Arc<T>;

/// What the connections of a pool share.
#[derive(Debug)]
pub(crate) struct PoolState {
    pub(crate) recorder: Recorder,
    pub(crate) gate: Wakes,
}

/// A gate without waiters.
#[derive(Debug)]
pub(crate) struct Wakes;

impl Wakes {
    pub(crate) fn wake_one(&self) {}
}

impl PoolState {
    pub(crate) fn is_closing(&self) -> bool {
        false
    }

    pub(crate) fn notify_if_closing(&self) {}
}

/// deadpool's pool: the idle connections under a lock, and the number of places.
#[derive(Debug)]
pub(crate) struct ObjectPool<M: Backend>(Shared<Objects<M>>);

#[derive(Debug)]
struct Objects<M: Backend> {
    shared: Shared<PoolState>,
    idle: Mutex<Vec<Connection>>,
    vacant: Mutex<Vacant>,
    backend: PhantomData<M>,
}

#[derive(Debug)]
struct Vacant {
    free: usize,
    total: usize,
}

impl<M: Backend> Clone for ObjectPool<M> {
    fn clone(&self) -> Self {
        Self(Shared::clone(&self.0))
    }
}

impl<M: Backend> ObjectPool<M> {
    pub(crate) fn new(shared: &Shared<PoolState>, places: usize) -> Self {
        let vacant = Mutex::new(Vacant { free: places, total: places });
        let idle = Mutex::new(Vec::new());
        Self(Shared::new(Objects { shared: Shared::clone(shared), idle, vacant, backend: PhantomData }))
    }

    pub(crate) fn manager(&self) -> &Self {
        self
    }

    pub(crate) fn shared(&self) -> &Shared<PoolState> {
        &self.0.shared
    }

    /// Takes an idle connection.
    pub(crate) fn take(&self) -> Option<Pooled<M>> {
        Some(Pooled::new(self.0.idle.lock().expect("no panic").pop()?, self))
    }

    /// Removes the idle connections for which `keeps` is false.
    pub(crate) fn retain(&self, mut keeps: impl FnMut(&Connection, ()) -> bool) -> Retained {
        let mut idle = self.0.idle.lock().expect("no panic");
        let (kept, removed) = std::mem::take(&mut *idle).into_iter().partition(|connection| keeps(connection, ()));
        *idle = kept;
        Retained { removed }
    }

    /// Adds places, as deadpool's does.
    pub(crate) fn resize(&self, total: usize) {
        let mut vacant = self.0.vacant.lock().expect("no panic");
        vacant.free += total.saturating_sub(vacant.total);
        vacant.total = total;
    }

    pub(crate) fn take_place(&self) -> Option<Place<M>> {
        let mut vacant = self.0.vacant.lock().expect("no panic");
        vacant.free = vacant.free.checked_sub(1)?;
        Some(Place(self.clone()))
    }

    pub(crate) fn vacant(&self) -> usize {
        self.0.vacant.lock().expect("no panic").free
    }

    pub(crate) fn idle(&self) -> usize {
        self.0.idle.lock().expect("no panic").len()
    }
}

pub(crate) struct Retained {
    pub(crate) removed: Vec<Connection>,
}

/// A vacant place. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct Place<M: Backend>(ObjectPool<M>);

impl<M: Backend> Drop for Place<M> {
    fn drop(&mut self) {
        self.0.0.vacant.lock().expect("no panic").free += 1;
    }
}

/// A connection with its metadata.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) meta: ConnectionMeta,
}

#[derive(Debug)]
pub(crate) struct ConnectionMeta {
    pub(crate) shared: Shared<PoolState>,
    pub(crate) stats: Shared<ConnectionStats>,
    pub(crate) ready_at: Nanos,
    pub(crate) last_operation: OperationId,
}

impl Connection {
    /// Opens a connection.
    pub(crate) fn open(shared: &Shared<PoolState>) -> Self {
        let stats = Shared::new(ConnectionStats::used());
        shared.recorder.ledger().open(&stats);
        let (ready_at, last_operation) = (Nanos::from_nanos(0), OperationId::OTHER);
        Self { meta: ConnectionMeta { shared: Shared::clone(shared), stats, ready_at, last_operation } }
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        self.meta.shared.recorder.ledger().close(&self.meta.stats, reason);
    }
}

/// A connection that was taken out of the pool. Dropping it returns it.
#[derive(Debug)]
pub(crate) struct Pooled<M: Backend> {
    connection: Option<Connection>,
    pool: ObjectPool<M>,
}

impl<M: Backend> Pooled<M> {
    pub(crate) fn new(connection: Connection, pool: &ObjectPool<M>) -> Self {
        Self { connection: Some(connection), pool: pool.clone() }
    }

    pub(crate) fn pool(object: &Self) -> Option<ObjectPool<M>> {
        Some(object.pool.clone())
    }
}

impl<M: Backend> Deref for Pooled<M> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("only drop takes it")
    }
}

impl<M: Backend> Drop for Pooled<M> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.0.idle.lock().expect("no panic").push(connection);
        }
    }
}

/// Drops a connection that was recorded as closed.
pub(crate) fn free_place<M: Backend>(mut object: Pooled<M>) {
    drop(object.connection.take());
}

//! Stands for `src/telemetry/ledger`: what the gate and the closing of surplus connections use of it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Nanos;
use super::connection::ConnectionStats;
use super::operations::OperationId;
use crate::labels::{CloseReason, ConnectFailure, ConnectionState, ErrorCode};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst, fence};

/// Records for one ledger.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(Arc<Ledger>);

#[derive(Debug)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    /// That of the shard of a queued checkout.
    shard: Mutex<()>,
    live: AtomicUsize,
    queued: AtomicUsize,
    pool_size: usize,
    max: usize,
}

#[derive(Debug, Default)]
struct State {
    connections: Vec<Arc<ConnectionStats>>,
    surplus_closed: usize,
}

/// The numbers of connections.
pub(crate) struct Connections {
    pub(crate) idle: usize,
}

pub(crate) struct Limits(usize);

impl Limits {
    pub(crate) fn max(&self) -> usize {
        self.0
    }
}

pub(crate) struct Log;

impl Log {
    pub(crate) fn connecting_resumed(&self, _: Duration) {}

    pub(crate) fn connecting_suspended(&self, _: ConnectFailure, _: ErrorCode, _: &(dyn Error + 'static)) {}
}

impl Recorder {
    pub(crate) fn new(pool_size: usize, max: usize) -> Self {
        let state = Mutex::new(State::default());
        let (shard, live, queued) = (Mutex::new(()), AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Ledger { state, shard, live, queued, pool_size, max }))
    }

    pub(crate) fn log(&self) -> Log {
        Log
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.0
    }

    pub(crate) fn now(&self) -> Nanos {
        Nanos::from_nanos(0)
    }

    pub(crate) fn live_hint(&self) -> usize {
        self.0.live.load(Relaxed)
    }

    pub(crate) fn connection_idle(&self, stats: &ConnectionStats, _: Nanos) {
        stats.set(ConnectionState::Idle);
    }

    pub(crate) fn maintenance_finished(&self, _: &ConnectionStats, _: OperationId, _: Nanos, _: Nanos) {}

    pub(crate) fn connection_dirty(&self, _: &ConnectionStats, _: OperationId, _: (), _: Option<()>) {}
}

impl Ledger {
    pub(crate) fn limits(&self) -> Limits {
        Limits(self.max)
    }

    pub(crate) fn open(&self, stats: &Arc<ConnectionStats>) {
        let mut state = self.state.lock().expect("no panic");
        state.connections.push(Arc::clone(stats));
        self.live.store(state.connections.len(), Relaxed);
    }

    pub(crate) fn close(&self, stats: &Arc<ConnectionStats>, reason: CloseReason) {
        let mut state = self.state.lock().expect("no panic");
        state.connections.retain(|live| !Arc::ptr_eq(live, stats));
        state.surplus_closed += usize::from(reason == CloseReason::Overflow);
        self.live.store(state.connections.len(), Relaxed);
    }

    /// Changes the number of checkouts in the queue.
    pub(crate) fn set_queued(&self, queued: usize) {
        let _shard = self.shard.lock().expect("no panic");
        self.queued.store(queued, Relaxed);
    }

    /// A checkout in the queue takes a connection, and leaves the queue.
    pub(crate) fn serve(&self, stats: &ConnectionStats) {
        let _shard = self.shard.lock().expect("no panic");
        stats.set(ConnectionState::Used);
        self.queued.fetch_sub(1, Relaxed);
    }

    /// A checkout gives up, and leaves the queue.
    pub(crate) fn give_up(&self) {
        let _shard = self.shard.lock().expect("no panic");
        self.queued.fetch_sub(1, Relaxed);
    }

    pub(crate) fn surplus_closed(&self) -> usize {
        self.state.lock().expect("no panic").surplus_closed
    }

    pub(crate) fn is_oversized(&self) -> bool {
        self.state.lock().expect("no panic").connections.len() > self.max
    }

    pub(crate) fn has_surplus(&self) -> bool {
        fence(SeqCst);
        let max_idle = self.pool_size + self.queued.load(Relaxed);
        if self.live.load(Relaxed) <= max_idle || self.connections().idle <= self.pool_size {
            return false;
        }
        let state = self.state.lock().expect("no panic");
        let _shard = self.shard.lock().expect("no panic");
        state.idle() > self.pool_size + self.queued.load(Relaxed)
    }

    pub(crate) fn connections(&self) -> Connections {
        Connections { idle: self.state.lock().expect("no panic").idle() }
    }
}

impl State {
    fn idle(&self) -> usize {
        self.connections.iter().filter(|stats| stats.state().label == ConnectionState::Idle).count()
    }
}

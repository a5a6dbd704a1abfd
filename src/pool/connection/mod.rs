//! A pooled connection and its metadata.

mod closing;
mod connect;
mod hook;
mod manager;
mod places;
mod slot;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool::managed;
use tokio::runtime::Handle;

pub(super) use self::connect::{Connect, Connected};
pub(super) use self::manager::InstrumentedManager;
pub(super) use self::slot::{Place, Slot, free_place};
use super::backend::{Backend, LeftExecuting};
use super::release::HolderCancels;
use super::shared::Shared;
use crate::labels::CloseReason;
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::operations::OperationId;
use crate::wire::DriverActivity;

/// deadpool's pool of instrumented connections.
pub(super) type ObjectPool<M> = managed::Pool<InstrumentedManager<M>>;

/// A connection that was taken from deadpool's pool. Dropping it returns it there.
pub(super) type Pooled<M> = managed::Object<InstrumentedManager<M>>;

/// A connection with its metadata.
///
/// Boxed, so that moving it moves a pointer, and aligned, so that the fields that each return writes share no cache
/// line with those of another connection.
#[repr(align(128))]
pub(crate) struct PooledConnection<M: Backend> {
    // Dropped before the metadata: the connection is closed before it is recorded as closed.
    pub(super) connection: M::Type,
    pub(super) meta: ConnectionMeta,
    pub(super) backend: Arc<M>,
}

impl<M: Backend> PooledConnection<M> {
    /// Records that the connection is closed or, if the server may go on executing for it, that it is closing. Repeated
    /// calls have no effect. Called before its place is given to another connection, so that no more are counted than
    /// the pool may have. What follows happens when the connection is dropped, as a lock may be held here.
    pub(super) fn close(&self, reason: CloseReason) {
        // A ping executes nothing, and a connection that does not answer it counts as dead.
        let is_pinged = matches!(reason, CloseReason::PingFailed | CloseReason::PingAbandoned);
        let outlives = !is_pinged && M::may_outlive_drop(&self.connection, self.meta.stats.wire().is_executing());
        self.meta.record_closed(reason, outlives);
    }
}

impl<M: Backend> Drop for PooledConnection<M> {
    fn drop(&mut self) {
        self.close(self.meta.reason);
        let Some(Closed { reason, end }) = self.meta.closed.get() else { return };
        match end {
            End::Known => {}
            End::Awaited => closing::await_end(&self.meta, self.backend.end(&self.connection), *reason),
            End::Unknown => closing::end_elsewhere(&self.meta.shared, self.backend.end(&self.connection)),
        }
    }
}

impl<M: Backend> fmt::Debug for PooledConnection<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledConnection").field("meta", &self.meta).finish_non_exhaustive()
    }
}

/// The metadata of a connection, from the start of connecting. Dropping it records that the connection was closed.
#[derive(Debug)]
pub(super) struct ConnectionMeta {
    pub(super) shared: Arc<Shared>,
    pub(super) stats: Arc<ConnectionStats>,
    /// When the connection was established; before that, when connecting began.
    pub(super) created_at: Nanos,
    pub(super) expires_at: Nanos,
    /// When the server was last known to respond: the connection was established or pinged, or bytes were received. If
    /// the protocol is not observed, a return counts too, although the holder may not have used the connection.
    pub(super) alive_at: Nanos,
    /// Whether the connection is pinged at its next checkout in any case, because its last use failed.
    pub(super) doubtful: bool,
    /// Cached statements are valid if they were prepared after this.
    pub(super) prepared_since: Nanos,
    /// Whether the server refused a write with 25006, so that it may be a standby.
    pub(super) refused_write: bool,
    /// When the connection was last found to be usable.
    pub(super) ready_at: Nanos,
    /// The reason to record if the connection is dropped now.
    pub(super) reason: CloseReason,
    /// The operation that used the connection last.
    pub(super) last_operation: OperationId,
    /// Whether the session must be reset before the next use.
    pub(super) unreset: bool,
    /// The cancel requests of the holders.
    pub(super) cancels: Arc<HolderCancels>,
    /// The activity of the task that drives the connection.
    pub(super) driver: Arc<DriverActivity>,
    /// What is left of a connection that was dropped before it was established.
    pub(super) left: Arc<LeftExecuting>,
    /// The runtime in which the connection was made, for background work on it; `None` if it does not run.
    pub(super) runtime: Option<Handle>,
    closed: OnceLock<Closed>,
}

/// How a connection was recorded as closed.
#[derive(Clone, Copy, Debug)]
struct Closed {
    reason: CloseReason,
    end: End,
}

/// When the server lets go of a closed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At once.
    Known,
    /// When it has ended what it may execute; the connection keeps its place until then.
    Awaited,
    /// The same, but the runtime that would notice does not run.
    Unknown,
}

impl ConnectionMeta {
    /// Records that the holder uses the connection in the current span; `is_exclusive` means that it is not borrowed
    /// otherwise.
    #[inline]
    pub(super) fn record_use(&self, is_exclusive: bool) {
        if self.stats.is_traced() {
            self.record_traced_use(is_exclusive);
        }
    }

    #[cold]
    fn record_traced_use(&self, is_exclusive: bool) {
        self.stats.record_traced_use(is_exclusive, || self.driver.is_settled());
    }

    /// Records that connecting began. Returns `None` if every place is taken, some by connections that are closing.
    pub(super) fn begin(shared: Arc<Shared>, operation: OperationId, at: Nanos) -> Option<Self> {
        let stats = Arc::new(ConnectionStats::new(operation, at));
        if !shared.recorder.connection_creating(&stats) {
            return None;
        }
        let cancels = Arc::new(HolderCancels::of_pooled(Arc::clone(&stats)));
        Some(Self {
            shared,
            stats,
            created_at: at,
            expires_at: Nanos::NEVER,
            alive_at: at,
            doubtful: false,
            prepared_since: at,
            refused_write: false,
            ready_at: at,
            reason: CloseReason::ConnectAbandoned,
            last_operation: operation,
            unreset: false,
            cancels,
            driver: Arc::default(),
            left: Arc::default(),
            runtime: Handle::try_current().ok(),
            closed: OnceLock::new(),
        })
    }

    /// Records that the connection was established.
    pub(super) fn established(&mut self, at: Nanos) {
        let took = at.duration_since(self.created_at);
        self.created_at = at;
        self.alive_at = at;
        self.ready_at = at;
        self.reason = CloseReason::Shutdown;
        if let Some(recycle_after) = self.shared.settings.recycle_after {
            // Up to a tenth earlier, so that connections made together do not expire together.
            let whole = nanos(recycle_after);
            self.expires_at = at.after(recycle_after - Duration::from_nanos(fastrand::u64(0..=whole / 10)));
        }
        self.shared.recorder.connection_created(&self.stats, took);
    }

    fn record_closed(&self, reason: CloseReason, outlives: bool) {
        let end = match (outlives, &self.runtime) {
            (false, _) => End::Known,
            (true, Some(_)) => End::Awaited,
            (true, None) => End::Unknown,
        };
        if self.closed.set(Closed { reason, end }).is_err() {
            return;
        }
        let ledger = self.shared.recorder.ledger();
        if end == End::Awaited {
            ledger.connection_closing(&self.stats, self.last_operation);
        } else {
            ledger.connection_closed(&self.stats, reason);
        }
    }
}

impl Drop for ConnectionMeta {
    fn drop(&mut self) {
        // Not yet recorded if connecting failed.
        if let Some(end) = self.left.take() {
            self.record_closed(self.reason, true);
            closing::await_end(self, end, self.reason);
        }
        self.record_closed(self.reason, false);
        let Some(Closed { reason, end }) = self.closed.get() else { return };
        if *end == End::Unknown {
            self.shared.recorder.close_timed_out(self.last_operation);
        }
        if *end != End::Awaited {
            self.shared.connection_gone(*reason);
        }
    }
}

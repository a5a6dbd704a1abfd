//! The interface between the pool and the connections that it holds.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use deadpool::managed::{Manager, RecycleError};

use super::connection::ConnectionMeta;
use super::release::{HolderCancels, drained};
use crate::config::Settings;
use crate::error::CheckoutError;
pub use crate::labels::ConnectFailure;
use crate::labels::{Dirt, ErrorCode};
use crate::telemetry::connection::{ConnectionStats, UnpackedState};
use crate::telemetry::ledger::Recorder;
use crate::telemetry::trace::ServerAddress;
use crate::telemetry::wire::SessionStatus;
use crate::wire::{DirtyCallback, DriverActivity, DriverTask, ProtocolObserver, StatementCaches};
#[cfg(feature = "redis")]
use crate::wire::{RespObserver, SessionState};

/// A deadpool [`Manager`] whose connections a [`Pool`](crate::Pool) can hold.
///
/// Any manager whose connections are `Send` and `Sync` qualifies: `impl Backend for MyManager {}`. The methods here
/// give the pool more information about its connections. Of the manager's own methods,
///
/// - `create` opens a connection. It goes on after its checkout has timed out or was dropped, and is dropped itself 1 s
///   after `connect_timeout`, or when the pool is closed;
/// - `recycle` is the pre-ping: it is called only if the connection was not seen alive recently, so it should make a
///   round trip to the server;
/// - `detach` is called when a connection leaves the pool, sometimes under deadpool's lock, so it should be brief. It
///   is not called when the last handle to the pool is dropped.
pub trait Backend: Manager<Type: Send + Sync, Error: Error + Send + Sync + 'static> + Send + Sync + 'static {
    /// Returns whether a connection is known to be unusable, without a query to the server. It is called at each
    /// checkout and each return, so it must be cheap and must not panic. The default is `false`.
    fn is_broken(connection: &Self::Type) -> bool {
        let _ = connection;
        false
    }

    /// Returns the code of an error, the value of the label `error_type`. The default is [`ErrorCode::OTHER`].
    fn code(error: &Self::Error) -> ErrorCode {
        let _ = error;
        ErrorCode::OTHER
    }

    /// Classifies a failure to connect. The default is [`ConnectFailure::Transient`]: every checkout that needs a
    /// connection tries to connect.
    fn connect_failure(error: &Self::Error) -> ConnectFailure {
        let _ = error;
        ConnectFailure::Transient
    }

    /// Drops the statements that a connection has cached, as they may be stale. The default does nothing.
    fn forget_statements(connection: &mut Self::Type) {
        let _ = connection;
    }

    /// Queries the server, outside any transaction, and returns whether it is read-only, as a standby is. The default
    /// is `false`.
    fn is_read_only(
        &self,
        connection: &mut Self::Type,
    ) -> impl Future<Output = Result<bool, RecycleError<Self::Error>>> + Send {
        let _ = connection;
        std::future::ready(Ok(false))
    }

    /// Returns whether there is a hook to call before each checkout. It is called when the pool is created, and must always
    /// return the same. The default is `false`.
    fn has_before_checkout(&self) -> bool {
        false
    }

    /// Calls the hook with a connection that is about to be handed out, if
    /// [`has_before_checkout`](Self::has_before_checkout). If it fails, the connection is closed, and the checkout goes on
    /// with another; if the connection was new, the checkout fails with this error. It must leave nothing on the connection
    /// that concerns its holder. If its future is dropped, the connection is closed. The default does nothing.
    fn before_checkout(&self, connection: &mut Self::Type) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = connection;
        std::future::ready(Ok(()))
    }

    /// Makes a connection whose protocol is observed. The default calls `create` and drops the observer, so that the
    /// pool does not know whether a connection executes or is in a transaction. For this crate's own backend.
    #[doc(hidden)]
    fn connect(&self, observer: Observer) -> impl Future<Output = Result<Self::Type, Self::Error>> + Send {
        drop(observer);
        self.create()
    }

    /// Rolls back the transaction that a connection was released in. The default is an error, so the pool closes the
    /// connection.
    fn rollback(
        &self,
        connection: &mut Self::Type,
    ) -> impl Future<Output = Result<(), RecycleError<Self::Error>>> + Send {
        let _ = connection;
        std::future::ready(Err(RecycleError::message("this backend has no transactions")))
    }

    /// Requests the server to cancel the running query of a connection. When the future is ready, the request must be
    /// unable to affect a later query of the connection. The default is an error, so the pool closes the connection.
    fn cancel(
        &self,
        connection: &Self::Type,
    ) -> impl Future<Output = Result<(), RecycleError<Self::Error>>> + Send + use<Self> {
        let _ = connection;
        std::future::ready(Err(RecycleError::message("this backend cannot cancel")))
    }

    /// Returns whether the server may go on executing for a connection after it is dropped. Such a connection keeps its
    /// place in the pool until [`end`](Self::end) is ready or `close_timeout` has passed. `executing` is whether the
    /// protocol observer has seen that the server executes, and the default.
    fn may_outlive_drop(connection: &Self::Type, executing: bool) -> bool {
        let _ = connection;
        executing
    }

    /// Ends the session of a connection that is dropped right after this call and may outlive that: cancels what the
    /// server executes, and is ready when the server has let go of the connection. Dropping the future gives it up. By
    /// default, the future is ready at once.
    fn end(&self, connection: &Self::Type) -> impl Future<Output = ()> + Send + 'static + use<Self> {
        let _ = connection;
        std::future::ready(())
    }

    /// Returns whether the holder of a connection has left something in its session that the next one must not inherit, so
    /// that [`reset`](Self::reset) is called when it is returned, whatever the setting `reset_session` is. It is called at
    /// each checkout and each return, so it must be cheap and must not panic. The default is `false`.
    fn needs_reset(connection: &Self::Type) -> bool {
        let _ = connection;
        false
    }

    /// Resets the session of a connection, and returns what there was to reset. The default finds nothing.
    fn reset(
        &self,
        connection: &mut Self::Type,
    ) -> impl Future<Output = Result<Vec<Dirt>, RecycleError<Self::Error>>> + Send {
        let _ = connection;
        std::future::ready(Ok(Vec::new()))
    }
}

/// Returns the error code of a failed checkout, if it has one.
pub(crate) fn error_code<M: Backend>(error: &CheckoutError<M::Error>) -> Option<ErrorCode> {
    match error {
        CheckoutError::Connect { source, .. } => Some(M::code(source)),
        CheckoutError::Unavailable { source, .. } => Some(source.code),
        CheckoutError::Timeout(_) => Some(ErrorCode::TIMEOUT),
        CheckoutError::Closed { .. } => None,
    }
}

/// Makes the observers of a connection that [`Backend::connect`] establishes. For this crate's own backend.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Observer {
    recorder: Recorder,
    stats: Arc<ConnectionStats>,
    driver: Arc<DriverActivity>,
    observes: bool,
    records_text: bool,
    #[cfg(feature = "redis")]
    max_answer: Option<u64>,
    on_dirty: DirtyCallback,
    caches: Arc<StatementCaches>,
    cancels: Arc<HolderCancels>,
    left: Arc<LeftExecuting>,
}

/// The end of a session, as from [`Backend::end`].
pub(crate) type SessionEnd = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The end of a connection that its backend has dropped before it was established, while the server executed for it.
#[derive(Default)]
pub(super) struct LeftExecuting(Mutex<Option<SessionEnd>>);

impl LeftExecuting {
    pub(super) fn take(&self) -> Option<SessionEnd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for LeftExecuting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeftExecuting")
    }
}

impl Observer {
    pub(super) fn new(
        recorder: Recorder,
        meta: &ConnectionMeta,
        settings: &Settings,
        on_dirty: DirtyCallback,
        caches: StatementCaches,
    ) -> Self {
        let (stats, driver) = (Arc::clone(&meta.stats), Arc::clone(&meta.driver));
        let (cancels, left) = (Arc::clone(&meta.cancels), Arc::clone(&meta.left));
        let Settings { read_wire: observes, trace_query_text: records_text, .. } = *settings;
        #[cfg(feature = "redis")]
        let max_answer = u64::try_from(settings.max_answer_kib).ok().filter(|kib| *kib > 0);
        Self {
            recorder,
            stats,
            driver,
            observes,
            records_text,
            #[cfg(feature = "redis")]
            max_answer: max_answer.map(|kib| kib.saturating_mul(1024)),
            on_dirty,
            caches: Arc::new(caches),
            cancels,
            left,
        }
    }

    /// Returns whether the protocol is observed; see the setting `read_wire`.
    pub(crate) fn observes(&self) -> bool {
        self.observes
    }

    /// Returns an observer of PostgreSQL's protocol for a stream to `server`.
    pub(crate) fn protocol_observer(&self, server: Arc<ServerAddress>) -> Box<ProtocolObserver> {
        let (stats, ledger) = (Arc::clone(&self.stats), self.recorder.ledger());
        Box::new(ProtocolObserver::new(stats, ledger, Some(server), self.records_text, Arc::clone(&self.caches)))
    }

    /// Returns an observer of Redis's protocol for a stream to `server`, which writes to `session`.
    #[cfg(feature = "redis")]
    pub(crate) fn resp_observer(&self, server: Arc<ServerAddress>, session: Arc<SessionState>) -> Box<RespObserver> {
        let (stats, ledger) = (Arc::clone(&self.stats), self.recorder.ledger());
        Box::new(RespObserver::new(stats, ledger, Some(server), session, self.max_answer))
    }

    /// Returns a function that returns whether a caller uses the connection.
    pub(crate) fn is_held(&self) -> impl Fn() -> bool + Send + use<> {
        let stats = Arc::clone(&self.stats);
        move || UnpackedState::unpack(stats.packed_state()).is_checked_out()
    }

    /// Waits until everything that was sent has reached the wire, and returns the session's state then; `None` if it has
    /// ended.
    pub(crate) async fn settled_status(&self) -> Option<SessionStatus> {
        drained(&self.driver, &self.stats).await;
        let wire = self.stats.wire();
        (!wire.is_ended()).then(|| wire.status())
    }

    /// Returns whether the server executes a request, as far as is known.
    pub(crate) fn is_executing(&self) -> bool {
        self.stats.wire().is_executing()
    }

    /// Leaves the end of the connection to the pool, as it is dropped while the server executes: it keeps its place until
    /// then.
    pub(crate) fn leave_executing(&self, end: SessionEnd) {
        *self.left.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }

    /// Returns the cancel requests of the connection's holders.
    pub(crate) fn cancels(&self) -> &Arc<HolderCancels> {
        &self.cancels
    }

    /// Returns the caches of prepared statements, to which the connection's own is to be added.
    pub(crate) fn statement_caches(&self) -> &StatementCaches {
        &self.caches
    }

    /// Wraps the future that drives the connection, so that its activity is known.
    pub(crate) fn drive<F: Future + Unpin>(&self, connection: F) -> DriverTask<F> {
        DriverTask::new(connection, Arc::clone(&self.driver), Arc::clone(&self.stats), self.on_dirty.clone())
    }
}

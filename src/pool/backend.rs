//! What the pool needs to know of the connections it holds.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;

use deadpool::managed::{Manager, RecycleError};

use super::shared::Policy;
use super::wire::{DirtyCallback, DriverActivity, DriverTask, ProtocolObserver};
use crate::labels::{Dirt, ErrorCode};
use crate::telemetry::ledger::Recorder;
use crate::telemetry::seat::ConnectionStats;
use crate::telemetry::trace::Server;

/// A deadpool [`Manager`] whose connections can be observed.
///
/// `create` connects. `recycle` is the pre-ping: the pool calls it only when a connection was not seen alive
/// lately, so it should do a round trip to the server. `detach` is called when a connection leaves the pool, sometimes
/// under deadpool's lock, so it should be brief; not when the last handle to the pool is dropped.
///
/// Any manager whose connections are `Send` and `Sync` will do: `impl Backend for MyManager {}`. The methods here tell the accounts more.
pub trait Backend: Manager<Type: Send + Sync, Error: Error + Send + Sync + 'static> + Send + Sync + 'static {
    /// Whether the connection is known to be of no more use, without asking the server. Called at each checkout and
    /// each return, so it must be cheap, and must not panic.
    fn is_broken(connection: &Self::Type) -> bool {
        let _ = connection;
        false
    }

    /// What an error says in the `sqlstate` label.
    fn code(error: &Self::Error) -> ErrorCode {
        let _ = error;
        ErrorCode::OTHER
    }

    /// Classifies a failure to connect. The default is [`ConnectFailure::Transient`]: every checkout that needs a
    /// connection tries for itself.
    fn connect_failure(error: &Self::Error) -> ConnectFailure {
        let _ = error;
        ConnectFailure::Transient
    }

    /// Classifies a connect that was dropped after a second or more, because its checkout ended. The default is
    /// [`ConnectFailure::Transient`].
    fn abandoned_connect() -> ConnectFailure {
        ConnectFailure::Transient
    }

    /// Forgets what the connection has cached of statements, since they are not what they were any more.
    fn forget_statements(connection: &mut Self::Type) {
        let _ = connection;
    }

    /// Asks whether the server takes no writes on this connection, outside any transaction: whether it is a standby, or
    /// became one. By default it is none.
    fn is_read_only(
        &self,
        connection: &mut Self::Type,
    ) -> impl Future<Output = Result<bool, RecycleError<Self::Error>>> + Send {
        let _ = connection;
        std::future::ready(Ok(false))
    }

    /// Connects, with an observer for what passes on the wire. Without one of its own a backend connects as `create`
    /// does, and nothing is known of its connections' wires.
    fn connect(&self, observer: Observer) -> impl Future<Output = Result<Self::Type, Self::Error>> + Send {
        drop(observer);
        self.create()
    }

    /// Ends the transaction that a connection came back in.
    fn rollback(
        &self,
        connection: &mut Self::Type,
    ) -> impl Future<Output = Result<(), RecycleError<Self::Error>>> + Send {
        let _ = connection;
        std::future::ready(Err(RecycleError::message("this backend has no transactions")))
    }

    /// Has the server give up what it is doing for the connection. When this is done nothing may be on its way any
    /// more that could hit what the connection does next.
    fn cancel(
        &self,
        connection: &Self::Type,
    ) -> impl Future<Output = Result<(), RecycleError<Self::Error>>> + Send + use<Self> {
        let _ = connection;
        std::future::ready(Err(RecycleError::message("this backend cannot cancel")))
    }

    /// Undoes what a session was left with; answers what that was. By default there is nothing to undo.
    fn reset(
        &self,
        connection: &mut Self::Type,
    ) -> impl Future<Output = Result<Vec<Dirt>, RecycleError<Self::Error>>> + Send {
        let _ = connection;
        std::future::ready(Ok(Vec::new()))
    }
}

/// What a failure to connect says about the next attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// Nothing.
    Transient,
    /// They fail as well, for a while.
    ServerDown,
    /// They fail until a connection to the server is closed, by this pool or another client.
    TooManyConnections,
}

/// Keeps the account of a connection's wire: given to [`Backend::connect`], for whoever can show it what passes.
#[derive(Clone, Debug)]
pub struct Observer {
    recorder: Recorder,
    stats: Arc<ConnectionStats>,
    driver: Arc<DriverActivity>,
    reads: bool,
    has_texts: bool,
    on_dirty: DirtyCallback,
}

impl Observer {
    pub(super) fn new(
        recorder: Recorder,
        stats: Arc<ConnectionStats>,
        driver: Arc<DriverActivity>,
        policy: &Policy,
        on_dirty: DirtyCallback,
    ) -> Self {
        let Policy { read_wire: reads, trace_query_text: has_texts, .. } = *policy;
        Self { recorder, stats, driver, reads, has_texts, on_dirty }
    }

    /// Whether anything is to be read.
    pub(crate) fn reads(&self) -> bool {
        self.reads
    }

    /// What reads along on a stream that leads to `server`.
    pub(crate) fn protocol_observer(&self, server: Arc<Server>) -> Box<ProtocolObserver> {
        Box::new(ProtocolObserver::new(Arc::clone(&self.stats), self.recorder.ledger(), Some(server), self.has_texts))
    }

    /// The future that drives the connection, so that it is known when it has run.
    pub(crate) fn drive<F: Future + Unpin>(&self, connection: F) -> DriverTask<F> {
        DriverTask::new(connection, Arc::clone(&self.driver), Arc::clone(&self.stats), self.on_dirty.clone())
    }
}

//! The manager that deadpool is given: the backend's, with everything it does observed.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};

use super::backend::{Backend, Observer};
use super::clean;
use super::context::Context;
use super::gate::{ConnectPermit, Denied};
use super::life::ConnectionMeta;
use super::shared::Shared;
use super::wire::DirtyCallback;
use crate::labels::{CloseReason, ErrorCode, ErrorPhase, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;
use crate::telemetry::seat::ConnectionStats;

/// A connection and its account. Boxed, so that handing it on moves a pointer; and aligned, so that what is written in
/// it at each return shares no cache line with another one's.
#[repr(align(128))]
pub(crate) struct PooledConnection<M: Backend> {
    // Dropped first: a connection is counted as closed when it is.
    pub(super) connection: M::Type,
    pub(super) meta: ConnectionMeta,
    pub(super) backend: Arc<M>,
}

impl<M: Backend> std::fmt::Debug for PooledConnection<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracked").field("life", &self.meta).finish_non_exhaustive()
    }
}

/// A backend under observation.
#[derive(Debug)]
pub(crate) struct InstrumentedManager<M> {
    backend: Arc<M>,
    shared: Arc<Shared>,
    /// Closes an idle connection that turned out to be dirty.
    sweep: OnceLock<Sweep>,
}

/// Closes the connection of this seat, should it be idle and dirty.
#[derive(Clone)]
pub(super) struct Sweep(pub(super) Arc<Sweeping>);

type Sweeping = dyn Fn(&Arc<ConnectionStats>) + Send + Sync;

impl std::fmt::Debug for Sweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sweep")
    }
}

/// Why deadpool gets no connection from its manager.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManagerError<E: std::error::Error + 'static> {
    #[error(transparent)]
    Failed(E),
    #[error("connecting is left to others")]
    // Boxed, so that what hardly ever happens does not make the answer to each checkout large.
    Denied(Box<Denied>),
}

#[derive(Debug, thiserror::Error)]
#[error("no answer to the ping within {0:?}")]
struct PingTimeout(Duration);

impl<M: Backend> InstrumentedManager<M> {
    pub(super) fn new(backend: M, shared: Arc<Shared>) -> Self {
        Self { backend: Arc::new(backend), shared, sweep: OnceLock::new() }
    }

    /// Says how; once, as the pool that this is the manager of exists only then.
    pub(super) fn sweep_by(&self, sweep: Sweep) {
        let _ = self.sweep.set(sweep);
    }

    pub(super) fn backend(&self) -> &M {
        &self.backend
    }

    async fn connect(&self, pass: ConnectPermit<'_>) -> Result<Box<PooledConnection<M>>, ManagerError<M::Error>> {
        let recorder = &self.shared.recorder;
        Context::current_waits_for(recorder, Phase::Connect);
        let operation = Context::current().map_or(OperationId::OTHER, |context| context.operation);
        let started = recorder.now();
        // From here on the connection lives, and is accounted for if this future is dropped.
        let mut meta = ConnectionMeta::begin(Arc::clone(&self.shared), operation, started);
        let (stats, driver) = (Arc::clone(&meta.stats), Arc::clone(&meta.driver));
        let found = {
            let (sweep, stats) = (self.sweep.get().cloned(), Arc::downgrade(&stats));
            // Called by the connection's task, so within its runtime.
            DirtyCallback(Arc::new(move || {
                let (sweep, stats) = (sweep.clone(), Weak::clone(&stats));
                drop(tokio::spawn(async move {
                    tokio::time::sleep(clean::GRACE).await;
                    if let (Some(Sweep(sweep)), Some(stats)) = (sweep, stats.upgrade()) {
                        sweep(&stats);
                    }
                }));
            }))
        };
        let observer = Observer::new(recorder.clone(), stats, driver, &self.shared.policy, found);
        match self.backend.connect(observer).await {
            Ok(connection) => {
                meta.established(recorder.now());
                pass.succeeded();
                Ok(Box::new(PooledConnection { connection, meta, backend: Arc::clone(&self.backend) }))
            }
            Err(error) => {
                meta.reason = CloseReason::ConnectFailed;
                let code = M::code(&error);
                recorder.connection_error(ErrorPhase::Connect, code, &error);
                // No more than the others may come back.
                drop(meta);
                match pass.failed(M::connect_failure(&error), code, &error, || self.any_out()) {
                    Some(turn) => Err(ManagerError::Denied(Box::new(Denied::RetryAt(turn)))),
                    None => Err(ManagerError::Failed(error)),
                }
            }
        }
    }

    /// Whether there are connections that somebody may return.
    fn any_out(&self) -> bool {
        let status = self.shared.recorder.ledger().status();
        status.used + status.idle > 0
    }

    /// Why a connection cannot be handed out, as far as can be told without asking the server.
    #[inline]
    fn unfit(&self, pooled: &PooledConnection<M>, now: Nanos) -> Option<CloseReason> {
        if pooled.meta.created_at < self.shared.invalid_before() {
            Some(CloseReason::Invalidated)
        } else if pooled.meta.expires_at <= now && !self.shared.gate.is_suspended() {
            // While no other can be made, an old one is better than none.
            Some(CloseReason::Recycled)
        } else if pooled.meta.stats.wire().is_ended() || M::is_broken(&pooled.connection) {
            Some(CloseReason::Broken)
        } else {
            None
        }
    }

    async fn ping(&self, pooled: &mut PooledConnection<M>, metrics: &Metrics) -> RecycleResult<ManagerError<M::Error>> {
        let recorder = &self.shared.recorder;
        Context::current_waits_for(recorder, Phase::Ping);
        let operation = Context::current().map_or(OperationId::OTHER, |context| context.operation);
        let asked = recorder.now();
        recorder.maintenance_started(&pooled.meta.stats, operation, asked);

        pooled.meta.reason = CloseReason::PingAbandoned;
        let limit = self.shared.policy.ping_timeout;
        let answer = tokio::time::timeout(limit, self.backend.recycle(&mut pooled.connection, metrics)).await;
        let at = recorder.now();
        recorder.maintenance_finished(&pooled.meta.stats, operation, asked, at);
        let error: &dyn std::error::Error = match &answer {
            Ok(Ok(())) => {
                pooled.meta.reason = CloseReason::Shutdown;
                (pooled.meta.alive_at, pooled.meta.ready_at) = (at, at);
                pooled.meta.doubtful = false;
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_) => &PingTimeout(limit),
        };
        let code = match &answer {
            Ok(Err(RecycleError::Backend(error))) => M::code(error),
            Ok(_) => ErrorCode::OTHER,
            Err(_) => ErrorCode::TIMEOUT,
        };
        recorder.connection_error(ErrorPhase::Ping, code, error);
        pooled.meta.reason = CloseReason::PingFailed;
        // Whatever cut this one off probably cut off all that were there when it was asked: do not find out one by one.
        self.shared.invalidate_before(asked);
        Err(RecycleError::message("no answer to the ping"))
    }
}

impl<M: Backend> Manager for InstrumentedManager<M> {
    type Type = Box<PooledConnection<M>>;
    type Error = ManagerError<M::Error>;

    async fn create(&self) -> Result<Self::Type, Self::Error> {
        let (gate, recorder) = (&self.shared.gate, &self.shared.recorder);
        let pass = gate
            .admit(recorder, M::abandoned_connect(), || self.any_out())
            .map_err(|shut| ManagerError::Denied(Box::new(shut)))?;
        // Boxed, here and below, so that the future of a checkout that needs neither stays small.
        let connecting: std::pin::Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(self.connect(pass));
        connecting.await
    }

    async fn recycle(&self, pooled: &mut Self::Type, metrics: &Metrics) -> RecycleResult<Self::Error> {
        let mut now = match Context::current() {
            Some(context) => context.now(&self.shared.recorder),
            None => self.shared.recorder.now(),
        };
        if let Some(reason) = self.unfit(pooled, now) {
            pooled.meta.reason = reason;
            return Err(RecycleError::message(reason.as_str()));
        }
        if !pooled.meta.is_settled() {
            Context::current_waits_for(&self.shared.recorder, Phase::Clean);
            let settling: std::pin::Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(clean::settle(pooled));
            if let Err(reason) = settling.await {
                pooled.meta.reason = reason;
                return Err(RecycleError::message(reason.as_str()));
            }
            // From then on it is the next one's.
            now = pooled.meta.ready_at;
        }
        if pooled.meta.prepared_since < self.shared.stale_before() {
            M::forget_statements(&mut pooled.connection);
            pooled.meta.prepared_since = now;
        }
        let meta = &pooled.meta;
        let unsure = meta.doubtful || now.since(meta.alive_at) >= self.shared.policy.pre_ping_idle;
        if self.shared.policy.pre_ping && unsure {
            let pinging: std::pin::Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(self.ping(pooled, metrics));
            return pinging.await;
        }
        pooled.meta.ready_at = now;
        Ok(())
    }

    fn detach(&self, pooled: &mut Self::Type) {
        self.backend.detach(&mut pooled.connection);
    }
}

//! The manager that deadpool calls for a place, and to check a connection before it is handed out.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};

use super::super::backend::{Backend, Observer};
use super::super::checkout::context::Context;
use super::super::release::{CANCEL_DELAY, reset};
use super::super::shared::Shared;
use super::hook::call_before_checkout;
use super::places::Places;
use super::{ConnectionMeta, PooledConnection, Slot};
use crate::labels::{CloseReason, ConnectionState, ErrorCode, ErrorPhase, Phase};
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::operations::OperationId;
use crate::wire::{DirtyCallback, StatementCaches};

/// A backend whose connects and pings are recorded.
#[derive(Debug)]
pub(crate) struct InstrumentedManager<M: Backend> {
    backend: Arc<M>,
    shared: Arc<Shared>,
    places: Places<M>,
    sweep: OnceLock<Sweep>,
}

/// Closes the connection with these statistics if it is idle and dirty.
#[derive(Clone)]
struct Sweep(Arc<SweepFn>);

type SweepFn = dyn Fn(&Arc<ConnectionStats>) + Send + Sync;

impl fmt::Debug for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sweep")
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no answer to the ping within {0:?}")]
struct PingTimeout(Duration);

/// The future of a rare step, boxed so that the futures of all checkouts stay small.
type Rare<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl<M: Backend> InstrumentedManager<M> {
    pub(in crate::pool) fn new(backend: M, shared: Arc<Shared>) -> Self {
        let places = Places::new(shared.recorder.ledger().limits().max());
        Self { backend: Arc::new(backend), shared, places, sweep: OnceLock::new() }
    }

    /// Sets how dirty connections are swept from the pool, which exists only after its manager.
    pub(in crate::pool) fn set_sweep(&self, sweep: impl Fn(&Arc<ConnectionStats>) + Send + Sync + 'static) {
        let _ = self.sweep.set(Sweep(Arc::new(sweep)));
    }

    pub(in crate::pool) fn backend(&self) -> &M {
        &self.backend
    }

    pub(super) fn shared_backend(&self) -> Arc<M> {
        Arc::clone(&self.backend)
    }

    #[inline]
    pub(in crate::pool) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(in crate::pool) fn places(&self) -> &Places<M> {
        &self.places
    }

    pub(super) fn observer(&self, meta: &ConnectionMeta) -> Observer {
        let (sweep, stats) = (self.sweep.get().cloned(), Arc::downgrade(&meta.stats));
        // Called by the connection's task, so within its runtime.
        let on_dirty = DirtyCallback(Arc::new(move || {
            let (sweep, stats) = (sweep.clone(), Weak::clone(&stats));
            drop(tokio::spawn(async move {
                tokio::time::sleep(CANCEL_DELAY).await;
                if let (Some(Sweep(sweep)), Some(stats)) = (sweep, stats.upgrade()) {
                    sweep(&stats);
                }
            }));
        }));
        let shared = Arc::downgrade(&self.shared);
        let caches = StatementCaches::new(self.shared.settings.cache_statements, move |at| {
            if let Some(shared) = shared.upgrade() {
                shared.forget_statements_before(at);
            }
        });
        let Shared { recorder, settings, .. } = &*self.shared;
        Observer::new(recorder.clone(), meta, settings, on_dirty, caches)
    }

    /// Returns why a connection may not be handed out, as far as this is known without a query to the server.
    #[inline]
    fn unfit(&self, pooled: &PooledConnection<M>, now: Nanos) -> Option<CloseReason> {
        let PooledConnection { connection, meta, .. } = pooled;
        if meta.created_at < self.shared.invalid_before() {
            Some(CloseReason::Invalidated)
        } else if meta.expires_at <= now && !self.shared.gate.is_suspended() {
            // While no other connection can be made, an expired one is better than none.
            Some(CloseReason::Recycled)
        } else if meta.stats.wire().is_ended() || M::is_broken(connection) {
            Some(CloseReason::Broken)
        } else {
            None
        }
    }

    /// Pings a connection, if it was not seen alive recently, and calls the hook with it, if there is one.
    async fn check(
        &self,
        pooled: &mut PooledConnection<M>,
        now: Nanos,
        metrics: &Metrics,
    ) -> RecycleResult<Infallible> {
        let (meta, settings) = (&mut pooled.meta, &self.shared.settings);
        let unseen = meta.doubtful || now.since(meta.alive_at) >= nanos(settings.pre_ping_idle);
        if settings.pre_ping && unseen {
            self.ping(pooled, metrics).await?;
        } else {
            meta.ready_at = now;
        }
        if self.backend.has_before_checkout() {
            Context::enter_phase(&self.shared.recorder, Phase::Hook);
            offer(&pooled.meta);
            let operation = Context::current().map_or(OperationId::OTHER, |context| context.operation);
            if call_before_checkout(pooled, operation).await.is_err() {
                return Err(RecycleError::message("the hook before_checkout failed"));
            }
        }
        Ok(())
    }

    async fn ping(&self, pooled: &mut PooledConnection<M>, metrics: &Metrics) -> RecycleResult<Infallible> {
        let recorder = &self.shared.recorder;
        Context::enter_phase(recorder, Phase::Ping);
        let operation = Context::current().map_or(OperationId::OTHER, |context| context.operation);
        let PooledConnection { connection, meta, .. } = pooled;
        offer(meta);
        let began = recorder.now();
        recorder.maintenance_started(&meta.stats, operation, began);

        meta.reason = CloseReason::PingAbandoned;
        let limit = self.shared.settings.ping_timeout;
        let result = tokio::time::timeout(limit, self.backend.recycle(connection, metrics)).await;
        let at = recorder.now();
        recorder.maintenance_finished(&meta.stats, operation, began, at);
        let error: &(dyn Error + 'static) = match &result {
            Ok(Ok(())) => {
                meta.reason = CloseReason::Shutdown;
                (meta.alive_at, meta.ready_at) = (at, at);
                meta.doubtful = false;
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_) => &PingTimeout(limit),
        };
        let code = match &result {
            Ok(Err(RecycleError::Backend(error))) => M::code(error),
            Ok(_) => ErrorCode::OTHER,
            Err(_) => ErrorCode::TIMEOUT,
        };
        recorder.connection_error(ErrorPhase::Ping, code, error);
        meta.reason = CloseReason::PingFailed;
        // The cause probably concerns every connection that was made before the ping: they are not pinged one by one.
        self.shared.invalidate_before(began);
        Err(RecycleError::message("the ping failed"))
    }
}

/// Records that the current checkout was offered a connection that is pinged or reset first.
fn offer(meta: &ConnectionMeta) {
    let state = meta.stats.state();
    if state.label == ConnectionState::Idle {
        Context::offer(state.since);
    }
}

/// Returns whether all requests of a connection have reached the network, and the next holder may use it without a
/// reset.
#[inline]
fn is_settled<M: Backend>(PooledConnection { connection, meta, .. }: &PooledConnection<M>) -> bool {
    meta.driver.is_settled()
        && meta.stats.wire().status().is_clean()
        && !meta.unreset
        && !meta.refused_write
        && !M::needs_reset(connection)
}

impl<M: Backend> Manager for InstrumentedManager<M> {
    type Type = Slot<M>;
    type Error = Infallible;

    /// Returns a vacant slot: the checkout connects.
    async fn create(&self) -> Result<Slot<M>, Infallible> {
        Ok(Slot::VACANT)
    }

    async fn recycle(&self, slot: &mut Slot<M>, metrics: &Metrics) -> RecycleResult<Infallible> {
        let pooled = &mut **slot;
        let mut now = match Context::current() {
            Some(context) => context.now(&self.shared.recorder),
            None => self.shared.recorder.now(),
        };
        if let Some(reason) = self.unfit(pooled, now) {
            pooled.meta.reason = reason;
            return Err(RecycleError::message(reason.as_str()));
        }
        if !is_settled(pooled) {
            Context::enter_phase(&self.shared.recorder, Phase::Clean);
            offer(&pooled.meta);
            let settling: Rare<'_, _> = Box::pin(reset::settle(pooled));
            if let Err(reason) = settling.await {
                pooled.meta.reason = reason;
                return Err(RecycleError::message(reason.as_str()));
            }
            // The next holder's time begins here.
            now = pooled.meta.ready_at;
        }
        if pooled.meta.prepared_since < self.shared.stale_before() {
            M::forget_statements(&mut pooled.connection);
            pooled.meta.prepared_since = now;
        }
        let (meta, hot) = (&pooled.meta, &self.shared.hot);
        if hot.checks && (meta.doubtful || now.since(meta.alive_at) >= hot.check_idle) {
            let checking: Rare<'_, _> = Box::pin(self.check(pooled, now, metrics));
            return checking.await;
        }
        pooled.meta.ready_at = now;
        Ok(())
    }

    fn detach(&self, slot: &mut Slot<M>) {
        if !slot.is_vacant() {
            self.backend.detach(&mut slot.connection);
        }
    }
}

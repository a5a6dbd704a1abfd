//! The manager that deadpool is given: the backend's, with everything it does observed.

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};

use super::backend::Backend;
use super::context::Context;
use super::life::Life;
use super::shared::Shared;
use crate::event::{CloseReason, ErrorCode, ErrorPhase, Event, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;

/// A connection and its account. Boxed, so that handing it on moves a pointer.
pub(crate) struct Tracked<T> {
    // Dropped first: a connection is counted as closed when it is.
    pub(super) connection: T,
    pub(super) life: Life,
}

impl<T> std::fmt::Debug for Tracked<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracked").field("life", &self.life).finish_non_exhaustive()
    }
}

/// A backend under observation.
#[derive(Debug)]
pub(crate) struct Observed<M> {
    backend: M,
    shared: Arc<Shared>,
}

#[derive(Debug, thiserror::Error)]
#[error("no answer to the ping within {0:?}")]
struct PingTimeout(Duration);

impl<M: Backend> Observed<M> {
    pub(super) fn new(backend: M, shared: Arc<Shared>) -> Self {
        Self { backend, shared }
    }

    pub(super) fn backend(&self) -> &M {
        &self.backend
    }

    async fn connect(&self) -> Result<Box<Tracked<M::Type>>, M::Error> {
        let watchers = &self.shared.watchers;
        Context::current_waits_for(watchers, Phase::Connect);
        let operation = Context::current().map_or(OperationId::OTHER, |context| context.operation);
        let started = watchers.now();
        // From here on the connection lives, and is accounted for if this future is dropped.
        let mut life = Life::begin(Arc::clone(&self.shared), operation, started);
        match self.backend.create().await {
            Ok(connection) => {
                life.established(watchers.now());
                Ok(Box::new(Tracked { connection, life }))
            }
            Err(error) => {
                life.reason = CloseReason::ConnectFailed;
                watchers.emit(Event::ConnectionError {
                    phase: ErrorPhase::Connect,
                    code: M::code(&error),
                    error: &error,
                });
                Err(error)
            }
        }
    }

    /// Why a connection cannot be handed out, as far as can be told without asking the server.
    #[inline]
    fn unfit(&self, tracked: &Tracked<M::Type>, now: Nanos) -> Option<CloseReason> {
        if tracked.life.created_at < self.shared.invalid_before() {
            Some(CloseReason::Invalidated)
        } else if tracked.life.expires_at <= now {
            Some(CloseReason::Recycled)
        } else if M::is_broken(&tracked.connection) {
            Some(CloseReason::Broken)
        } else {
            None
        }
    }

    async fn ping(&self, tracked: &mut Tracked<M::Type>, metrics: &Metrics) -> RecycleResult<M::Error> {
        let watchers = &self.shared.watchers;
        Context::current_waits_for(watchers, Phase::Ping);
        let operation = Context::current().map_or(OperationId::OTHER, |context| context.operation);
        let asked = watchers.now();
        watchers.emit(Event::PingStarted { seat: &tracked.life.seat, operation, at: asked });

        tracked.life.reason = CloseReason::PingAbandoned;
        let limit = self.shared.policy.ping_timeout;
        let answer = tokio::time::timeout(limit, self.backend.recycle(&mut tracked.connection, metrics)).await;
        let error: &dyn std::error::Error = match &answer {
            Ok(Ok(())) => {
                tracked.life.reason = CloseReason::Shutdown;
                let at = watchers.now();
                (tracked.life.alive_at, tracked.life.ready_at) = (at, at);
                tracked.life.doubtful = false;
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
        watchers.emit(Event::ConnectionError { phase: ErrorPhase::Ping, code, error });
        tracked.life.reason = CloseReason::PingFailed;
        // Whatever cut this one off probably cut off all that were there when it was asked: do not find out one by one.
        self.shared.invalidate_before(asked);
        answer.unwrap_or_else(|_| Err(RecycleError::message("no answer to the ping in time")))
    }
}

impl<M: Backend> Manager for Observed<M> {
    type Type = Box<Tracked<M::Type>>;
    type Error = M::Error;

    async fn create(&self) -> Result<Self::Type, Self::Error> {
        // Boxed, here and below, so that the future of a checkout that needs neither stays small.
        let connecting: std::pin::Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(self.connect());
        connecting.await
    }

    async fn recycle(&self, tracked: &mut Self::Type, metrics: &Metrics) -> RecycleResult<Self::Error> {
        let now = match Context::current() {
            Some(context) => context.now(&self.shared.watchers),
            None => self.shared.watchers.now(),
        };
        if let Some(reason) = self.unfit(tracked, now) {
            tracked.life.reason = reason;
            return Err(RecycleError::message(reason.as_str()));
        }
        let life = &tracked.life;
        let unsure = life.doubtful || now.since(life.alive_at) >= self.shared.policy.pre_ping_idle;
        if self.shared.policy.pre_ping && unsure {
            let pinging: std::pin::Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(self.ping(tracked, metrics));
            return pinging.await;
        }
        tracked.life.ready_at = now;
        Ok(())
    }

    fn detach(&self, tracked: &mut Self::Type) {
        self.backend.detach(&mut tracked.connection);
    }
}

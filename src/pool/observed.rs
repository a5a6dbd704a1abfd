//! The manager that deadpool is given: the backend's, with everything it does observed.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};

use super::backend::{Backend, Observer};
use super::clean;
use super::context::Context;
use super::gate::{Pass, Shut};
use super::life::Life;
use super::shared::Shared;
use super::wire::Found;
use crate::event::{CloseReason, ErrorCode, ErrorPhase, Event, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;
use crate::telemetry::seat::Seat;

/// A connection and its account. Boxed, so that handing it on moves a pointer; and aligned, so that what is written in
/// it at each return shares no cache line with another one's.
#[repr(align(128))]
pub(crate) struct Tracked<M: Backend> {
    // Dropped first: a connection is counted as closed when it is.
    pub(super) connection: M::Type,
    pub(super) life: Life,
    pub(super) backend: Arc<M>,
}

impl<M: Backend> std::fmt::Debug for Tracked<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracked").field("life", &self.life).finish_non_exhaustive()
    }
}

/// A backend under observation.
#[derive(Debug)]
pub(crate) struct Observed<M> {
    backend: Arc<M>,
    shared: Arc<Shared>,
    /// Closes an idle connection that turned out to be dirty.
    sweep: OnceLock<Sweep>,
}

/// Closes the connection of this seat, should it be idle and dirty.
#[derive(Clone)]
pub(super) struct Sweep(pub(super) Arc<Sweeping>);

type Sweeping = dyn Fn(&Arc<Seat>) + Send + Sync;

impl std::fmt::Debug for Sweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sweep")
    }
}

/// Why deadpool gets no connection from its manager.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Obstacle<E: std::error::Error + 'static> {
    #[error(transparent)]
    Failed(E),
    #[error("connecting is left to others")]
    // Boxed, so that what hardly ever happens does not make the answer to each checkout large.
    Shut(Box<Shut>),
}

#[derive(Debug, thiserror::Error)]
#[error("no answer to the ping within {0:?}")]
struct PingTimeout(Duration);

impl<M: Backend> Observed<M> {
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

    async fn connect(&self, pass: Pass<'_>) -> Result<Box<Tracked<M>>, Obstacle<M::Error>> {
        let watchers = &self.shared.watchers;
        Context::current_waits_for(watchers, Phase::Connect);
        let operation = Context::current().map_or(OperationId::OTHER, |context| context.operation);
        let started = watchers.now();
        // From here on the connection lives, and is accounted for if this future is dropped.
        let mut life = Life::begin(Arc::clone(&self.shared), operation, started);
        let (seat, pulse) = (Arc::clone(&life.seat), Arc::clone(&life.pulse));
        let found = {
            let (sweep, seat) = (self.sweep.get().cloned(), Arc::downgrade(&seat));
            // Called by the connection's task, so within its runtime.
            Found(Arc::new(move || {
                let (sweep, seat) = (sweep.clone(), Weak::clone(&seat));
                drop(tokio::spawn(async move {
                    tokio::time::sleep(clean::GRACE).await;
                    if let (Some(Sweep(sweep)), Some(seat)) = (sweep, seat.upgrade()) {
                        sweep(&seat);
                    }
                }));
            }))
        };
        let observer = Observer::new(watchers.clone(), seat, pulse, &self.shared.policy, found);
        match self.backend.connect(observer).await {
            Ok(connection) => {
                life.established(watchers.now());
                pass.succeeded();
                Ok(Box::new(Tracked { connection, life, backend: Arc::clone(&self.backend) }))
            }
            Err(error) => {
                life.reason = CloseReason::ConnectFailed;
                let code = M::code(&error);
                watchers.emit(Event::ConnectionError { phase: ErrorPhase::Connect, code, error: &error });
                // No more than the others may come back.
                drop(life);
                match pass.failed(M::refusal(&error), code, &error, || self.any_out()) {
                    Some(turn) => Err(Obstacle::Shut(Box::new(Shut::Turn(turn)))),
                    None => Err(Obstacle::Failed(error)),
                }
            }
        }
    }

    /// Whether there are connections that somebody may return.
    fn any_out(&self) -> bool {
        let status = self.shared.watchers.ledger().status();
        status.used + status.idle > 0
    }

    /// Why a connection cannot be handed out, as far as can be told without asking the server.
    #[inline]
    fn unfit(&self, tracked: &Tracked<M>, now: Nanos) -> Option<CloseReason> {
        if tracked.life.created_at < self.shared.invalid_before() {
            Some(CloseReason::Invalidated)
        } else if tracked.life.expires_at <= now && !self.shared.gate.is_shut() {
            // While no other can be made, an old one is better than none.
            Some(CloseReason::Recycled)
        } else if tracked.life.seat.wire().is_ended() || M::is_broken(&tracked.connection) {
            Some(CloseReason::Broken)
        } else {
            None
        }
    }

    async fn ping(&self, tracked: &mut Tracked<M>, metrics: &Metrics) -> RecycleResult<Obstacle<M::Error>> {
        let watchers = &self.shared.watchers;
        Context::current_waits_for(watchers, Phase::Ping);
        let operation = Context::current().map_or(OperationId::OTHER, |context| context.operation);
        let asked = watchers.now();
        watchers.emit(Event::TendingStarted { seat: &tracked.life.seat, operation, at: asked });

        tracked.life.reason = CloseReason::PingAbandoned;
        let limit = self.shared.policy.ping_timeout;
        let answer = tokio::time::timeout(limit, self.backend.recycle(&mut tracked.connection, metrics)).await;
        let at = watchers.now();
        watchers.emit(Event::TendingFinished { seat: &tracked.life.seat, operation, since: asked, at });
        let error: &dyn std::error::Error = match &answer {
            Ok(Ok(())) => {
                tracked.life.reason = CloseReason::Shutdown;
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
        Err(RecycleError::message("no answer to the ping"))
    }
}

impl<M: Backend> Manager for Observed<M> {
    type Type = Box<Tracked<M>>;
    type Error = Obstacle<M::Error>;

    async fn create(&self) -> Result<Self::Type, Self::Error> {
        let (gate, watchers) = (&self.shared.gate, &self.shared.watchers);
        let pass =
            gate.enter(watchers, M::given_up(), || self.any_out()).map_err(|shut| Obstacle::Shut(Box::new(shut)))?;
        // Boxed, here and below, so that the future of a checkout that needs neither stays small.
        let connecting: std::pin::Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(self.connect(pass));
        connecting.await
    }

    async fn recycle(&self, tracked: &mut Self::Type, metrics: &Metrics) -> RecycleResult<Self::Error> {
        let mut now = match Context::current() {
            Some(context) => context.now(&self.shared.watchers),
            None => self.shared.watchers.now(),
        };
        if let Some(reason) = self.unfit(tracked, now) {
            tracked.life.reason = reason;
            return Err(RecycleError::message(reason.as_str()));
        }
        if !tracked.life.is_settled() {
            Context::current_waits_for(&self.shared.watchers, Phase::Clean);
            let settling: std::pin::Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(clean::settle(tracked));
            if let Err(reason) = settling.await {
                tracked.life.reason = reason;
                return Err(RecycleError::message(reason.as_str()));
            }
            // From then on it is the next one's.
            now = tracked.life.ready_at;
        }
        if tracked.life.prepared_since < self.shared.stale_before() {
            M::forget_statements(&mut tracked.connection);
            tracked.life.prepared_since = now;
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

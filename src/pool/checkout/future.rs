//! `Pool::get`, and the future of a checkout, over deadpool's.
//!
//! If deadpool's future is ready at its first poll, the checkout touches neither a timer nor the ledger's lock.
//! Otherwise it is recorded among those in flight, starts its timer, and ends with exactly one outcome: when it is
//! ready, when the deadline passes, or when it is dropped.

use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use deadpool::managed::{Manager, PoolError, Timeouts};
use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

use super::super::backend::Backend;
use super::super::connection::{ManagerError, ObjectPool, Pooled};
use super::super::gate::{self, Denied, RetryAt, Waiting};
use super::super::pool::Pool;
use super::super::release::{Guard, after_failed_checkout, wait_for_reset};
use super::super::request::{self, Entry, RequestCheckout};
use super::super::shared::Shared;
use super::context::{Context, CurrentGuard, ResetWait, in_request_scope, task_id};
use crate::error::{CheckoutError, ConnectBackoff, TimeoutReport};
use crate::labels::{Outcome, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::{OperationId, SiteId};

/// One deadline of the pool covers the whole checkout. Each of deadpool's timeouts covers one step, starts again for
/// each stale connection, and needs a timer even if nothing waits.
static NO_TIMEOUTS: Timeouts = Timeouts { wait: None, create: None, recycle: None };

/// Acquires a connection only if there is one now. Joining deadpool's queue costs more, even if the queue is empty.
static WITHOUT_WAIT: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };

type Acquired<M> = Result<Pooled<M>, PoolError<ManagerError<<M as Manager>::Error>>>;

/// The wait for a permit of the request's route; `None` if the pool is closed.
type PermitWait = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not polled yet, so not started.
    New,
    /// Started; recorded among those in flight if it has a ticket.
    Started,
    /// Ended, and its outcome recorded.
    Ended,
}

impl<M: Backend> Pool<M> {
    /// Checks out a connection.
    ///
    /// Takes an idle connection, or makes one if the pool may have more, or waits until one is returned. Checkouts are
    /// served in the order in which they began to wait. `checkout_timeout` bounds the whole, from the first poll.
    ///
    /// The operation is named after the caller's file and line; within a request that the
    /// [`middleware`](crate::middleware) serves, after the request's method and route.
    ///
    /// # Errors
    ///
    /// Returns an error if the deadline passes, if a connection has to be made and connecting fails, or if the pool is
    /// closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the checkout with the outcome `cancelled`; its place in the queue goes to the next one.
    /// A connection that was being made or pinged for it is closed.
    #[track_caller]
    #[inline]
    pub fn get(&self) -> impl Future<Output = Result<Guard<M>, CheckoutError<M::Error>>> + Send {
        self.get_at(Location::caller())
    }

    #[inline]
    pub(crate) fn get_at(
        &self,
        call_site: &'static Location<'static>,
    ) -> impl Future<Output = Result<Guard<M>, CheckoutError<M::Error>>> + Send {
        let recorder = &self.inner.shared.recorder;
        if in_request_scope()
            && let Some(operation) = request::operation(recorder.ledger())
        {
            return self.checkout(operation, call_site, recorder.site(call_site));
        }
        let (operation, site) = recorder.operation_at(call_site);
        self.checkout(operation, call_site, site)
    }

    #[inline]
    pub(in crate::pool) fn checkout(
        &self,
        operation: OperationId,
        call_site: &'static Location<'static>,
        site: SiteId,
    ) -> impl Future<Output = Result<Guard<M>, CheckoutError<M::Error>>> + Send {
        let context =
            Context { operation, call_site, site, started: Nanos::ZERO, ticket: None, reset_wait: ResetWait::NotYet };
        Checkout::new(&self.inner.pool, context, |pool: &ObjectPool<M>, timeouts: &'static Timeouts| {
            pool.timeout_get(timeouts)
        })
    }
}

pin_project! {
    #[must_use = "futures do nothing unless they are polled"]
    struct Checkout<'a, M: Backend, A, F> {
        pool: &'a ObjectPool<M>,
        // Calls deadpool with its timeouts: first without a wait, then without a limit.
        acquire: A,
        #[pin]
        inner: Option<F>,
        #[pin]
        deadline: Option<Sleep>,
        // The wait at the gate or for a reset. Boxed, as hardly any checkout waits there.
        gate_wait: Option<Waiting>,
        // The wait for a permit of the request's route.
        permit_wait: Option<PermitWait>,
        // Whether it has waited at the gate or for a permit, so that its phase is not yet that of deadpool's queue.
        requeues: bool,
        request: Option<Box<RequestCheckout>>,
        context: Context,
        stage: Stage,
    }

    impl<M: Backend, A, F> PinnedDrop for Checkout<'_, M, A, F> {
        #[inline]
        fn drop(this: Pin<&mut Self>) {
            if this.stage == Stage::Started {
                this.cancel();
            }
        }
    }
}

impl<'a, M: Backend, A: Fn(&'a ObjectPool<M>, &'static Timeouts) -> F, F> Checkout<'a, M, A, F> {
    #[inline]
    fn new(pool: &'a ObjectPool<M>, context: Context, acquire: A) -> Self {
        // Where others queue, no connection is available now.
        let queued = pool.manager().shared().recorder.queue_hint();
        let inner = Some(acquire(pool, if queued { &NO_TIMEOUTS } else { &WITHOUT_WAIT }));
        Self {
            pool,
            acquire,
            inner,
            deadline: None,
            gate_wait: None,
            permit_wait: None,
            requeues: false,
            request: None,
            context,
            stage: Stage::New,
        }
    }
}

impl<'a, M: Backend, A: Fn(&'a ObjectPool<M>, &'static Timeouts) -> F, F: Future<Output = Acquired<M>>> Future
    for Checkout<'a, M, A, F>
{
    type Output = Result<Guard<M>, CheckoutError<M::Error>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let shared: &'a Shared = self.pool.manager().shared();
        if self.stage == Stage::New {
            let this = self.as_mut().project();
            *this.stage = Stage::Started;
            this.context.started = shared.recorder.now();
            if in_request_scope() && !self.as_mut().begin_request() {
                return Poll::Ready(Err(self.fail(Failure::Closed)));
            }
            if shared.is_gate_awaited() && self.permit_wait.is_none() {
                self.as_mut().wait_behind_others();
            }
        }
        let failure = loop {
            let mut this = self.as_mut().project();
            let Some(inner) = this.inner.as_mut().as_pin_mut() else {
                if self.stage == Stage::Ended {
                    // Polled again after it failed.
                    return Poll::Pending;
                }
                match self.as_mut().poll_waits(cx) {
                    Poll::Ready(true) => continue,
                    Poll::Ready(false) => break Failure::Closed,
                    Poll::Pending => {
                        ready!(self.as_mut().poll_deadline(cx));
                        break Failure::Timeout;
                    }
                }
            };
            let current = CurrentGuard::enter(this.context);
            let polled = inner.poll(cx);
            drop(current);
            match polled {
                Poll::Ready(Ok(object)) if !shared.is_closing() => {
                    *this.stage = Stage::Ended;
                    // An ended checkout that is not dropped keeps no place at the gate.
                    if this.gate_wait.is_some() {
                        *this.gate_wait = None;
                    }
                    return Poll::Ready(Ok(hand_out(object, *this.context, this.request)));
                }
                Poll::Ready(Ok(object)) => {
                    // The pool was closed while the connection was made.
                    drop(object);
                    break Failure::Closed;
                }
                Poll::Pending => {
                    // It queues or connects, and leaves its place at the gate to others.
                    *this.gate_wait = None;
                    if *this.requeues {
                        this.context.requeue(&shared.recorder);
                    }
                    ready!(self.as_mut().poll_deadline(cx));
                    break Failure::Timeout;
                }
                // A checkout at the gate only looks, and does not queue for the permits of others that look as well.
                Poll::Ready(Err(PoolError::Timeout(_))) if this.gate_wait.is_some() => this.inner.set(None),
                Poll::Ready(Err(PoolError::Timeout(_))) => {
                    this.inner.set(Some((this.acquire)(*this.pool, &NO_TIMEOUTS)));
                }
                Poll::Ready(Err(PoolError::Backend(ManagerError::Failed(error)))) => break Failure::Connect(error),
                Poll::Ready(Err(PoolError::Backend(ManagerError::Denied(denied)))) => match *denied {
                    Denied::RetryAt(retry) => self.as_mut().wait_at_gate(retry, cx),
                    Denied::Unavailable(backoff) => break Failure::Unavailable(backoff),
                    Denied::AwaitReset => self.as_mut().wait_for_reset(cx),
                },
                // deadpool's other errors are those of its hooks, which are not used.
                Poll::Ready(Err(_)) => break Failure::Closed,
            }
        };
        Poll::Ready(Err(self.fail(failure)))
    }
}

// Inlined into the path of each checkout: a call would move all its arguments.
#[inline(always)]
fn hand_out<M: Backend>(object: Pooled<M>, context: Context, request: &mut Option<Box<RequestCheckout>>) -> Guard<M> {
    let (stats, recorder) = (&*object.meta.stats, &object.meta.shared.recorder);
    let operation = context.operation;
    recorder.handing_out(stats, context.site, task_id());
    let at = match context.ticket {
        None => {
            recorder.checkout_served(stats, operation, context.started);
            context.started
        }
        Some(ticket) => {
            // Read in this same poll, when the connection was found fit.
            let at = object.meta.ready_at;
            recorder.finish_checkout(ticket, Some(stats), Outcome::Ok, None, at);
            at
        }
    };
    if let Some(request) = request {
        request.begin_use(stats, operation, at.since(context.started), at);
    }
    Guard::new(object, operation, at, request.take())
}

/// The waits of a checkout that is not served at once.
impl<'a, M: Backend, A: Fn(&'a ObjectPool<M>, &'static Timeouts) -> F, F> Checkout<'a, M, A, F> {
    /// Counts the checkout for the current request, if this pool serves one, and acquires a permit of its route or
    /// begins to wait for one. Returns `false` if the pool is closed.
    #[cold]
    fn begin_request(self: Pin<&mut Self>) -> bool {
        let mut this = self.project();
        let recorder = &this.pool.manager().shared().recorder;
        *this.request = request::begin_checkout(recorder.ledger(), this.context.site).map(Box::new);
        match this.request.as_mut().map_or(Entry::Admitted, |request| request.enter()) {
            Entry::Admitted => true,
            Entry::Closed => false,
            Entry::Full(permits) => {
                this.inner.set(None);
                *this.requeues = true;
                this.context.wait_for(recorder, Phase::Share);
                *this.permit_wait = Some(Box::pin(permits.wait(recorder.clone())));
                true
            }
        }
    }

    /// Joins the checkouts that wait at the gate, unless more connections are idle than those can take.
    #[cold]
    fn wait_behind_others(self: Pin<&mut Self>) {
        let mut this = self.project();
        let shared = this.pool.manager().shared();
        if !shared.is_closing()
            && let Some(retry) = shared.gate.wait_behind(shared.recorder.ledger().status().idle)
        {
            this.inner.set(None);
            *this.requeues |= retry.phase == Phase::Suspended;
            this.context.wait_for(&shared.recorder, retry.phase);
            *this.gate_wait = Some(gate::wait(Arc::clone(shared), retry));
        }
    }

    /// Waits at the gate, as the checkout may not connect now.
    #[cold]
    fn wait_at_gate(mut self: Pin<&mut Self>, retry: RetryAt, cx: &mut TaskContext<'_>) {
        let mut this = self.as_mut().project();
        let shared = this.pool.manager().shared();
        this.inner.set(None);
        *this.requeues |= retry.phase == Phase::Suspended;
        this.context.wait_for(&shared.recorder, retry.phase);
        if this.gate_wait.is_none() {
            let waiting = gate::wait(Arc::clone(shared), retry);
            self.begin_gate_wait(waiting, cx);
        }
    }

    /// Waits for a connection that is being reset, before the checkout opens one.
    #[cold]
    fn wait_for_reset(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) {
        let mut this = self.as_mut().project();
        let shared = this.pool.manager().shared();
        this.inner.set(None);
        if this.gate_wait.is_none() {
            this.context.reset_wait = ResetWait::Waiting;
            this.context.wait_for(&shared.recorder, Phase::Clean);
            let waiting = wait_for_reset(Arc::clone(shared));
            self.begin_gate_wait(waiting, cx);
        }
    }

    /// Takes a place in a line, and tries once more then, so that no wake-up in between is missed.
    fn begin_gate_wait(self: Pin<&mut Self>, mut waiting: Waiting, cx: &mut TaskContext<'_>) {
        let mut this = self.project();
        let woken = waiting.as_mut().poll(cx).is_ready();
        if !woken {
            *this.gate_wait = Some(waiting);
        }
        let timeouts = if woken { &NO_TIMEOUTS } else { &WITHOUT_WAIT };
        this.inner.set(Some((this.acquire)(*this.pool, timeouts)));
    }

    /// Polls the wait for a permit or at the gate, and calls deadpool after it. Returns `false` if the pool is closed.
    #[cold]
    fn poll_waits(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<bool> {
        let mut this = self.as_mut().project();
        if let Some(waiting) = this.permit_wait {
            let Some(permit) = ready!(waiting.as_mut().poll(cx)) else { return Poll::Ready(false) };
            *this.permit_wait = None;
            if let Some(request) = this.request {
                request.admit(permit);
            }
            // Those at the gate came before.
            if this.pool.manager().shared().is_gate_awaited() {
                self.as_mut().wait_behind_others();
                this = self.project();
                if this.gate_wait.is_some() {
                    return Poll::Ready(true);
                }
            }
        } else if let Some(waiting) = this.gate_wait {
            ready!(waiting.as_mut().poll(cx));
            *this.gate_wait = None;
            if this.context.reset_wait == ResetWait::Waiting {
                this.context.reset_wait = ResetWait::Over;
                this.context.wait_for(&this.pool.manager().shared().recorder, Phase::Queue);
            }
        } else {
            return Poll::Pending;
        }
        this.inner.set(Some((this.acquire)(*this.pool, &NO_TIMEOUTS)));
        Poll::Ready(true)
    }
}

/// The deadline of a checkout, and its end without a connection.
impl<M: Backend, A, F> Checkout<'_, M, A, F> {
    /// Records that the checkout waits, starts its timer if it does not run yet, and polls it.
    #[cold]
    fn poll_deadline(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut this = self.project();
        let shared = this.pool.manager().shared();
        if this.context.ticket.is_none() {
            this.context.wait_for(&shared.recorder, Phase::Queue);
        }
        if this.deadline.is_none() {
            // Started at the end of the first poll, which took next to no time.
            this.deadline.set(Some(sleep(shared.settings.checkout_timeout)));
        }
        this.deadline.as_pin_mut().map_or(Poll::Pending, |deadline| deadline.poll(cx))
    }

    #[cold]
    fn fail(self: Pin<&mut Self>, failure: Failure<M::Error>) -> CheckoutError<M::Error> {
        let mut this = self.project();
        // An ended checkout that is not dropped keeps no place in a queue.
        this.inner.set(None);
        (*this.gate_wait, *this.permit_wait) = (None, None);
        this.deadline.set(None);
        *this.stage = Stage::Ended;

        let shared = this.pool.manager().shared();
        let (recorder, ledger) = (&shared.recorder, shared.recorder.ledger());
        let at = recorder.now();
        let outcome = match failure {
            Failure::Timeout => Outcome::Timeout,
            Failure::Closed => Outcome::Closed,
            Failure::Connect(_) | Failure::Unavailable(_) => Outcome::Error,
        };
        let (phase, own_connection) =
            this.context.ticket.map_or((Phase::Queue, None), |ticket| ledger.wait_state(ticket));
        let code = match &failure {
            Failure::Connect(error) => Some(M::code(error)),
            Failure::Unavailable(backoff) => Some(backoff.code),
            Failure::Timeout | Failure::Closed => None,
        };
        this.context.end(recorder, outcome, code, at);
        end_request(this.request, this.context.started, at);
        after_failed_checkout(this.pool);
        let pool = ledger.name().clone();
        match failure {
            Failure::Timeout => CheckoutError::Timeout(Box::new(TimeoutReport {
                waited: at.duration_since(this.context.started),
                phase,
                usage: ledger.usage(),
                own_connection,
                backoff: shared.gate.last_failure(),
            })),
            Failure::Closed => CheckoutError::Closed { pool },
            Failure::Connect(source) => CheckoutError::Connect { pool, source },
            Failure::Unavailable(source) => CheckoutError::Unavailable { pool, source },
        }
    }

    #[cold]
    fn cancel(self: Pin<&mut Self>) {
        let mut this = self.project();
        // What it waits for is dropped first, so that it is never seen as ended and still in a queue.
        this.inner.set(None);
        (*this.gate_wait, *this.permit_wait) = (None, None);
        let recorder = &this.pool.manager().shared().recorder;
        let at = recorder.now();
        // It has no ticket if the backend panicked in its first poll.
        this.context.end(recorder, Outcome::Cancelled, None, at);
        end_request(this.request, this.context.started, at);
        after_failed_checkout(this.pool);
    }
}

/// Records for the request that its checkout ended without a connection.
#[cold]
fn end_request(request: &mut Option<Box<RequestCheckout>>, started: Nanos, at: Nanos) {
    if let Some(request) = request.take() {
        request.end_wait(at.since(started));
    }
}

/// Why a checkout ended without a connection.
enum Failure<E> {
    Timeout,
    Closed,
    Connect(E),
    Unavailable(ConnectBackoff),
}

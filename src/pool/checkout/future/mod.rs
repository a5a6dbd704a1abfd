//! `Pool::get`, and the future of a checkout, over deadpool's.
//!
//! If deadpool's future is ready at its first poll with a connection, the checkout touches neither a timer nor the
//! ledger's lock. Otherwise it is recorded among those in flight, starts its timer, and ends with exactly one outcome:
//! when it is ready, when the deadline passes, or when it is dropped.
//!
//! A checkout polls one of these at a time: deadpool's future here; the wait for a route's permit, at the gate or for a
//! reset, and the attempt to connect in [`waits`]. [`end`] is its end without a connection.

mod end;
mod late_poll;
mod waits;

use std::convert::Infallible;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use deadpool::managed::{PoolError, Timeouts};
use pin_project_lite::pin_project;

use self::end::{Deadline, Failure};
use self::waits::{Step, Waits};
use super::super::backend::Backend;
use super::super::connection::{ObjectPool, Pooled};
use super::super::pool::Pool;
use super::super::release::{Guard, ResetWait};
use super::super::request::{self, RequestCheckout};
use super::super::shared::Shared;
use super::context::{Context, CurrentGuard, in_request_scope, task_id};
use crate::error::CheckoutError;
use crate::telemetry::clock::Nanos;
use crate::telemetry::ledger::Ticket;
use crate::telemetry::operations::{OperationId, SiteId};

/// One deadline of the pool covers the whole checkout. Each of deadpool's timeouts covers one step, starts again for
/// each stale connection, and needs a timer even if nothing waits.
static NO_TIMEOUTS: Timeouts = Timeouts { wait: None, create: None, recycle: None };

/// Acquires a connection only if there is one now. Joining deadpool's queue costs more, even if the queue is empty.
static WITHOUT_WAIT: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };

type Acquired<M> = Result<Pooled<M>, PoolError<Infallible>>;

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
    /// A connection that was being made for it goes to the pool once it is established, within `connect_timeout`; one
    /// that was being pinged is closed.
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
            return self.checkout(operation, call_site, recorder.site(call_site), AtGate::Default);
        }
        let (operation, site) = recorder.operation_at(call_site);
        self.checkout(operation, call_site, site, AtGate::Default)
    }

    #[inline]
    pub(in crate::pool) fn checkout(
        &self,
        operation: OperationId,
        call_site: &'static Location<'static>,
        site: SiteId,
        at_gate: AtGate,
    ) -> impl Future<Output = Result<Guard<M>, CheckoutError<M::Error>>> + Send {
        let context = Context { operation, call_site, site, started: Nanos::ZERO, ticket: None };
        Checkout::new(&self.inner.pool, context, at_gate, |pool: &ObjectPool<M>, timeouts: &'static Timeouts| {
            pool.timeout_get(timeouts)
        })
    }
}

/// What a checkout does while connecting is suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtGate {
    /// It fails or waits, by the setting `fail_fast`.
    Default,
    /// It waits until it may connect.
    Waits,
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
        deadline: Option<Deadline>,
        // What it waits for other than deadpool's future. Boxed, as few checkouts wait for anything else.
        waits: Option<Box<Waits<M>>>,
        // Whether it has waited at the gate or for a permit, so that its phase is not yet that of deadpool's queue.
        requeues: bool,
        request: Option<Box<RequestCheckout>>,
        context: Context,
        reset_wait: ResetWait,
        at_gate: AtGate,
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
    fn new(pool: &'a ObjectPool<M>, context: Context, at_gate: AtGate, acquire: A) -> Self {
        // Where others queue, no connection is available now.
        let queued = pool.manager().shared().recorder.queue_hint();
        let inner = Some(acquire(pool, if queued { &NO_TIMEOUTS } else { &WITHOUT_WAIT }));
        Self {
            pool,
            acquire,
            inner,
            deadline: None,
            waits: None,
            requeues: false,
            request: None,
            context,
            reset_wait: ResetWait::NotYet,
            at_gate,
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
            if shared.is_gate_awaited() && self.waits.is_none() {
                self.as_mut().wait_behind_others();
            }
        }
        let failure = loop {
            let mut this = self.as_mut().project();
            let Some(inner) = this.inner.as_mut().as_pin_mut() else {
                match self.as_mut().poll_slow(cx) {
                    Step::Again => continue,
                    Step::Pending => return Poll::Pending,
                    Step::Failed(failure) => break failure,
                    Step::Ready(object) => {
                        let this = self.as_mut().project();
                        *this.stage = Stage::Ended;
                        return Poll::Ready(Ok(hand_out(object, *this.context, this.request)));
                    }
                }
            };
            let current = CurrentGuard::enter(this.context);
            let polled = inner.poll(cx);
            drop(current);
            match polled {
                Poll::Ready(Ok(object)) if object.is_vacant() => {
                    if let Some(failure) = self.as_mut().begin_connect(object, cx) {
                        break failure;
                    }
                }
                Poll::Ready(Ok(object)) if !shared.is_closing() => {
                    *this.stage = Stage::Ended;
                    // An ended checkout that is not dropped keeps no place at the gate.
                    if let Some(waits) = this.waits {
                        waits.gate = None;
                    }
                    return Poll::Ready(Ok(hand_out(object, *this.context, this.request)));
                }
                Poll::Ready(Ok(object)) => {
                    // The pool was closed while the connection was pinged.
                    drop(object);
                    break Failure::Closed;
                }
                Poll::Pending => {
                    // It queues, and leaves its place at the gate to others.
                    if let Some(waits) = this.waits {
                        waits.gate = None;
                    }
                    if *this.requeues {
                        this.context.requeue(&shared.recorder);
                    }
                    if let Some(ready) = this.context.offered() {
                        self.as_mut().note_offer(ready, cx.waker());
                    }
                    if self.as_mut().poll_deadline(cx).is_pending() {
                        return Poll::Pending;
                    }
                    break Failure::Timeout;
                }
                // A checkout at the gate only looks, and does not queue for the permits of others that look as well.
                Poll::Ready(Err(PoolError::Timeout(_))) if Waits::is_at_gate(this.waits) => this.inner.set(None),
                Poll::Ready(Err(PoolError::Timeout(_))) => {
                    this.inner.set(Some((this.acquire)(*this.pool, &NO_TIMEOUTS)));
                }
                // deadpool's other errors are those of its hooks, which are not used, and of `create`, which cannot fail.
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
    if let Some(ticket) = context.ticket {
        return hand_out_awaited(object, ticket, context, request);
    }
    let at = context.started;
    recorder.checkout_served(stats, operation, at);
    if let Some(request) = request {
        request.begin_use(stats, operation, 0, at);
    }
    Guard::new(object, operation, at, request.take())
}

/// Hands out a connection to a checkout that has waited.
#[cold]
#[inline(never)]
fn hand_out_awaited<M: Backend>(
    object: Pooled<M>,
    ticket: Ticket,
    context: Context,
    request: &mut Option<Box<RequestCheckout>>,
) -> Guard<M> {
    let (stats, recorder) = (&*object.meta.stats, &object.meta.shared.recorder);
    // Read in this same poll, when the connection was found fit.
    let at = object.meta.ready_at;
    let ended = recorder.finish_served(ticket, stats, at).map(|ended| (recorder.clone(), ended));
    if let Some(request) = request {
        request.begin_use(stats, context.operation, at.since(context.started), at);
    }
    // Before the checkout is reported: if a subscriber panics, the guard returns the connection.
    let guard = Guard::new(object, context.operation, at, request.take());
    if let Some((recorder, ended)) = ended {
        recorder.report_served(ended, at);
    }
    guard
}

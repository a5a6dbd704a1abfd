//! The future of a checkout.
//!
//! It polls deadpool's. If that is ready at once, the checkout is one event, and neither a timer nor the ledger's
//! lock was touched. Otherwise the checkout takes its place among those in flight, sets the timer, and gives the
//! place back with exactly one outcome: when it is done, when the deadline passes, or when it is dropped.

use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use deadpool::managed::{Object, PoolError, Timeouts};
use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

use super::backend::Backend;
use super::context::{Context, Scope};
use super::gate::{self, Denied, RetryAt, Waiting};
use super::guard::Guard;
use super::observed::{InstrumentedManager, ManagerError};
use super::pool::Pool;
use super::serving;
use super::task;
use super::visit::{Entry, RequestCheckout};
use crate::error::{CheckoutError, ConnectBackoff, TimeoutReport};
use crate::labels::{ErrorCode, Outcome, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::{OperationId, SiteId};

/// One deadline, ours, covers a whole checkout. deadpool's cover its steps one by one, repeat for each stale
/// connection, and cost a timer each even where nobody waits.
static NO_TIMEOUTS: Timeouts = Timeouts { wait: None, create: None, recycle: None };

/// Asks for what is there now. Joining the queue costs more, even where there is none.
static WITHOUT_WAIT: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };

type Got<M> = Result<Object<InstrumentedManager<M>>, PoolError<ManagerError<<M as deadpool::managed::Manager>::Error>>>;

/// The wait for a place among those of a route.
type Placing = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

/// How far a checkout has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not polled yet, so not begun.
    New,
    /// Begun, and counted when it has a ticket.
    Begun,
    /// Counted, with its outcome.
    Ended,
}

pin_project! {
    /// The future of a checkout, over deadpool's.
    #[must_use = "a checkout does nothing until it is polled"]
    pub(super) struct Checkout<'a, M: Backend, A, F> {
        pool: &'a Pool<M>,
        // Asks deadpool, with its timeouts: first without a wait, then without a limit.
        ask: A,
        #[pin]
        inner: Option<F>,
        #[pin]
        deadline: Option<Sleep>,
        // What it waits for while others connect; kept apart, since hardly any checkout does.
        turn: Option<Waiting>,
        // Whether it has waited for a turn, of whatever kind.
        took_turns: bool,
        // The same while its route holds its share.
        place: Option<Placing>,
        // What it is to the request that it is for, if it is for one.
        request_checkout: Option<Box<RequestCheckout>>,
        context: Context,
        stage: Stage,
    }

    impl<M: Backend, A, F> PinnedDrop for Checkout<'_, M, A, F> {
        #[inline]
        fn drop(this: Pin<&mut Self>) {
            if this.stage == Stage::Begun {
                this.cancel();
            }
        }
    }
}

impl<'a, M: Backend, A: Fn(&'static Timeouts) -> F, F> Checkout<'a, M, A, F> {
    #[inline]
    pub(super) fn new(
        pool: &'a Pool<M>,
        ask: A,
        operation: OperationId,
        call_site: &'static Location<'static>,
        site: SiteId,
    ) -> Self {
        let context = Context { operation, call_site, site, started: Nanos::ZERO, ticket: None };
        // Where others queue there is nothing to be had at once.
        let queued = pool.shared().recorder.ledger().queue_hint();
        let inner = Some(ask(if queued { &NO_TIMEOUTS } else { &WITHOUT_WAIT }));
        let (deadline, stage) = (None, Stage::New);
        Self {
            pool,
            ask,
            inner,
            deadline,
            turn: None,
            took_turns: false,
            place: None,
            request_checkout: None,
            context,
            stage,
        }
    }
}

impl<M: Backend, A, F> Checkout<'_, M, A, F> {
    #[cold]
    fn cancel(self: Pin<&mut Self>) {
        let mut this = self.project();
        // What it was waiting for is given up first, so that nobody sees it ended and still holding a place.
        this.inner.set(None);
        (*this.turn, *this.place) = (None, None);
        let recorder = &this.pool.shared().recorder;
        let (outcome, at) = (Outcome::Cancelled, recorder.now());
        // Without a ticket, the backend panicked before there was anything to wait for.
        this.context.end(recorder, outcome, None, at);
        end_visit(this.request_checkout, this.context.started, at);
        this.pool.after_failed_checkout();
    }

    /// Makes sure that the checkout is among those in flight and that its timer runs, and asks the timer.
    #[cold]
    fn wait(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut this = self.project();
        let shared = this.pool.shared();
        if this.context.ticket.is_none() {
            this.context.wait_for(&shared.recorder, Phase::Queue);
        }
        if this.deadline.is_none() {
            // The first poll ends here at the latest, so next to nothing of the time is spent.
            this.deadline.set(Some(sleep(shared.policy.checkout_timeout)));
        }
        this.deadline.as_pin_mut().map_or(Poll::Pending, |deadline| deadline.poll(cx))
    }

    /// Ends the checkout without a connection.
    #[cold]
    fn fail(self: Pin<&mut Self>, failure: Failure<M::Error>) -> CheckoutError<M::Error> {
        let mut this = self.project();
        // An ended checkout that somebody keeps holds no place in the queue.
        this.inner.set(None);
        (*this.turn, *this.place) = (None, None);
        this.deadline.set(None);
        *this.stage = Stage::Ended;
        this.pool.refuse(*this.context, failure, this.request_checkout)
    }
}

impl<M: Backend, A: Fn(&'static Timeouts) -> F, F> Checkout<'_, M, A, F> {
    /// Joins those that wait for a turn to connect, unless more connections lie idle than they can take.
    #[cold]
    fn stand_in_line(self: Pin<&mut Self>) {
        let mut this = self.project();
        let shared = this.pool.shared();
        if !shared.is_closing()
            && let Some(turn) = shared.gate.wait_behind(shared.recorder.ledger().status().idle)
        {
            this.inner.set(None);
            *this.took_turns |= turn.phase == Phase::Suspended;
            this.context.wait_for(&shared.recorder, turn.phase);
            *this.turn = Some(gate::wait(Arc::clone(this.pool.shared_handle()), turn));
        }
    }

    /// Counts it for the request that is being served, if one is. Takes a place among those of its route, if these are
    /// limited, or waits for one; answers whether it may.
    #[cold]
    fn begin_visit(self: Pin<&mut Self>) -> bool {
        let mut this = self.project();
        *this.request_checkout =
            serving::request_checkout(this.pool.shared().recorder.ledger(), this.context.site).map(Box::new);
        match this.request_checkout.as_mut().map_or(Entry::Free, |request_checkout| request_checkout.enter()) {
            Entry::Free => true,
            Entry::Closed => false,
            Entry::Full(places) => {
                this.inner.set(None);
                *this.took_turns = true;
                let recorder = &this.pool.shared().recorder;
                this.context.wait_for(recorder, Phase::Share);
                *this.place = Some(Box::pin(places.wait(recorder.clone())));
                true
            }
        }
    }

    /// Waits for a place, or for its turn, and then asks; answers whether there is anything to ask.
    #[cold]
    fn await_turn(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<bool> {
        let mut this = self.as_mut().project();
        if let Some(waiting) = this.place {
            let Some(place) = ready!(waiting.as_mut().poll(cx)) else { return Poll::Ready(false) };
            *this.place = None;
            if let Some(request_checkout) = this.request_checkout {
                request_checkout.admit(place);
            }
            // Those who wait for their turn to connect were here before.
            if this.pool.shared().gate.is_awaited() {
                self.as_mut().stand_in_line();
                this = self.project();
                if this.turn.is_some() {
                    return Poll::Ready(true);
                }
            }
        } else if let Some(turn) = this.turn {
            ready!(turn.as_mut().poll(cx));
            *this.turn = None;
        } else {
            return Poll::Pending;
        }
        this.inner.set(Some((this.ask)(&NO_TIMEOUTS)));
        Poll::Ready(true)
    }

    /// May not connect now: gets into line for a turn, if it is not in it.
    #[cold]
    fn leave_to_others(self: Pin<&mut Self>, turn: RetryAt, cx: &mut TaskContext<'_>) {
        let mut this = self.project();
        let shared = this.pool.shared();
        this.inner.set(None);
        *this.took_turns |= turn.phase == Phase::Suspended;
        this.context.wait_for(&shared.recorder, turn.phase);
        if this.turn.is_none() {
            // It asks once more when it is sure to be called, so that nothing is missed in between.
            let mut waiting = gate::wait(Arc::clone(this.pool.shared_handle()), turn);
            let called = waiting.as_mut().poll(cx).is_ready();
            if !called {
                *this.turn = Some(waiting);
            }
            this.inner.set(Some((this.ask)(if called { &NO_TIMEOUTS } else { &WITHOUT_WAIT })));
        }
    }
}

impl<M: Backend, A: Fn(&'static Timeouts) -> F, F: Future<Output = Got<M>>> Future for Checkout<'_, M, A, F> {
    type Output = Result<Guard<M>, CheckoutError<M::Error>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let pool = self.pool;
        let shared = pool.shared();
        if self.stage == Stage::New {
            let this = self.as_mut().project();
            *this.stage = Stage::Begun;
            this.context.started = shared.recorder.now();
            if serving::is_any() && !self.as_mut().begin_visit() {
                return Poll::Ready(Err(self.fail(Failure::Closed)));
            }
            if shared.gate.is_awaited() && self.place.is_none() {
                self.as_mut().stand_in_line();
            }
        }
        let failure = loop {
            let mut this = self.as_mut().project();
            let Some(inner) = this.inner.as_mut().as_pin_mut() else {
                if self.stage == Stage::Ended {
                    // It is polled again after it failed: as any other future then, it has nothing to say.
                    return Poll::Pending;
                }
                match self.as_mut().await_turn(cx) {
                    Poll::Ready(true) => continue,
                    Poll::Ready(false) => break Failure::Closed,
                    Poll::Pending => {
                        ready!(self.as_mut().wait(cx));
                        break Failure::Timeout;
                    }
                }
            };
            let scope = Scope::enter(this.context);
            let polled = inner.poll(cx);
            drop(scope);
            match polled {
                Poll::Ready(Ok(object)) if !shared.is_closing() => {
                    *this.stage = Stage::Ended;
                    // One that is kept does not stand in line.
                    if this.turn.is_some() {
                        *this.turn = None;
                    }
                    return Poll::Ready(Ok(pool.hand_out(object, *this.context, this.request_checkout)));
                }
                Poll::Ready(Ok(object)) => {
                    // It was being made while the pool was closed: nobody gets it.
                    drop(object);
                    break Failure::Closed;
                }
                Poll::Pending => {
                    // It queues or connects, and takes no other's turn.
                    *this.turn = None;
                    if *this.took_turns {
                        this.context.queues_after_its_turn(&shared.recorder);
                    }
                    ready!(self.as_mut().wait(cx));
                    break Failure::Timeout;
                }
                // Who stands in line for its turn looks, and does not queue for what those hold who look as well.
                Poll::Ready(Err(PoolError::Timeout(_))) if this.turn.is_some() => this.inner.set(None),
                Poll::Ready(Err(PoolError::Timeout(_))) => this.inner.set(Some((this.ask)(&NO_TIMEOUTS))),
                Poll::Ready(Err(PoolError::Backend(ManagerError::Failed(error)))) => break Failure::Connect(error),
                Poll::Ready(Err(PoolError::Backend(ManagerError::Denied(shut)))) => match *shut {
                    Denied::RetryAt(turn) => self.as_mut().leave_to_others(turn, cx),
                    Denied::Unavailable(backoff) => break Failure::Unavailable(backoff),
                },
                // Its timeouts and hooks are not used, so deadpool has no other reason.
                Poll::Ready(Err(_)) => break Failure::Closed,
            }
        };
        Poll::Ready(Err(self.fail(failure)))
    }
}

/// The code of what a checkout failed with, if it has one.
pub(crate) fn code_of<M: Backend>(error: &CheckoutError<M::Error>) -> Option<ErrorCode> {
    match error {
        CheckoutError::Connect { source, .. } => Some(M::code(source)),
        CheckoutError::Unavailable { source, .. } => Some(source.code),
        CheckoutError::Timeout(_) => Some(ErrorCode::TIMEOUT),
        CheckoutError::Closed { .. } => None,
    }
}

/// Ends what a checkout was to a request that got nothing by it.
#[cold]
fn end_visit(request_checkout: &mut Option<Box<RequestCheckout>>, started: Nanos, at: Nanos) {
    if let Some(request_checkout) = request_checkout.take() {
        request_checkout.end_wait(at.since(started));
    }
}

/// Why a checkout has no connection to give.
pub(super) enum Failure<E> {
    Timeout,
    Closed,
    Connect(E),
    Unavailable(ConnectBackoff),
}

impl<M: Backend> Pool<M> {
    // Once in the path of each checkout that is served: a call would move all that it is given.
    #[inline(always)]
    fn hand_out(
        &self,
        object: Object<InstrumentedManager<M>>,
        context: Context,
        request_checkout: &mut Option<Box<RequestCheckout>>,
    ) -> Guard<M> {
        let recorder = &self.shared().recorder;
        let stats = &*object.meta.stats;
        let operation = context.operation;
        recorder.handing_out(stats, context.site, task::current());
        let at = match context.ticket {
            None => {
                let at = context.started;
                recorder.checkout_served(stats, operation, at);
                at
            }
            Some(ticket) => {
                // The clock was read in this same poll, when the connection was found fit.
                let at = object.meta.ready_at;
                recorder.finish_checkout(ticket, Some(stats), Outcome::Ok, None, at);
                at
            }
        };
        if let Some(request_checkout) = request_checkout {
            request_checkout.begin_use(stats, operation, at.since(context.started), at);
        }
        Guard::new(object, operation, at, request_checkout.take())
    }

    #[cold]
    fn refuse(
        &self,
        context: Context,
        failure: Failure<M::Error>,
        request_checkout: &mut Option<Box<RequestCheckout>>,
    ) -> CheckoutError<M::Error> {
        let recorder = &self.shared().recorder;
        let at = recorder.now();
        let outcome = match failure {
            Failure::Timeout => Outcome::Timeout,
            Failure::Closed => Outcome::Closed,
            Failure::Connect(_) | Failure::Unavailable(_) => Outcome::Error,
        };
        let (phase, own) = context.ticket.map_or((Phase::Queue, None), |ticket| recorder.ledger().wait_of(ticket));
        let code = match &failure {
            Failure::Connect(error) => Some(M::code(error)),
            Failure::Unavailable(backoff) => Some(backoff.code),
            Failure::Timeout | Failure::Closed => None,
        };
        context.end(recorder, outcome, code, at);
        end_visit(request_checkout, context.started, at);
        self.after_failed_checkout();
        let ledger = recorder.ledger();
        match failure {
            Failure::Timeout => CheckoutError::Timeout(Box::new(TimeoutReport {
                waited: at.duration_since(context.started),
                phase,
                usage: ledger.usage(),
                own,
                connecting: self.shared().gate.backoff(),
            })),
            Failure::Closed => CheckoutError::Closed { pool: ledger.name().clone() },
            Failure::Connect(source) => CheckoutError::Connect { pool: ledger.name().clone(), source },
            Failure::Unavailable(source) => CheckoutError::Unavailable { pool: ledger.name().clone(), source },
        }
    }
}

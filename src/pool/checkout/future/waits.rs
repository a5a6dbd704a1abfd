//! The waits of a checkout that is not served at once: for a permit of its route, at the gate, for a reset, and for its
//! own attempt to connect.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker, ready};

use deadpool::managed::Timeouts;
use tokio::sync::OwnedSemaphorePermit;

use super::super::super::backend::Backend;
use super::super::super::connection::{Connect, Connected, ObjectPool, Place, Pooled};
use super::super::super::gate::{self, Denied, Gate, RetryAt, Waiting};
use super::super::super::release::{ResetWait, return_unused, wait_for_reset};
use super::super::super::request::{self, Entry};
use super::end::Failure;
use super::late_poll::WakeRecord;
use super::{AtGate, Checkout, NO_TIMEOUTS, Stage, WITHOUT_WAIT};
use crate::labels::Phase;

impl<'a, M: Backend, A: Fn(&'a ObjectPool<M>, &'static Timeouts) -> F, F> Checkout<'a, M, A, F> {
    /// Counts the checkout for the current request, if this pool serves one, and acquires a permit of its route or
    /// begins to wait for one. Returns `false` if the pool is closed.
    #[cold]
    pub(super) fn begin_request(self: Pin<&mut Self>) -> bool {
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
                Waits::of(this.waits).permit = Some(Box::pin(permits.wait(recorder.clone())));
                true
            }
        }
    }

    /// Joins the checkouts that wait at the gate, unless more connections are idle than those can take.
    #[cold]
    pub(super) fn wait_behind_others(self: Pin<&mut Self>) {
        let mut this = self.project();
        let shared = this.pool.manager().shared();
        if !shared.is_closing()
            && let Some(retry) = shared.gate.wait_behind(shared.recorder.ledger().connections().idle)
        {
            this.inner.set(None);
            *this.requeues |= retry.phase == Phase::Suspended;
            this.context.wait_for(&shared.recorder, retry.phase);
            Waits::of(this.waits).gate = Some(gate::wait(Arc::clone(shared), retry));
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
        if !Waits::is_at_gate(this.waits) {
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
        if !Waits::is_at_gate(this.waits) {
            *this.reset_wait = ResetWait::Waiting;
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
            Waits::of(this.waits).gate = Some(waiting);
        }
        let timeouts = if woken { &NO_TIMEOUTS } else { &WITHOUT_WAIT };
        this.inner.set(Some((this.acquire)(*this.pool, timeouts)));
    }

    /// Polls the wait for a permit or at the gate, and calls deadpool after it. Returns `false` if the pool is closed.
    #[cold]
    fn poll_waits(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<bool> {
        let mut this = self.as_mut().project();
        let waits = Waits::of(this.waits);
        if let Some(waiting) = &mut waits.permit {
            let Some(permit) = ready!(waiting.as_mut().poll(cx)) else { return Poll::Ready(false) };
            waits.permit = None;
            if let Some(request) = this.request {
                request.admit(permit);
            }
            // Those at the gate came before.
            if this.pool.manager().shared().is_gate_awaited() {
                self.as_mut().wait_behind_others();
                this = self.project();
                if Waits::is_at_gate(this.waits) {
                    return Poll::Ready(true);
                }
            }
        } else if let Some(waiting) = &mut waits.gate {
            ready!(waiting.as_mut().poll(cx));
            waits.gate = None;
            if *this.reset_wait == ResetWait::Waiting {
                *this.reset_wait = ResetWait::Over;
                this.context.wait_for(&this.pool.manager().shared().recorder, Phase::Queue);
            }
        } else {
            return Poll::Pending;
        }
        this.inner.set(Some((this.acquire)(*this.pool, &NO_TIMEOUTS)));
        Poll::Ready(true)
    }

    /// Begins to connect in a vacant place, or to wait until it may. Returns why the checkout fails instead, if it does.
    #[cold]
    pub(super) fn begin_connect(
        mut self: Pin<&mut Self>,
        vacant: Pooled<M>,
        cx: &mut TaskContext<'_>,
    ) -> Option<Failure<M::Error>> {
        let place = Place::new(vacant);
        let mut this = self.as_mut().project();
        let shared = this.pool.manager().shared();
        if shared.is_closing() {
            return Some(Failure::Closed);
        }
        if shared.resets.is_awaited(*this.reset_wait) {
            drop(place);
            self.wait_for_reset(cx);
            return None;
        }
        let looks_again = match *this.reset_wait {
            ResetWait::NotYet => Some(ResetWait::LookedAgain),
            ResetWait::Waiting => {
                // It has ended, and the checkout may wait at the gate from now on.
                Waits::of(this.waits).gate = None;
                Some(ResetWait::Over)
            }
            ResetWait::LookedAgain | ResetWait::Over => None,
        };
        if let Some(next) = looks_again {
            *this.reset_wait = next;
            // A reset that has ended meanwhile has made a connection idle, after deadpool found none.
            if shared.recorder.ledger().connections().idle > 0 {
                drop(place);
                this.inner.set(Some((this.acquire)(*this.pool, &NO_TIMEOUTS)));
                return None;
            }
        }
        let waits = *this.at_gate == AtGate::Waits;
        // Connections that are closing keep their places, although deadpool no longer knows them.
        if !shared.recorder.ledger().has_room() {
            match this.pool.manager().places().withhold(place) {
                Ok(()) => {
                    // It queues for one of the places that are left.
                    if this.context.ticket.is_some() {
                        this.context.wait_for(&shared.recorder, Phase::Queue);
                    }
                    this.inner.set(Some((this.acquire)(*this.pool, &NO_TIMEOUTS)));
                    return None;
                }
                Err(place) => drop(place),
            }
            return match shared.gate.denial(waits, || shared.any_returnable()) {
                Some(Denied::Unavailable(backoff)) => Some(Failure::Unavailable(backoff)),
                Some(Denied::RetryAt(retry)) => {
                    self.wait_at_gate(retry, cx);
                    None
                }
                None => {
                    self.wait_at_gate(RetryAt::no_place(), cx);
                    None
                }
            };
        }
        match Gate::admit(shared, &shared.recorder, waits, || shared.any_returnable()) {
            Ok(permit) => {
                // It leaves its place at the gate to others.
                this.inner.set(None);
                let waits = Waits::of(this.waits);
                waits.gate = None;
                this.context.wait_for(&shared.recorder, Phase::Connect);
                waits.connect = Some(Connect::new(this.pool, place, permit, this.context.operation));
                // One that joined the line after a change of the maximum had woken the others may have a place as well.
                if shared.is_gate_awaited() && !shared.gate.is_suspended() && shared.recorder.ledger().has_room() {
                    shared.gate.wake_one();
                }
                None
            }
            Err(Denied::RetryAt(retry)) => {
                drop(place);
                self.wait_at_gate(retry, cx);
                None
            }
            Err(Denied::Unavailable(backoff)) => Some(Failure::Unavailable(backoff)),
        }
    }

    /// Polls what the checkout waits for, other than deadpool's future, and its deadline.
    #[cold]
    pub(super) fn poll_slow(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Step<M> {
        if self.stage == Stage::Ended {
            // Polled again after it failed.
            return Step::Pending;
        }
        let this = self.as_mut().project();
        let recorder = &this.pool.manager().shared().recorder;
        let waits = Waits::of(this.waits);
        let wakes = Arc::clone(waits.wakes.get_or_insert_with(|| WakeRecord::new(recorder, cx.waker())));
        wakes.polled(cx.waker(), this.context.started);
        let waker = Waker::from(wakes);
        let recorded = &mut TaskContext::from_waker(&waker);
        // Taken out: an attempt whose poll panics is not polled again.
        let step = match waits.connect.take() {
            Some(connect) => self.as_mut().poll_connect(connect, recorded),
            None => match self.as_mut().poll_waits(recorded) {
                Poll::Ready(true) => Step::Again,
                Poll::Ready(false) => Step::Failed(Failure::Closed),
                Poll::Pending => Step::Pending,
            },
        };
        match step {
            Step::Pending if self.poll_deadline(cx).is_ready() => Step::Failed(Failure::Timeout),
            step => step,
        }
    }

    fn poll_connect(mut self: Pin<&mut Self>, mut connect: Connect<M>, cx: &mut TaskContext<'_>) -> Step<M> {
        match connect.poll(cx) {
            Poll::Pending => {
                Waits::of(self.project().waits).connect = Some(connect);
                Step::Pending
            }
            Poll::Ready(Connected::Ok(object)) if self.pool.manager().shared().is_closing() => {
                // The pool was closed while the connection was made.
                return_unused(object);
                Step::Failed(Failure::Closed)
            }
            Poll::Ready(Connected::Ok(object)) => Step::Ready(object),
            Poll::Ready(Connected::Failed(error)) => Step::Failed(Failure::Connect(error)),
            Poll::Ready(Connected::GivenUp(backoff)) => Step::Failed(Failure::Unavailable(backoff)),
            Poll::Ready(Connected::RetryAt(retry)) => {
                self.as_mut().wait_at_gate(retry, cx);
                Step::Again
            }
        }
    }
}

/// What a checkout waits for, other than deadpool's future.
pub(super) struct Waits<M: Backend> {
    /// The wait at the gate or for a reset.
    pub(super) gate: Option<Waiting>,
    /// The wait for a permit of the request's route.
    permit: Option<PermitWait>,
    /// The attempt to connect.
    pub(super) connect: Option<Connect<M>>,
    /// When it was woken meanwhile.
    pub(super) wakes: Option<Arc<WakeRecord>>,
}

/// The wait for a permit of the request's route; `None` if the pool is closed.
type PermitWait = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

impl<M: Backend> Waits<M> {
    pub(super) fn of(waits: &mut Option<Box<Self>>) -> &mut Self {
        waits.get_or_insert_with(|| Box::new(Self { gate: None, permit: None, connect: None, wakes: None }))
    }

    pub(super) fn is_at_gate(waits: &Option<Box<Self>>) -> bool {
        waits.as_ref().is_some_and(|waits| waits.gate.is_some())
    }
}

/// How a checkout continues after a poll of what it waits for.
pub(super) enum Step<M: Backend> {
    /// With another poll.
    Again,
    Pending,
    Ready(Pooled<M>),
    Failed(Failure<M::Error>),
}

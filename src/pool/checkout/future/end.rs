//! The deadline of a checkout, and its end without a connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker, ready};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::super::super::backend::Backend;
use super::super::super::release::after_failed_checkout;
use super::super::super::request::RequestCheckout;
use super::super::super::shared::Shared;
use super::late_poll::{WakeRecord, longer};
use super::waits::Waits;
use super::{Checkout, Stage};
use crate::error::{CheckoutError, ConnectBackoff, TimeoutReport};
use crate::labels::{ErrorCode, Outcome, Phase};
use crate::telemetry::clock::Nanos;

pin_project! {
    /// The deadline of a checkout, and a timer that fires earlier from time to time, to look for places that are kept by
    /// runtimes that do not run.
    pub(super) struct Deadline {
        #[pin]
        timer: Sleep,
        at: Instant,
    }
}

impl<M: Backend, A, F> Checkout<'_, M, A, F> {
    /// Records that the checkout waits, starts its timer if it does not run yet, and polls it.
    #[cold]
    pub(super) fn poll_deadline(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut this = self.project();
        let shared = this.pool.manager().shared();
        if this.context.ticket.is_none() {
            this.context.wait_for(&shared.recorder, Phase::Queue);
        }
        if this.deadline.is_none() {
            // Started at the end of the first poll, which took next to no time.
            shared.background.drop_overdue();
            let now = Instant::now();
            let at = now + shared.settings.checkout_timeout;
            this.deadline.set(Some(Deadline { timer: sleep_until(at.min(now + shared.overdue_interval())), at }));
        }
        let Some(deadline) = this.deadline.as_pin_mut() else { return Poll::Pending };
        let mut deadline = deadline.project();
        loop {
            ready!(deadline.timer.as_mut().poll(cx));
            if deadline.timer.deadline() >= *deadline.at {
                return Poll::Ready(());
            }
            shared.background.drop_overdue();
            let next = Instant::now() + shared.overdue_interval();
            deadline.timer.as_mut().reset((*deadline.at).min(next));
        }
    }

    /// Records that this poll was offered a connection that has been idle since then.
    #[cold]
    pub(super) fn note_offer(self: Pin<&mut Self>, idle_since: Nanos, waker: &Waker) {
        let this = self.project();
        let recorder = &this.pool.manager().shared().recorder;
        let wakes = Waits::of(this.waits).wakes.get_or_insert_with(|| WakeRecord::new(recorder, waker));
        wakes.note(this.context.started, idle_since.max(this.context.started), recorder.now());
    }

    #[cold]
    pub(super) fn fail(self: Pin<&mut Self>, failure: Failure<M::Error>) -> CheckoutError<M::Error> {
        let mut this = self.project();
        // An ended checkout that is not dropped keeps no place in a queue.
        this.inner.set(None);
        let waits = this.waits.take();
        let is_connecting = is_connecting(&waits);
        let known = waits.as_ref().and_then(|waits| waits.wakes.as_ref()?.late_poll());
        end_waits(waits, this.pool.manager().shared());
        this.deadline.set(None);
        *this.stage = Stage::Ended;

        let shared = this.pool.manager().shared();
        let (recorder, ledger) = (&shared.recorder, shared.recorder.ledger());
        let at = recorder.now();
        // The timer has woken the task.
        let deadline = this.context.started.after(shared.settings.checkout_timeout);
        let late_poll = longer(known, this.context.started, deadline.min(at), at);
        let outcome = match failure {
            Failure::Timeout => Outcome::Timeout,
            Failure::Closed => Outcome::Closed,
            Failure::Connect(_) | Failure::Unavailable(_) => Outcome::Error,
        };
        let started = this.context.started;
        let wait_state = this.context.ticket.map(|ticket| ledger.wait_state(ticket));
        let (phase, phase_since, own_connection) = wait_state.unwrap_or((Phase::Queue, started, None));
        let phase_waited = at.duration_since(phase_since);
        let code = match &failure {
            Failure::Connect(error) => Some(M::code(error)),
            Failure::Unavailable(backoff) => Some(backoff.code),
            Failure::Timeout | Failure::Closed => None,
        };
        this.context.end(recorder, outcome, code, at);
        let timed_out = outcome == Outcome::Timeout;
        let route = this.request.as_ref().filter(|_| timed_out).map(|request| request.route());
        end_request(this.request, started, at);
        after_failed_checkout(this.pool);
        let pool = ledger.name().clone();
        match failure {
            Failure::Timeout => {
                let (operation, call_site) = (this.context.operation, this.context.call_site);
                let report = Box::new(TimeoutReport {
                    operation: ledger.operation_name(operation),
                    call_site,
                    route,
                    waited: at.duration_since(started),
                    phase,
                    phase_waited,
                    usage: ledger.usage(),
                    own_connection,
                    backoff: shared.gate.last_failure(),
                    late_poll,
                    verdict: ledger.verdict(),
                });
                if is_connecting && report.is_connecting_too_slow() {
                    recorder.connection_missed(ErrorCode::TOO_SLOW);
                } else if let (Phase::Suspended, Some(backoff)) = (phase, &report.backoff) {
                    recorder.connection_missed(backoff.code);
                }
                let checkout = (operation, &*report.operation, call_site, report.route.as_deref());
                recorder.log().checkout_timed_out(checkout, &report);
                CheckoutError::Timeout(report)
            }
            Failure::Closed => CheckoutError::Closed { pool },
            Failure::Connect(source) => CheckoutError::Connect { pool, source },
            Failure::Unavailable(source) => {
                // A failed attempt of its own is counted as such.
                if !source.attempted {
                    recorder.connection_missed(source.code);
                }
                CheckoutError::Unavailable { pool, source }
            }
        }
    }

    #[cold]
    pub(super) fn cancel(self: Pin<&mut Self>) {
        let mut this = self.project();
        // What it waits for is dropped first, so that it is never seen as ended and still in a queue.
        this.inner.set(None);
        let shared = this.pool.manager().shared();
        let waits = this.waits.take();
        let is_connecting = is_connecting(&waits);
        end_waits(waits, shared);
        let recorder = &shared.recorder;
        if is_connecting {
            recorder.connection_missed(ErrorCode::DROPPED);
        }
        let at = recorder.now();
        // It has no ticket if the backend panicked in its first poll.
        this.context.end(recorder, Outcome::Cancelled, None, at);
        end_request(this.request, this.context.started, at);
        after_failed_checkout(this.pool);
    }
}

/// Returns whether the checkout has an attempt to connect that has not ended.
fn is_connecting<M: Backend>(waits: &Option<Box<Waits<M>>>) -> bool {
    waits.as_ref().is_some_and(|waits| waits.connect.is_some())
}

/// Gives up the places in queues. An attempt to connect goes on.
#[cold]
fn end_waits<M: Backend>(waits: Option<Box<Waits<M>>>, shared: &Arc<Shared>) {
    if let Some(connect) = waits.and_then(|mut waits| waits.connect.take()) {
        connect.detach(shared);
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
pub(super) enum Failure<E> {
    Timeout,
    Closed,
    Connect(E),
    Unavailable(ConnectBackoff),
}

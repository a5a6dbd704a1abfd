//! Which checkout the code that deadpool calls is working for.
//!
//! deadpool awaits `create` and `recycle` inside the caller's future and passes them nothing of ours. So the
//! checkout's future puts a small copy of what it knows into a thread-local around each poll, and takes it back with
//! what they added.

use std::cell::Cell;
use std::panic::Location;

use super::task;
use crate::labels::{ErrorCode, Outcome, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::ledger::{Recorder, Ticket};
use crate::telemetry::operations::{OperationId, SiteId};

/// What is known of a checkout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) operation: OperationId,
    pub(crate) call_site: &'static Location<'static>,
    pub(crate) site: SiteId,
    /// When it was first polled.
    pub(crate) started: Nanos,
    /// Its place among those in flight, once it has to wait.
    pub(crate) ticket: Option<Ticket>,
}

thread_local! {
    static CURRENT: Cell<Option<Context>> = const { Cell::new(None) };
}

/// Puts a context in place; when dropped, also by a panic, takes it back and restores the one before it.
pub(super) struct Scope<'a> {
    context: &'a mut Context,
    before: Option<Context>,
}

impl<'a> Scope<'a> {
    #[inline]
    pub(super) fn enter(context: &'a mut Context) -> Self {
        let before = CURRENT.replace(Some(*context));
        Self { context, before }
    }
}

impl Drop for Scope<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(context) = CURRENT.replace(self.before) {
            // All else is as it was.
            self.context.ticket = context.ticket;
        }
    }
}

impl Context {
    /// The checkout that is being polled, if one is.
    #[inline]
    pub(super) fn current() -> Option<Self> {
        CURRENT.get()
    }

    /// The time, as good as it needs to be: a checkout that did not wait has only just started.
    #[inline]
    pub(super) fn now(self, recorder: &Recorder) -> Nanos {
        if self.ticket.is_some() { recorder.now() } else { self.started }
    }

    /// Records that this checkout ended without a connection.
    pub(super) fn end(self, recorder: &Recorder, outcome: Outcome, code: Option<ErrorCode>, at: Nanos) {
        let Self { operation, call_site, ticket, .. } = self;
        match ticket {
            Some(ticket) => recorder.finish_checkout(ticket, None, outcome, code, at),
            None => recorder.refuse_checkout(operation, call_site, outcome, code, at),
        }
    }

    /// Says what this checkout waits for from now on.
    pub(super) fn wait_for(&mut self, recorder: &Recorder, phase: Phase) {
        if let Some(ticket) = self.ticket {
            recorder.enter_phase(ticket, phase, recorder.now());
            return;
        }
        let Self { operation, call_site, started, .. } = *self;
        self.ticket = Some(recorder.begin_wait(operation, call_site, task::current(), started, phase));
    }

    /// This checkout waits again: for capacity, if it was for a turn before.
    #[cold]
    pub(super) fn queues_after_its_turn(&mut self, recorder: &Recorder) {
        if let Some(ticket) = self.ticket
            && recorder.ledger().wait_of(ticket).0.is_turn()
        {
            self.wait_for(recorder, Phase::Queue);
        }
    }

    /// The same for the checkout that is being polled.
    pub(super) fn current_waits_for(recorder: &Recorder, phase: Phase) {
        if let Some(mut context) = CURRENT.get() {
            context.wait_for(recorder, phase);
            CURRENT.set(Some(context));
        }
    }
}

//! The checkout that the current thread polls.
//!
//! deadpool awaits the manager's `create` and `recycle` within the checkout's future, and passes them nothing of the
//! checkout. So the future puts a copy of its context into a thread-local around each poll, and takes back what the
//! manager has added.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::panic::Location;

use super::super::request;
use crate::labels::{ErrorCode, Outcome, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::ledger::{Recorder, Ticket};
use crate::telemetry::operations::{OperationId, SiteId};

/// The checkout in whose poll the manager is called.
#[derive(Clone, Copy, Debug)]
pub(in crate::pool) struct Context {
    pub(in crate::pool) operation: OperationId,
    pub(in crate::pool) call_site: &'static Location<'static>,
    pub(in crate::pool) site: SiteId,
    /// The time of the first poll.
    pub(in crate::pool) started: Nanos,
    /// The checkout's entry in the ledger, once it waits.
    pub(in crate::pool) ticket: Option<Ticket>,
}

thread_local! {
    static CURRENT: Cell<Option<Context>> = const { Cell::new(None) };
    /// A checkout to which a connection was offered that cannot be handed out at once, and since when it was idle.
    static OFFERED: Cell<Option<(Ticket, Nanos)>> = const { Cell::new(None) };
    /// The number of request scopes that the thread is in. Kept here, so that a checkout outside of them reads one
    /// integer.
    static REQUEST_SCOPES: Cell<usize> = const { Cell::new(0) };
}

/// Makes a context the current one until dropped, also by a panic.
pub(super) struct CurrentGuard<'a> {
    context: &'a mut Context,
    before: Option<Context>,
}

impl<'a> CurrentGuard<'a> {
    #[inline]
    pub(super) fn enter(context: &'a mut Context) -> Self {
        let before = CURRENT.replace(Some(*context));
        Self { context, before }
    }
}

impl Drop for CurrentGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(context) = CURRENT.replace(self.before) {
            // Nothing else changes.
            self.context.ticket = context.ticket;
        }
    }
}

impl Context {
    /// Returns the checkout that the thread polls, if it polls one.
    #[inline]
    pub(in crate::pool) fn current() -> Option<Self> {
        CURRENT.get()
    }

    /// Records that the current checkout, if any, now waits for something else.
    pub(in crate::pool) fn enter_phase(recorder: &Recorder, phase: Phase) {
        if let Some(mut context) = CURRENT.get() {
            context.wait_for(recorder, phase);
            CURRENT.set(Some(context));
        }
    }

    /// Records that the current checkout, if any, was offered a connection that had been idle since then.
    pub(in crate::pool) fn offer(idle_since: Nanos) {
        if let Some(Self { ticket: Some(ticket), .. }) = CURRENT.get() {
            OFFERED.set(Some((ticket, idle_since)));
        }
    }

    /// Returns since when the connection was idle that was offered to this checkout in its last poll, if any was.
    #[cold]
    pub(super) fn offered(&self) -> Option<Nanos> {
        let (ticket, idle_since) = OFFERED.take()?;
        (self.ticket == Some(ticket)).then_some(idle_since)
    }

    /// Returns the time, as exact as needed: a checkout that does not wait has only just started.
    #[inline]
    pub(in crate::pool) fn now(self, recorder: &Recorder) -> Nanos {
        if self.ticket.is_some() { recorder.now() } else { self.started }
    }

    /// Records what the checkout waits for from now on.
    pub(super) fn wait_for(&mut self, recorder: &Recorder, phase: Phase) {
        if let Some(ticket) = self.ticket {
            recorder.enter_phase(ticket, phase, recorder.now());
            return;
        }
        let Self { operation, site, call_site, started, .. } = *self;
        let request = if in_request_scope() { request::route_key(recorder.ledger()) } else { None };
        let waiter = (task_id(), request);
        self.ticket = Some(recorder.begin_wait(operation, (site, call_site), waiter, started, phase));
    }

    /// Records that a checkout that waited for its turn is in the queue for capacity now.
    #[cold]
    pub(super) fn requeue(&mut self, recorder: &Recorder) {
        if let Some(ticket) = self.ticket
            && recorder.ledger().waits_for_turn(ticket)
        {
            self.wait_for(recorder, Phase::Queue);
        }
    }

    /// Records that the checkout ended without a connection.
    pub(super) fn end(self, recorder: &Recorder, outcome: Outcome, code: Option<ErrorCode>, at: Nanos) {
        let Self { operation, call_site, ticket, .. } = self;
        match ticket {
            Some(ticket) => recorder.finish_checkout(ticket, outcome, code, at),
            None => recorder.refuse_checkout(operation, call_site, outcome, code, at),
        }
    }
}

/// Returns whether the thread is in a request scope.
#[inline(always)]
pub(in crate::pool) fn in_request_scope() -> bool {
    cfg!(feature = "middleware") && REQUEST_SCOPES.get() != 0
}

/// Counts the request scopes that the thread enters (1) and leaves (-1).
#[cfg(feature = "middleware")]
#[inline]
pub(in crate::pool) fn count_request_scopes(change: isize) {
    REQUEST_SCOPES.set(REQUEST_SCOPES.get().wrapping_add_signed(change));
}

/// Set in the numbers of threads, so that they differ from those of tasks.
const THREAD: u64 = 1 << 63;

/// Returns a number for the task that is polled, or for the thread if it polls none, as in `block_on`. Never zero,
/// unless the thread is being destroyed.
#[inline]
pub(super) fn task_id() -> u64 {
    tokio::task::try_id().map_or_else(thread_id, |id| number(&id) & !THREAD)
}

fn thread_id() -> u64 {
    thread_local! {
        static ID: Cell<u64> = const { Cell::new(0) };
    }
    ID.try_with(|known| {
        if known.get() == 0 {
            known.set(number(&std::thread::current().id()) | THREAD);
        }
        known.get()
    })
    .unwrap_or(0)
}

/// Returns the number behind an id. Tokio and the standard library keep it private, but hash it.
#[inline]
fn number(id: &impl Hash) -> u64 {
    let mut number = IdentityHasher(0);
    id.hash(&mut number);
    number.finish()
}

/// A hasher that returns the number that it is given.
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_task_keeps_its_own_id() {
        let [first, second] =
            [tokio::spawn(async { (task_id(), task_id()) }), tokio::spawn(async { (task_id(), task_id()) })];
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_eq!(first.0, first.1);
        assert_ne!(first.0, second.0);
        assert_ne!(first.0, 0);
    }

    #[test]
    fn thread_ids_differ_and_are_no_task_ids() {
        let here = task_id();
        assert_eq!(here, task_id());
        assert_ne!(here, std::thread::spawn(task_id).join().unwrap());
        assert_ne!(here & THREAD, 0);
    }
}

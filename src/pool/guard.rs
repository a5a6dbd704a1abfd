//! A connection on loan.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::Object;

use super::backend::Backend;
use super::clean::{READ_ONLY, ask_primary, cancel_in_passing, clean_and_return, quieten, settle_down};
use super::life::ConnectionMeta;
use super::observed::{InstrumentedManager, PooledConnection};
use super::pool::close_surplus;
use super::postgres::PostgresManager;
use super::visit::RequestCheckout;
use crate::labels::CloseReason;
use crate::telemetry::clock::Nanos;
use crate::telemetry::evidence::{Evidence, Risk};
use crate::telemetry::operations::OperationId;
use crate::telemetry::wire::Status;

/// A connection that was checked out. Dropping it returns the connection to the pool.
///
/// It does not keep the pool alive: a connection that comes back after its pool is gone is closed.
#[must_use = "a connection that is not held is returned at once"]
pub struct Guard<M: Backend = PostgresManager> {
    /// There until it is dropped.
    object: Option<Object<InstrumentedManager<M>>>,
    operation: OperationId,
    since: Nanos,
    /// Why it is to be closed instead of returned, if it is.
    discard: Option<CloseReason>,
    /// What the request makes of it for which it was checked out, if it was for one. Dropped after the connection is
    /// returned: who waits for a place among its route's is to find it there.
    request_checkout: Option<Box<RequestCheckout>>,
}

impl<M: Backend> Guard<M> {
    pub(super) fn new(
        object: Object<InstrumentedManager<M>>,
        operation: OperationId,
        since: Nanos,
        request_checkout: Option<Box<RequestCheckout>>,
    ) -> Self {
        Self { object: Some(object), operation, since, discard: None, request_checkout }
    }

    /// Closes the connection instead of returning it, for one that is known to be of no more use. Its place in the
    /// pool is free at once.
    ///
    /// That is the case after an error with which the server ends the session, such as 57P01: the connection hears of
    /// its end a moment after its holder does, and one that is returned before that may be the next to be handed out.
    pub fn discard(mut self) {
        self.discard = Some(CloseReason::Discarded);
    }

    /// Has the connection pinged before it is handed out again, however soon that is.
    pub(crate) fn doubt(&mut self) {
        if let Some(object) = &mut self.object {
            object.meta.doubtful = true;
        }
    }

    /// What the wire tells of this hold so far; nothing if it is not read.
    pub(crate) fn evidence(&self) -> Option<Evidence> {
        let stats = &self.object.as_ref()?.meta.stats;
        stats.wire().evidence(stats.word())
    }

    /// The same once all that was asked has reached the wire, and what has failed has come to its end. If that is not so
    /// within `limit`, anything may be on its way, a COMMIT too. (A task that waits for the socket to take more takes
    /// nothing from its channel: it is not known what is behind a query that is not answered.)
    pub(crate) async fn settled_evidence(&mut self, limit: Duration) -> Option<Evidence> {
        let object = self.object.as_mut()?;
        let settled = settle_down(object, limit).await;
        self.evidence_if(settled)
    }

    /// What is known when the work is given up: the moment that it takes for what was asked to reach the wire is waited
    /// for, and no answer.
    pub(crate) async fn evidence_of_the_abandoned(&mut self, limit: Duration) -> Option<Evidence> {
        let object = self.object.as_mut()?;
        let arrived = quieten(object, limit).await;
        self.evidence_if(arrived)
    }

    /// What is known, if all of it is.
    fn evidence_if(&self, complete: bool) -> Option<Evidence> {
        let mut evidence = self.evidence()?;
        if !complete && !evidence.ended && evidence.risk == Risk::None {
            evidence.risk = Risk::Commit;
        }
        Some(evidence)
    }

    /// Asks a server that has refused a write whether it takes none at all, and waits for the answer for `limit` at most.
    /// If it takes none, the connection is closed when it is returned, and the others that lead there at their next
    /// checkouts.
    pub(crate) async fn is_read_only(&mut self, limit: Duration) -> bool {
        let Some(object) = &mut self.object else { return false };
        let demoted = ask_primary(object, limit).await;
        if demoted {
            self.discard = Some(CloseReason::ReadOnly);
        }
        demoted
    }

    /// Why a connection that came back is closed, if it is.
    #[inline]
    fn disposal(discard: Option<CloseReason>, pooled: &PooledConnection<M>) -> Option<CloseReason> {
        let PooledConnection { connection, meta, .. } = pooled;
        if discard.is_some() {
            discard
        } else if meta.shared.is_closing() {
            Some(CloseReason::Shutdown)
        } else if meta.stats.wire().is_ended() || M::is_broken(connection) {
            Some(CloseReason::Broken)
        } else {
            None
        }
    }
}

/// Returns a connection to a pool that may have no place for it, and closes what is one too many: when it is back, so
/// that it is found there, by this or by whoever leaves the queue for which it would have been kept.
#[inline(never)]
pub(super) fn give_back<M: Backend>(object: Object<InstrumentedManager<M>>) {
    let (pool, shared) = (Object::pool(&object), Arc::clone(&object.meta.shared));
    drop(object);
    shared.gate.wake_one();
    if let Some(pool) = pool {
        close_surplus(&pool, &shared);
    }
}

impl<M: Backend> Drop for Guard<M> {
    #[inline]
    fn drop(&mut self) {
        // Left where it is: what is returned is dropped after this, as a field, without having been moved.
        let Some(object) = &mut self.object else { return };
        let pooled = &mut ***object;
        let disposal = Self::disposal(self.discard, pooled);
        let PooledConnection { meta, .. } = pooled;
        let at = meta.shared.recorder.now();
        let ConnectionMeta { shared, stats, .. } = meta;
        let (operation, since) = (self.operation, self.since);
        let status = stats.wire().status();
        let seat_word = stats.word();
        // Something was asked that has not reached the wire: a statement's end, or what nobody waits for any more.
        let asked = meta.driver.is_woken();
        let queried = shared.policy.reset_session
            && (asked || status == Status::Unread || stats.wire().queries_of(seat_word) > 0);
        if let Some(request_checkout) = &self.request_checkout {
            request_checkout.end_use(stats, operation, since, at);
        }
        shared.recorder.connection_returned(stats, operation, since, at);
        // Asked after the word has changed: whoever suspects it looks at the word after.
        if stats.is_suspected() {
            shared.recorder.suspect_returned(stats, operation, since, at);
        }
        if let Some(reason) = disposal {
            meta.close(reason);
            if let Some(object) = self.object.take() {
                cancel_in_passing(&object);
                drop(Object::take(object));
            }
            return;
        }
        meta.last_operation = operation;
        meta.unreset |= queried;
        meta.refused_write |= stats.wire().is_last_error(seat_word, READ_ONLY);
        // Where the wire is read, it knows better when the server last gave a sign of life.
        meta.alive_at = if status == Status::Unread { at } else { meta.alive_at.max(stats.wire().heard()) };
        // Unless the connection's task has come to it by now, it is to look after that when it has.
        let status = if asked && meta.driver.defer_check() { stats.wire().status() } else { status };
        if !status.is_clean() || queried || meta.refused_write {
            if let Some(object) = self.object.take() {
                clean_and_return(
                    object,
                    operation,
                    at,
                    self.request_checkout.take().and_then(|request_checkout| request_checkout.into_place()),
                );
            }
            return;
        }
        shared.recorder.connection_idle(stats, at);
        // Without overflow there is a place for each: no need to ask who else is idle. Asked only now, so that of two
        // who come back together the later one sees both. (A fence would make that certain, at a cost to each
        // return; a surplus that slips through is closed at the next one.)
        let crowded = shared.recorder.ledger().live_hint() > shared.policy.pool_size;
        if (crowded || shared.gate.is_awaited())
            && let Some(object) = self.object.take()
        {
            give_back(object);
        }
    }
}

impl<M: Backend> Deref for Guard<M> {
    type Target = M::Type;

    #[inline]
    #[allow(clippy::expect_used, reason = "only drop takes the object")]
    fn deref(&self) -> &M::Type {
        let object = self.object.as_ref().expect("a guard that is not dropped holds a connection");
        object.meta.stats.note_use();
        &object.connection
    }
}

impl<M: Backend> DerefMut for Guard<M> {
    #[inline]
    #[allow(clippy::expect_used, reason = "only drop takes the object")]
    fn deref_mut(&mut self) -> &mut M::Type {
        let object = self.object.as_mut().expect("a guard that is not dropped holds a connection");
        object.meta.stats.note_use();
        &mut object.connection
    }
}

impl<M: Backend<Type: fmt::Debug>> fmt::Debug for Guard<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("connection", &**self).finish_non_exhaustive()
    }
}

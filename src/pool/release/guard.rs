//! A connection that is checked out, and the decision that its return takes.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::super::backend::Backend;
use super::super::connection::{ConnectionMeta, Pooled, PooledConnection, free_place};
use super::super::postgres::PostgresManager;
use super::super::request::RequestCheckout;
use super::reset::{drain_within, is_read_only_within, wait_ready};
use super::reset_task::reset_and_return;
use super::surplus::return_and_close_surplus;
use crate::labels::CloseReason;
use crate::telemetry::clock::Nanos;
use crate::telemetry::evidence::{Evidence, Risk};
use crate::telemetry::operations::OperationId;
use crate::telemetry::wire::SessionStatus;

/// A connection that was checked out. Dropping it returns the connection to the pool.
///
/// It does not keep the pool alive: a connection that is returned after its pool was dropped is closed.
///
/// Drop row streams and COPY sinks before it: one that is kept keeps the connection busy after its return, until it is
/// closed after `clean_timeout`.
#[must_use = "dropping it returns the connection at once"]
pub struct Guard<M: Backend = PostgresManager> {
    /// `Some` until it is dropped.
    object: Option<Pooled<M>>,
    operation: OperationId,
    since: Nanos,
    /// The reason to close the connection instead of returning it.
    discard: Option<CloseReason>,
    /// The checkout of the request. Dropped after the connection is returned, so that the connection is there when the
    /// next holder of the route's permit looks for one.
    request: Option<Box<RequestCheckout>>,
}

impl<M: Backend> Guard<M> {
    #[inline]
    pub(in crate::pool) fn new(
        object: Pooled<M>,
        operation: OperationId,
        since: Nanos,
        request: Option<Box<RequestCheckout>>,
    ) -> Self {
        Self { object: Some(object), operation, since, discard: None, request }
    }

    /// Closes the connection instead of returning it. Its place in the pool is free at once or, if the server may be
    /// executing something, when that is cancelled and the server has let go of the connection.
    ///
    /// Use it after an error with which the server ends the session, such as 57P01: the connection learns of its end a
    /// moment after the caller, and would be handed out again if it were returned before that.
    pub fn discard(mut self) {
        self.discard = Some(CloseReason::Discarded);
    }

    /// Has the connection pinged at its next checkout, regardless of `pre_ping_idle`.
    pub(crate) fn doubt(&mut self) {
        if let Some(object) = &mut self.object {
            object.meta.doubtful = true;
        }
    }

    /// Returns what the protocol observer knows of this use; `None` if it does not follow the protocol.
    pub(crate) fn evidence(&self) -> Option<Evidence> {
        let stats = &self.object.as_ref()?.meta.stats;
        stats.wire().evidence(stats.packed_state())
    }

    /// Returns the evidence once everything that was sent has reached the wire, and what has failed has ended. If that
    /// takes longer than `limit`, anything may be under way, including a COMMIT. (A task that waits until the socket
    /// takes more data takes nothing from its channel, so what is behind an unanswered query is unknown.)
    pub(crate) async fn settled_evidence(&mut self, limit: Duration) -> Option<Evidence> {
        let object = self.object.as_mut()?;
        let complete = wait_ready(object, limit).await;
        self.evidence_if(complete)
    }

    /// Returns the evidence of work that was abandoned: waits until what was sent has reached the wire, and for no
    /// answer.
    pub(crate) async fn abandoned_evidence(&mut self, limit: Duration) -> Option<Evidence> {
        let object = self.object.as_mut()?;
        let complete = drain_within(object, limit).await;
        self.evidence_if(complete)
    }

    /// Returns the evidence, with the risk of a COMMIT if it is not complete.
    fn evidence_if(&self, complete: bool) -> Option<Evidence> {
        let mut evidence = self.evidence()?;
        if !complete && !evidence.ended && evidence.risk == Risk::None {
            evidence.risk = Risk::Commit;
        }
        Some(evidence)
    }

    /// Queries a server that has refused a write, within `limit`, and returns whether it is read-only. If it is, the
    /// connection is closed when it is returned, and other connections to that server at their next checkouts.
    pub(crate) async fn is_read_only(&mut self, limit: Duration) -> bool {
        let Some(object) = &mut self.object else { return false };
        let read_only = is_read_only_within(object, limit).await;
        if read_only {
            self.discard = Some(CloseReason::ReadOnly);
        }
        read_only
    }

    /// Returns why the connection is closed instead of returned, if it is.
    #[inline]
    fn close_reason(discard: Option<CloseReason>, pooled: &PooledConnection<M>) -> Option<CloseReason> {
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

/// Ends what was recorded for this use beyond the usual. Returns whether a cancel request may still take effect.
#[cold]
#[inline(never)]
fn end_marks(meta: &ConnectionMeta, operation: OperationId, since: Nanos, at: Nanos) -> bool {
    let ConnectionMeta { shared, stats, cancels, .. } = meta;
    if stats.is_suspected() {
        shared.recorder.suspect_returned(stats, operation, since, at);
    }
    stats.set_cancellable(false) && cancels.end_hold()
}

impl<M: Backend> Drop for Guard<M> {
    #[inline]
    fn drop(&mut self) {
        // Left in place: on the fast path the object is dropped as a field, after this, without a move.
        let Some(object) = &mut self.object else { return };
        let pooled = &mut ***object;
        let close_reason = Self::close_reason(self.discard, pooled);
        let ConnectionMeta { shared, stats, .. } = &pooled.meta;
        let at = shared.recorder.now();
        let (operation, since) = (self.operation, self.since);
        let status = stats.wire().status();
        let use_id = stats.packed_state();
        // Something was sent that has not reached the wire: the close of a statement, or a query that was abandoned.
        let pending = pooled.meta.driver.is_woken();
        let unreset = shared.hot.reset_session
            && (pending || status == SessionStatus::Unread || stats.wire().queries_of(use_id) > 0);
        let unreset = unreset || M::needs_reset(&pooled.connection);
        if let Some(request) = &self.request {
            request.end_use(stats, operation, since, at);
        }
        shared.recorder.connection_returned(stats, operation, since, at);
        // Checked after the state has changed: a leak check marks the holder, and then reads the state again.
        let mut must_wait = unreset;
        if stats.is_marked() {
            must_wait |= end_marks(&pooled.meta, operation, since, at);
        }
        let meta = &mut pooled.meta;
        if let Some(reason) = close_reason {
            meta.last_operation = operation;
            pooled.close(reason);
            if let Some(object) = self.object.take() {
                free_place(object);
            }
            return;
        }
        meta.last_operation = operation;
        meta.unreset |= unreset;
        meta.refused_write |= meta.stats.wire().has_refused_write(use_id);
        meta.alive_at =
            if status == SessionStatus::Unread { at } else { meta.alive_at.max(meta.stats.wire().last_received()) };
        // If the connection's task has not run by now, it reports a dirty connection when it has.
        let status = if pending && meta.driver.defer_check() { meta.stats.wire().status() } else { status };
        if !status.is_clean() || must_wait || meta.refused_write {
            if let Some(object) = self.object.take() {
                let permit = self.request.take().and_then(|request| request.into_permit());
                reset_and_return(object, operation, at, permit);
            }
            return;
        }
        let ConnectionMeta { shared, stats, .. } = meta;
        shared.recorder.connection_idle(stats, at);
        // Without overflow there is room for every connection. Read only now, so that of two concurrent returns the
        // later one counts both. (A fence would make that certain, at a cost to each return; a surplus that slips
        // through is closed at the next one.)
        let crowded = shared.recorder.live_hint() > shared.hot.pool_size();
        if (crowded || shared.is_gate_awaited())
            && let Some(object) = self.object.take()
        {
            return_and_close_surplus(object);
        }
    }
}

impl<M: Backend> Deref for Guard<M> {
    type Target = M::Type;

    #[inline]
    #[allow(clippy::expect_used, reason = "only drop takes the object")]
    fn deref(&self) -> &M::Type {
        let object = self.object.as_ref().expect("a guard that is not dropped holds a connection");
        object.meta.record_use(false);
        &object.connection
    }
}

impl<M: Backend> DerefMut for Guard<M> {
    #[inline]
    #[allow(clippy::expect_used, reason = "only drop takes the object")]
    fn deref_mut(&mut self) -> &mut M::Type {
        let object = self.object.as_mut().expect("a guard that is not dropped holds a connection");
        object.meta.record_use(true);
        &mut object.connection
    }
}

impl<M: Backend<Type: fmt::Debug>> fmt::Debug for Guard<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("connection", &**self).finish_non_exhaustive()
    }
}

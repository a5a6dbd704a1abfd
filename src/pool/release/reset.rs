//! Reset of a connection that is dirty or may be: drain what was sent, cancel or roll back, and reset the session.

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::RecycleError;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument as _;

use super::super::backend::Backend;
use super::super::checkout::context::Context;
use super::super::connection::PooledConnection;
use super::CANCEL_DELAY;
use crate::labels::{CloseReason, Dirt, ErrorCode, ErrorPhase, Outcome};
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::operations::OperationId;
use crate::telemetry::trace::SpanOutcome;
use crate::telemetry::wire::SessionStatus;
use crate::wire::DriverActivity;

/// How long a checkout waits for a query that another holder abandoned. Opening a new connection takes longer.
const ABANDONED_QUERY_TIMEOUT: Duration = Duration::from_millis(100);

/// Returns in what way a connection with this status is dirty, if it is.
pub(super) fn dirt_of(status: SessionStatus) -> Option<Dirt> {
    match status {
        SessionStatus::Unread | SessionStatus::Idle | SessionStatus::Ending => None,
        SessionStatus::Executing => Some(Dirt::Busy),
        SessionStatus::InTransaction => Some(Dirt::InTransaction),
        SessionStatus::FailedTransaction => Some(Dirt::FailedTransaction),
    }
}

/// Why a reset failed.
#[derive(Debug, thiserror::Error)]
enum Failure<E: std::error::Error + 'static> {
    #[error("the connection was lost")]
    Lost,
    #[error("not clean in time")]
    Timeout,
    #[error("the server takes no writes")]
    ReadOnly,
    #[error(transparent)]
    Backend(RecycleError<E>),
}

impl<E: std::error::Error + 'static> From<RecycleError<E>> for Failure<E> {
    fn from(error: RecycleError<E>) -> Self {
        Self::Backend(error)
    }
}

/// Waits until everything that was sent on a connection has reached the wire. A dropped transaction has sent its own
/// ROLLBACK, or is about to: its end is waited for too.
pub(super) async fn drain<M: Backend>(pooled: &PooledConnection<M>) {
    drained(&pooled.meta.driver, &pooled.meta.stats).await;
}

/// As [`drain`], for a connection with this activity and statistics.
pub(in crate::pool) async fn drained(driver: &DriverActivity, stats: &ConnectionStats) {
    let wire = stats.wire();
    driver.wait_until(|| wire.is_ended() || (driver.is_settled() && wire.status() != SessionStatus::Ending)).await;
}

/// Drains a connection in use, within `limit` and `clean_timeout`. Returns whether it is drained.
pub(super) async fn drain_within<M: Backend>(pooled: &PooledConnection<M>, limit: Duration) -> bool {
    let limit = limit.min(pooled.meta.shared.settings.clean_timeout);
    timeout(limit, drain(pooled)).await.is_ok()
}

/// Drains a connection in use and waits until the server has answered, within `limit` and
/// [`ABANDONED_QUERY_TIMEOUT`]. Returns whether it has.
pub(super) async fn wait_ready<M: Backend>(pooled: &PooledConnection<M>, limit: Duration) -> bool {
    if !drain_within(pooled, limit).await {
        return false;
    }
    let (driver, wire) = (&pooled.meta.driver, pooled.meta.stats.wire());
    let ready = || wire.is_ended() || (driver.is_settled() && wire.status() != SessionStatus::Executing);
    timeout(limit.min(ABANDONED_QUERY_TIMEOUT), driver.wait_until(ready)).await.is_ok()
}

/// Returns whether the server of a connection in use is read-only; `false` if it does not respond within `limit` and
/// `clean_timeout`. If it is, other connections to it are no longer handed out.
pub(super) async fn is_read_only_within<M: Backend>(pooled: &mut PooledConnection<M>, limit: Duration) -> bool {
    let limit = limit.min(pooled.meta.shared.settings.clean_timeout);
    timeout(limit, is_read_only(pooled)).await.is_ok_and(|answer| answer.unwrap_or(false))
}

/// Queries the server, outside any transaction, and returns whether it is read-only.
async fn is_read_only<M: Backend>(pooled: &mut PooledConnection<M>) -> Result<bool, RecycleError<M::Error>> {
    let backend = Arc::clone(&pooled.backend);
    if matches!(pooled.meta.stats.wire().status(), SessionStatus::InTransaction | SessionStatus::FailedTransaction) {
        backend.rollback(&mut pooled.connection).await?;
    }
    let read_only = backend.is_read_only(&mut pooled.connection).await?;
    let meta = &mut pooled.meta;
    meta.refused_write = false;
    if read_only {
        meta.shared.demote(meta.shared.recorder.now());
    }
    Ok(read_only)
}

/// Drains, and if necessary resets, a connection that a checkout found unsettled or dirty, on behalf of the operation
/// that used it before. Returns why to close it if that does not succeed soon, so that no checkout waits for another's
/// query.
///
/// # Cancel safety
///
/// If the future is dropped, the caller must close the connection.
pub(in crate::pool) async fn settle<M: Backend>(pooled: &mut PooledConnection<M>) -> Result<(), CloseReason> {
    let meta = &mut pooled.meta;
    let operation = meta.last_operation;
    let shared = Arc::clone(&meta.shared);
    let stats = Arc::clone(&meta.stats);
    let since = shared.recorder.now();
    shared.recorder.maintenance_started(&stats, operation, since);
    meta.reason = CloseReason::Dirty;
    let wire = stats.wire();
    let deadline = Instant::now() + shared.settings.clean_timeout;
    let drained = timeout_at(deadline, drain(pooled)).await.is_ok();
    if !drained && !pooled.meta.driver.is_settled() {
        // Its runtime does not run, and can do nothing more for the connection.
        pooled.meta.runtime = None;
    }
    pooled.meta.unreset |= M::needs_reset(&pooled.connection);
    let settled = if wire.status().is_clean() && !pooled.meta.unreset && !pooled.meta.refused_write {
        if drained { Ok(()) } else { Err(CloseReason::Dirty) }
    } else {
        let busy = wire.status() == SessionStatus::Executing;
        let limit = if busy { deadline.min(Instant::now() + ABANDONED_QUERY_TIMEOUT) } else { deadline };
        reset_until(limit, pooled, operation).await
    };
    let at = shared.recorder.now();
    shared.recorder.maintenance_finished(&stats, operation, since, at);
    if wire.is_ended() {
        return Err(CloseReason::Broken);
    }
    settled?;
    let meta = &mut pooled.meta;
    meta.reason = CloseReason::Shutdown;
    meta.ready_at = at;
    Ok(())
}

/// Resets a connection that `operation` used, and records a failure. Returns why to close the connection if it is not
/// reset by `deadline`.
pub(super) async fn reset_until<M: Backend>(
    deadline: Instant,
    pooled: &mut PooledConnection<M>,
    operation: OperationId,
) -> Result<(), CloseReason> {
    let cause = pooled.meta.stats.span();
    let recorder = &pooled.meta.shared.recorder;
    let mut span_outcome = SpanOutcome::of(recorder.reset_span(operation, cause.as_ref()));
    let resetting = reset(pooled, operation).instrument(span_outcome.span().clone());
    let failure = match timeout_at(deadline, resetting).await {
        Ok(Ok(())) => {
            span_outcome.outcome = Outcome::Ok;
            return Ok(());
        }
        // The reset itself did not fail.
        Ok(Err(Failure::ReadOnly)) => {
            span_outcome.outcome = Outcome::Ok;
            return Err(CloseReason::ReadOnly);
        }
        Ok(Err(failure)) => failure,
        Err(_) => Failure::Timeout,
    };
    let code = match &failure {
        Failure::Lost => ErrorCode::IO,
        Failure::Timeout => ErrorCode::TIMEOUT,
        Failure::Backend(RecycleError::Backend(error)) => M::code(error),
        Failure::Backend(RecycleError::Message(_)) | Failure::ReadOnly => ErrorCode::OTHER,
    };
    (span_outcome.outcome, span_outcome.code) = (Outcome::Error, Some(code));
    pooled.meta.shared.recorder.connection_error(ErrorPhase::Reset, code, &failure);
    Err(CloseReason::Dirty)
}

async fn reset<M: Backend>(pooled: &mut PooledConnection<M>, operation: OperationId) -> Result<(), Failure<M::Error>> {
    let backend = Arc::clone(&pooled.backend);
    let stats = Arc::clone(&pooled.meta.stats);
    let driver = Arc::clone(&pooled.meta.driver);
    let shared = Arc::clone(&pooled.meta.shared);
    let wire = stats.wire();
    let found_by = Context::current().and_then(|context| context.ticket);
    let record = |dirt| shared.recorder.connection_dirty(&stats, operation, dirt, found_by);
    let mut recorded = false;
    loop {
        drain(pooled).await;
        if wire.is_ended() {
            return Err(Failure::Lost);
        }
        let Some(dirt) = dirt_of(wire.status()) else { break };
        // What follows is a consequence of the first.
        if !std::mem::replace(&mut recorded, true) {
            record(dirt);
        }
        if dirt == Dirt::Busy {
            let mut delay = CANCEL_DELAY;
            let done = || driver.wait_until(|| wire.is_ended() || wire.status() != SessionStatus::Executing);
            // Repeated, as a request that arrives before the server has begun with the query has no effect.
            while timeout(delay, done()).await.is_err() {
                backend.cancel(&pooled.connection).await?;
                delay *= 2;
            }
        } else {
            backend.rollback(&mut pooled.connection).await?;
        }
    }
    if pooled.meta.refused_write && is_read_only(pooled).await? {
        return Err(Failure::ReadOnly);
    }
    if std::mem::take(&mut pooled.meta.unreset) {
        for dirt in backend.reset(&mut pooled.connection).await? {
            record(dirt);
        }
    }
    Ok(())
}

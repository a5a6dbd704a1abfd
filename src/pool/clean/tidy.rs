//! Bringing a connection to where the next may have it.

use std::sync::Arc;

use deadpool::managed::RecycleError;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::super::backend::Backend;
use super::super::context::Context;
use super::super::observed::PooledConnection;
use super::GRACE;
use crate::labels::{CloseReason, Dirt, ErrorCode, ErrorPhase, Outcome};
use crate::telemetry::operations::OperationId;
use crate::telemetry::trace::{self, Recount};
use crate::telemetry::wire::Status;

/// In what way a connection is dirty whose wire stands so.
pub(super) fn dirt_of(status: Status) -> Option<Dirt> {
    match status {
        Status::Unread | Status::Idle | Status::Ending => None,
        Status::Executing => Some(Dirt::Busy),
        Status::InTransaction => Some(Dirt::InTransaction),
        Status::FailedTransaction => Some(Dirt::FailedTransaction),
    }
}

/// Why a connection is not clean.
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

/// Waits until all that was asked of the connection has reached the wire. A transaction that was dropped has sent its
/// own ROLLBACK, or is about to: that is waited for too.
pub(super) async fn quiet<M: Backend>(pooled: &PooledConnection<M>) {
    let (driver, wire) = (&pooled.meta.driver, pooled.meta.stats.wire());
    driver.wait_until(|| wire.is_ended() || (driver.is_settled() && wire.status() != Status::Ending)).await;
}

/// Brings a connection that `operation` left to where the next may have it.
pub(super) async fn clean<M: Backend>(
    pooled: &mut PooledConnection<M>,
    operation: OperationId,
    deadline: Instant,
) -> Result<(), CloseReason> {
    let cause = pooled.meta.stats.trace();
    let ledger = pooled.meta.shared.recorder.ledger();
    let mut recount = Recount::of(trace::cleaning(ledger, operation, cause.as_ref()));
    let tidying = tidy(pooled, operation).instrument(recount.span().clone());
    let cleaned = tokio::time::timeout_at(deadline, tidying).await;
    let failure = match cleaned {
        Ok(Ok(())) => {
            recount.outcome = Outcome::Ok;
            return Ok(());
        }
        // Nothing went wrong with the cleaning.
        Ok(Err(Failure::ReadOnly)) => {
            recount.outcome = Outcome::Ok;
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
    (recount.outcome, recount.code) = (Outcome::Error, Some(code));
    let recorder = &pooled.meta.shared.recorder;
    recorder.connection_error(ErrorPhase::Reset, code, &failure);
    Err(CloseReason::Dirty)
}

/// Asks the server whether it takes no writes, outside any transaction; and if so has nobody get another connection
/// that leads there.
pub(super) async fn refuses_writes<M: Backend>(
    pooled: &mut PooledConnection<M>,
) -> Result<bool, RecycleError<M::Error>> {
    let backend = Arc::clone(&pooled.backend);
    if matches!(pooled.meta.stats.wire().status(), Status::InTransaction | Status::FailedTransaction) {
        backend.rollback(&mut pooled.connection).await?;
    }
    let refuses = backend.is_read_only(&mut pooled.connection).await?;
    let meta = &mut pooled.meta;
    meta.refused_write = false;
    if refuses {
        meta.shared.demote(meta.shared.recorder.now());
    }
    Ok(refuses)
}

async fn tidy<M: Backend>(pooled: &mut PooledConnection<M>, operation: OperationId) -> Result<(), Failure<M::Error>> {
    let backend = Arc::clone(&pooled.backend);
    let stats = Arc::clone(&pooled.meta.stats);
    let driver = Arc::clone(&pooled.meta.driver);
    let shared = Arc::clone(&pooled.meta.shared);
    let wire = stats.wire();
    let found_by = Context::current().and_then(|context| context.ticket);
    let tell = |dirt| shared.recorder.connection_dirty(&stats, operation, dirt, found_by);
    let mut told = false;
    loop {
        quiet(pooled).await;
        if wire.is_ended() {
            return Err(Failure::Lost);
        }
        let Some(dirt) = dirt_of(wire.status()) else { break };
        // What follows from the first is not another's doing.
        if !std::mem::replace(&mut told, true) {
            tell(dirt);
        }
        if dirt == Dirt::Busy {
            let mut patience = GRACE;
            let done = || driver.wait_until(|| wire.is_ended() || wire.status() != Status::Executing);
            // Asked again if need be: what comes before the server has begun with the query does not count.
            while tokio::time::timeout(patience, done()).await.is_err() {
                backend.cancel(&pooled.connection).await?;
                patience *= 2;
            }
        } else {
            backend.rollback(&mut pooled.connection).await?;
        }
    }
    if pooled.meta.refused_write && refuses_writes(pooled).await? {
        return Err(Failure::ReadOnly);
    }
    if std::mem::take(&mut pooled.meta.unreset) {
        for dirt in backend.reset(&mut pooled.connection).await? {
            tell(dirt);
        }
    }
    Ok(())
}

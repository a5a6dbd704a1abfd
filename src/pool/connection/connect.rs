//! Connecting: the attempt of one checkout, which may outlive it.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::super::backend::Backend;
use super::super::gate::{ConnectPermit, RetryAt};
use super::super::release::return_unused;
use super::super::shared::Shared;
use super::hook::call_before_checkout;
use super::{ConnectionMeta, ObjectPool, Place, Pooled, PooledConnection};
use crate::error::ConnectBackoff;
use crate::labels::{CloseReason, ConnectFailure, ErrorCode, ErrorPhase};
use crate::telemetry::operations::OperationId;

/// How an attempt to connect ended.
pub(in crate::pool) enum Connected<M: Backend> {
    Ok(Pooled<M>),
    Failed(M::Error),
    /// The backend did not end the attempt in time.
    GivenUp(ConnectBackoff),
    /// It failed, and the checkout waits at the gate for another.
    RetryAt(RetryAt),
}

/// An attempt to connect. It owns its place in the pool and its permit of the gate.
pub(in crate::pool) struct Connect<M: Backend> {
    future: Pin<Box<dyn Future<Output = Connected<M>> + Send>>,
    /// The runtime in which the attempt has its sockets and timers.
    runtime: Option<Handle>,
}

#[derive(Debug, thiserror::Error)]
#[error("no connection after {0:?}, when the attempt was given up")]
struct GivenUp(Duration);

impl<M: Backend> Connect<M> {
    /// Creates an attempt on behalf of `operation`. It begins at its first poll, and ends within the gate's limit
    /// whatever the backend does.
    pub(in crate::pool) fn new(
        pool: &ObjectPool<M>,
        place: Place<M>,
        permit: ConnectPermit<Shared>,
        operation: OperationId,
    ) -> Self {
        Self { future: Box::pin(connect(pool.clone(), place, permit, operation)), runtime: Handle::try_current().ok() }
    }

    pub(in crate::pool) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Connected<M>> {
        self.future.as_mut().poll(cx)
    }

    /// Continues the attempt in a task, as its checkout has ended. Its connection goes to the pool, and its failure to
    /// the gate. It ends early when the pool is closed.
    #[cold]
    pub(in crate::pool) fn detach(self, shared: &Arc<Shared>) {
        let Self { future, runtime } = self;
        let Some(runtime) = runtime.filter(|_| !shared.is_closing()) else { return };
        let owner = Arc::clone(shared);
        shared.background.spawn(shared, &runtime, shared.gate.connect_limit(), async move {
            tokio::select! {
                biased;
                connected = future => {
                    if let Connected::Ok(object) = connected {
                        return_unused(object);
                    }
                }
                () = owner.closing() => {}
            }
        });
    }
}

impl<M: Backend> fmt::Debug for Connect<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connect")
    }
}

async fn connect<M: Backend>(
    pool: ObjectPool<M>,
    place: Place<M>,
    permit: ConnectPermit<Shared>,
    operation: OperationId,
) -> Connected<M> {
    let manager = pool.manager();
    let (shared, backend) = (manager.shared(), manager.backend());
    let recorder = &shared.recorder;
    // Declared last, so that a dropped attempt is closed before its place is free.
    let Some(mut meta) = ConnectionMeta::begin(Arc::clone(shared), operation, recorder.now()) else {
        return Connected::RetryAt(RetryAt::no_place());
    };
    let (limit, began) = (shared.gate.connect_limit(), Instant::now());
    let connection = match within(limit, backend.connect(manager.observer(&meta))).await {
        Some(Ok(connection)) => connection,
        failed => {
            meta.reason = CloseReason::ConnectFailed;
            let error = failed.and_then(Result::err);
            match &error {
                Some(error) => recorder.connection_error(ErrorPhase::Connect, M::code(error), error),
                None => recorder.connection_error(ErrorPhase::Connect, ErrorCode::TIMEOUT, &GivenUp(limit)),
            }
            // Dropped before the gate counts the connections that may be returned.
            drop(meta);
            return fail(shared, permit, limit, error);
        }
    };
    meta.established(recorder.now());
    let backend = manager.shared_backend();
    let mut pooled = Box::new(PooledConnection { connection, meta, backend });
    if manager.backend().has_before_checkout() {
        // One limit for both: the gate takes an attempt that lasts longer for one that nothing drives.
        let left = limit.saturating_sub(began.elapsed());
        let called = within(left, call_before_checkout(&mut pooled, operation)).await;
        if called.is_none() {
            recorder.connection_error(ErrorPhase::Hook, ErrorCode::TIMEOUT, &GivenUp(limit));
        }
        if !matches!(called, Some(Ok(()))) {
            drop(pooled);
            return fail(shared, permit, limit, called.and_then(Result::err));
        }
    }
    permit.succeeded();
    Connected::Ok(place.fill(pooled))
}

/// Ends an attempt that failed with `error`, or was given up after `limit`.
fn fail<M: Backend>(
    shared: &Arc<Shared>,
    permit: ConnectPermit<Shared>,
    limit: Duration,
    error: Option<M::Error>,
) -> Connected<M> {
    if let Some(error) = error {
        let (failure, code) = (M::connect_failure(&error), M::code(&error));
        return match permit.failed(failure, code, &error, || shared.any_returnable()) {
            Some(retry) => Connected::RetryAt(retry),
            None => Connected::Failed(error),
        };
    }
    let (failure, code, error) = (ConnectFailure::ServerDown, ErrorCode::TIMEOUT, GivenUp(limit));
    if let Some(retry) = permit.failed(failure, code, &error, || shared.any_returnable()) {
        return Connected::RetryAt(retry);
    }
    let unrecorded =
        || ConnectBackoff { failing_for: limit, failure, code, message: error.to_string().into(), attempted: true };
    let backoff = shared.gate.last_failure().unwrap_or_else(unrecorded);
    Connected::GivenUp(ConnectBackoff { attempted: true, ..backoff })
}

/// Returns the output of the future, or `None` if it is not ready in time. Unlike tokio's `timeout`, it needs no runtime
/// for a future that is ready at once.
async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut timer) = (pin!(future), pin!(None));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if timer.is_none() {
            timer.set(Some(sleep(limit)));
        }
        if let Some(timer) = timer.as_mut().as_pin_mut() {
            ready!(timer.poll(cx));
        }
        Poll::Ready(None)
    })
    .await
}

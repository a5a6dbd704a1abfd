//! The task that resets a dirty connection before it returns to the pool.
//!
//! Such connections take places in the pool, so their number and the time of each reset are bounded. Beyond either
//! bound the connection is closed.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::super::backend::Backend;
use super::super::connection::{Pooled, free_place};
use super::reset::{dirt_of, drain, reset_until};
use super::resets::ResetUnderWay;
use super::surplus::return_and_close_surplus;
use crate::labels::CloseReason;
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;
use crate::telemetry::wire::SessionStatus;

/// How far a reset task has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    New,
    Running,
    /// It has given up.
    Ended,
}

/// A connection that is reset before it is returned. Dropping it closes the connection.
struct ResetTask<M: Backend> {
    /// `Some` until the connection is returned.
    object: Option<Pooled<M>>,
    /// The operation that released the connection.
    operation: OperationId,
    since: Nanos,
    /// The reason to record if this is dropped.
    reason: CloseReason,
    progress: Progress,
    /// The permit of the request's route, released after the connection is returned.
    _permit: Option<OwnedSemaphorePermit>,
    /// Ended after the connection is returned, so that a checkout that waits for the reset finds it.
    _under_way: ResetUnderWay,
}

/// Starts a task that resets a connection that `operation` released, and then returns it; or closes it, if that fails.
/// `permit` is released afterwards.
#[cold]
pub(super) fn reset_and_return<M: Backend>(
    object: Pooled<M>,
    operation: OperationId,
    at: Nanos,
    permit: Option<OwnedSemaphorePermit>,
) {
    let meta = &object.meta;
    let (runtime, shared) = (meta.runtime.clone(), Arc::clone(&meta.shared));
    meta.shared.recorder.maintenance_started(&meta.stats, operation, at);
    let reason = CloseReason::Dirty;
    let _under_way = ResetUnderWay::begin(&meta.shared);
    let task = ResetTask {
        object: Some(object),
        operation,
        since: at,
        reason,
        progress: Progress::New,
        _permit: permit,
        _under_way,
    };
    match runtime {
        // If the runtime is shut down, the task is dropped and closes the connection.
        Some(runtime) => {
            let limit = shared.settings.clean_timeout;
            shared.background.spawn(&shared, &runtime, limit, task.run(Instant::now() + limit));
        }
        None => drop(task),
    }
}

impl<M: Backend> ResetTask<M> {
    async fn run(mut self, deadline: Instant) {
        self.progress = Progress::Running;
        let (Some(object), operation) = (&mut self.object, self.operation) else { return };
        let pooled = &mut ***object;
        let shared = Arc::clone(&pooled.meta.shared);
        // Before anything is executed that a late request would cancel.
        if !timeout_at(deadline, pooled.meta.cancels.settled()).await.unwrap_or(false) {
            return self.give_up();
        }
        // Most are dropped transactions, which roll themselves back: that is no reset by the pool.
        let drained = timeout_at(deadline, drain(pooled)).await.is_ok();
        let is_clean = drained && pooled.meta.stats.wire().status().is_clean();
        if !is_clean || pooled.meta.unreset || pooled.meta.refused_write {
            let permit = if is_clean {
                // Only a session reset or a query of the server is needed: one round trip, which waits for a permit.
                // Without one, the next checkout does it.
                timeout_at(deadline, shared.resets.permit()).await.ok().flatten()
            } else {
                shared.resets.try_permit()
            };
            match permit {
                Some(_permit) => {
                    if let Err(reason) = reset_until(deadline, pooled, operation).await {
                        if pooled.meta.stats.wire().status() == SessionStatus::Executing {
                            let recorder = &shared.recorder;
                            recorder.kept_busy(&pooled.meta.stats, operation);
                        }
                        (self.reason, self.progress) = (reason, Progress::Ended);
                        return;
                    }
                }
                None if is_clean => {}
                None => return self.give_up(),
            }
        }
        self.finish();
    }

    /// Returns the connection to the pool, or closes it if the pool or the session has ended.
    fn finish(mut self) {
        let Some(mut object) = self.object.take() else { return };
        let meta = &mut object.meta;
        let at = meta.shared.recorder.now();
        let (recorder, stats) = (&meta.shared.recorder, &meta.stats);
        recorder.maintenance_finished(stats, self.operation, self.since, at);
        if meta.shared.is_closing() {
            object.close(CloseReason::Shutdown);
            free_place(object);
        } else if meta.stats.wire().is_ended() {
            object.close(CloseReason::Broken);
            free_place(object);
        } else {
            recorder.connection_idle(stats, at);
            meta.alive_at = meta.alive_at.max(meta.stats.wire().last_received());
            return_and_close_surplus(object);
        }
    }

    /// Records in what way the connection is dirty, and closes it.
    fn give_up(mut self) {
        self.progress = Progress::Ended;
        if let Some(object) = &self.object {
            self.record_dirt(object);
        }
    }

    /// Records in what way the connection is dirty, if that is known.
    fn record_dirt(&self, object: &Pooled<M>) {
        let meta = &object.meta;
        if let Some(dirt) = dirt_of(meta.stats.wire().status()) {
            meta.shared.recorder.connection_dirty(&meta.stats, self.operation, dirt, None);
        }
    }
}

impl<M: Backend> Drop for ResetTask<M> {
    fn drop(&mut self) {
        let Some(mut object) = self.object.take() else { return };
        if self.progress == Progress::New {
            self.record_dirt(&object);
        }
        if self.progress != Progress::Ended {
            // Its runtime does not run, and can do nothing more for the connection.
            object.meta.runtime = None;
        }
        let meta = &object.meta;
        let recorder = &meta.shared.recorder;
        recorder.maintenance_finished(&meta.stats, self.operation, self.since, recorder.now());
        object.close(self.reason);
        free_place(object);
    }
}

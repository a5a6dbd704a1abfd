//! Nobody gets a connection that somebody else left dirty.
//!
//! A connection that comes back in a transaction, or at a query that nobody waits for any more, is kept back: a task
//! of its own rolls back or cancels, and only then returns it. That takes a place in the pool, so it is bounded in
//! number and in time; beyond either the connection is closed. What a return could not see, because it had not
//! reached the wire, the next checkout cleans; if none comes before, the connection is closed a moment after its task
//! has come to it.

mod farewell;
mod tidy;

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Object, Pool};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

pub(super) use self::farewell::cancel_in_passing;
use self::farewell::farewell;
use self::tidy::{clean, dirt_of, quiet, refuses_writes};
use super::backend::Backend;
use super::guard::give_back;
use super::observed::{InstrumentedManager, PooledConnection};
use crate::labels::{CloseReason, ErrorCode};
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;
use crate::telemetry::seat::ConnectionStats;
use crate::telemetry::wire::Status;

/// How long a query that nobody waits for may go on before the server is asked to give it up. Most are done sooner
/// than that takes, which is a connection of its own.
pub(super) const GRACE: Duration = Duration::from_millis(5);

/// How long a checkout waits for a query that somebody else gave up. To make another connection takes longer.
const AT_CHECKOUT: Duration = Duration::from_millis(100);

/// read_only_sql_transaction
pub(super) const READ_ONLY: ErrorCode = ErrorCode::word("25006");

/// How many connections of a pool of at most `max` may be out for cleaning.
pub(super) fn cleaners(max: usize) -> usize {
    (max / 4).max(1)
}

/// A connection on its way back that has to be cleaned before.
struct Cleaning<M: Backend> {
    /// There until it is back.
    object: Option<Object<InstrumentedManager<M>>>,
    operation: OperationId,
    since: Nanos,
    /// What dropping it would mean.
    reason: CloseReason,
    /// Its place among those of its route, given back when it is back itself.
    _place: Option<OwnedSemaphorePermit>,
}

/// Cleans a connection that came back from `operation`, and returns it then; or closes it, if that cannot be done. `place`
/// is given back after.
#[cold]
pub(super) fn clean_and_return<M: Backend>(
    object: Object<InstrumentedManager<M>>,
    operation: OperationId,
    at: Nanos,
    place: Option<OwnedSemaphorePermit>,
) {
    let meta = &object.meta;
    let runtime = meta.runtime.clone();
    meta.shared.recorder.maintenance_started(&meta.stats, operation, at);
    let reason = CloseReason::Dirty;
    let cleaning = Cleaning { object: Some(object), operation, since: at, reason, _place: place };
    match runtime {
        // Dropped, should the runtime have come to its end, it closes the connection.
        Some(runtime) => drop(runtime.spawn(cleaning.run())),
        None => cleaning.give_up(),
    }
}

impl<M: Backend> Cleaning<M> {
    async fn run(mut self) {
        let (Some(object), operation) = (&mut self.object, self.operation) else { return };
        let pooled = &mut ***object;
        let shared = Arc::clone(&pooled.meta.shared);
        let deadline = Instant::now() + shared.policy.clean_timeout;
        // Most are transactions that were dropped: they clean up after themselves, which is no cleaning of ours.
        let quiet = timeout_at(deadline, quiet(pooled)).await.is_ok();
        let is_clean = quiet && pooled.meta.stats.wire().status().is_clean();
        if !is_clean || pooled.meta.unreset || pooled.meta.refused_write {
            let cleaners = Arc::clone(&shared.cleaners);
            let cleaner = if is_clean {
                // Only its session is to be reset, or its server to be asked: a round trip, for which it waits its turn.
                // If that does not come, the next checkout does it.
                timeout_at(deadline, cleaners.acquire_owned()).await.ok().and_then(Result::ok)
            } else {
                cleaners.try_acquire_owned().ok()
            };
            match cleaner {
                Some(_cleaner) => {
                    if let Err(reason) = clean(pooled, operation, deadline).await {
                        self.reason = reason;
                        return;
                    }
                }
                None if is_clean => {}
                None => return self.give_up(),
            }
        }
        self.give_back();
    }

    fn give_back(mut self) {
        let Some(mut object) = self.object.take() else { return };
        let meta = &mut object.meta;
        let at = meta.shared.recorder.now();
        let (recorder, stats) = (&meta.shared.recorder, &meta.stats);
        recorder.maintenance_finished(stats, self.operation, self.since, at);
        if meta.shared.is_closing() {
            meta.close(CloseReason::Shutdown);
            drop(Object::take(object));
        } else if meta.stats.wire().is_ended() {
            meta.close(CloseReason::Broken);
            drop(Object::take(object));
        } else {
            recorder.connection_idle(stats, at);
            meta.alive_at = meta.alive_at.max(meta.stats.wire().heard());
            give_back(object);
        }
    }

    /// Counts what is known to be wrong, and closes the connection.
    fn give_up(self) {
        if let Some(object) = &self.object
            && let Some(dirt) = dirt_of(object.meta.stats.wire().status())
        {
            let stats = &object.meta.stats;
            object.meta.shared.recorder.connection_dirty(stats, self.operation, dirt, None);
        }
    }
}

impl<M: Backend> Drop for Cleaning<M> {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else { return };
        let meta = &object.meta;
        let recorder = &meta.shared.recorder;
        let (stats, operation, since) = (&meta.stats, self.operation, self.since);
        recorder.maintenance_finished(stats, operation, since, recorder.now());
        meta.close(self.reason);
        cancel_in_passing(&object);
        drop(Object::take(object));
    }
}

/// Waits until all that was asked of a connection that is held has reached the wire; answers whether it has.
pub(super) async fn quieten<M: Backend>(pooled: &PooledConnection<M>, limit: Duration) -> bool {
    let limit = limit.min(pooled.meta.shared.policy.clean_timeout);
    tokio::time::timeout(limit, quiet(pooled)).await.is_ok()
}

/// The same, and until it is answered, but not longer than another's query is waited for.
pub(super) async fn settle_down<M: Backend>(pooled: &PooledConnection<M>, limit: Duration) -> bool {
    if !quieten(pooled, limit).await {
        return false;
    }
    let (driver, wire) = (&pooled.meta.driver, pooled.meta.stats.wire());
    let rests = || wire.is_ended() || (driver.is_settled() && wire.status() != Status::Executing);
    tokio::time::timeout(limit.min(AT_CHECKOUT), driver.wait_until(rests)).await.is_ok()
}

/// Asks the server of a connection that is held whether it takes no writes, and if so has nobody get another that leads
/// there. One that does not answer in time is taken for one that does.
pub(super) async fn ask_primary<M: Backend>(pooled: &mut PooledConnection<M>, limit: Duration) -> bool {
    let limit = limit.min(pooled.meta.shared.policy.clean_timeout);
    tokio::time::timeout(limit, refuses_writes(pooled)).await.is_ok_and(|answer| answer.unwrap_or(false))
}

/// Closes an idle connection that is dirty. What its last holder had asked of it reached the wire only after it was
/// back, and nobody may come for it for long.
pub(super) fn sweep<M: Backend>(pool: &Pool<InstrumentedManager<M>>, stats: &Arc<ConnectionStats>) {
    let swept = pool.retain(|pooled, _| {
        let dirty = Arc::ptr_eq(&pooled.meta.stats, stats) && dirt_of(stats.wire().status()).is_some();
        if dirty {
            pooled.meta.close(CloseReason::Dirty);
        }
        !dirty
    });
    for pooled in &swept.removed {
        let meta = &pooled.meta;
        if let Some(dirt) = dirt_of(stats.wire().status()) {
            let operation = meta.last_operation;
            meta.shared.recorder.connection_dirty(stats, operation, dirt, None);
        }
        drop(farewell(pooled));
    }
}

/// Looks after a connection that a checkout found unsettled or dirty, on behalf of the operation that held it before:
/// waits until all of that one's doing has reached the wire, and cleans it. What does not come to its end soon is
/// closed, so that nobody waits for another's query.
pub(super) async fn settle<M: Backend>(pooled: &mut PooledConnection<M>) -> Result<(), CloseReason> {
    let meta = &mut pooled.meta;
    let operation = meta.last_operation;
    let shared = Arc::clone(&meta.shared);
    let stats = Arc::clone(&meta.stats);
    let since = shared.recorder.now();
    shared.recorder.maintenance_started(&stats, operation, since);
    meta.reason = CloseReason::Dirty;
    let mut farewell = farewell(pooled);
    let wire = stats.wire();
    let deadline = Instant::now() + shared.policy.clean_timeout;
    let quiet = timeout_at(deadline, quiet(pooled)).await.is_ok();
    let cleaned = if wire.status().is_clean() && !pooled.meta.unreset && !pooled.meta.refused_write {
        if quiet { Ok(()) } else { Err(CloseReason::Dirty) }
    } else {
        let busy = wire.status() == Status::Executing;
        let soon = if busy { deadline.min(Instant::now() + AT_CHECKOUT) } else { deadline };
        clean(pooled, operation, soon).await
    };
    let at = shared.recorder.now();
    shared.recorder.maintenance_finished(&stats, operation, since, at);
    if wire.is_ended() {
        return Err(CloseReason::Broken);
    }
    cleaned?;
    farewell.attempts = None;
    let meta = &mut pooled.meta;
    meta.reason = CloseReason::Shutdown;
    meta.ready_at = at;
    Ok(())
}

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
use super::observed::{Observed, Tracked};
use crate::event::{CloseReason, ErrorCode, Event};
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;
use crate::telemetry::seat::Seat;
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
    object: Option<Object<Observed<M>>>,
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
    object: Object<Observed<M>>,
    operation: OperationId,
    at: Nanos,
    place: Option<OwnedSemaphorePermit>,
) {
    let life = &object.life;
    let runtime = life.runtime.clone();
    life.shared.watchers.emit(Event::TendingStarted { seat: &life.seat, operation, at });
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
        let tracked = &mut ***object;
        let shared = Arc::clone(&tracked.life.shared);
        let deadline = Instant::now() + shared.policy.clean_timeout;
        // Most are transactions that were dropped: they clean up after themselves, which is no cleaning of ours.
        let quiet = timeout_at(deadline, quiet(tracked)).await.is_ok();
        let is_clean = quiet && tracked.life.seat.wire().status().is_clean();
        if !is_clean || tracked.life.unreset || tracked.life.refused_write {
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
                    if let Err(reason) = clean(tracked, operation, deadline).await {
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
        let life = &mut object.life;
        let at = life.shared.watchers.now();
        let (watchers, seat) = (&life.shared.watchers, &life.seat);
        watchers.emit(Event::TendingFinished { seat, operation: self.operation, since: self.since, at });
        if life.shared.is_closing() {
            life.close(CloseReason::Shutdown);
            drop(Object::take(object));
        } else if life.seat.wire().is_ended() {
            life.close(CloseReason::Broken);
            drop(Object::take(object));
        } else {
            watchers.emit(Event::ConnectionIdle { seat, at });
            life.alive_at = life.alive_at.max(life.seat.wire().heard());
            give_back(object);
        }
    }

    /// Counts what is known to be wrong, and closes the connection.
    fn give_up(self) {
        if let Some(object) = &self.object
            && let Some(dirt) = dirt_of(object.life.seat.wire().status())
        {
            let seat = &object.life.seat;
            object.life.shared.watchers.emit(Event::ConnectionDirty {
                seat,
                operation: self.operation,
                dirt,
                found_by: None,
            });
        }
    }
}

impl<M: Backend> Drop for Cleaning<M> {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else { return };
        let life = &object.life;
        let watchers = &life.shared.watchers;
        let (seat, operation, since) = (&life.seat, self.operation, self.since);
        watchers.emit(Event::TendingFinished { seat, operation, since, at: watchers.now() });
        life.close(self.reason);
        cancel_in_passing(&object);
        drop(Object::take(object));
    }
}

/// Waits until all that was asked of a connection that is held has reached the wire; answers whether it has.
pub(super) async fn quieten<M: Backend>(tracked: &Tracked<M>, limit: Duration) -> bool {
    let limit = limit.min(tracked.life.shared.policy.clean_timeout);
    tokio::time::timeout(limit, quiet(tracked)).await.is_ok()
}

/// The same, and until it is answered, but not longer than another's query is waited for.
pub(super) async fn settle_down<M: Backend>(tracked: &Tracked<M>, limit: Duration) -> bool {
    if !quieten(tracked, limit).await {
        return false;
    }
    let (pulse, wire) = (&tracked.life.pulse, tracked.life.seat.wire());
    let rests = || wire.is_ended() || (pulse.is_settled() && wire.status() != Status::Executing);
    tokio::time::timeout(limit.min(AT_CHECKOUT), pulse.until(rests)).await.is_ok()
}

/// Asks the server of a connection that is held whether it takes no writes, and if so has nobody get another that leads
/// there. One that does not answer in time is taken for one that does.
pub(super) async fn ask_primary<M: Backend>(tracked: &mut Tracked<M>, limit: Duration) -> bool {
    let limit = limit.min(tracked.life.shared.policy.clean_timeout);
    tokio::time::timeout(limit, refuses_writes(tracked)).await.is_ok_and(|answer| answer.unwrap_or(false))
}

/// Closes an idle connection that is dirty. What its last holder had asked of it reached the wire only after it was
/// back, and nobody may come for it for long.
pub(super) fn sweep<M: Backend>(pool: &Pool<Observed<M>>, seat: &Arc<Seat>) {
    let swept = pool.retain(|tracked, _| {
        let dirty = Arc::ptr_eq(&tracked.life.seat, seat) && dirt_of(seat.wire().status()).is_some();
        if dirty {
            tracked.life.close(CloseReason::Dirty);
        }
        !dirty
    });
    for tracked in &swept.removed {
        let life = &tracked.life;
        if let Some(dirt) = dirt_of(seat.wire().status()) {
            let operation = life.last_operation;
            life.shared.watchers.emit(Event::ConnectionDirty { seat, operation, dirt, found_by: None });
        }
        drop(farewell(tracked));
    }
}

/// Looks after a connection that a checkout found unsettled or dirty, on behalf of the operation that held it before:
/// waits until all of that one's doing has reached the wire, and cleans it. What does not come to its end soon is
/// closed, so that nobody waits for another's query.
pub(super) async fn settle<M: Backend>(tracked: &mut Tracked<M>) -> Result<(), CloseReason> {
    let life = &mut tracked.life;
    let operation = life.last_operation;
    let shared = Arc::clone(&life.shared);
    let seat = Arc::clone(&life.seat);
    let since = shared.watchers.now();
    shared.watchers.emit(Event::TendingStarted { seat: &seat, operation, at: since });
    life.reason = CloseReason::Dirty;
    let mut farewell = farewell(tracked);
    let wire = seat.wire();
    let deadline = Instant::now() + shared.policy.clean_timeout;
    let quiet = timeout_at(deadline, quiet(tracked)).await.is_ok();
    let cleaned = if wire.status().is_clean() && !tracked.life.unreset && !tracked.life.refused_write {
        if quiet { Ok(()) } else { Err(CloseReason::Dirty) }
    } else {
        let busy = wire.status() == Status::Executing;
        let soon = if busy { deadline.min(Instant::now() + AT_CHECKOUT) } else { deadline };
        clean(tracked, operation, soon).await
    };
    let at = shared.watchers.now();
    shared.watchers.emit(Event::TendingFinished { seat: &seat, operation, since, at });
    if wire.is_ended() {
        return Err(CloseReason::Broken);
    }
    cleaned?;
    farewell.attempts = None;
    let life = &mut tracked.life;
    life.reason = CloseReason::Shutdown;
    life.ready_at = at;
    Ok(())
}

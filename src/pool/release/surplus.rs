//! The return of a connection to deadpool's pool, and the closing of idle connections.

use std::sync::Arc;

use super::super::backend::Backend;
use super::super::connection::{ConnectionMeta, ObjectPool, Pooled, free_place};
use super::reset::dirt_of;
use crate::labels::{CloseReason, ConnectionState};
use crate::telemetry::clock::Nanos;
use crate::telemetry::connection::ConnectionStats;

/// Returns a connection to its pool, wakes a checkout that waits at the gate, and closes what is surplus. Closes the
/// connection instead, if the pool has more than its maximum.
#[inline(never)]
pub(super) fn return_and_close_surplus<M: Backend>(object: Pooled<M>) {
    let (pool, shared) = (Pooled::pool(&object), Arc::clone(&object.meta.shared));
    let recorder = &shared.recorder;
    // The hint spares most returns the ledger's lock; a connection that it misses is closed at its next return.
    if recorder.live_hint() > recorder.ledger().limits().max() && recorder.ledger().is_oversized() {
        object.close(CloseReason::Resized);
        free_place(object);
        return;
    }
    // Returned first, so that it is among the idle connections that are counted.
    drop(object);
    shared.gate.wake_one();
    if let Some(pool) = pool {
        close_surplus(&pool);
    }
}

/// Returns a connection that was made for a checkout that has ended meanwhile.
pub(in crate::pool) fn return_unused<M: Backend>(object: Pooled<M>) {
    let ConnectionMeta { shared, stats, ready_at, .. } = &object.meta;
    let (recorder, at) = (&shared.recorder, shared.recorder.now());
    recorder.maintenance_finished(stats, stats.state().operation, *ready_at, at);
    if shared.is_closing() {
        object.close(CloseReason::Shutdown);
        free_place(object);
    } else {
        recorder.connection_idle(stats, at);
        return_and_close_surplus(object);
    }
}

/// Closes connections that a checkout without a connection may leave behind: connections beyond `pool_size` were kept
/// for it, or it was about to take one when the pool was closed.
pub(in crate::pool) fn after_failed_checkout<M: Backend>(pool: &ObjectPool<M>) {
    let shared = pool.manager().shared();
    if shared.is_closing() {
        close_idle(pool);
        shared.notify_if_closing();
    } else {
        close_surplus(pool);
    }
}

/// Closes idle connections beyond `pool_size` that are kept for no checkout in the queue.
///
/// Whatever may cause a surplus (a return, or a checkout that leaves the queue) calls this afterwards, so the last call
/// finds all of it. (`crates/model` runs these in every order.)
fn close_surplus<M: Backend>(pool: &ObjectPool<M>) {
    let ledger = pool.manager().shared().recorder.ledger();
    if ledger.has_surplus() {
        close_while(pool, CloseReason::Overflow, || ledger.has_surplus());
    }
}

/// Closes idle connections that are beyond the maximum or `pool_size` of a pool that was resized.
pub(in crate::pool) fn close_beyond_limits<M: Backend>(pool: &ObjectPool<M>) {
    let ledger = pool.manager().shared().recorder.ledger();
    if ledger.is_oversized() {
        close_while(pool, CloseReason::Resized, || ledger.is_oversized());
    }
    close_surplus(pool);
}

/// Closes connections that have been idle for `timeout`, longest idle first, while more than `min_idle` are idle.
pub(in crate::pool) fn close_expired<M: Backend>(pool: &ObjectPool<M>, timeout: u64, min_idle: usize, now: Nanos) {
    let ledger = pool.manager().shared().recorder.ledger();
    // Read once: connections are neither handed out nor returned while deadpool's lock is held.
    let mut spare = None;
    let closed = pool.retain(|pooled, _| {
        let state = pooled.meta.stats.state();
        let is_expired = state.label == ConnectionState::Idle && now.since(state.since) >= timeout;
        if !is_expired {
            return true;
        }
        let spare = spare.get_or_insert_with(|| ledger.connections().idle.saturating_sub(min_idle));
        let closes = *spare > 0;
        if closes {
            *spare -= 1;
            pooled.close(CloseReason::IdleTimeout);
        }
        !closes
    });
    drop(closed);
}

/// Closes all idle connections of a pool that is closing.
pub(in crate::pool) fn close_idle<M: Backend>(pool: &ObjectPool<M>) {
    close_while(pool, CloseReason::Shutdown, || true);
}

/// Closes idle connections, longest idle first, while `condition` holds.
fn close_while<M: Backend>(pool: &ObjectPool<M>, reason: CloseReason, condition: impl Fn() -> bool) {
    let mut closes = true;
    let closed = pool.retain(|pooled, _| {
        // Not read again once it does not hold: reading it takes the ledger's lock.
        closes = closes && condition();
        if closes {
            // Recorded under deadpool's lock, before another connection can take the place.
            pooled.close(reason);
        }
        !closes
    });
    // Closed and logged without that lock.
    drop(closed);
}

/// Closes the connection with these statistics if it is idle and dirty: what its last holder sent reached the wire only
/// after the return, and no checkout may find the connection for long.
pub(in crate::pool) fn sweep<M: Backend>(pool: &ObjectPool<M>, stats: &Arc<ConnectionStats>) {
    let swept = pool.retain(|pooled, _| {
        let dirty = Arc::ptr_eq(&pooled.meta.stats, stats) && dirt_of(stats.wire().status()).is_some();
        if dirty {
            pooled.close(CloseReason::Dirty);
        }
        !dirty
    });
    for pooled in &swept.removed {
        if let Some(dirt) = dirt_of(stats.wire().status()) {
            pooled.meta.shared.recorder.connection_dirty(stats, pooled.meta.last_operation, dirt, None);
        }
    }
}

//! The invariants of snapshots, over a scripted backend.

#[path = "../support/invariants.rs"]
mod shared;

use poolscope::labels::Phase;
use poolscope::telemetry::PoolSnapshot;

use super::backend::ScriptedBackend;
use shared::check_accounts;
pub(crate) use shared::{check_monotonic, check_quiescent};

/// Checks the invariants that hold at every moment, during any work of other threads, in a pool that is not resized.
#[track_caller]
pub(crate) fn check(snapshot: &PoolSnapshot) {
    check_resized(snapshot, 0);
}

/// Checks the invariants that hold at every moment in a pool that had `before` connections when it was resized.
#[track_caller]
pub(crate) fn check_resized(snapshot: &PoolSnapshot, before: usize) {
    check_accounts(snapshot, before);
    assert_eq!(snapshot.phase_nanos[Phase::Clean.index()], 0, "nothing is reset");
}

/// Checks that the pool agrees with the backend's own counts.
#[track_caller]
pub(crate) fn check_against_backend(snapshot: &PoolSnapshot, backend: &ScriptedBackend) {
    assert_eq!(snapshot.connections.live(), backend.live(), "live connections: {:?}", snapshot.connections);
    assert_eq!(snapshot.connections.creating, backend.creates().running(), "connections being established");
    assert_eq!(snapshot.created, backend.opened() as u64, "connections opened");
}

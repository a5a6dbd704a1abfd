//! What PostgreSQL itself says, where somebody asks it: `Pool::watch_server`, as the binary does.

use std::time::UNIX_EPOCH;

use super::{Kind, Metric};
use crate::telemetry::clock::to_f64;
use crate::telemetry::ledger::PoolSnapshot;
use crate::telemetry::server::{ServerPoll, ServerView};

/// What the server last said, if it was seen.
fn seen(pool: &PoolSnapshot) -> Option<&ServerView> {
    match &pool.server {
        Some(ServerPoll::Seen(view)) => Some(view),
        _ => None,
    }
}

/// A gauge without labels, which is `$of` the [`ServerView`], and missing where the server was not seen.
macro_rules! of_server {
    ($name:literal, $help:literal, $of:expr) => {
        Metric::of_pool($name, Kind::Gauge, &[], $help, |pool, sink| {
            if let Some(view) = seen(pool) {
                let of: fn(&ServerView) -> f64 = $of;
                sink.value(&[], of(view));
            }
        })
    };
}

pub(super) const UP: Metric = Metric::of_pool(
    "poolscope_server_up",
    Kind::Gauge,
    &[],
    "Whether PostgreSQL answered when it was last asked for its own view, on a connection that is not the pool's. 0: it could not be reached, had no slot left or was silent for 5 s, and the other poolscope_server_ metrics are missing. All are where nobody asks (Pool::watch_server).",
    |pool, sink| match &pool.server {
        Some(ServerPoll::Seen(_)) => sink.value(&[], 1.0),
        Some(ServerPoll::Failed) => sink.value(&[], 0.0),
        None => {}
    },
);

pub(super) const SEEN: Metric = of_server!(
    "poolscope_server_seen_timestamp_seconds",
    "When the server last said what the other poolscope_server_ metrics show, in seconds since 1970 by this machine's clock.",
    |view| view.seen_at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
);

pub(super) const INFO: Metric = Metric::of_pool(
    "poolscope_server_info",
    Kind::Gauge,
    &["version", "role"],
    "Always 1. The version of PostgreSQL, and its part in replication: primary or standby.",
    |pool, sink| {
        if let Some(view) = seen(pool) {
            sink.value(&[&view.version, view.role.as_str()], 1.0);
        }
    },
);

pub(super) const BACKENDS: Metric = Metric::of_pool(
    "poolscope_server_backends",
    Kind::Gauge,
    &["application_name", "state"],
    "Clients' backends of the whole server, in all databases, by what pg_stat_activity says of them: the application_name, which is a pool's setting, and the state. To see the state of other roles' takes pg_monitor; without it the state is hidden, and parallel workers are among them. The 200 names with the most backends are told apart, then the label says other.",
    |pool, sink| {
        if let Some(view) = seen(pool) {
            for backends in &view.backends {
                sink.value(&[&backends.application, backends.state.as_str()], to_f64(backends.count));
            }
        }
    },
);

pub(super) const SLOTS: Metric = of_server!(
    "poolscope_server_slots",
    "How many backends of clients there may be at once for roles that are not privileged: max_connections less superuser_reserved_connections and reserved_connections; or the limit of the pool's database, where that is less. A role's own limit is not looked at.",
    |view| to_f64(view.slots)
);

pub(super) const SLOTS_LEFT: Metric = of_server!(
    "poolscope_server_slots_left",
    "How many more of them there may be now; without pg_monitor fewer, by the parallel workers that cannot be told apart. At 0, connecting fails with SQLSTATE 53300.",
    |view| to_f64(view.slots_left)
);

pub(super) const LOCK_WAITERS: Metric = of_server!(
    "poolscope_server_lock_waiters",
    "Backends that currently wait for a lock which another holds; those that may not be looked at are not counted.",
    |view| to_f64(view.lock_waiters)
);

pub(super) const OLDEST_TRANSACTION: Metric = of_server!(
    "poolscope_server_oldest_transaction_seconds",
    "The age of the oldest transaction of all clients, in any database, prepared ones included; 0 if there is none that may be looked at.",
    |view| view.oldest_transaction.as_secs_f64()
);

pub(super) const OLDEST_IDLE_IN_TRANSACTION: Metric = of_server!(
    "poolscope_server_oldest_idle_in_transaction_seconds",
    "The longest time for which a transaction of any client has been open while nothing is asked of it; 0 if there is none that may be looked at.",
    |view| view.oldest_idle_in_transaction.as_secs_f64()
);

//! The metrics of the server's view of itself, present if the server is watched (`Pool::watch_server`).

use std::time::UNIX_EPOCH;

use super::{Kind, Metric};
use crate::labels::ClientAddress;
use crate::telemetry::clock::to_f64;
use crate::telemetry::ledger::PoolSnapshot;
use crate::telemetry::server::{ServerPoll, ServerView};

/// Returns the server's view, if the last poll succeeded.
fn seen(pool: &PoolSnapshot) -> Option<&ServerView> {
    match &pool.server {
        Some(ServerPoll::Seen(view)) => Some(view),
        _ => None,
    }
}

/// Defines a gauge without labels: `$of` the [`ServerView`], missing if the last poll failed.
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
    "Whether the server, PostgreSQL or Redis, replied to the last query of its own view, made on a connection outside the pool. 0 if it was unreachable, had no free slot or did not reply within 5 s; the other poolscope_server_ and poolscope_redis_ metrics are then missing. All are missing unless the server is watched (Pool::watch_server).",
    |pool, sink| match &pool.server {
        Some(ServerPoll::Seen(_) | ServerPoll::Redis(_)) => sink.value(&[], 1.0),
        Some(ServerPoll::Failed) => sink.value(&[], 0.0),
        None => {}
    },
);

pub(super) const SEEN: Metric = of_server!(
    "poolscope_server_seen_timestamp_seconds",
    "Time of the last reply that the other poolscope_server_ metrics show, in seconds since 1970 by the clock of this machine.",
    |view| view.seen_at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
);

pub(super) const INFO: Metric = Metric::of_pool(
    "poolscope_server_info",
    Kind::Gauge,
    &["version", "role"],
    "Always 1. The version of PostgreSQL and its role in replication: primary or standby.",
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
    "Client backends of the whole server, in all databases, by application_name (a setting of the pool) and state as in pg_stat_activity. The state of backends of other roles is hidden unless the querying role has pg_monitor; parallel workers are then counted too. At most the 200 names with the most backends; further ones are counted as other.",
    |pool, sink| {
        if let Some(view) = seen(pool) {
            for backends in &view.backends {
                sink.value(&[&backends.application, backends.state.as_str()], to_f64(backends.count));
            }
        }
    },
);

pub(super) const UNOWNED: Metric = Metric::of_pool(
    "poolscope_server_unowned_connections",
    Kind::Gauge,
    &["client_address"],
    "Client backends with the application_name of the pool that belong to no connection of the pools in this process, by the address they connect from. At the same address as this process: those of a process that has crashed, of another process on this host, or of a proxy. At another address: those of other instances too, which their own metrics count. Connections outside the pool are not included. Missing if read_wire is off.",
    |pool, sink| {
        if let Some(view) = seen(pool) {
            for (address, count) in ClientAddress::ALL.iter().zip(view.unowned.into_iter().flatten()) {
                sink.value(&[address.as_str()], to_f64(count));
            }
        }
    },
);

pub(super) const SLOTS: Metric = of_server!(
    "poolscope_server_slots",
    "Maximum number of client backends of unprivileged roles: max_connections minus superuser_reserved_connections and reserved_connections, or the connection limit of the database of the pool, if that is lower. Limits of roles are not considered.",
    |view| to_f64(view.slots)
);

pub(super) const SLOTS_LEFT: Metric = of_server!(
    "poolscope_server_slots_left",
    "Client backends that can still connect; without pg_monitor fewer, because parallel workers cannot be distinguished. At 0, connecting fails with SQLSTATE 53300.",
    |view| to_f64(view.slots_left)
);

pub(super) const LOCK_WAITERS: Metric = of_server!(
    "poolscope_server_lock_waiters",
    "Backends currently waiting for a lock held by another backend, as far as the querying role can see them.",
    |view| to_f64(view.lock_waiters)
);

pub(super) const OLDEST_TRANSACTION: Metric = of_server!(
    "poolscope_server_oldest_transaction_seconds",
    "Age of the oldest transaction of any client in any database, including prepared ones; 0 if there is none that the querying role can see.",
    |view| view.oldest_transaction.as_secs_f64()
);

pub(super) const OLDEST_IDLE_IN_TRANSACTION: Metric = of_server!(
    "poolscope_server_oldest_idle_in_transaction_seconds",
    "Longest time for which a client has been idle in a transaction; 0 if there is none that the querying role can see.",
    |view| view.oldest_idle_in_transaction.as_secs_f64()
);

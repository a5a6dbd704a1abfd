//! The metrics of a Redis server's view of itself, present if the server is watched (`redis::Pool::watch_server`).

use super::{Kind, Metric};
use crate::telemetry::clock::to_f64;
use crate::telemetry::ledger::PoolSnapshot;
use crate::telemetry::redis_view::RedisView;
use crate::telemetry::server::ServerPoll;

/// Returns the server's view, if the last poll succeeded.
fn seen(pool: &PoolSnapshot) -> Option<&RedisView> {
    match &pool.server {
        Some(ServerPoll::Redis(view)) => Some(view),
        _ => None,
    }
}

/// Defines a metric without labels: `$of` the [`RedisView`], missing if the last poll failed or it is `None`.
macro_rules! of_redis {
    ($name:literal, $kind:ident, $help:literal, $of:expr) => {
        Metric::of_pool($name, Kind::$kind, &[], $help, |pool, sink| {
            let of: fn(&RedisView) -> Option<u64> = $of;
            if let Some(value) = seen(pool).and_then(of) {
                sink.value(&[], to_f64(value));
            }
        })
    };
}

pub(super) const INFO: Metric = Metric::of_pool(
    "poolscope_redis_info",
    Kind::Gauge,
    &["version", "role"],
    "Always 1. The version of Redis and its role in replication: primary or standby (a replica).",
    |pool, sink| {
        if let Some(view) = seen(pool) {
            sink.value(&[&view.version, view.role.as_str()], 1.0);
        }
    },
);

pub(super) const CLIENTS: Metric = of_redis!(
    "poolscope_redis_clients",
    Gauge,
    "Clients of the whole server, including the connection that queries this.",
    |view| Some(view.clients)
);

pub(super) const CLIENTS_BLOCKED: Metric =
    of_redis!("poolscope_redis_clients_blocked", Gauge, "Clients that wait in a blocking command.", |view| Some(
        view.blocked_clients
    ));

pub(super) const CLIENTS_MAX: Metric = of_redis!(
    "poolscope_redis_clients_max",
    Gauge,
    "Maximum number of clients (maxclients). Beyond it, connecting fails with the error_type MAXCLIENTS. Missing before Redis 7.",
    |view| view.max_clients
);

pub(super) const REJECTED: Metric = of_redis!(
    "poolscope_redis_rejected_connections_total",
    Counter,
    "Clients that the server refused because of maxclients, since it started.",
    |view| Some(view.rejected)
);

pub(super) const MEMORY: Metric =
    of_redis!("poolscope_redis_memory_bytes", Gauge, "Memory that the server has allocated.", |view| Some(view.memory));

pub(super) const MEMORY_MAX: Metric = of_redis!(
    "poolscope_redis_memory_max_bytes",
    Gauge,
    "Limit of the memory of the server (maxmemory); 0 if there is none. At the limit, keys are evicted, or writes fail with the error_type OOM.",
    |view| Some(view.max_memory)
);

pub(super) const EVICTED: Metric = of_redis!(
    "poolscope_redis_evicted_keys_total",
    Counter,
    "Keys that the server evicted because of maxmemory, since it started.",
    |view| Some(view.evicted)
);

pub(super) const HITS: Metric = of_redis!(
    "poolscope_redis_keyspace_hits_total",
    Counter,
    "Look-ups of keys that existed, by all clients, since the server started.",
    |view| Some(view.hits)
);

pub(super) const MISSES: Metric = of_redis!(
    "poolscope_redis_keyspace_misses_total",
    Counter,
    "Look-ups of keys that did not exist, by all clients, since the server started.",
    |view| Some(view.misses)
);

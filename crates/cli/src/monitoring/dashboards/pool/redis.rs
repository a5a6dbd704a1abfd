//! The row with the statistics of Redis servers, if a process polls them (`redis::Pool::watch_server`, the demo).

use std::fmt;

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{Description, NEUTRAL, PanelBuilder};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{metric, sum};
use crate::monitoring::dashboards::unit::Unit;
use crate::monitoring::names::POOL_LABEL;

pub(super) fn row() -> Row {
    Row::open("Redis server", vec![clients(), memory(), evictions()])
}

/// Returns the sum over servers. Several instances of a job may poll one, and report the same values.
fn of_servers(of: impl fmt::Display) -> String {
    sum(format!("max by (job, {POOL_LABEL}) ({of})"))
}

fn clients() -> PanelBuilder {
    let description = Description {
        shows: "Clients of the whole server, those that wait in a blocking command, and the maximum (maxclients, dashed).",
        normal: "Far below the maximum. At the maximum, connecting fails with the error_type MAXCLIENTS.",
        action: "CLIENT LIST on the server shows the clients by name. Lower pool_size and max_overflow, or raise maxclients.",
    };
    PanelBuilder::lines(PanelId::RedisClients, "Redis clients", description)
        .query(of_servers(metric!("poolscope_redis_clients")), "clients")
        .query(of_servers(metric!("poolscope_redis_clients_blocked")), "blocked")
        .query(of_servers(metric!("poolscope_redis_clients_max")), "maximum")
        .colors(&[("clients", "blue"), ("blocked", "orange")])
        .limit("maximum", NEUTRAL)
}

fn memory() -> PanelBuilder {
    let description = Description {
        shows: "Memory that the server has allocated, and its limit (maxmemory, dashed); without a limit, no line.",
        normal: "Below the limit, or at it with a policy that evicts (maxmemory-policy).",
        action: "At the limit with the policy noeviction, writes fail with the error_type OOM: raise maxmemory, choose a \
                 policy that evicts, or shorten the time to live.",
    };
    PanelBuilder::lines(PanelId::RedisMemory, "Redis memory", description)
        .query(of_servers(metric!("poolscope_redis_memory_bytes")), "allocated")
        .query(format!("{} > 0", of_servers(metric!("poolscope_redis_memory_max_bytes"))), "limit")
        .unit(Unit::Bytes)
        .colors(&[("allocated", "blue")])
        .limit("limit", NEUTRAL)
}

fn evictions() -> PanelBuilder {
    let description = Description {
        shows: "Keys that the server evicted because of maxmemory, and clients that it refused because of maxclients, per \
                second.",
        normal: "0. Some evictions are normal for a cache that is larger than its memory, if its hit ratio is high.",
        action: "Many evictions and a low hit ratio: raise maxmemory. Refused clients: check the clients beside.",
    };
    PanelBuilder::lines(PanelId::RedisEvictions, "Redis evictions and refusals", description)
        .query(of_servers(metric!("poolscope_redis_evicted_keys_total").rate()), "evicted keys")
        .query(of_servers(metric!("poolscope_redis_rejected_connections_total").rate()), "refused clients")
        .unit(Unit::PerSecond)
        .colors(&[("evicted keys", "orange"), ("refused clients", "red")])
}

//! The view of a Redis server of itself: clients, memory, evictions.

use std::sync::Arc;
use std::time::SystemTime;

use crate::labels::ServerRole;
use crate::text::printable;

/// The state of a Redis server, as last queried by the pool's `watch_server`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisView {
    /// When the server replied, by this machine's clock.
    pub seen_at: SystemTime,
    /// The server's version, for example `7.2.4`: Valkey's own, rather than that of Redis with which it is compatible.
    pub version: Arc<str>,
    /// The server's role in replication.
    pub role: ServerRole,
    /// The clients that are connected, including the one that ran the query.
    pub clients: u64,
    /// The clients that wait in a blocking command.
    pub blocked_clients: u64,
    /// The maximum number of clients. `None` if the server does not report it, as before Redis 7.
    pub max_clients: Option<u64>,
    /// The clients that were refused because there were too many, since the server started.
    pub rejected: u64,
    /// The memory that the server has allocated, in bytes.
    pub memory: u64,
    /// The limit of the memory, in bytes; zero if there is none.
    pub max_memory: u64,
    /// The keys evicted because of that limit, since the server started.
    pub evicted: u64,
    /// The look-ups of keys that existed, since the server started.
    pub hits: u64,
    /// The look-ups of keys that did not exist, since the server started.
    pub misses: u64,
}

#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only the pool for Redis queries it"))]
impl RedisView {
    /// Returns the view in a reply to `INFO`; `None` if it is none.
    pub(crate) fn parse(info: &str, seen_at: SystemTime) -> Option<Self> {
        let text = |field: &str| {
            let mut lines = info.lines().filter_map(|line| line.trim_end().split_once(':'));
            lines.find(|(name, _)| *name == field).map(|(_, value)| value)
        };
        let number = |field: &str| text(field)?.parse().ok();
        let count = |field: &str| number(field).unwrap_or_default();
        Some(Self {
            seen_at,
            version: printable(text("valkey_version").or_else(|| text("redis_version"))?).into(),
            role: if text("role") == Some("slave") { ServerRole::Standby } else { ServerRole::Primary },
            clients: number("connected_clients")?,
            blocked_clients: count("blocked_clients"),
            max_clients: number("maxclients"),
            rejected: count("rejected_connections"),
            memory: number("used_memory")?,
            max_memory: count("maxmemory"),
            evicted: count("evicted_keys"),
            hits: count("keyspace_hits"),
            misses: count("keyspace_misses"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_the_reply() {
        let info = "# Server\r\nredis_version:7.0.15\r\n# Clients\r\nconnected_clients:3\r\nmaxclients:10000\r\n\
                    used_memory:1048576\r\nmaxmemory:0\r\nevicted_keys:5\r\nrole:slave\r\n";
        let view = RedisView::parse(info, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!((&*view.version, view.role, view.clients), ("7.0.15", ServerRole::Standby, 3));
        assert_eq!((view.max_clients, view.memory, view.evicted), (Some(10_000), 1_048_576, 5));
        let valkey = format!("{info}server_name:valkey\r\nvalkey_version:8.0.1\r\n");
        assert_eq!(&*RedisView::parse(&valkey, SystemTime::UNIX_EPOCH).unwrap().version, "8.0.1");
        assert_eq!(RedisView::parse("+PONG", SystemTime::UNIX_EPOCH), None);
    }
}

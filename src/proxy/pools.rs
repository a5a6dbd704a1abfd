//! The pools that client connections are grouped into.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::messages::StartupParameters;
use super::settings::Settings;
use crate::diagnosis::Engine;
use crate::labels::ErrorCode;
use crate::telemetry::clock::{Clock, Nanos, nanos};
use crate::telemetry::ledger::{BackoffSource, Ledger, Recorder};
use crate::telemetry::trace::{DatabaseSystem, ServerAddress};
use crate::telemetry::{Collector, Limits};

/// The pool of the clients beyond `max_pools`, and of those that were refused before they had a pool.
const OTHER: &str = "other";

/// What distinguishes the pools of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupKey {
    /// The `application_name` with which the client connects.
    Application,
    /// The user.
    User,
    /// The database.
    Database,
    /// The client's IP address.
    Client,
}

impl GroupKey {
    /// Every key, in the order in which they are part of a pool's name.
    pub const ALL: [Self; 4] = [Self::Application, Self::User, Self::Database, Self::Client];

    /// Returns the key as it is spelled in settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::User => "user",
            Self::Database => "database",
            Self::Client => "client",
        }
    }
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for GroupKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|key| key.as_str() == text);
        found.ok_or("expected application, user, database or client")
    }
}

/// The pools of a proxy. A pool exists once a client of it was authenticated, and as long as the proxy.
#[derive(Debug)]
pub(super) struct Pools {
    collector: Collector,
    group_by: Vec<GroupKey>,
    max: usize,
    limits: Limits,
    server: (String, Option<u16>),
    known: Mutex<HashMap<String, Pool>>,
}

/// One pool.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) recorder: Recorder,
    outage: Arc<Outage>,
}

/// Since when clients of a pool have not been able to connect.
#[derive(Debug)]
struct Outage {
    clock: Clock,
    /// The first and the last failure since the last success, in nanoseconds; zero if there is none.
    began: AtomicU64,
    last: AtomicU64,
}

/// After this time without a failure, nobody tries to connect any more.
const OUTAGE_TTL: Duration = Duration::from_secs(10);

impl Outage {
    fn failed(&self) {
        let now = self.clock.now();
        let last = self.last.swap(now.as_nanos(), Relaxed);
        // A failure after a long time without one belongs to another outage.
        if self.began.load(Relaxed) == 0 || now.since(Nanos::from_nanos(last)) >= nanos(OUTAGE_TTL) {
            self.began.store(now.as_nanos(), Relaxed);
        }
    }
}

impl BackoffSource for Outage {
    fn suspended_for(&self) -> Option<Duration> {
        let (now, began) = (self.clock.now(), self.began.load(Relaxed));
        let is_recent = now.since(Nanos::from_nanos(self.last.load(Relaxed))) < nanos(OUTAGE_TTL);
        (began > 0 && is_recent).then(|| now.duration_since(Nanos::from_nanos(began)))
    }
}

impl Pool {
    /// Records that a session has started.
    pub(super) fn connected(&self) {
        if self.outage.began.load(Relaxed) > 0 {
            self.outage.began.store(0, Relaxed);
        }
    }

    /// Records that a session could not start, with this code.
    pub(super) fn failed(&self, code: ErrorCode) {
        let is_outage =
            matches!(code, ErrorCode::IO | ErrorCode::TIMEOUT | ErrorCode::TLS) || code == CANNOT_CONNECT_NOW;
        if is_outage {
            self.outage.failed();
        }
    }
}

/// The server is starting or shutting down.
const CANNOT_CONNECT_NOW: ErrorCode = ErrorCode::new("57P03");

impl Pools {
    pub(super) fn new(settings: &Settings, collector: &Collector, server: (String, Option<u16>)) -> Self {
        let limits = Limits::of_proxy(settings.pool_size, settings.leak_threshold, settings.slow_query_threshold);
        Self {
            collector: collector.clone(),
            group_by: GroupKey::ALL.into_iter().filter(|key| settings.group_by.contains(key)).collect(),
            max: settings.max_pools,
            limits,
            server,
            known: Mutex::default(),
        }
    }

    /// Returns the name of a client's pool, as in `api app@shop 10.0.0.7`.
    pub(super) fn name_of(&self, client: &StartupParameters, address: Option<IpAddr>) -> String {
        let mut name = String::new();
        for key in &self.group_by {
            let (separator, part) = match key {
                GroupKey::Application => ("", client.application.clone()),
                GroupKey::User => (" ", client.user.clone()),
                GroupKey::Database => {
                    (if self.group_by.contains(&GroupKey::User) { "@" } else { " " }, client.database.clone())
                }
                GroupKey::Client => (" ", address.map_or_else(|| "local".to_owned(), |address| address.to_string())),
            };
            if !name.is_empty() {
                name.push_str(separator);
            }
            name.push_str(if part.is_empty() && self.group_by.len() == 1 { "unnamed" } else { &part });
        }
        name
    }

    /// Returns the pool of this name, if it exists.
    pub(super) fn get(&self, name: &str) -> Option<Pool> {
        self.lock().get(name).cloned()
    }

    /// Returns the pool of this name, or `other` if there are too many.
    pub(super) fn get_or_create(&self, name: &str) -> Pool {
        let mut known = self.lock();
        if let Some(pool) = known.get(name) {
            return pool.clone();
        }
        let named = known.len() - usize::from(known.contains_key(OTHER));
        let name = if named < self.max { name } else { OTHER };
        known.entry(name.to_owned()).or_insert_with(|| self.create(name)).clone()
    }

    /// Returns the pool of clients that have none.
    pub(super) fn other(&self) -> Pool {
        self.lock().entry(OTHER.to_owned()).or_insert_with(|| self.create(OTHER)).clone()
    }

    fn create(&self, name: &str) -> Pool {
        let ledger = self.collector.join(name, None, |name| Ledger::of_proxy(name, self.limits, Clock::new()));
        ledger.set_diagnoser(Box::new(Engine::of_proxy()));
        let outage =
            Arc::new(Outage { clock: ledger.clock().clone(), began: AtomicU64::new(0), last: AtomicU64::new(0) });
        let source: Weak<Outage> = Arc::downgrade(&outage);
        ledger.set_backoff_source(source);
        let recorder = Recorder::new(ledger);
        recorder.log().proxied_pool_seen();
        Pool { recorder, outage }
    }

    /// Returns the server's address for the spans of a client's queries.
    pub(super) fn server_of(&self, client: &StartupParameters) -> Arc<ServerAddress> {
        let (address, port) = self.server.clone();
        let system = DatabaseSystem::PostgreSql;
        Arc::new(ServerAddress { system, database: client.database.clone(), address, port })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Pool>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(group_by: &[GroupKey], max_pools: usize) -> Pools {
        let mut settings = Settings::new("postgres://db:5432").unwrap();
        settings.group_by = group_by.to_vec();
        settings.max_pools = max_pools;
        Pools::new(&settings, &Collector::new(), ("db".to_owned(), None))
    }

    fn client(application: &str) -> StartupParameters {
        StartupParameters { user: "app".into(), database: "shop".into(), application: application.into() }
    }

    #[test]
    fn name_has_the_configured_parts_in_order() {
        let address = Some(IpAddr::from([10, 0, 0, 7]));
        for (group_by, application, name) in [
            (&GroupKey::ALL[..], "api", "api app@shop 10.0.0.7"),
            (&[GroupKey::User, GroupKey::Application, GroupKey::Database], "api", "api app@shop"),
            (&[GroupKey::Application, GroupKey::User, GroupKey::Database], "", "app@shop"),
            (&[GroupKey::Application], "api", "api"),
            (&[GroupKey::Application], "", "unnamed"),
            (&[GroupKey::Database, GroupKey::Client], "api", "shop 10.0.0.7"),
        ] {
            assert_eq!(pools(group_by, 1).name_of(&client(application), address), name);
        }
        assert_eq!(pools(&[GroupKey::Client], 1).name_of(&client(""), None), "local");
    }

    #[test]
    fn later_failure_begins_another_outage() {
        let (clock, mock) = Clock::mock();
        let outage = Outage { clock, began: AtomicU64::new(0), last: AtomicU64::new(0) };
        let seconds = |seconds| mock.increment(Duration::from_secs(seconds));
        outage.failed();
        seconds(9);
        outage.failed();
        assert_eq!(outage.suspended_for(), Some(Duration::from_secs(9)));
        seconds(11);
        assert_eq!(outage.suspended_for(), None);
        seconds(100_000);
        outage.failed();
        seconds(1);
        assert_eq!(outage.suspended_for(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn further_pools_are_other() {
        let pools = pools(&[GroupKey::Application], 2);
        let name = |application: &str| pools.get_or_create(application).recorder.ledger().name().to_string();
        assert_eq!(["a", "b", "c", "a", "d"].map(name), ["a", "b", "other", "a", "other"]);
        assert!(pools.get("c").is_none() && pools.get("a").is_some());
        assert_eq!(**pools.other().recorder.ledger().name(), *"other");
        assert_eq!(pools.collector.snapshots().len(), 3);
    }
}

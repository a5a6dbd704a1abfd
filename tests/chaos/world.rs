//! The server, the pools, and what their callers know of them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use poolscope::labels::Outcome;
use poolscope::middleware::{Head, PoolLayer};
use poolscope::tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use poolscope::{Collector, Connection, Pool};
use poolscope_testing::proxy::Proxy;
use poolscope_testing::server::Server;
use prometheus::Registry;

use super::money::Money;

/// Long enough for a busy machine; only failing runs wait for it.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(60);

const POOL_SIZE: usize = 6;
const MAX_OVERFLOW: usize = 6;
/// Room for both pools, the observer, and queries of the faults.
const MAX_CONNECTIONS: &str = "50";

/// Calls `check` until it returns true; panics after `limit`.
pub(crate) async fn eventually(what: &str, limit: Duration, mut check: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !check().await {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A pool, and the proxy through which it reaches the server.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) pool: Pool,
    pub(crate) proxy: Proxy,
    pub(crate) registry: Registry,
    pub(crate) layer: PoolLayer,
    /// The connections that callers hold, by address.
    held: Mutex<HashSet<usize>>,
    /// How many connections were handed out.
    handed_out: AtomicU64,
}

/// A connection that a caller holds; declared after it, so that it is dropped before.
pub(crate) struct Held<'a> {
    target: &'a Target,
    address: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        assert!(self.target.held().remove(&self.address), "the connection was returned twice");
    }
}

impl Target {
    fn new(name: &'static str, url: &str, proxy: Proxy) -> Self {
        let (collector, registry) = (Collector::new(), Registry::new());
        registry.register(Box::new(collector.clone())).unwrap();
        let pool = Pool::builder()
            .url(url)
            .name(name)
            .application_name(name)
            .collector(collector)
            .pool_size(POOL_SIZE)
            .max_overflow(MAX_OVERFLOW)
            .checkout_timeout(Duration::from_secs(3))
            .connect_timeout(Duration::from_secs(2))
            .pre_ping_idle(Duration::from_millis(50))
            .ping_timeout(Duration::from_millis(500))
            .clean_timeout(Duration::from_millis(500))
            .close_timeout(Duration::from_secs(2))
            .recycle_after(Some(Duration::from_secs(5)))
            .idle_timeout(Some(Duration::from_secs(1)))
            .min_idle(2)
            .reset_session(true)
            .build()
            .unwrap();
        fn route<'a>(head: Head<'a>) -> Option<Cow<'a, str>> {
            Some(head.uri.path().into())
        }
        let layer = PoolLayer::new(&pool).route_by(route).max_queue_len(60).max_route_percent(75);
        Self { name, pool, proxy, registry, layer, held: Mutex::default(), handed_out: AtomicU64::new(0) }
    }

    fn held(&self) -> MutexGuard<'_, HashSet<usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a checkout and checks that nobody else holds its connection. Called at once after the checkout.
    pub(crate) fn hold(&self, connection: &Connection) -> Held<'_> {
        self.handed_out.fetch_add(1, SeqCst);
        let address = std::ptr::from_ref::<poolscope::Client>(connection).addr();
        assert!(self.held().insert(address), "a connection has two holders");
        Held { target: self, address }
    }

    /// Returns whether a query succeeds.
    pub(crate) async fn works(&self) -> bool {
        let work = async {
            let connection = self.pool.operation("probe").get().await.ok()?;
            let _held = self.hold(&connection);
            connection.simple_query("SELECT 1").await.ok()
        };
        tokio::time::timeout(Duration::from_secs(5), work).await.is_ok_and(|done| done.is_some())
    }
}

/// Checks that nothing is left of the connection's last holder.
pub(crate) async fn assert_clean(connection: &Connection) -> Result<(), poolscope::tokio_postgres::Error> {
    // Outside a transaction, each statement begins one.
    let leftovers = "SELECT CASE WHEN now() <> statement_timestamp() THEN 'a transaction' \
        WHEN current_setting('search_path') <> '\"$user\", public' THEN 'a setting' \
        WHEN EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory') THEN 'a lock' \
        WHEN EXISTS (SELECT FROM pg_listening_channels()) THEN 'a channel' ELSE 'nothing' END";
    let answer = connection.simple_query(leftovers).await?;
    let found = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert_eq!(found, Some("nothing"), "handed out with what its last holder left");
    Ok(())
}

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) targets: [Target; 2],
    pub(crate) money: Money,
    pub(crate) seed: u64,
}

async fn connect(url: &str) -> Option<Client> {
    let (client, connection) = poolscope::tokio_postgres::connect(url, NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

impl World {
    pub(crate) async fn start(seed: u64) -> Self {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let server = Server::builder()
            .tls(certificate.cert.pem(), certificate.signing_key.serialize_pem())
            .settings([
                ("max_connections", MAX_CONNECTIONS),
                ("deadlock_timeout", "50ms"),
                ("log_min_messages", "fatal"),
            ])
            // Otherwise a crash of the server loses what was committed last.
            .setting("synchronous_commit", "on")
            .start()
            .await
            .unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
        let (plain, encrypted) = (Proxy::to(address).await, Proxy::to(address).await);
        plain.seed(seed);
        encrypted.seed(!seed);
        let tcp_url = server.tcp_url().unwrap();
        let url = |proxy: &Proxy, sslmode: &str| format!("{}?sslmode={sslmode}", proxy.url(&tcp_url));
        let (plain_url, encrypted_url) = (url(&plain, "disable"), url(&encrypted, "require"));
        let targets = [Target::new("chaos", &plain_url, plain), Target::new("chaos_tls", &encrypted_url, encrypted)];
        let world = Self { server, targets, money: Money::default(), seed };
        world.create_admin().await;
        world.execute(super::money::TABLES).await;
        world
    }

    /// Creates the user of [`Self::connect`]. Its settings take precedence over the server's from the beginning of a
    /// session: on a busy machine, one that sets them itself may have been idle for too long before.
    async fn create_admin(&self) {
        let client = connect(&self.server.url()).await.unwrap();
        client.batch_execute("CREATE ROLE chaos_admin SUPERUSER LOGIN").await.unwrap();
        for setting in ["statement_timeout", "idle_in_transaction_session_timeout", "default_transaction_read_only"] {
            client.batch_execute(&format!("ALTER ROLE chaos_admin SET {setting} = 0")).await.unwrap();
        }
        // Not known to version 13.
        let _ = client.batch_execute("ALTER ROLE chaos_admin SET idle_session_timeout = 0").await;
    }

    /// Connects directly. Faults that are settings of the server do not affect the session.
    pub(crate) async fn connect(&self) -> Option<Client> {
        connect(&self.server.url().replacen("//postgres@", "//chaos_admin@", 1)).await
    }

    /// Executes statements in a direct connection. Tries again until the server executes them.
    pub(crate) async fn execute(&self, statements: &str) {
        eventually(statements, PROBE_TIMEOUT, async || {
            let Some(client) = self.connect().await else { return false };
            for statement in statements.split(';') {
                if client.batch_execute(statement).await.is_err() {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// Returns a number that a direct connection reads; `None` if it cannot.
    pub(crate) async fn number(&self, query: &str) -> Option<i64> {
        self.connect().await?.query_one(query, &[]).await.ok().map(|row| row.get(0))
    }

    /// Checks, without load and faults, that every place of the pools is free, and every connection clean.
    pub(crate) async fn assert_whole(&self) {
        for target in &self.targets {
            let Target { pool, name, .. } = target;
            eventually(&format!("{name} is quiet: {:?}", pool.status()), PROBE_TIMEOUT, async || {
                let status = pool.status();
                (status.used, status.creating, status.closing, status.in_flight) == (0, 0, 0, 0)
            })
            .await;
            assert!(target.held().is_empty(), "{name}: callers hold connections");
            let max = pool.status().max;
            let mut taken = Vec::new();
            eventually(&format!("{name} has all its places"), PROBE_TIMEOUT, async || {
                while taken.len() < max {
                    let Ok(connection) = pool.get().await else { return false };
                    target.handed_out.fetch_add(1, SeqCst);
                    taken.push(connection);
                }
                true
            })
            .await;
            for connection in taken {
                assert_clean(&connection).await.unwrap();
            }
            eventually(&format!("{name} has no surplus"), PROBE_TIMEOUT, async || {
                let status = pool.status();
                status.used == 0 && status.idle <= status.size
            })
            .await;
        }
    }

    /// Checks that the pools counted what their callers did. Returns the difference.
    pub(crate) fn assert_no_drift(&self) -> u64 {
        for target in &self.targets {
            let snapshot = target.pool.snapshot();
            let ok: u64 = snapshot.operations.iter().map(|totals| totals.outcomes[Outcome::Ok.index()]).sum();
            let returned: u64 = snapshot.operations.iter().map(|totals| totals.returned).sum();
            let handed_out = target.handed_out.load(SeqCst);
            assert_eq!((ok, returned), (handed_out, handed_out), "{}: handed out and returned", target.name);
            let requests: u64 = snapshot.requests.iter().map(|totals| totals.in_flight).sum();
            assert_eq!(requests, 0, "{}: requests in flight", target.name);
        }
        0
    }

    /// Closes the pools, and checks that no connection is left, here or at the server.
    pub(crate) async fn assert_closes_without_a_trace(&self) {
        for target in &self.targets {
            target.pool.close().await;
            let snapshot = target.pool.snapshot();
            assert_eq!(snapshot.connections.live(), 0, "{}", target.name);
            assert_eq!(snapshot.created, snapshot.closed.iter().sum::<u64>(), "{}: created = closed", target.name);
        }
        eventually("no backend is left", PROBE_TIMEOUT, async || {
            self.number("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'chaos%'").await == Some(0)
        })
        .await;
    }
}

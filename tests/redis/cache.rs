//! The cache with a real Redis: cold keys, and a server that is killed, suspended or full.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use poolscope::cache::{Cache, CacheBuilder, MessagePack};
use poolscope::labels::{CacheError, CacheResult, ErrorPhase, Outcome};
use poolscope::telemetry::CacheTotals;
use poolscope::{Collector, Pool};
use poolscope_testing::redis::Server;
use poolscope_testing::server as postgres;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, NoTls};

use crate::support::{TEST_TIMEOUT, TestPool, eventually, poll_until, server, with_deadline};

/// Returns a cache that waits for a busy machine.
fn cache(test: &TestPool, set: impl FnOnce(CacheBuilder<String>) -> CacheBuilder<String>) -> Cache<String> {
    set(Cache::builder(&test.pool, "products").deadline(TEST_TIMEOUT)).build().unwrap()
}

fn totals(test: &TestPool) -> CacheTotals {
    test.snapshot().caches.into_iter().next().unwrap()
}

fn results(test: &TestPool, result: CacheResult) -> u64 {
    totals(test).results[result.index()]
}

fn errors(test: &TestPool, error: CacheError) -> u64 {
    totals(test).errors[error.index()]
}

async fn get(cache: &Cache<String>, key: &str, value: &str) -> String {
    let load = async || Ok::<_, Infallible>(Some(value.to_owned()));
    with_deadline("a value", cache.get_or_load(key, load)).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_readers_of_a_cold_key_cause_one_load() {
    let server = server().await;
    let test = TestPool::new(&server.url(), |builder| builder);
    let cache = cache(&test, |builder| builder);
    let loads = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..10_000 {
        let (cache, loads) = (cache.clone(), Arc::clone(&loads));
        readers.spawn(async move {
            let load = async || {
                loads.fetch_add(1, SeqCst);
                sleep(Duration::from_millis(50)).await;
                Ok::<_, Infallible>(Some("value".to_owned()))
            };
            cache.get_or_load("hot", load).await.unwrap()
        });
    }
    let values = with_deadline("all readers", readers.join_all()).await;
    assert!(values.iter().all(|value| value.as_deref() == Some("value")));
    assert_eq!(loads.load(SeqCst), 1);
    let totals = totals(&test);
    assert_eq!((totals.started, totals.results[CacheResult::Miss.index()]), (10_000, 1), "{totals:?}");
    test.scrape();
}

#[tokio::test]
async fn values_are_stored_for_all_processes() {
    let server = server().await;
    let (one, other) =
        (TestPool::new(&server.url(), |builder| builder), TestPool::new(&server.url(), |builder| builder));
    let set = |builder: CacheBuilder<String>| {
        builder.time_to_live(Duration::from_secs(60)).stale_window(Duration::from_secs(30))
    };
    let (first, second) = (cache(&one, set), cache(&other, set));
    assert_eq!(get(&first, "a", "1").await, "1");
    assert_eq!(get(&second, "a", "2").await, "1");
    assert_eq!(results(&other, CacheResult::Hit), 1);
    let left: u64 = server.command(&["PTTL", "poolscope:products:v1:a"]).unwrap()[1..].parse().unwrap();
    assert!((1..=90_000).contains(&left), "{left}");
    with_deadline("the removal", second.invalidate("a")).await.unwrap();
    assert_eq!(server.command(&["EXISTS", "poolscope:products:v1:a"]).unwrap(), ":0");
    assert_eq!(get(&first, "a", "3").await, "3");
    // With the names of commands, and no keys.
    eventually("the commands", async || one.commands("GET", None) >= 2 && one.commands("SET", None) == 2).await;
    assert!(one.totals("cache products").started >= 4);
    one.scrape();
}

#[tokio::test]
async fn message_pack_stores_any_type() {
    let server = server().await;
    let test = TestPool::new(&server.url(), |builder| builder);
    let builder = Cache::<BTreeMap<u32, Vec<f64>>>::builder(&test.pool, "prices").deadline(TEST_TIMEOUT);
    let cache = builder.codec(MessagePack).build().unwrap();
    let prices = BTreeMap::from([(7, vec![1.5, -2.0]), (9, Vec::new())]);
    let load = async || Ok::<_, Infallible>(Some(prices.clone()));
    assert_eq!(cache.get_or_load("a", load).await.unwrap().as_ref(), Some(&prices));
    let load = async || Err::<Option<_>, _>("not called");
    assert_eq!(cache.get_or_load("a", load).await.unwrap(), Some(prices));
}

#[tokio::test]
async fn lock_lets_one_process_load() {
    let server = server().await;
    let (one, other) =
        (TestPool::new(&server.url(), |builder| builder), TestPool::new(&server.url(), |builder| builder));
    let set = |builder: CacheBuilder<String>| builder.lock_across_processes(TEST_TIMEOUT);
    let (first, second) = (cache(&one, set), cache(&other, set));
    let loads = AtomicUsize::new(0);
    let slow = async || {
        loads.fetch_add(1, SeqCst);
        sleep(Duration::from_millis(200)).await;
        Ok::<_, Infallible>(Some("value".to_owned()))
    };
    let (a, b) = tokio::join!(first.get_or_load("a", slow), second.get_or_load("a", slow));
    assert_eq!((a.unwrap(), b.unwrap()), (Some("value".to_owned()), Some("value".to_owned())));
    assert_eq!(loads.load(SeqCst), 1);
    assert_eq!(server.command(&["DBSIZE"]).unwrap(), ":1", "the lock is released");
}

/// How long the server is away for each fault; longer in `make soak`.
fn outage() -> Duration {
    let seconds = std::env::var("POOLSCOPE_OUTAGE_SECONDS").ok().map(|seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(2))
}

/// A service that reads a database through a cache, in many tasks.
struct Service {
    cache: Cache<String>,
    database: Pool,
    admin: Client,
}

/// The sum of the lookups, and the largest number of backends that the database had for the service.
#[derive(Debug, Default)]
struct Served {
    lookups: usize,
    most_backends: i64,
}

impl Service {
    const TASKS: usize = 50;
    const MAX_LOADS: usize = 4;

    async fn start(test: &TestPool, database: &postgres::Server) -> Self {
        let set = |builder: CacheBuilder<String>| {
            builder.deadline(Duration::from_millis(100)).max_loads(Self::MAX_LOADS).load_wait(TEST_TIMEOUT)
        };
        // It could have more connections than loads are allowed.
        let pool = Pool::builder().url(&database.url()).name("database").collector(Collector::new()).pool_size(20);
        let (admin, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        Self { cache: cache(test, set), database: pool.application_name("service").build().unwrap(), admin }
    }

    /// Looks up many keys from many tasks for this time. Each lookup must succeed.
    async fn serve(&self, time: Duration) -> Served {
        let until = Instant::now() + time;
        let mut tasks = JoinSet::new();
        for task in 0..Self::TASKS {
            let (cache, database) = (self.cache.clone(), self.database.clone());
            tasks.spawn(async move {
                let mut lookups = 0;
                while Instant::now() < until {
                    let key = format!("{task}-{}", lookups % 20);
                    let load = async || {
                        let client = database.get().await?;
                        let row = client.query_one("SELECT $1::text FROM pg_sleep(0.005)", &[&key]).await?;
                        Ok::<_, poolscope::Error>(Some(row.get::<_, String>(0)))
                    };
                    let value = cache.get_or_load(&key, load).await.expect("no lookup fails");
                    assert_eq!(value.as_ref(), Some(&key));
                    lookups += 1;
                }
                lookups
            });
        }
        let mut served = Served::default();
        let backends = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'service'";
        while Instant::now() < until {
            let row = with_deadline("the backends", self.admin.query_one(backends, &[])).await.unwrap();
            served.most_backends = served.most_backends.max(row.get(0));
            sleep(Duration::from_millis(20)).await;
        }
        served.lookups = with_deadline("the end of the load", tasks.join_all()).await.into_iter().sum();
        served
    }
}

/// While the server is away under load, no lookup fails because of it, and the database sees at most `max_loads`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "the result of a run")]
async fn server_that_is_away_fails_no_lookup() {
    let (server, database) = (server().await, postgres::Server::builder().start().await.unwrap());
    let test = TestPool::new(&server.url(), |builder| builder.connect_timeout(Duration::from_millis(200)));
    let service = Service::start(&test, &database).await;
    let max_loads = i64::try_from(Service::MAX_LOADS).unwrap();
    let before = service.serve(Duration::from_millis(300)).await;
    assert!(before.lookups > 0 && before.most_backends <= max_loads, "{before:?}");
    type Fault = fn(&Server) -> std::io::Result<()>;
    let faults: [(&str, Fault, Fault); 2] =
        [("killed", Server::kill, |_| Ok(())), ("suspended", Server::suspend, Server::resume)];
    for (name, fault, end) in faults {
        let bypassed = results(&test, CacheResult::Bypassed);
        fault(&server).unwrap();
        let served = service.serve(outage()).await;
        assert!(served.lookups > 0 && (1..=max_loads).contains(&served.most_backends), "{served:?}");
        let bypassed = results(&test, CacheResult::Bypassed) - bypassed;
        assert!(bypassed > 0);
        // The value may still be stored, and this process does not use it.
        assert!(service.cache.invalidate("0-0").await.is_err());
        end(&server).unwrap();
        let restarted = Instant::now();
        server.start().await.unwrap();
        let found = || results(&test, CacheResult::Hit);
        let before = found();
        eventually("a hit", async || {
            get(&service.cache, "0-1", "0-1").await;
            found() > before
        })
        .await;
        let (away, took) = (outage(), restarted.elapsed());
        println!("{name} for {away:?}: {served:?}, {bypassed} bypassed; a hit {took:?} after the server's return");
    }
    let totals = totals(&test);
    assert_eq!(totals.loads[Outcome::Error.index()].count() + totals.loads[Outcome::Shed.index()].count(), 0);
    assert!(totals.loads_in_flight == 0 && totals.in_flight == 0 && totals.max_loads == 4, "{totals:?}");
    test.scrape();
}

#[tokio::test]
async fn full_server_stores_nothing_and_fails_no_lookup() {
    let server = Server::builder()
        .setting("maxmemory", "100kb")
        .setting("maxmemory-policy", "noeviction")
        .start()
        .await
        .unwrap();
    let test = TestPool::new(&server.url(), |builder| builder);
    let cache = cache(&test, |builder| builder);
    for value in ["1", "2", "3"] {
        assert_eq!(get(&cache, "a", value).await, value);
    }
    assert_eq!((results(&test, CacheResult::Miss), errors(&test, CacheError::Server)), (3, 3));
}

/// Clients that the server does not serve wait for the deadline, until the cache is suspended.
#[tokio::test]
async fn paused_clients_use_the_loader() {
    let server = server().await;
    let test = TestPool::new(&server.url(), |builder| builder);
    let cache = cache(&test, |builder| builder.deadline(Duration::from_millis(100)));
    assert_eq!(server.command(&["CLIENT", "PAUSE", "600000", "ALL"]).unwrap(), "+OK");
    for value in 0..20 {
        let value = value.to_string();
        assert_eq!(get(&cache, "a", &value).await, value);
    }
    assert_eq!(results(&test, CacheResult::Bypassed), 20);
    assert!((1..20).contains(&errors(&test, CacheError::Timeout)), "{:?}", totals(&test));
    // A paused server executes CLIENT UNPAUSE of clients that are not.
    let is_found = async || {
        get(&cache, "a", "x").await;
        results(&test, CacheResult::Hit) > 0
    };
    server.kill().unwrap();
    server.start().await.unwrap();
    eventually("a hit", is_found).await;
}

/// A server without room for the cache's connections, and one that refuses its password.
#[tokio::test]
async fn server_that_refuses_connections_fails_no_lookup() {
    let server = Server::builder().setting("maxclients", "1").start().await.unwrap();
    let other = TestPool::single(&server.url());
    // The connection that found the server ready may count for a moment.
    let connection = poll_until("a connection", async || other.pool.get().await.ok()).await;
    let secured = Server::builder().setting("requirepass", "hunter2").start().await.unwrap();
    let (full, wrong) = (TestPool::single(&server.url()), TestPool::single(&secured.url_of(":wrong")));
    let caches = [&full, &wrong].map(|test| cache(test, |builder| builder));
    for (test, cache) in [&full, &wrong].into_iter().zip(&caches) {
        for value in 0..20 {
            let value = value.to_string();
            assert_eq!(get(cache, "a", &value).await, value);
        }
        assert_eq!(results(test, CacheResult::Bypassed), 20);
        assert!((1..20).contains(&errors(test, CacheError::Unavailable)), "{:?}", totals(test));
        let error = cache.invalidate("a").await.unwrap_err().to_string();
        assert!(!error.contains("hunter2") && !error.contains("wrong"), "{error}");
        test.scrape();
    }
    assert!(full.errors(ErrorPhase::Connect, "MAXCLIENTS") > 0, "{:?}", full.snapshot().errors);
    assert!(wrong.errors(ErrorPhase::Connect, "WRONGPASS") > 0, "{:?}", wrong.snapshot().errors);
    drop(connection);
    with_deadline("the end", other.pool.close()).await;
    eventually("a hit", async || {
        get(&caches[0], "a", "x").await;
        results(&full, CacheResult::Hit) > 0
    })
    .await;
}

/// The stale value is returned at once, while a task loads the new one.
#[tokio::test]
async fn stale_value_is_refreshed_in_a_task() {
    let server = server().await;
    let test = TestPool::new(&server.url(), |builder| builder);
    let cache =
        cache(&test, |builder| builder.time_to_live(Duration::from_millis(1)).stale_window(Duration::from_secs(3600)));
    assert_eq!(get(&cache, "a", "old").await, "old");
    let (loading, loaded) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let refreshing = || {
        let (loading, loaded) = (Arc::clone(&loading), Arc::clone(&loaded));
        let load = move || async move {
            loading.fetch_add(1, SeqCst);
            loaded.notified().await;
            Ok::<_, Infallible>(Some("new".to_owned()))
        };
        with_deadline("a value", cache.get_or_refresh("a", load))
    };
    eventually("a refresh", async || {
        assert_eq!(refreshing().await.unwrap().as_deref(), Some("old"));
        loading.load(SeqCst) == 1
    })
    .await;
    for _ in 0..5 {
        assert_eq!(refreshing().await.unwrap().as_deref(), Some("old"));
    }
    assert_eq!((loading.load(SeqCst), totals(&test).loads_in_flight), (1, 1));
    loaded.notify_one();
    eventually("the new value", async || totals(&test).loads[Outcome::Ok.index()].count() == 2).await;
    // The value may still be being stored.
    eventually("the new value is stored", async || get(&cache, "a", "new").await == "new").await;
    assert!(results(&test, CacheResult::Stale) >= 6, "{:?}", totals(&test));
    test.scrape();
}

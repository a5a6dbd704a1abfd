//! How long a connection keeps its place in the pool: while it is reset, and while the server lets go of it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use poolscope::{Connection, PoolBuilder};
use tokio::runtime::{Builder, Runtime};
use tracing::Level;

use crate::support::log_lines::LogLines;
use crate::support::{Admin, Proxy, TestPool, backend, eventually, shared, with_deadline};

/// How long a checkout waits for a connection that is being reset, before it opens another.
const RESET_WAIT_LIMIT: Duration = Duration::from_millis(100);

/// Checks out the pool's connection, and counts in `slow` whether it took so long that the pool opens another.
async fn get_timed(test: &TestPool, slow: &mut u64) -> Connection {
    let begun = Instant::now();
    let connection = test.get().await;
    *slow += u64::from(begun.elapsed() >= RESET_WAIT_LIMIT);
    connection
}

/// Checks that no connection was opened but the first, and one for each wait that a busy machine made too long.
fn assert_opened_for(slow: u64, test: &TestPool) {
    let created = test.scrape().count("poolscope_connections_created_total", &[]);
    assert!(created <= 1 + slow, "{created} connections, {slow} long waits");
}

/// One connection serves uses that follow each other, although each is reset after its return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequential_uses_with_reset_open_one_connection() {
    let settings = |builder: PoolBuilder| builder.pool_size(1).max_overflow(5).reset_session(true);
    let test = TestPool::shared("places_reset", settings).await;
    let mut slow = 0;
    for round in 0..500 {
        let mut connection = get_timed(&test, &mut slow).await;
        if round % 2 == 0 {
            connection.query_one("SELECT 1", &[]).await.unwrap();
        } else {
            // Rolled back after the return.
            let transaction = connection.transaction().await.unwrap();
            transaction.batch_execute("SELECT 1").await.unwrap();
        }
    }
    assert_opened_for(slow, &test);
}

/// The answer to a rollback, and the end of the wait for it, come while nothing can be polled.
#[tokio::test]
async fn a_blocked_runtime_opens_no_further_connection() {
    let test = TestPool::shared("places_blocked", |builder| builder.pool_size(1).max_overflow(5)).await;
    for _ in 0..5 {
        let mut connection = test.get().await;
        let transaction = connection.transaction().await.unwrap();
        transaction.batch_execute("SELECT 1").await.unwrap();
        drop(transaction);
        drop(connection);
        let (_connection, ()) = tokio::join!(test.get(), async { std::thread::sleep(3 * RESET_WAIT_LIMIT) });
    }
    let created = test.scrape().count("poolscope_connections_created_total", &[]);
    assert_eq!(created, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequential_dropped_transactions_open_one_connection() {
    let test = TestPool::shared("places_rollback", |builder| builder.pool_size(1).max_overflow(5)).await;
    let mut slow = 0;
    for _ in 0..500 {
        let mut connection = get_timed(&test, &mut slow).await;
        let transaction = connection.transaction().await.unwrap();
        transaction.batch_execute("SELECT 1").await.unwrap();
    }
    assert_opened_for(slow, &test);
}

/// The code of a cancel request, which begins a connection that carries it.
const CANCEL_REQUEST_CODE: [u8; 4] = [0x04, 0xd2, 0x16, 0x2e];

/// Returns a pool whose cancel requests are lost, while it can connect.
pub(crate) async fn without_cancels(
    name: &str,
    settings: impl FnOnce(PoolBuilder) -> PoolBuilder,
) -> (Proxy, TestPool) {
    let server = shared().await;
    let proxy = Proxy::to((Ipv4Addr::LOCALHOST, server.port()).into()).await;
    for _ in 0..1000 {
        proxy.cut_before(CANCEL_REQUEST_CODE);
    }
    let test = TestPool::new(name, &proxy.url(&server.tcp_url().unwrap()), settings);
    (proxy, test)
}

/// Checks out a connection and abandons `query` while the server executes it.
async fn abandon(test: &TestPool, query: &str) -> i32 {
    let connection = test.get().await;
    let process = backend(&connection).await;
    let admin = Admin::new(shared().await).await;
    tokio::select! {
        result = connection.batch_execute(query) => panic!("{result:?}"),
        () = admin.await_busy(process) => {}
    }
    process
}

/// Abandons a long query again and again from many tasks, and returns the largest number of backends seen meanwhile.
async fn most_backends_of_abandoned_queries(test: &TestPool, name: &str) -> usize {
    let admin = Admin::new(shared().await).await;
    let until = Instant::now() + Duration::from_secs(3);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let pool = test.pool.clone();
        tasks.spawn(async move {
            while Instant::now() < until {
                if let Ok(connection) = pool.get().await {
                    let slow = connection.batch_execute("SELECT pg_sleep(30)");
                    assert!(tokio::time::timeout(Duration::from_millis(200), slow).await.is_err());
                }
            }
        });
    }
    let mut most = 0;
    while !tasks.is_empty() {
        most = most.max(admin.backends(name).await);
        while let Some(ended) = tasks.try_join_next() {
            ended.unwrap();
        }
    }
    most
}

#[tokio::test]
async fn abandoned_queries_never_exceed_the_maximum() {
    let settings =
        |builder: PoolBuilder| builder.pool_size(5).max_overflow(0).checkout_timeout(Duration::from_millis(500));
    let test = TestPool::shared("places_cancelled", settings).await;
    let most = most_backends_of_abandoned_queries(&test, "places_cancelled").await;
    assert!(most <= 5, "{most} backends");
    assert!(test.outcomes("ok") > 20, "cancelled queries free their places");
    assert_eq!(test.scrape().count("poolscope_close_timeouts_total", &[]), 0);
}

#[tokio::test]
async fn uncancelled_queries_never_exceed_the_maximum() {
    let settings =
        |builder: PoolBuilder| builder.pool_size(5).max_overflow(0).checkout_timeout(Duration::from_millis(500));
    let (_proxy, test) = without_cancels("places_lost", settings).await;
    let most = most_backends_of_abandoned_queries(&test, "places_lost").await;
    assert_eq!(most, 5);
    eventually("all places are closing", async || test.pool.status().closing == 5).await;
    assert_eq!(test.scrape().count("poolscope_connections_closing", &[]), 5);
    let error = test.pool.get().await.unwrap_err().to_string();
    assert!(error.contains("0 being created, 5 closing"), "{error}");
    let admin = Admin::new(shared().await).await;
    admin.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'places_lost'").await;
    drop(test.get().await);
    eventually("the server has let go", async || test.pool.status().closing == 0).await;
    assert_eq!(test.scrape().count("poolscope_close_timeouts_total", &[]), 0);
}

/// The end of the query frees the place, long before `close_timeout`.
#[tokio::test]
async fn place_is_free_when_the_server_lets_go() {
    let settings = |builder: PoolBuilder| builder.pool_size(1).max_overflow(0).clean_timeout(Duration::from_millis(20));
    let (_proxy, test) = without_cancels("places_ends", settings).await;
    let first = abandon(&test, "SELECT pg_sleep(0.7)").await;
    let second = test.get().await;
    assert_ne!(backend(&second).await, first);
    Admin::new(shared().await).await.await_backends("places_ends", 1).await;
    assert_eq!((test.closed("dirty"), test.scrape().count("poolscope_close_timeouts_total", &[])), (1, 0));
}

#[tokio::test]
async fn close_timeout_bounds_a_query_that_goes_on() {
    let settings = |builder: PoolBuilder| {
        let short = Duration::from_millis(100);
        builder.pool_size(1).max_overflow(0).clean_timeout(short).close_timeout(short)
    };
    let (_proxy, test) = without_cancels("places_bound", settings).await;
    let first = abandon(&test, "SELECT pg_sleep(30)").await;
    assert_ne!(backend(&test.get().await).await, first);
    let admin = Admin::new(shared().await).await;
    assert_eq!(admin.backends("places_bound").await, 2);
    assert_eq!(test.scrape().count("poolscope_close_timeouts_total", &[]), 1);
    admin.terminate(first).await;
}

/// A COPY sink that is kept blocks the driver, not the server: the server notices the end of the connection. The log says
/// what to change.
#[tokio::test]
async fn kept_copy_sink_does_not_keep_the_place() {
    let test = TestPool::shared("places_sink", |builder| builder.pool_size(1).max_overflow(0)).await;
    test.get().await.batch_execute("CREATE TABLE places_sink (line text)").await.unwrap();
    let (started, lines) = (Instant::now(), LogLines::default());
    let capture = lines.capture();
    let connection = test.get().await;
    let sink = connection.copy_in::<_, bytes::Bytes>("COPY places_sink FROM STDIN").await.unwrap();
    drop(connection);
    test.get().await.query_one("SELECT 1", &[]).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(lines.count(Level::WARN, "connection was busy until clean_timeout").lines, 1);
    drop((sink, capture));
}

#[tokio::test]
async fn kept_row_stream_does_not_keep_the_place() {
    let test = TestPool::shared("places_rows", |builder| builder.pool_size(1).max_overflow(0)).await;
    let started = Instant::now();
    let connection = test.get().await;
    let query = "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)";
    let mut rows = Box::pin(connection.query_raw(query, Vec::<i32>::new()).await.unwrap());
    rows.next().await.unwrap().unwrap();
    drop(connection);
    test.get().await.query_one("SELECT 1", &[]).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    drop(rows);
}

/// A connection whose runtime nothing drives, in a pool with one place, and another runtime.
struct Undriven {
    runtime: Runtime,
    other: Runtime,
    test: TestPool,
    connection: Connection,
}

impl Undriven {
    /// Runs `leave` in a runtime that nothing drives afterwards.
    fn new(
        name: &'static str,
        leave: impl AsyncFnOnce(&TestPool) -> Connection,
        settings: impl FnOnce(PoolBuilder) -> PoolBuilder,
    ) -> Self {
        let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
        let (undriven, other) = (runtime(), runtime());
        other.block_on(shared());
        let settings = |builder: PoolBuilder| {
            settings(builder.pool_size(1).max_overflow(0).clean_timeout(Duration::from_millis(200)))
        };
        let (test, connection) = undriven.block_on(async {
            let test = TestPool::shared(name, settings).await;
            let connection = leave(&test).await;
            (test, connection)
        });
        Self { runtime: undriven, other, test, connection }
    }
}

/// Checks that another runtime gets the only place after `leave`.
fn assert_place_is_freed(name: &'static str, leave: impl AsyncFnOnce(&TestPool) -> Connection, discard: bool) {
    let left = Undriven::new(name, leave, |builder| builder.close_timeout(Duration::from_millis(200)));
    let Undriven { runtime: undriven, other, test, connection } = left;
    if discard {
        connection.discard();
    } else {
        drop(connection);
    }
    other.block_on(async {
        let started = Instant::now();
        test.get().await.query_one("SELECT 1", &[]).await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        let admin = Admin::new(shared().await).await;
        let busy = format!("SELECT 1 FROM pg_stat_activity WHERE application_name = '{name}' AND state = 'active'");
        eventually("the query is cancelled", async || admin.is_empty(&busy).await).await;
    });
    let closed = test.closed("dirty") + test.closed("discarded");
    assert_eq!(closed, 1);
    drop(undriven);
}

async fn begin_a_transaction(test: &TestPool) -> Connection {
    let connection = test.get().await;
    connection.batch_execute("BEGIN").await.unwrap();
    connection
}

async fn begin_a_query(test: &TestPool) -> Connection {
    let connection = test.get().await;
    let process = backend(&connection).await;
    let admin = Admin::new(shared().await).await;
    tokio::select! {
        result = connection.batch_execute("SELECT pg_sleep(300)") => panic!("{result:?}"),
        () = admin.await_busy(process) => {}
    }
    connection
}

#[test]
fn dirty_connection_of_an_undriven_runtime_is_closed() {
    assert_place_is_freed("places_undriven", begin_a_transaction, false);
}

#[test]
fn abandoned_query_of_an_undriven_runtime_is_cancelled() {
    assert_place_is_freed("places_undriven_busy", begin_a_query, false);
}

#[test]
fn discarded_query_of_an_undriven_runtime_is_bounded() {
    assert_place_is_freed("places_undriven_discard", begin_a_query, true);
}

/// Nothing was left on it, but its last request is still in the channel.
#[test]
fn unsettled_connection_of_an_undriven_runtime_is_closed() {
    let leave = async |test: &TestPool| {
        let connection = test.get().await;
        drop(connection.prepare("SELECT 1").await.unwrap());
        connection
    };
    let left = Undriven::new("places_unsettled", leave, |builder| builder);
    let Undriven { runtime: undriven, other, test, connection } = left;
    drop(connection);
    other.block_on(async {
        let started = Instant::now();
        test.get().await.query_one("SELECT 1", &[]).await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    });
    drop(undriven);
}

/// Closing the pool does not wait for a runtime that nothing drives.
#[test]
fn close_is_not_blocked_by_an_undriven_runtime() {
    let left = Undriven::new("places_undriven_close", begin_a_transaction, |builder| builder);
    let Undriven { runtime: undriven, other, test, connection } = left;
    drop(connection);
    other.block_on(with_deadline("the pool is closed", test.pool.close()));
    assert_eq!(test.pool.status().live(), 0);
    drop(undriven);
}

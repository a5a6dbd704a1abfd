//! Dropped futures, guards that are dropped before their queries end, and connections that die.

use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use poolscope::PoolBuilder;
use poolscope::labels::{Activity, Phase};

use crate::support::{Admin, Proxy, TestPool, backend, eventually, shared};

fn single_connection(builder: PoolBuilder) -> PoolBuilder {
    builder.pool_size(1).max_overflow(0)
}

fn poll_once_and_drop(future: impl Future) {
    let mut future = pin!(future);
    assert!(matches!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
}

/// No further checkout: without the reset, the transaction and its locks would stay on the server.
#[tokio::test]
async fn unsent_transaction_is_rolled_back_while_idle() {
    let test = TestPool::shared("cancellation_unsent", single_connection).await;
    let admin = Admin::new(shared().await).await;
    admin.execute("CREATE TABLE cancellation_unsent (id int)").await;
    let connection = test.pool.operation("once").get().await.unwrap();
    poll_once_and_drop(connection.batch_execute("BEGIN; LOCK TABLE cancellation_unsent"));
    drop(connection);
    let open = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'cancellation_unsent' \
                AND state = 'idle in transaction'";
    eventually("the transaction ends", async || admin.is_empty(open).await).await;
    admin.execute("BEGIN; LOCK TABLE cancellation_unsent; COMMIT").await;
}

/// The same with a query, which would run to its end while the connection counts as idle.
#[tokio::test]
async fn unsent_query_is_cancelled_while_idle() {
    let test = TestPool::shared("cancellation_unsent_busy", single_connection).await;
    let admin = Admin::new(shared().await).await;
    let connection = test.pool.operation("once").get().await.unwrap();
    poll_once_and_drop(connection.batch_execute("SELECT pg_sleep(30)"));
    drop(connection);
    let started = Instant::now();
    let executing =
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'cancellation_unsent_busy' AND state = 'active'";
    // It may not have started yet.
    eventually("a dirty return", async || {
        test.scrape().count("poolscope_dirty_returns_total", &[("kind", "busy")]) == 1
    })
    .await;
    eventually("the query ends", async || admin.is_empty(executing).await).await;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

/// The session is changed by a query that had not been sent when the connection was returned.
#[tokio::test]
async fn session_changed_after_return_is_reset() {
    let test = TestPool::shared("cancellation_reset", |builder| single_connection(builder).reset_session(true)).await;
    let connection = test.pool.operation("once").get().await.unwrap();
    poll_once_and_drop(connection.batch_execute("SET search_path = 'elsewhere'"));
    drop(connection);
    // Whether or not it has reached the server by then.
    let connection = test.get().await;
    let path: String = connection.query_one("SHOW search_path", &[]).await.unwrap().get(0);
    assert_ne!(path, "elsewhere");
}

/// The time of a reset at checkout counts as use of the last holder, not of the next one, and as waiting time.
#[tokio::test]
async fn reset_at_checkout_is_counted_once() {
    let test = TestPool::shared("cancellation_reset_wait", single_connection).await;
    let started = Instant::now();
    let connection = test.pool.operation("last").get().await.unwrap();
    // The message that closes the statement is left in the channel.
    connection.query("SELECT 1", &[]).await.unwrap();
    drop(connection);
    let next = test.pool.operation("next");
    let (connection, ()) = tokio::join!(next.get(), async {
        std::thread::sleep(Duration::from_millis(300));
    });
    drop(connection.unwrap());
    let elapsed = started.elapsed();
    let snapshot = test.pool.snapshot();
    let held: u64 = snapshot.operations.iter().map(|operation| operation.activity_nanos.iter().sum::<u64>()).sum();
    let next = snapshot.operations.iter().find(|operation| &*operation.name == "next").unwrap();
    let clean = snapshot.phase_nanos[Phase::Clean.index()];
    assert!(Duration::from_nanos(held) <= elapsed, "one connection is used for {held} ns in {elapsed:?}");
    assert!(Duration::from_nanos(next.activity_nanos.iter().sum()) < Duration::from_millis(200));
    assert!(Duration::from_nanos(next.wait_nanos) > Duration::from_millis(200));
    assert!(Duration::from_nanos(clean) > Duration::from_millis(200), "the wait is for the reset");
}

/// Futures of one task that share a pool do not wait for themselves.
#[tokio::test]
async fn branches_of_one_task_are_no_deadlock() {
    let test = TestPool::shared("cancellation_branches", |builder| builder.pool_size(2).max_overflow(0)).await;
    let pool = &test.pool;
    let done = futures_util::stream::iter(0..12)
        .map(|_| async move {
            let connection = pool.get().await.unwrap();
            connection.batch_execute("SELECT pg_sleep(0.03)").await.unwrap();
        })
        .buffer_unordered(6)
        .count()
        .await;
    assert_eq!((done, test.scrape().count("poolscope_self_deadlocks_total", &[])), (12, 0));
}

/// A connection that died during a query is no longer executing.
#[tokio::test]
async fn dead_connection_does_not_execute_forever() {
    let settings = |builder: PoolBuilder| single_connection(builder).leak_threshold(Some(Duration::from_millis(100)));
    let test = TestPool::shared("cancellation_dead", settings).await;
    let admin = Admin::new(shared().await).await;
    let connection = test.pool.operation("dies").get().await.unwrap();
    let process = backend(&connection).await;
    let (died, ()) = tokio::join!(connection.batch_execute("SELECT pg_sleep(30)"), admin.terminate_busy(process));
    died.unwrap_err();
    let holder = || test.pool.holders().remove(0);
    eventually("the query is over", async || holder().activity != Some(Activity::Executing)).await;
    eventually("a suspected leak", async || holder().suspected_leak).await;
}

/// With more returns than concurrent resets allowed, no session keeps its locks while idle.
#[tokio::test]
async fn simultaneous_returns_are_all_reset() {
    let test =
        TestPool::shared("cancellation_bound", |builder| builder.pool_size(4).max_overflow(0).reset_session(true))
            .await;
    let admin = Admin::new(shared().await).await;
    let connections = test.get_many(4).await;
    for (connection, key) in connections.iter().zip(7700..) {
        connection.batch_execute(&format!("SELECT pg_advisory_lock({key})")).await.unwrap();
    }
    drop(connections);
    let locks = "SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE locktype = 'advisory' \
                 AND application_name = 'cancellation_bound'";
    eventually("the locks are released", async || admin.is_empty(locks).await).await;
}

/// An abandoned query is cancelled although the pool is gone.
#[tokio::test]
async fn abandoned_query_is_cancelled_after_pool_drop() {
    let test = TestPool::shared("cancellation_gone", single_connection).await;
    let admin = Admin::new(shared().await).await;
    let connection = test.get().await;
    let started = Instant::now();
    let slow = connection.batch_execute("SELECT pg_sleep(30)");
    assert!(tokio::time::timeout(Duration::from_millis(100), slow).await.is_err());
    drop(test);
    drop(connection);
    admin.await_backends("cancellation_gone", 0).await;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

/// Without the protocol observer, a long query is no suspected leak.
#[tokio::test]
async fn long_query_is_no_leak_without_read_wire() {
    let settings = |builder: PoolBuilder| {
        single_connection(builder).read_wire(false).leak_threshold(Some(Duration::from_millis(100)))
    };
    let test = TestPool::shared("cancellation_blind", settings).await;
    let connection = test.get().await;
    connection.batch_execute("SELECT pg_sleep(0.3)").await.unwrap();
    // It appears silent, and is held beyond the threshold.
    assert!(test.pool.holders()[0].age > Duration::from_millis(100));
    assert_eq!(test.pool.snapshot().suspected_leaks, 0);
}

/// `clean_timeout` bounds the whole reset, and `close_timeout` what follows.
#[tokio::test]
async fn close_awaits_pending_resets() {
    let settings = |builder| single_connection(builder).close_timeout(Duration::from_millis(100));
    let test = TestPool::shared("cancellation_close", settings).await;
    let connection = test.get().await;
    let query = "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(0.5); EXIT; EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$";
    assert!(tokio::time::timeout(Duration::from_millis(50), connection.batch_execute(query)).await.is_err());
    drop(connection);
    let started = Instant::now();
    test.pool.close().await;
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    assert_eq!(test.pool.status().live(), 0);
}

/// Preparing completes before the server is ready again; a return right after it is clean.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepare_and_copy_leave_no_dirty_return() {
    let test = TestPool::shared("cancellation_prepare", single_connection).await;
    for round in 0..300 {
        let connection = test.get().await;
        connection.prepare("SELECT 1").await.unwrap();
        drop(connection);
        let connection = test.get().await;
        let out = connection.copy_out(&format!("COPY (SELECT repeat('x', {})) TO STDOUT", 7900 + round)).await.unwrap();
        let mut out = pin!(out);
        while let Some(chunk) = out.next().await {
            chunk.unwrap();
        }
        drop(connection);
    }
    eventually("the last connection is returned", async || test.pool.status().idle == 1).await;
    assert_eq!(test.scrape().count("poolscope_dirty_returns_total", &[]), 0);
}

/// Threads that abandon queries in every way, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn abandoned_work_never_reaches_the_next_holder() {
    let test = TestPool::shared("cancellation_storm", |builder| {
        builder.pool_size(4).max_overflow(2).reset_session(true).checkout_timeout(Duration::from_secs(20))
    })
    .await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..12_u64 {
        let pool = test.pool.clone();
        tasks.spawn(async move {
            for round in 0..60_u64 {
                let mut connection = pool.get().await.unwrap();
                let row = tokio::time::timeout(
                    Duration::from_secs(5),
                    connection.query_one("SELECT txid_current(), current_setting('search_path')", &[]),
                )
                .await
                .expect("a result")
                .expect("no cancellation meant for another query");
                let next: i64 = connection.query_one("SELECT txid_current()", &[]).await.unwrap().get(0);
                assert_ne!(row.get::<_, i64>(0), next, "in a transaction");
                assert_ne!(row.get::<_, &str>(1), "elsewhere");
                match (task + round) % 6 {
                    0 => poll_once_and_drop(connection.batch_execute("BEGIN")),
                    1 => poll_once_and_drop(connection.batch_execute("SELECT pg_sleep(0.2)")),
                    2 => {
                        let slow = connection.batch_execute("BEGIN; SET search_path = 'elsewhere'; SELECT pg_sleep(1)");
                        let _ = tokio::time::timeout(Duration::from_millis(round % 9), slow).await;
                    }
                    3 => drop(tokio::time::timeout(Duration::from_micros(round * 20), connection.transaction()).await),
                    4 => poll_once_and_drop(connection.batch_execute("SET search_path = 'elsewhere'")),
                    _ => {}
                }
            }
        });
    }
    tasks.join_all().await;
    eventually("all connections are returned", async || test.pool.status().used == 0).await;
    let snapshot = test.pool.snapshot();
    crate::assert_adds_up(&snapshot);
    assert!(snapshot.connections.live() <= 4, "the overflow is closed");
}

/// A token does nothing once its hold has ended.
#[tokio::test]
async fn token_that_outlives_its_hold_cancels_nothing() {
    let test = TestPool::shared("cancellation_token", single_connection).await;
    for _ in 0..20 {
        let connection = test.get().await;
        let token = connection.cancel_token();
        connection.query_one("SELECT 1", &[]).await.unwrap();
        drop(connection);
        let connection = test.get().await;
        let (slept, cancelled) = tokio::join!(connection.execute("SELECT pg_sleep(0.05)", &[]), async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            token.cancel().await
        });
        slept.unwrap();
        cancelled.unwrap();
    }
    assert_eq!(test.scrape().count("poolscope_connections_created_total", &[]), 1);
}

/// Returns a pool behind a proxy that delays everything.
async fn delayed(name: &str) -> (Proxy, TestPool) {
    let server = shared().await;
    let proxy = Proxy::to((Ipv4Addr::LOCALHOST, server.port()).into()).await;
    let test = TestPool::new(name, &proxy.url(&server.tcp_url().unwrap()), |builder| {
        single_connection(builder).clean_timeout(Duration::from_secs(20))
    });
    drop(test.get().await);
    proxy.delay(Duration::from_millis(50));
    (proxy, test)
}

#[tokio::test]
async fn return_awaits_a_cancel_request_under_way() {
    let (proxy, test) = delayed("cancellation_late").await;
    for _ in 0..3 {
        let connection = test.get().await;
        let first = backend(&connection).await;
        let (token, accepted) = (connection.cancel_token(), proxy.accepted());
        let cancelling = tokio::spawn(async move { token.cancel().await });
        eventually("the request is under way", async || proxy.accepted() > accepted).await;
        drop(connection);
        let connection = test.get().await;
        assert!(cancelling.is_finished(), "the next holder waits for it");
        connection.execute("SELECT pg_sleep(0.3)", &[]).await.unwrap();
        assert_eq!(backend(&connection).await, first);
        cancelling.await.unwrap().unwrap();
    }
}

/// The server may process it at any time.
#[tokio::test]
async fn dropped_cancel_request_closes_the_connection() {
    let (proxy, test) = delayed("cancellation_dropped").await;
    let connection = test.get().await;
    let first = backend(&connection).await;
    let (token, accepted) = (connection.cancel_token(), proxy.accepted());
    let cancelling = tokio::spawn(async move { token.cancel().await });
    eventually("the request is under way", async || proxy.accepted() > accepted).await;
    cancelling.abort();
    assert!(cancelling.await.is_err());
    drop(connection);
    assert_ne!(test.next_backend().await, first);
    assert_eq!(test.closed("dirty"), 1);
}

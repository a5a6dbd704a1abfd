//! Connection reset on return: no checkout gets a connection in a dirty state.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use poolscope::{Connection, PoolBuilder};

use crate::support::{Admin, TestPool, backend, eventually, shared, with_deadline};

fn single_connection(builder: PoolBuilder) -> PoolBuilder {
    builder.pool_size(1).max_overflow(0)
}

fn dirty_returns(test: &TestPool, operation: &str, kind: &str) -> u64 {
    test.scrape().count("poolscope_dirty_returns_total", &[("operation", operation), ("kind", kind)])
}

fn dirty_total(test: &TestPool) -> u64 {
    test.scrape().count("poolscope_dirty_returns_total", &[])
}

/// Polls a future once and drops it.
fn poll_once_and_drop(future: impl Future) {
    let mut future = pin!(future);
    assert!(matches!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
}

/// Well before the 30 s have passed.
async fn assert_no_sleeping_backend(application: &str) {
    let started = Instant::now();
    let admin = Admin::new(shared().await).await;
    let sleeping = format!(
        "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' AND state = 'active' \
         AND application_name = '{application}'"
    );
    eventually("no backend sleeps", async || admin.is_empty(&sleeping).await).await;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

async fn setting(connection: &Connection, name: &str) -> String {
    connection.query_one(&format!("SHOW {name}"), &[]).await.unwrap().get(0)
}

/// Returns whether the connection is outside a transaction: then each statement has a transaction id of its own.
async fn is_outside_a_transaction(connection: &Connection) -> bool {
    let at = async || connection.query_one("SELECT txid_current()", &[]).await.unwrap().get::<_, i64>(0);
    at().await != at().await
}

#[tokio::test]
async fn open_transaction_is_rolled_back() {
    let test = TestPool::shared("reset_open", single_connection).await;
    let admin = Admin::new(shared().await).await;
    admin.execute("CREATE TABLE reset_open (id int)").await;
    let connection = test.pool.operation("forgetful").get().await.unwrap();
    let first = backend(&connection).await;
    connection.batch_execute("BEGIN; INSERT INTO reset_open VALUES (1)").await.unwrap();
    drop(connection);

    let connection = with_deadline("a connection", test.pool.operation("next").get()).await.unwrap();
    assert_eq!(backend(&connection).await, first, "the same connection, reset");
    assert!(is_outside_a_transaction(&connection).await);
    let rows: i64 = connection.query_one("SELECT count(*) FROM reset_open", &[]).await.unwrap().get(0);
    assert_eq!(rows, 0);
    assert_eq!((dirty_returns(&test, "forgetful", "in_transaction"), dirty_total(&test)), (1, 1));
}

#[tokio::test]
async fn failed_transaction_is_rolled_back() {
    let test = TestPool::shared("reset_failed", single_connection).await;
    let connection = test.pool.operation("clumsy").get().await.unwrap();
    let first = backend(&connection).await;
    connection.batch_execute("BEGIN; SELECT 1/0").await.unwrap_err();
    drop(connection);
    let connection = test.get().await;
    assert_eq!(backend(&connection).await, first);
    assert!(is_outside_a_transaction(&connection).await);
    assert_eq!((dirty_returns(&test, "clumsy", "failed_transaction"), dirty_total(&test)), (1, 1));
}

#[tokio::test]
async fn dropped_transaction_is_not_dirty() {
    let test = TestPool::shared("reset_dropped", single_connection).await;
    for _ in 0..50 {
        let mut connection = test.pool.operation("early").get().await.unwrap();
        let transaction = connection.transaction().await.unwrap();
        transaction.batch_execute("SELECT 1").await.unwrap();
        drop(transaction);
        drop(connection);
    }
    let connection = test.get().await;
    assert!(is_outside_a_transaction(&connection).await);
    assert_eq!(dirty_total(&test), 0);
    assert_eq!(test.scrape().count("poolscope_connections_created_total", &[]), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_transaction_is_not_dirty_across_threads() {
    let test = TestPool::shared("reset_threads", |builder| builder.pool_size(2).max_overflow(0)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..6 {
        let pool = test.pool.clone();
        tasks.spawn(async move {
            for _ in 0..100 {
                let mut connection = pool.operation(if task % 2 == 0 { "early" } else { "plain" }).get().await.unwrap();
                if task % 2 == 0 {
                    let transaction = connection.transaction().await.unwrap();
                    transaction.query("SELECT 1", &[]).await.unwrap();
                } else {
                    assert!(is_outside_a_transaction(&connection).await);
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(dirty_total(&test), 0, "{:?}", test.pool.snapshot().dirty_returns);
    assert_eq!(test.pool.snapshot().wires_lost, 0);
}

#[tokio::test]
async fn abandoned_query_is_cancelled() {
    let test = TestPool::shared("reset_busy", single_connection).await;
    let admin = Admin::new(shared().await).await;
    let connection = test.pool.operation("abandons").get().await.unwrap();
    let first = backend(&connection).await;
    let slow = connection.batch_execute("SELECT pg_sleep(30)");
    let given_up = tokio::time::timeout(Duration::from_millis(100), slow).await;
    assert!(given_up.is_err());
    let started = Instant::now();
    drop(connection);
    let connection = with_deadline("a connection", test.pool.operation("next").get()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(backend(&connection).await, first, "cancelled, not closed");
    assert_eq!((dirty_returns(&test, "abandons", "busy"), dirty_total(&test)), (1, 1));
    // The cancel request hits no later query.
    for _ in 0..20 {
        connection.batch_execute("SELECT 1").await.unwrap();
    }
    assert_eq!(admin.last_statement(first).await, "SELECT 1");
}

#[tokio::test]
async fn unsent_begin_is_found_before_the_next_checkout() {
    let test = TestPool::shared("reset_once", single_connection).await;
    for round in 1..=20 {
        let connection = test.pool.operation("once").get().await.unwrap();
        // A single message is left in the channel.
        poll_once_and_drop(connection.batch_execute("BEGIN"));
        drop(connection);
        let connection = test.get().await;
        assert!(is_outside_a_transaction(&connection).await, "round {round}");
        drop(connection);
        assert_eq!(dirty_total(&test), round);
    }
    assert!(dirty_returns(&test, "once", "in_transaction") + dirty_returns(&test, "once", "busy") == 20);
}

#[tokio::test]
async fn unsent_slow_query_delays_no_checkout() {
    let test = TestPool::shared("reset_once_slow", single_connection).await;
    for _ in 0..5 {
        let connection = test.pool.operation("once").get().await.unwrap();
        poll_once_and_drop(connection.batch_execute("SELECT pg_sleep(30)"));
        drop(connection);
        let started = Instant::now();
        let connection = test.get().await;
        connection.batch_execute("SELECT 1").await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
    assert_eq!(dirty_returns(&test, "once", "busy"), 5);
    assert_no_sleeping_backend("reset_once_slow").await;
}

#[tokio::test]
async fn checkout_dropped_during_reset_leaks_nothing() {
    let test = TestPool::shared("reset_leaves", single_connection).await;
    for round in 1..=5 {
        let connection = test.pool.operation("once").get().await.unwrap();
        poll_once_and_drop(connection.batch_execute("SELECT pg_sleep(30)"));
        drop(connection);
        poll_once_and_drop(test.pool.operation("leaves").get());
        assert_eq!(test.outcomes("cancelled"), round);
        assert_eq!((test.pool.status().idle, test.pool.status().used), (0, 0));
        eventually("the connection is closed", async || test.closed("dirty") == round).await;
        assert_eq!(test.pool.status().live(), 0);
    }
    test.get().await.batch_execute("SELECT 1").await.unwrap();
    assert_no_sleeping_backend("reset_leaves").await;
}

#[tokio::test]
async fn reset_timeout_closes_the_connection() {
    let settings = |builder: PoolBuilder| single_connection(builder).clean_timeout(Duration::from_millis(50));
    let test = TestPool::shared("reset_stubborn", settings).await;
    let connection = test.pool.operation("stubborn").get().await.unwrap();
    let first = backend(&connection).await;
    // It catches the cancellation, and lasts longer than this process may be stalled.
    let query = "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(2); EXIT; EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$";
    let stubborn = connection.batch_execute(query);
    assert!(tokio::time::timeout(Duration::from_millis(50), stubborn).await.is_err());
    drop(connection);
    let connection = test.get().await;
    assert_ne!(backend(&connection).await, first);
    assert_eq!(dirty_returns(&test, "stubborn", "busy"), 1);
    assert_eq!(test.closed("dirty"), 1);
    assert_eq!(test.errors("reset", "timeout"), 1);
}

#[tokio::test]
async fn concurrent_resets_are_bounded() {
    // Of eight connections, two may be reset at once; the others are closed, which frees their slots at once.
    let test = TestPool::shared("reset_bound", |builder| builder.pool_size(8).max_overflow(0)).await;
    let admin = Admin::new(shared().await).await;
    let connections = test.get_many(8).await;
    for connection in &connections {
        connection.batch_execute("BEGIN").await.unwrap();
    }
    drop(connections);
    let held = test.get_many(8).await;
    assert_eq!(dirty_total(&test), 8);
    assert_eq!(test.closed("dirty"), 6);
    admin.await_backends("reset_bound", 8).await;
    drop(held);
}

#[tokio::test]
async fn session_state_is_kept_by_default() {
    let test = TestPool::shared("reset_default", single_connection).await;
    let connection = test.get().await;
    connection.batch_execute("SET search_path = 'elsewhere'").await.unwrap();
    drop(connection);
    assert_eq!(setting(&test.get().await, "search_path").await, "elsewhere");
}

#[tokio::test]
async fn reset_session_keeps_cached_statements() {
    let test = TestPool::shared("reset_reset", |builder| single_connection(builder).reset_session(true)).await;
    let connection = test.pool.operation("messy").get().await.unwrap();
    let first = backend(&connection).await;
    let path = setting(&connection, "search_path").await;
    connection.prepare_cached("SELECT 7::bigint").await.unwrap();
    connection
        .batch_execute(
            "SET search_path = 'elsewhere'; SET statement_timeout = '7s'; SELECT pg_advisory_lock(42); \
             LISTEN news; CREATE TEMP TABLE scratch (id int)",
        )
        .await
        .unwrap();
    drop(connection);

    let connection = test.pool.operation("next").get().await.unwrap();
    assert_eq!(backend(&connection).await, first);
    assert_eq!(
        (setting(&connection, "search_path").await, setting(&connection, "statement_timeout").await),
        (path, "0".to_owned())
    );
    let count = async |query: &str| connection.query_one(query, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(count("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()").await, 0);
    assert_eq!(count("SELECT count(*) FROM pg_listening_channels()").await, 0);
    assert_eq!(count("SELECT count(*) FROM pg_class WHERE relname = 'scratch'").await, 0);
    assert_eq!(connection.statement_cache.size(), 1);
    let statement = connection.prepare_cached("SELECT 7::bigint").await.unwrap();
    assert_eq!(connection.query_one(&statement, &[]).await.unwrap().get::<_, i64>(0), 7);
    drop(connection);
    eventually("the last connection is returned", async || test.pool.status().idle == 1).await;
    for kind in ["settings", "advisory_locks", "listen", "temporary_tables"] {
        assert_eq!((dirty_returns(&test, "messy", kind), dirty_returns(&test, "next", kind)), (1, 0), "{kind}");
    }
}

#[tokio::test]
async fn advisory_lock_is_released_while_idle() {
    let test = TestPool::shared("reset_lock", |builder| single_connection(builder).reset_session(true)).await;
    let admin = Admin::new(shared().await).await;
    let connection = test.get().await;
    connection.batch_execute("SELECT pg_advisory_lock(815)").await.unwrap();
    drop(connection);
    with_deadline("the lock", admin.execute("SELECT pg_advisory_lock(815)")).await;
}

#[tokio::test]
async fn discarding_cancels_the_running_query() {
    let test = TestPool::shared("reset_discard", single_connection).await;
    let admin = Admin::new(shared().await).await;
    let connection = test.get().await;
    let slow = connection.batch_execute("SELECT pg_sleep(30)");
    assert!(tokio::time::timeout(Duration::from_millis(100), slow).await.is_err());
    connection.discard();
    admin.await_backends("reset_discard", 0).await;
}

#[test]
fn dirty_return_without_runtime_is_closed() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let server = first.block_on(crate::server());
    let (test, connection) = first.block_on(async {
        let test = TestPool::new("reset_runtime", &server.url(), single_connection);
        let connection = test.get().await;
        connection.batch_execute("BEGIN").await.unwrap();
        (test, connection)
    });
    drop(first);
    drop(connection);
    assert_eq!(test.pool.status().live(), 0);
    runtime().block_on(async {
        assert!(is_outside_a_transaction(&test.get().await).await);
    });
}

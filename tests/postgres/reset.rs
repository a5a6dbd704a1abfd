//! Nobody gets a connection that somebody else left dirty.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use poolscope::{Connection, PoolBuilder};

use crate::support::{Admin, Counted, backend, eventually, patiently, shared};

/// A pool of one, which waits long enough.
fn one(builder: PoolBuilder) -> PoolBuilder {
    builder.pool_size(1).max_overflow(0)
}

fn dirty(counted: &Counted, operation: &str, kind: &str) -> u64 {
    counted.scrape().count("poolscope_dirty_returns_total", &[("operation", operation), ("kind", kind)])
}

fn all_dirty(counted: &Counted) -> u64 {
    counted.scrape().count("poolscope_dirty_returns_total", &[])
}

/// Polls a future once and drops it.
fn poll_once_and_drop(future: impl Future) {
    let mut future = pin!(future);
    assert!(matches!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
}

/// Long before the 30 s are over.
async fn none_sleeps_on(application: &str) {
    let begun = Instant::now();
    let admin = Admin::new(shared().await).await;
    let sleeping = format!(
        "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' AND state = 'active' \
         AND application_name = '{application}'"
    );
    eventually("none of them sleeps on", async || admin.is_empty(&sleeping).await).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

async fn setting(connection: &Connection, name: &str) -> String {
    connection.query_one(&format!("SHOW {name}"), &[]).await.unwrap().get(0)
}

/// Whether the connection is outside a transaction: each statement has one of its own.
async fn is_outside_a_transaction(connection: &Connection) -> bool {
    let at = async || connection.query_one("SELECT txid_current()", &[]).await.unwrap().get::<_, i64>(0);
    at().await != at().await
}

#[tokio::test]
async fn open_transaction_is_rolled_back() {
    let counted = Counted::shared("hygiene_open", one).await;
    let admin = Admin::new(shared().await).await;
    admin.execute("CREATE TABLE hygiene_open (id int)").await;
    let connection = counted.pool.operation("forgetful").get().await.unwrap();
    let first = backend(&connection).await;
    connection.batch_execute("BEGIN; INSERT INTO hygiene_open VALUES (1)").await.unwrap();
    drop(connection);

    let connection = patiently("a connection", counted.pool.operation("next").get()).await.unwrap();
    assert_eq!(backend(&connection).await, first, "the same one, cleaned");
    assert!(is_outside_a_transaction(&connection).await);
    let rows: i64 = connection.query_one("SELECT count(*) FROM hygiene_open", &[]).await.unwrap().get(0);
    assert_eq!(rows, 0);
    assert_eq!((dirty(&counted, "forgetful", "in_transaction"), all_dirty(&counted)), (1, 1));
}

#[tokio::test]
async fn failed_transaction_is_rolled_back() {
    let counted = Counted::shared("hygiene_failed", one).await;
    let connection = counted.pool.operation("clumsy").get().await.unwrap();
    let first = backend(&connection).await;
    connection.batch_execute("BEGIN; SELECT 1/0").await.unwrap_err();
    drop(connection);
    let connection = counted.get().await;
    assert_eq!(backend(&connection).await, first);
    assert!(is_outside_a_transaction(&connection).await);
    assert_eq!((dirty(&counted, "clumsy", "failed_transaction"), all_dirty(&counted)), (1, 1));
}

#[tokio::test]
async fn dropped_transaction_is_not_dirty() {
    let counted = Counted::shared("hygiene_dropped", one).await;
    for _ in 0..50 {
        let mut connection = counted.pool.operation("early").get().await.unwrap();
        let transaction = connection.transaction().await.unwrap();
        transaction.batch_execute("SELECT 1").await.unwrap();
        drop(transaction);
        drop(connection);
    }
    let connection = counted.get().await;
    assert!(is_outside_a_transaction(&connection).await);
    assert_eq!(all_dirty(&counted), 0);
    assert_eq!(counted.scrape().count("poolscope_connections_created_total", &[]), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_transaction_is_not_dirty_across_threads() {
    let counted = Counted::shared("hygiene_threads", |builder| builder.pool_size(2).max_overflow(0)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..6 {
        let pool = counted.pool.clone();
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
    assert_eq!(all_dirty(&counted), 0, "{:?}", counted.pool.snapshot().dirty_returns);
    assert_eq!(counted.pool.snapshot().wires_lost, 0);
}

#[tokio::test]
async fn abandoned_query_is_cancelled() {
    let counted = Counted::shared("hygiene_busy", one).await;
    let admin = Admin::new(shared().await).await;
    let connection = counted.pool.operation("abandons").get().await.unwrap();
    let first = backend(&connection).await;
    let slow = connection.batch_execute("SELECT pg_sleep(30)");
    let given_up = tokio::time::timeout(Duration::from_millis(100), slow).await;
    assert!(given_up.is_err());
    let begun = Instant::now();
    drop(connection);
    let connection = patiently("a connection", counted.pool.operation("next").get()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(backend(&connection).await, first, "cancelled, not closed");
    assert_eq!((dirty(&counted, "abandons", "busy"), all_dirty(&counted)), (1, 1));
    // What was sent to cancel it hits nobody else.
    for _ in 0..20 {
        connection.batch_execute("SELECT 1").await.unwrap();
    }
    assert_eq!(admin.last_statement(first).await, "SELECT 1");
}

#[tokio::test]
async fn unsent_begin_is_found_before_the_next_checkout() {
    let counted = Counted::shared("hygiene_once", one).await;
    for round in 1..=20 {
        let connection = counted.pool.operation("once").get().await.unwrap();
        // So it is a single message that is left in the channel.
        poll_once_and_drop(connection.batch_execute("BEGIN"));
        drop(connection);
        let connection = counted.get().await;
        assert!(is_outside_a_transaction(&connection).await, "round {round}");
        drop(connection);
        assert_eq!(all_dirty(&counted), round);
    }
    assert!(dirty(&counted, "once", "in_transaction") + dirty(&counted, "once", "busy") == 20);
}

#[tokio::test]
async fn unsent_slow_query_delays_no_checkout() {
    let counted = Counted::shared("hygiene_once_slow", one).await;
    for _ in 0..5 {
        let connection = counted.pool.operation("once").get().await.unwrap();
        poll_once_and_drop(connection.batch_execute("SELECT pg_sleep(30)"));
        drop(connection);
        let begun = Instant::now();
        let connection = counted.get().await;
        connection.batch_execute("SELECT 1").await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    assert_eq!(dirty(&counted, "once", "busy"), 5);
    none_sleeps_on("hygiene_once_slow").await;
}

#[tokio::test]
async fn checkout_dropped_during_reset_leaks_nothing() {
    let counted = Counted::shared("hygiene_leaves", one).await;
    for round in 1..=5 {
        let connection = counted.pool.operation("once").get().await.unwrap();
        poll_once_and_drop(connection.batch_execute("SELECT pg_sleep(30)"));
        drop(connection);
        poll_once_and_drop(counted.pool.operation("leaves").get());
        assert_eq!((counted.closed("dirty"), counted.outcomes("cancelled")), (round, round));
        assert_eq!(counted.pool.status().live(), 0);
    }
    counted.get().await.batch_execute("SELECT 1").await.unwrap();
    none_sleeps_on("hygiene_leaves").await;
}

#[tokio::test]
async fn reset_timeout_closes_the_connection() {
    let settings = |builder: PoolBuilder| one(builder).clean_timeout(Duration::from_millis(50));
    let counted = Counted::shared("hygiene_stubborn", settings).await;
    let connection = counted.pool.operation("stubborn").get().await.unwrap();
    let first = backend(&connection).await;
    // It does not let itself be cancelled.
    let query = "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(0.5); EXIT; EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$";
    let stubborn = connection.batch_execute(query);
    assert!(tokio::time::timeout(Duration::from_millis(50), stubborn).await.is_err());
    drop(connection);
    let connection = counted.get().await;
    assert_ne!(backend(&connection).await, first);
    assert_eq!(dirty(&counted, "stubborn", "busy"), 1);
    assert_eq!(counted.closed("dirty"), 1);
    assert_eq!(counted.errors("reset", "timeout"), 1);
}

#[tokio::test]
async fn concurrent_resets_are_bounded() {
    // Of eight, two may be out for cleaning; the others are closed, which frees their places at once.
    let counted = Counted::shared("hygiene_bound", |builder| builder.pool_size(8).max_overflow(0)).await;
    let admin = Admin::new(shared().await).await;
    let connections = counted.take(8).await;
    for connection in &connections {
        connection.batch_execute("BEGIN").await.unwrap();
    }
    drop(connections);
    let held = counted.take(8).await;
    assert_eq!(all_dirty(&counted), 8);
    assert_eq!(counted.closed("dirty"), 6);
    admin.await_backends("hygiene_bound", 8).await;
    drop(held);
}

#[tokio::test]
async fn session_state_is_kept_by_default() {
    let counted = Counted::shared("hygiene_default", one).await;
    let connection = counted.get().await;
    connection.batch_execute("SET search_path = 'elsewhere'").await.unwrap();
    drop(connection);
    assert_eq!(setting(&counted.get().await, "search_path").await, "elsewhere");
}

#[tokio::test]
async fn reset_session_keeps_cached_statements() {
    let counted = Counted::shared("hygiene_reset", |builder| one(builder).reset_session(true)).await;
    let connection = counted.pool.operation("messy").get().await.unwrap();
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

    let connection = counted.pool.operation("tidy").get().await.unwrap();
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
    eventually("the last one back", async || counted.pool.status().idle == 1).await;
    for kind in ["settings", "advisory_locks", "listen", "temporary_tables"] {
        assert_eq!((dirty(&counted, "messy", kind), dirty(&counted, "tidy", kind)), (1, 0), "{kind}");
    }
}

#[tokio::test]
async fn advisory_lock_is_released_while_idle() {
    let counted = Counted::shared("hygiene_lock", |builder| one(builder).reset_session(true)).await;
    let admin = Admin::new(shared().await).await;
    let connection = counted.get().await;
    connection.batch_execute("SELECT pg_advisory_lock(815)").await.unwrap();
    drop(connection);
    patiently("the lock", admin.execute("SELECT pg_advisory_lock(815)")).await;
}

#[tokio::test]
async fn discarding_cancels_the_running_query() {
    let counted = Counted::shared("hygiene_discard", one).await;
    let admin = Admin::new(shared().await).await;
    let connection = counted.get().await;
    let slow = connection.batch_execute("SELECT pg_sleep(30)");
    assert!(tokio::time::timeout(Duration::from_millis(100), slow).await.is_err());
    connection.discard();
    admin.await_backends("hygiene_discard", 0).await;
}

#[test]
fn dirty_return_without_runtime_is_closed() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let server = first.block_on(crate::server());
    let (counted, connection) = first.block_on(async {
        let counted = Counted::new("hygiene_runtime", &server.url(), one);
        let connection = counted.get().await;
        connection.batch_execute("BEGIN").await.unwrap();
        (counted, connection)
    });
    drop(first);
    drop(connection);
    assert_eq!(counted.pool.status().live(), 0);
    runtime().block_on(async {
        assert!(is_outside_a_transaction(&counted.get().await).await);
    });
}

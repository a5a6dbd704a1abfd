//! The life cycle of connections: overflow, age, pings, and terminated backends.

use std::time::Duration;

use poolscope::labels::CloseReason;
use tokio_postgres::error::SqlState;
use tracing::Level;

use super::support::log_lines::{Count, LogLines};
use super::support::{Admin, backend, eventually};
use super::{assert_adds_up, closed, pool, server};

#[tokio::test]
async fn connection_offers_the_deadpool_client_api() {
    let server = server().await;
    let pool = pool(&server, |pool| pool);
    let mut connection = pool.get().await.unwrap();
    let statement = connection.prepare_cached("SELECT $1::int4 + 1").await.unwrap();
    assert_eq!(connection.query_one(&statement, &[&41]).await.unwrap().get::<_, i32>(0), 42);
    let transaction = connection.transaction().await.unwrap();
    transaction.batch_execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)").await.unwrap();
    transaction.commit().await.unwrap();
    drop(connection);

    let count = async |connection: &mut poolscope::Connection| {
        connection.query_one("SELECT count(*) FROM t", &[]).await.map(|row| row.get::<_, i64>(0))
    };
    let spawned = tokio::spawn({
        let operation = pool.operation("count");
        async move { operation.run(count).await }
    });
    assert_eq!(spawned.await.unwrap().unwrap(), 1);
    let failed = pool.run(async |connection| connection.execute("SELECT nonsense", &[]).await).await;
    assert!(failed.is_err());
    let names: Vec<_> = pool.snapshot().operations.into_iter().map(|operation| operation.name).collect();
    assert!(names.iter().any(|name| &**name == "count"), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("tests/postgres/connections.rs:")), "{names:?}");
}

#[tokio::test]
async fn overflow_backends_are_closed_on_the_server() {
    let server = server().await;
    let admin = Admin::new(&server).await;
    let pool = pool(&server, |pool| pool.pool_size(2).max_overflow(3).application_name("poolscope"));
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(pool.get().await.unwrap());
    }
    assert_eq!(admin.backends("poolscope").await, 5);
    assert_eq!(pool.status().overflow(), 3);
    held.clear();
    eventually("the overflow backends are gone", async || admin.backends("poolscope").await == 2).await;
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.connections.idle, closed(&snapshot, CloseReason::Overflow)), (2, 3));
    assert_adds_up(&snapshot);
}

#[tokio::test]
async fn expired_connection_is_replaced() {
    let server = server().await;
    let pool = pool(&server, |pool| pool.recycle_after(Some(Duration::from_millis(1))));
    let first = backend(&pool.get().await.unwrap()).await;
    eventually("another backend serves", async || backend(&pool.get().await.unwrap()).await != first).await;
    assert!(closed(&pool.snapshot(), CloseReason::Recycled) >= 1);
    assert_adds_up(&pool.snapshot());
}

#[tokio::test]
async fn connection_killed_while_idle_is_not_handed_out() {
    let server = server().await;
    let admin = Admin::new(&server).await;
    let pool = pool(&server, |pool| pool.pre_ping_idle(Duration::ZERO));
    let first = backend(&pool.get().await.unwrap()).await;
    admin.terminate(first).await;
    let second = backend(&pool.get().await.unwrap()).await;
    assert_ne!(first, second);
    let snapshot = pool.snapshot();
    assert_eq!(closed(&snapshot, CloseReason::Broken) + closed(&snapshot, CloseReason::PingFailed), 1);
    assert_adds_up(&snapshot);
}

#[tokio::test]
async fn connection_killed_while_held_is_not_reused() {
    let server = server().await;
    let admin = Admin::new(&server).await;
    let pool = pool(&server, |pool| pool.pre_ping(false));
    let connection = pool.get().await.unwrap();
    let first = backend(&connection).await;
    admin.terminate(first).await;
    let error = connection.query_one("SELECT 1", &[]).await.unwrap_err();
    assert!(error.code() == Some(&SqlState::ADMIN_SHUTDOWN) || error.is_closed(), "{error:?}");
    eventually("the client is closed", async || connection.is_closed()).await;
    drop(connection);
    assert_eq!(pool.status().idle, 0);
    assert_eq!(closed(&pool.snapshot(), CloseReason::Broken), 1);
    assert_ne!(backend(&pool.get().await.unwrap()).await, first);
}

#[tokio::test]
async fn recently_used_connection_is_not_pinged() {
    let server = server().await;
    let admin = Admin::new(&server).await;
    let pool = pool(&server, |pool| pool.pre_ping_idle(Duration::from_secs(3600)));
    let connection = pool.get().await.unwrap();
    let first = backend(&connection).await;
    connection.query_one("SELECT 'mine'", &[]).await.unwrap();
    drop(connection);
    let connection = pool.get().await.unwrap();
    assert_eq!(admin.last_statement(first).await, "SELECT 'mine'");
    drop(connection);
    assert_eq!(pool.snapshot().phase_nanos[poolscope::labels::Phase::Ping.index()], 0);
}

#[tokio::test]
async fn guard_may_be_dropped_on_any_thread_or_panic() {
    let server = server().await;
    let pool = pool(&server, |pool| pool);
    let connection = pool.get().await.unwrap();
    std::thread::spawn(move || drop(connection)).join().unwrap();
    assert_eq!(pool.status().idle, 1);
    let connection = pool.get().await.unwrap();
    let holder = tokio::spawn(async move {
        let _connection = connection;
        panic!("scripted");
    });
    assert!(holder.await.is_err());
    assert_eq!((pool.status().idle, pool.status().used), (1, 0));
}

#[tokio::test]
async fn closing_awaits_connections_in_use() {
    let server = server().await;
    let admin = Admin::new(&server).await;
    let pool = pool(&server, |pool| pool);
    let connection = pool.operation("report").get().await.unwrap();
    let error = pool.close_within(Duration::from_millis(10)).await.unwrap_err();
    assert!(error.to_string().contains("held by report ×1"), "{error}");
    assert!(pool.get().await.is_err());
    let closing = tokio::spawn({
        let pool = pool.clone();
        async move { pool.close().await }
    });
    connection.query_one("SELECT 1", &[]).await.unwrap();
    drop(connection);
    closing.await.unwrap();
    eventually("the backends are gone", async || admin.backends("poolscope").await == 0).await;
    assert_adds_up(&pool.snapshot());
}

#[tokio::test]
async fn lost_connections_are_counted_together() {
    let server = server().await;
    let admin = Admin::new(&server).await;
    let pool = pool(&server, |pool| pool.pool_size(20).max_overflow(0).application_name("lost"));
    let lines = LogLines::default();
    let _capture = lines.capture();
    let get_all = async || {
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(pool.get().await.unwrap());
        }
        held
    };
    let terminate_all = async || {
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lost'").await;
        admin.await_backends("lost", 0).await;
    };
    let lost = || (lines.count(Level::WARN, "connection lost"), lines.count(Level::DEBUG, "the server closed an idle"));
    let debug = |lines| Count { lines, suppressed: 0 };

    drop(get_all().await);
    terminate_all().await;
    eventually("idle ones are debug", async || lost() == (Count::default(), debug(20))).await;
    let held = get_all().await;
    terminate_all().await;
    eventually("they are closed", async || held.iter().all(|connection| connection.is_closed())).await;
    let (Count { lines: warnings, .. }, idle) = lost();
    // The limiter passes a second one after a second.
    assert!((1..=2).contains(&warnings) && idle == debug(20), "{lines:?}");
}

//! A server that is killed, restarted, suspended, paused or out of memory.

use std::time::Duration;

use poolscope::labels::{CloseReason, ConnectFailure, ErrorPhase, Outcome};
use poolscope::redis::CheckoutError;
use poolscope::redis::redis::AsyncCommands;
use poolscope_testing::redis::Server;

use crate::support::{TestPool, eventually, poll_until, server, with_deadline};

#[tokio::test]
async fn killed_server_fails_checkouts_until_it_is_back() {
    let server = server().await;
    let test = TestPool::new(&server.url(), |builder| builder.pool_size(2).max_overflow(0));
    let mut connection = test.get().await;
    drop(test.get().await);
    let _: () = connection.set("a", 1).await.unwrap();
    server.kill().unwrap();
    let error = connection.get::<_, i64>("a").await.unwrap_err();
    assert!(error.is_connection_dropped(), "{error}");
    drop(connection);
    let error = poll_until("an error", async || test.pool.get().await.err()).await;
    assert!(matches!(error, CheckoutError::Connect { .. } | CheckoutError::Unavailable { .. }), "{error}");
    // While it is away, one checkout at a time tries.
    let error = with_deadline("an error", test.pool.get()).await.err().unwrap();
    if let CheckoutError::Unavailable { source, .. } = &error {
        assert_eq!(source.failure, ConnectFailure::ServerDown);
    }
    server.start().await.unwrap();
    eventually("a connection", async || test.pool.get().await.is_ok()).await;
    assert_eq!(test.get().await.get::<_, Option<i64>>("a").await.unwrap(), None);
    assert!(test.closed(CloseReason::Broken) >= 2, "{:?}", test.snapshot().closed);
    assert!(test.commands("GET", Some("io")) >= 1);
    test.scrape();
}

#[tokio::test]
async fn connections_that_ended_while_idle_are_replaced() {
    let server = server().await;
    let test = TestPool::new(&server.url(), |builder| builder.pool_size(3).max_overflow(0));
    let all = (test.get().await, test.get().await, test.get().await);
    drop(all);
    server.stop().unwrap();
    server.start().await.unwrap();
    for _ in 0..3 {
        let _: () = test.get().await.set("a", 1).await.unwrap();
    }
    assert_eq!(test.outcomes(Outcome::Error), 0);
    let killed = test.get().await;
    assert!(server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap().starts_with(':'));
    drop(killed);
    // Until the end of a connection arrives, it looks usable.
    eventually("a connection", async || test.get().await.set::<_, _, ()>("a", 1).await.is_ok()).await;
}

#[tokio::test]
async fn suspended_server_times_out_connects_and_pings() {
    let server = Server::builder().tcp().start().await.unwrap();
    let settings = |builder: poolscope::redis::PoolBuilder| {
        let millis = Duration::from_millis;
        builder
            .pool_size(1)
            .max_overflow(0)
            .pre_ping_idle(millis(0))
            .ping_timeout(millis(200))
            .connect_timeout(millis(1000))
    };
    let test = TestPool::new(&server.tcp_url().unwrap(), settings);
    drop(poll_until("a connection", async || test.pool.get().await.ok()).await);
    let errors = || [ErrorPhase::Ping, ErrorPhase::Connect].map(|phase| test.errors(phase, "timeout"));
    let before = errors();
    server.suspend().unwrap();
    let error = with_deadline("an error", test.pool.get()).await.err().unwrap();
    let CheckoutError::Connect { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.code().as_str(), "timeout");
    assert!(error.to_string().contains("connect_timeout"), "{error}");
    assert_eq!(errors(), before.map(|count| count + 1));
    server.resume().unwrap();
    eventually("a connection", async || test.pool.get().await.is_ok()).await;
}

#[tokio::test]
async fn paused_clients_wait_for_the_server() {
    let server = server().await;
    let test = TestPool::single(&server.url());
    let mut connection = test.pool.operation("paused").get().await.unwrap();
    assert_eq!(server.command(&["CLIENT", "PAUSE", "100000", "WRITE"]).unwrap(), "+OK");
    let _: Option<i64> = connection.get("a").await.unwrap();
    let setting = tokio::spawn(async move { connection.set::<_, _, ()>("a", 1).await });
    eventually("the command is pending", async || test.totals("paused").queries == 2).await;
    assert_eq!(server.command(&["CLIENT", "UNPAUSE"]).unwrap(), "+OK");
    with_deadline("the reply", setting).await.unwrap().unwrap();
    assert_eq!(test.commands("SET", None), 1);
}

#[tokio::test]
async fn server_without_memory_refuses_writes_only() {
    let server = Server::builder()
        .setting("maxmemory", "100kb")
        .setting("maxmemory-policy", "noeviction")
        .start()
        .await
        .unwrap();
    let test = TestPool::single(&server.url());
    let mut connection = test.get().await;
    let error = connection.set::<_, _, ()>("a", "x".repeat(100)).await.unwrap_err();
    assert_eq!(error.code(), Some("OOM"), "{error}");
    let _: Option<i64> = connection.get("a").await.unwrap();
    drop(connection);
    assert_eq!((test.commands("SET", Some("OOM")), test.commands("GET", None)), (1, 1));
    assert_eq!(test.snapshot().created, 1);
}

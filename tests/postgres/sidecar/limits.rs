//! Limits, time limits, and the end of the proxy.

use std::time::Duration;

use poolscope::labels::{CloseReason, ErrorPhase};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::error::SqlState;

use super::*;
use crate::support::shared;

#[tokio::test]
async fn clients_beyond_the_maximum_receive_53300() {
    let sidecar = Sidecar::with(&upstream(shared().await), |settings| settings.max_connections = 2).await;
    let first = sidecar.client("few").await;
    let _second = sidecar.client("few").await;
    let error = tokio_postgres::connect(&sidecar.url("few"), NoTls).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::TOO_MANY_CONNECTIONS));
    assert_eq!(error.as_db_error().unwrap().message(), "sorry, too many clients already");
    // A query can still be cancelled.
    first.cancel_token().cancel_query(NoTls).await.unwrap();
    let pool = sidecar.await_pool("few", "the refusal", |pool| closed(pool, CloseReason::ConnectFailed) == 1).await;
    assert!(pool.errors.iter().any(|errors| errors.phase == ErrorPhase::Connect && errors.code.as_str() == "limit"));
    assert_adds_up(&pool);
    drop(first);
    sidecar.await_pool("few", "room", |pool| pool.connections.live() == 1).await;
    eventually("a new connection", async || tokio_postgres::connect(&sidecar.url("few"), NoTls).await.is_ok()).await;
}

#[tokio::test]
async fn shutdown_waits_for_open_transactions() {
    let sidecar = Sidecar::to(shared().await).await;
    let idle = sidecar.client("drain").await;
    let busy = sidecar.client("drain").await;
    busy.batch_execute("BEGIN; CREATE TEMP TABLE t (id int)").await.unwrap();
    sidecar
        .await_pool("drain", "the transaction", |pool| (pool.connections.used, pool.connections.idle) == (1, 1))
        .await;
    let (collector, url) = (sidecar.collector.clone(), sidecar.url("drain"));
    let stopped = tokio::spawn(sidecar.stop());
    eventually("the idle session's end", async || idle.is_closed()).await;
    assert!(tokio_postgres::connect(&url, NoTls).await.is_err(), "it accepts no more");
    busy.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    busy.batch_execute("COMMIT").await.unwrap();
    eventually("the other session's end", async || busy.is_closed()).await;
    with_deadline("the proxy's end", stopped).await.unwrap();
    eventually("the pools' end", async || collector.snapshots().is_empty()).await;
}

#[tokio::test]
async fn shutdown_ends_sessions_at_its_deadline() {
    let set = |settings: &mut Settings| settings.drain_timeout = Duration::from_millis(50);
    let sidecar = Sidecar::with(&upstream(shared().await), set).await;
    let mut stream = raw_session(sidecar.address).await;
    stream.write_all(&query("BEGIN")).await.unwrap();
    sidecar.await_pool("raw", "the transaction", |pool| pool.connections.used == 1).await;
    sidecar.stop().await;
    let mut received = Vec::new();
    with_deadline("the end", stream.read_to_end(&mut received)).await.unwrap();
    let text = String::from_utf8_lossy(&received);
    assert!(text.contains("FATAL") && text.contains("57P01"), "{text}");
}

#[tokio::test]
async fn silent_clients_and_servers_time_out() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://127.0.0.1:{}?sslmode=disable", silent.local_addr().unwrap().port());
    let sidecar = Sidecar::with(&url, |settings| settings.startup_timeout = Duration::from_millis(200)).await;
    let mut client = TcpStream::connect(sidecar.address).await.unwrap();
    // The end of the stream, without an answer.
    assert_eq!(with_deadline("the end", client.read(&mut [0; 64])).await.unwrap(), 0);
    let mut client = TcpStream::connect(sidecar.address).await.unwrap();
    client.write_all(&startup("raw")).await.unwrap();
    assert!(matches!(with_deadline("the end", client.read(&mut [0; 64])).await, Ok(0) | Err(_)));
    let pool =
        poll_until("the failure", async || sidecar.pool("other").filter(|pool| pool.closed.iter().sum::<u64>() == 1))
            .await;
    assert_eq!(closed(&pool, CloseReason::ConnectFailed), 1);
    assert_eq!(pool.errors[0].code.as_str(), "timeout");
    assert_adds_up(&pool);
}

#[tokio::test]
async fn unreachable_server_is_reported_and_recovers() {
    let server = Server::builder().tcp(true).start().await.unwrap();
    let sidecar = Sidecar::to(&server).await;
    drop(sidecar.client("down").await);
    server.stop(poolscope_testing::server::Shutdown::Fast).await.unwrap();
    let error = tokio_postgres::connect(&sidecar.url("down"), NoTls).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::CONNECTION_FAILURE), "{error}");
    let pool = sidecar.await_pool("down", "the failure", |pool| closed(pool, CloseReason::ConnectFailed) == 1).await;
    assert!(!pool.connecting_suspended.is_zero(), "{:?}", pool.connecting_suspended);
    server.start().await.unwrap();
    let client = sidecar.client("down").await;
    client.batch_execute("SELECT 1").await.unwrap();
    let pool = sidecar.await_pool("down", "recovery", |pool| pool.connections.idle == 1).await;
    assert!(pool.connecting_suspended.is_zero());
    // The server's own message reaches the client.
    let broken = client.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())").await.unwrap_err();
    assert_eq!(broken.code(), Some(&SqlState::ADMIN_SHUTDOWN));
    let pool = sidecar.await_pool("down", "the end", |pool| pool.connections.live() == 0).await;
    assert_eq!(closed(&pool, CloseReason::Broken), 1);
    assert_adds_up(&pool);
}

#[tokio::test]
async fn rejected_client_creates_no_pool() {
    let sidecar = Sidecar::to(shared().await).await;
    let url = sidecar.url("nobody").replace("postgres@", "nobody@");
    let error = tokio_postgres::connect(&url, NoTls).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION), "{error}");
    let pool =
        poll_until("the failure", async || sidecar.pool("other").filter(|pool| pool.closed.iter().sum::<u64>() == 1))
            .await;
    assert_eq!(sidecar.collector.snapshots().len(), 1);
    assert_eq!((closed(&pool, CloseReason::ConnectFailed), pool.errors[0].code.as_str()), (1, "28000"));
    assert!(pool.connecting_suspended.is_zero(), "the server is not down");
}

/// Returns a start-up message.
pub(super) fn startup(application: &str) -> Vec<u8> {
    let body = format!("user\0postgres\0database\0postgres\0application_name\0{application}\0\0");
    let length = u32::try_from(body.len() + 8).unwrap();
    [&length.to_be_bytes()[..], &196_608_u32.to_be_bytes(), body.as_bytes()].concat()
}

/// Returns a simple query.
pub(super) fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}

pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag], &u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], body].concat()
}

/// Returns a session of the application `raw` that is ready.
pub(super) async fn raw_session(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&startup("raw")).await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"Z\0\0\0\x05I") {
        let count = with_deadline("the session", stream.read_buf(&mut received)).await.unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&received));
    }
    stream
}

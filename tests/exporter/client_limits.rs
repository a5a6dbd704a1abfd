//! Slow and hostile clients.

use std::time::Duration;

use prometheus::{IntGauge, Registry};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::harness::{Client, FrozenClock, MAX_CONNECTIONS, NEVER, Running, assert_timed_out, exporter, in_time};

/// The exporter's timeout for a request's head, and for idle connections.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(40);

/// The exporter's timeout for a client that does not read.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The real time in which a response fills the buffers of two sockets.
pub(crate) const SETTLE: Duration = Duration::from_millis(300);

/// A registry whose page is larger than the buffers of two sockets.
pub(crate) fn large_registry() -> Registry {
    let registry = Registry::new();
    registry.register(Box::new(IntGauge::new("large", "x".repeat(LARGE)).unwrap())).unwrap();
    registry
}

const LARGE: usize = 32 << 20;

#[tokio::test]
async fn unfinished_request_is_cut_off() {
    let clock = FrozenClock::new();
    let running = Running::start(&exporter()).await;
    let slow = running.connect().await;
    slow.send(b"GET /metrics HTTP/1.1\r\nHost: te").await;
    let (rest, elapsed) = clock.advance_until(slow.rest()).await;
    assert_eq!(rest, "");
    assert_timed_out(elapsed, REQUEST_HEAD_TIMEOUT);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let clock = FrozenClock::new();
    let running = Running::start(&exporter()).await;
    let silent = running.connect().await;
    let mut idle = running.connect().await;
    idle.request("GET", "/-/healthy").await;
    let (rests, elapsed) = clock.advance_until(async { (silent.rest().await, idle.rest().await) }).await;
    assert_eq!(rests, (String::new(), String::new()));
    assert_timed_out(elapsed, REQUEST_HEAD_TIMEOUT);
}

#[tokio::test]
async fn too_large_head_is_rejected() {
    let running = Running::start(&exporter()).await;
    let mut client = running.connect().await;
    let cookie = "x".repeat(17 * 1024);
    client.send(format!("GET / HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n").as_bytes()).await;
    assert_eq!(client.response(true).await.status, 431);
    assert_eq!(client.rest().await, "");

    let mut client = running.connect().await;
    let headers = "x: y\r\n".repeat(101);
    client.send(format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes()).await;
    assert_eq!(client.response(true).await.status, 431);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn request_body_is_not_read() {
    let running = Running::start(&exporter()).await;
    let mut client = running.connect().await;
    client.send(b"GET /-/healthy HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000000\r\n\r\n").await;
    assert_eq!(client.response(true).await.status, 200);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn client_that_does_not_read_is_cut_off() {
    let clock = FrozenClock::new();
    let running = Running::start(&exporter().registry(large_registry())).await;
    let _others = running.idle_connections(MAX_CONNECTIONS - 1).await;

    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let greedy = Client::new(socket.connect(running.address).await.unwrap());
    greedy.send_request("GET", "/metrics").await;
    in_time(greedy.stream.readable()).await.unwrap();
    clock.settle(SETTLE).await;

    // The connection limit is reached, so this is served once the other client is cut off.
    let (response, elapsed) = clock.advance_until(running.get("/-/healthy")).await;
    assert_eq!(response.status, 200);
    assert_timed_out(elapsed, WRITE_TIMEOUT);
    assert!(greedy.rest().await.len() < LARGE);
}

#[tokio::test]
async fn connections_over_the_limit_wait() {
    let running = Running::start(&exporter()).await;
    let mut others = running.idle_connections(MAX_CONNECTIONS).await;

    let mut waiting = running.connect().await;
    waiting.send_request("GET", "/-/healthy").await;
    timeout(NEVER, waiting.receive()).await.expect_err("the limit is reached");

    others.pop();
    assert_eq!(waiting.response(true).await.status, 200);
}

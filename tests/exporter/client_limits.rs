//! Slow and hostile clients.

use std::time::Duration;

use prometheus::{IntGauge, Registry};
use tokio::net::TcpSocket;

use super::harness::{
    Client, FrozenClock, Gate, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_PEER, Running, assert_timed_out, exporter, in_time,
};

/// The exporter's timeouts for the head of a request, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(40);

/// The exporter's timeout for a whole response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

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

pub(crate) const LARGE: usize = 32 << 20;

#[tokio::test]
async fn unfinished_request_is_cut_off() {
    let clock = FrozenClock::new();
    let running = Running::start(&exporter()).await;
    let slow = running.connect().await;
    slow.send(b"GET /metrics HTTP/1.1\r\nHost: te").await;
    let (rest, elapsed) = clock.advance_until(slow.rest()).await;
    assert_eq!(rest, "");
    assert_timed_out(elapsed, HEAD_TIMEOUT);
}

#[tokio::test]
async fn unfinished_later_request_is_cut_off() {
    let clock = FrozenClock::new();
    let running = Running::start(&exporter()).await;
    let mut slow = running.connect().await;
    slow.request("GET", "/-/healthy").await;
    slow.send(b"GET /metrics HTTP/1.1\r\nHost: te").await;
    clock.settle(SETTLE).await;
    let (rest, elapsed) = clock.advance_until(slow.rest()).await;
    assert_eq!(rest, "");
    assert_timed_out(elapsed, HEAD_TIMEOUT);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let clock = FrozenClock::new();
    let running = Running::start(&exporter()).await;
    let silent = running.connect().await;
    let mut idle = running.connect().await;
    idle.request("GET", "/-/healthy").await;
    let (rest, elapsed) = clock.advance_until(silent.rest()).await;
    assert_eq!(rest, "");
    assert_timed_out(elapsed, HEAD_TIMEOUT);
    let (rest, more) = clock.advance_until(idle.rest()).await;
    assert_eq!(rest, "");
    assert_timed_out(elapsed + more, IDLE_TIMEOUT);
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

/// Connects with a small buffer, and requests a page that does not fit into it.
async fn connect_greedily(running: &Running) -> Client {
    connect_greedily_with(running, "").await
}

/// As [`connect_greedily`], with these headers.
async fn connect_greedily_with(running: &Running, headers: &str) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let greedy = Client::new(socket.connect(running.address).await.unwrap());
    greedy.send(format!("GET /metrics HTTP/1.1\r\nHost: test\r\n{headers}\r\n").as_bytes()).await;
    in_time(greedy.stream.readable()).await.unwrap();
    greedy
}

#[tokio::test]
async fn client_that_does_not_read_is_cut_off() {
    let clock = FrozenClock::new();
    let running = Running::start(&exporter().registry(large_registry())).await;
    let greedy = connect_greedily(&running).await;
    clock.settle(SETTLE).await;
    clock.advance(WRITE_TIMEOUT + Duration::from_secs(1)).await;
    assert!(greedy.rest().await.len() < LARGE);
}

#[tokio::test]
async fn client_that_reads_slowly_is_cut_off() {
    let clock = FrozenClock::new();
    let running = Running::start(&exporter().registry(large_registry())).await;
    let mut greedy = connect_greedily(&running).await;
    let mut elapsed = Duration::ZERO;
    // Something is read before the other timeout elapses, again and again.
    while elapsed <= RESPONSE_TIMEOUT {
        clock.settle(SETTLE / 10).await;
        assert!(greedy.receive().await, "{elapsed:?}");
        clock.advance(WRITE_TIMEOUT / 6).await;
        elapsed += WRITE_TIMEOUT / 6;
    }
    assert!(greedy.rest().await.len() < LARGE);
}

/// Connects clients that keep the exporter's connections open: 128 that send nothing, as many that send a request slowly and,
/// with these headers, that read slowly. Each kind alone is more than the exporter keeps open.
pub(crate) async fn hostile_clients(running: &Running, headers: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        clients.push(running.connect().await);
        let slow = running.connect().await;
        slow.send(b"GET /metrics HTTP/1.1\r\n").await;
        clients.push(slow);
    }
    for _ in 0..MAX_CONNECTIONS {
        clients.push(connect_greedily_with(running, headers).await);
    }
    clients
}

/// A registry whose page is larger than the buffers of two sockets. Not as large as [`large_registry`], since each of many
/// clients has one.
pub(crate) fn registry_for_many() -> Registry {
    let registry = Registry::new();
    registry.register(Box::new(IntGauge::new("large", "x".repeat(3 << 20)).unwrap())).unwrap();
    registry
}

/// Asserts that new clients are answered within a second. A busy machine may delay some of the attempts.
pub(crate) async fn assert_answered_soon(running: &Running, headers: &str) {
    for path in ["/-/healthy", "/metrics"] {
        let mut soonest = Duration::MAX;
        for _ in 0..5 {
            let begun = std::time::Instant::now();
            let mut client = running.connect().await;
            assert_eq!(client.get_with(path, headers).await.status, 200, "{path}");
            soonest = soonest.min(begun.elapsed());
        }
        assert!(soonest < Duration::from_secs(1), "{path}: {soonest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scrape_is_answered_whatever_other_clients_do() {
    let running = Running::start(&exporter().registry(registry_for_many())).await;
    let _hostile = hostile_clients(&running, "").await;
    assert_answered_soon(&running, "").await;
}

#[tokio::test]
async fn longest_idle_connection_gives_way() {
    let running = Running::start(&exporter()).await;
    let mut idle = running.idle_connections(MAX_CONNECTIONS_PER_PEER).await;
    assert_eq!(running.get("/metrics").await.status, 200);
    assert_eq!(idle.remove(0).rest().await, "");
    for client in &mut idle {
        assert_eq!(client.request("GET", "/-/healthy").await.status, 200);
    }
}

#[tokio::test]
async fn health_checks_have_room_beside_requests_under_way() {
    let clock = FrozenClock::new();
    let (registry, mut gate) = Gate::new();
    let running = Running::start(&exporter().registry(registry)).await;
    let mut scrapes = Vec::new();
    for _ in 0..MAX_CONNECTIONS_PER_PEER {
        let client = running.connect().await;
        client.send_request("GET", "/metrics").await;
        scrapes.push(client);
    }
    // Some run, and the others wait for them while the clock stands still.
    gate.entered().await;
    clock.settle(SETTLE).await;
    assert_eq!(running.get("/-/healthy").await.status, 200);
    assert_eq!(running.get("/-/ready").await.status, 200);
    let response = running.get("/metrics").await;
    assert_eq!((response.status, &*response.headers["connection"]), (503, "close"));
}

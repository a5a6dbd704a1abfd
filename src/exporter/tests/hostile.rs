use tokio::net::TcpSocket;

use super::*;

#[tokio::test]
async fn a_client_that_does_not_finish_its_request_is_cut_off() {
    let mut exporter = Exporter::new(Registry::new());
    exporter.limits.request_head = SHORT;
    let running = Running::start(&exporter).await;
    let slow = running.connect().await;
    slow.send(b"GET /metrics HTTP/1.1\r\nHost: te").await;
    assert_eq!(slow.rest().await, "");
}

#[tokio::test]
async fn a_connection_that_idles_is_closed() {
    let mut exporter = Exporter::new(Registry::new());
    exporter.limits.request_head = SHORT;
    let running = Running::start(&exporter).await;
    let silent = running.connect().await;
    let mut idle = running.connect().await;
    idle.request("GET", "/-/healthy").await;
    assert_eq!(silent.rest().await, "");
    assert_eq!(idle.rest().await, "");
}

#[tokio::test]
async fn a_request_with_too_large_a_head_is_refused() {
    let running = Running::start(&Exporter::new(Registry::new())).await;
    let mut client = running.connect().await;
    let cookie = "x".repeat(17 * 1024);
    client.send(format!("GET / HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n").as_bytes()).await;
    assert_eq!(client.answer(true).await.status, 431);
    assert_eq!(client.rest().await, "");

    let mut client = running.connect().await;
    let headers = "x: y\r\n".repeat(101);
    client.send(format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes()).await;
    assert_eq!(client.answer(true).await.status, 431);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_body_is_not_waited_for() {
    let running = Running::start(&Exporter::new(Registry::new())).await;
    let mut client = running.connect().await;
    client.send(b"GET /-/healthy HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000000\r\n\r\n").await;
    assert_eq!(client.answer(true).await.status, 200);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    // More than the buffers of two sockets hold.
    let registry = Registry::new();
    let large = IntGauge::new("large", "x".repeat(32 << 20)).unwrap();
    registry.register(Box::new(large)).unwrap();
    let mut exporter = Exporter::new(registry);
    exporter.limits.write_stall = SHORT;
    exporter.limits.connections = 1;
    let running = Running::start(&exporter).await;

    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let greedy = Client { stream: socket.connect(running.address).await.unwrap(), received: Vec::new() };
    greedy.ask("GET", "/metrics").await;

    // There is one place, so this is answered once the other client has lost it.
    assert_eq!(running.get("/-/healthy").await.status, 200);
    assert!(greedy.rest().await.len() < 32 << 20);
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let mut exporter = Exporter::new(Registry::new());
    exporter.limits.connections = 1;
    let running = Running::start(&exporter).await;
    let mut first = running.connect().await;
    first.request("GET", "/-/healthy").await;

    let mut second = running.connect().await;
    second.ask("GET", "/-/healthy").await;
    timeout(SHORT, second.receive()).await.expect_err("the place is taken");

    drop(first);
    assert_eq!(second.answer(true).await.status, 200);
}

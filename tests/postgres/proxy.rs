//! Tests of the fault-injecting proxy itself.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use poolscope_testing::ports::ReservedPort;
use poolscope_testing::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::{Client, NoTls};

use crate::support::{Admin, Proxy, TestPool, eventually, shared, with_deadline};

/// Returns a proxy to the shared server, and the URL through it.
async fn proxy() -> (Proxy, String) {
    let server = shared().await;
    let proxy = Proxy::to(address(server)).await;
    let url = proxy.url(&server.tcp_url().unwrap());
    (proxy, url)
}

fn address(server: &Server) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, server.port()).into()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = with_deadline("a connection", tokio_postgres::connect(url, NoTls)).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Creates an empty table over a direct connection.
async fn table(name: &str) -> Admin {
    let admin = Admin::new(shared().await).await;
    admin.execute(&format!("CREATE TABLE {name} (note text)")).await;
    admin
}

/// Returns both ends of a connection through a proxy, and the proxy.
async fn socket_pair() -> (TcpStream, TcpStream, Proxy) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = Proxy::to(listener.local_addr().unwrap()).await;
    let client = TcpStream::connect(proxy.address()).await.unwrap();
    let (server, _) = with_deadline("a connection", listener.accept()).await.unwrap();
    (client, server, proxy)
}

async fn expect_bytes(stream: &mut TcpStream, what: &str) {
    let mut received = vec![0; what.len()];
    with_deadline(what, stream.read_exact(&mut received)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&received), what);
}

async fn expect_reset(stream: &mut TcpStream) {
    let error = with_deadline("a reset", stream.read(&mut [0])).await.expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

async fn await_closed(client: &Client) {
    eventually("the client is closed", async || client.is_closed()).await;
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn pool_works_through_it_and_connections_count() {
    let (proxy, url) = proxy().await;
    assert_eq!(url, format!("postgres://postgres@{}/postgres", proxy.address()));
    assert_eq!(proxy.url("postgres://db:5432?a=b:/c"), format!("postgres://db:{}?a=b:/c", proxy.address().port()));
    assert_eq!(proxy.accepted(), 0);
    let test = TestPool::new("proxied", &url, |builder| builder);
    let taken = test.get_many(3).await;
    assert_eq!(proxy.accepted(), 3);
    let sent = "x".repeat(10_000_000);
    let received = taken[0].query_one("SELECT $1", &[&sent]).await.unwrap();
    assert!(received.get::<_, &str>(0) == sent);
}

#[tokio::test]
async fn orderly_shutdown_is_passed_on() {
    let (mut client, mut server, _proxy) = socket_pair().await;
    client.write_all(b"enough").await.unwrap();
    client.shutdown().await.unwrap();
    expect_bytes(&mut server, "enough").await;
    assert_eq!(with_deadline("end of stream", server.read(&mut [0])).await.unwrap(), 0);
    server.write_all(b"farewell").await.unwrap();
    drop(server);
    expect_bytes(&mut client, "farewell").await;
    assert_eq!(with_deadline("end of stream", client.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn reset_is_passed_on() {
    let (client, mut server, _proxy) = socket_pair().await;
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    expect_reset(&mut server).await;
}

#[tokio::test]
async fn round_trip_takes_both_delays() {
    let (proxy, url) = proxy().await;
    let client = connect(&url).await;
    for (each_way, most) in [(1_000, 2_600), (5_000, 11_000)] {
        let (each_way, most) = (Duration::from_micros(each_way), Duration::from_micros(most));
        proxy.delay(each_way);
        // A busy machine may take longer, but never less.
        eventually("round trips within the limit", async || {
            let mut times = Vec::new();
            for _ in 0..11 {
                let started = Instant::now();
                client.simple_query("").await.unwrap();
                times.push(started.elapsed());
            }
            assert!(times.iter().all(|time| *time >= 2 * each_way), "{times:?}");
            median(times) <= most
        })
        .await;
    }
}

#[tokio::test]
async fn delay_preserves_order_and_overlaps() {
    let (proxy, url) = proxy().await;
    let client = connect(&url).await;
    let round_trip = Duration::from_millis(100);
    proxy.delay(round_trip / 2);
    let (started, answered) = (Instant::now(), AtomicUsize::new(0));
    let queries = (0..100).map(async |number| {
        client.simple_query(&format!("SELECT {number}")).await?;
        assert_eq!(answered.fetch_add(1, Ordering::Relaxed), number);
        Ok::<_, tokio_postgres::Error>(())
    });
    with_deadline("many results", try_join_all(queries)).await.unwrap();
    // Some 500 chunks.
    with_deadline("a long result", client.simple_query("SELECT repeat('x', 32000000)")).await.unwrap();
    let took = started.elapsed();
    assert!(took >= 2 * round_trip && took < 50 * round_trip, "{took:?}");
}

#[tokio::test]
async fn retarget_affects_only_new_connections() {
    let (proxy, url) = proxy().await;
    let latter = Server::builder().tcp(true).start().await.unwrap();
    let port = async |client: &Client| {
        let port: i32 = client.query_one("SELECT inet_server_port()", &[]).await.unwrap().get(0);
        u16::try_from(port).unwrap()
    };
    let before = connect(&url).await;
    proxy.retarget(address(&latter));
    let after = connect(&url).await;
    assert_eq!((port(&before).await, port(&after).await), (shared().await.port(), latter.port()));
}

#[tokio::test]
async fn connection_to_dead_target_is_reset() {
    let closed = ReservedPort::new().unwrap();
    let proxy = Proxy::to(closed.address()).await;
    match TcpStream::connect(proxy.address()).await {
        Ok(mut stream) => expect_reset(&mut stream).await,
        // Reset before the connect completed.
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[tokio::test]
async fn refuse_keeps_open_connections() {
    let (proxy, url) = proxy().await;
    let open = connect(&url).await;
    for _ in 0..3 {
        // The proxy may not have accepted it yet. It requests TLS, which the server does not offer.
        let mut early = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.refuse();
        proxy.refuse();
        let error = TcpStream::connect(proxy.address()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        open.simple_query("SELECT 1").await.unwrap();
        early.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.unwrap();
        expect_bytes(&mut early, "N").await;
        proxy.accept();
        proxy.accept();
        connect(&url).await.simple_query("SELECT 1").await.unwrap();
    }
    assert_eq!(proxy.accepted(), 7);
}

#[tokio::test]
async fn cut_resets_only_open_connections() {
    let (proxy, url) = proxy().await;
    let admin = Admin::new(shared().await).await;
    let named = format!("{url}?application_name=proxy_cut");
    let (busy, idle) = (connect(&named).await, connect(&named).await);
    let backend = busy.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let cut = async {
        admin.await_busy(backend).await;
        // The proxy may not have accepted it yet.
        let mut early = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.cut();
        expect_reset(&mut early).await;
    };
    let (result, ()) =
        tokio::join!(with_deadline("the connection is cut", busy.simple_query("SELECT pg_sleep(0.5)")), cut);
    result.unwrap_err();
    await_closed(&idle).await;
    assert_eq!(proxy.accepted(), 3);
    connect(&url).await.simple_query("SELECT 1").await.unwrap();
    // A busy backend notices later.
    admin.await_backends("proxy_cut", 0).await;
}

#[tokio::test]
async fn cut_before_never_reaches_the_server() {
    let ((proxy, url), admin) = (proxy().await, table("cut_before").await);
    let client = connect(&url).await;
    proxy.cut_before("INSERT");
    client.simple_query("SELECT 1").await.unwrap();
    assert_eq!(proxy.sprung(), 0);
    with_deadline("the connection is cut", client.simple_query("INSERT INTO cut_before VALUES ('lost')"))
        .await
        .unwrap_err();
    assert_eq!(proxy.sprung(), 1);
    await_closed(&client).await;
    connect(&url).await.simple_query("INSERT INTO cut_before VALUES ('kept')").await.unwrap();
    assert!(admin.is_empty("SELECT 1 FROM cut_before WHERE note = 'lost'").await);
    assert_eq!(proxy.sprung(), 1);
}

#[tokio::test]
async fn cut_unanswered_is_executed_by_the_server() {
    let ((proxy, url), admin) = (proxy().await, table("cut_unanswered").await);
    for (each_way, sprung) in [(Duration::ZERO, 0), (Duration::from_millis(20), 1)] {
        proxy.delay(each_way);
        let client = connect(&url).await;
        proxy.cut_unanswered("INSERT");
        client.simple_query("SELECT 1").await.unwrap();
        assert_eq!(proxy.sprung(), sprung);
        with_deadline("the connection is cut", client.simple_query("INSERT INTO cut_unanswered VALUES ('kept')"))
            .await
            .unwrap_err();
        assert_eq!(proxy.sprung(), sprung + 1);
        assert!(!admin.is_empty("DELETE FROM cut_unanswered RETURNING note").await);
        await_closed(&client).await;
    }
}

#[tokio::test]
async fn cut_after_delivers_the_answer() {
    let ((proxy, url), _) = (proxy().await, table("cut_after").await);
    let client = connect(&url).await;
    proxy.cut_after("INSERT 0 1");
    // The pattern does not match what the client sends.
    client.simple_query("SELECT 'INSERT 0 1' <> ''").await.unwrap();
    assert_eq!(proxy.sprung(), 0);
    with_deadline("a result", client.simple_query("INSERT INTO cut_after VALUES ('kept')")).await.unwrap();
    assert_eq!(proxy.sprung(), 1);
    await_closed(&client).await;
}

#[tokio::test]
async fn each_trap_springs_once() {
    let (proxy, url) = proxy().await;
    proxy.cut_before("SELECT 2");
    proxy.cut_after("SELECT 1");
    proxy.cut_before("SELECT 2");
    for sprung in 1..=2 {
        with_deadline("the connection is cut", connect(&url).await.simple_query("SELECT 2")).await.unwrap_err();
        assert_eq!(proxy.sprung(), sprung);
    }
    // The answer to a query with one row contains `SELECT 1`.
    let client = connect(&url).await;
    with_deadline("a result", client.simple_query("SELECT 2")).await.unwrap();
    await_closed(&client).await;
    assert_eq!(proxy.sprung(), 3);
    let client = connect(&url).await;
    client.simple_query("SELECT 2").await.unwrap();
    client.simple_query("SELECT 2").await.unwrap();
}

#[tokio::test]
async fn split_pattern_springs_its_trap() {
    let (mut client, mut server, proxy) = socket_pair().await;
    proxy.cut_before("some longer pattern");
    proxy.cut_before("COMMIT");
    client.write_all(b"COM").await.unwrap();
    expect_bytes(&mut server, "COM").await;
    client.write_all(b"M").await.unwrap();
    expect_bytes(&mut server, "M").await;
    assert_eq!(proxy.sprung(), 0);
    client.write_all(b"IT;").await.unwrap();
    expect_reset(&mut server).await;
    expect_reset(&mut client).await;
    assert_eq!(proxy.sprung(), 1);

    let (mut client, mut server, proxy) = socket_pair().await;
    proxy.cut_after("COMMIT");
    server.write_all(b"COM").await.unwrap();
    expect_bytes(&mut client, "COM").await;
    client.write_all(b"MIT").await.unwrap();
    expect_bytes(&mut server, "MIT").await;
    server.write_all(b"MIT;").await.unwrap();
    expect_bytes(&mut client, "MIT;").await;
    expect_reset(&mut client).await;
    expect_reset(&mut server).await;
    assert_eq!(proxy.sprung(), 1);
}

#[tokio::test]
async fn cut_answer_is_not_delivered_in_part() {
    let (mut client, mut server, proxy) = socket_pair().await;
    proxy.delay(Duration::from_millis(20));
    proxy.cut_unanswered("COMMIT");
    server.write_all(b"before").await.unwrap();
    client.write_all(b"COMMIT").await.unwrap();
    expect_bytes(&mut client, "before").await;
    expect_bytes(&mut server, "COMMIT").await;
    client.write_all(b" more").await.unwrap();
    expect_bytes(&mut server, " more").await;
    server.write_all(b"done").await.unwrap();
    expect_reset(&mut client).await;
    expect_reset(&mut server).await;
}

#[tokio::test]
async fn dropping_it_resets_every_connection() {
    let (mut client, mut server, proxy) = socket_pair().await;
    let address = proxy.address();
    // A delay holds up nothing but bytes.
    proxy.delay(Duration::from_secs(3_600));
    client.write_all(b"never received").await.unwrap();
    drop(proxy);
    expect_reset(&mut client).await;
    expect_reset(&mut server).await;
    assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

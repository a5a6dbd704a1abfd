//! The streams are identical to those of a direct connection, in whatever parts they arrive.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;

use super::limits::{message, query, raw_session, startup};
use super::*;
use crate::support::shared;

/// Returns a session as messages: queries of both protocols, errors, COPY in both directions, an empty query, a function
/// call, and a pipeline.
fn script() -> Vec<Vec<u8>> {
    let sync = || message(b'S', b"");
    let execute = |portal: &str| message(b'E', &[portal.as_bytes(), b"\0\0\0\0\0"].concat());
    let bind = |statement: &str| message(b'B', &[b"\0", statement.as_bytes(), b"\0\0\0\0\0\0\0"].concat());
    let parse = |name: &str, text: &str| message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat());
    vec![
        startup("raw"),
        query("SELECT 1; SELECT 'two'"),
        query(""),
        query("SELECT 1/0"),
        [parse("s", "SELECT generate_series(1, 100)"), message(b'D', b"Ss\0"), sync()].concat(),
        [bind("s"), execute(""), sync(), bind("s"), execute(""), sync()].concat(),
        [parse("", "SELECT broken"), bind(""), execute(""), sync()].concat(),
        query("CREATE TEMP TABLE t (a text)"),
        query("COPY t FROM STDIN"),
        [message(b'd', b"one\ntwo\n"), message(b'd', b"three\n"), message(b'c', b"")].concat(),
        query("COPY t TO STDOUT"),
        query("COPY t FROM STDIN"),
        message(b'f', b"no\0"),
        query("BEGIN"),
        // Without the table's OID, which differs.
        query("SELECT a || '' FROM t /*route='r'*/"),
        query("SELECT broken"),
        query("ROLLBACK"),
        [message(b'C', b"Ss\0"), sync()].concat(),
        query(&format!("SELECT '{}'", "x".repeat(100_000))),
        // int4abs(-5), as text.
        message(b'F', &[&1397_u32.to_be_bytes()[..], b"\0\0\0\x01\0\0\0\x02-5\0\0"].concat()),
        message(b'X', b""),
    ]
}

/// Sends the session in parts of these lengths, and returns what the server sent, without the key of its backend.
async fn run(address: SocketAddr, parts: impl Fn(usize) -> usize) -> Vec<u8> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let bytes = script().concat();
    let writing = async move {
        let (mut at, mut number) = (0, 0);
        while at < bytes.len() {
            let end = (at + parts(number).max(1)).min(bytes.len());
            writer.write_all(&bytes[at..end]).await.unwrap();
            // Lets the proxy read the part alone.
            tokio::task::yield_now().await;
            (at, number) = (end, number + 1);
        }
        writer
    };
    let mut received = Vec::new();
    let (_writer, read) =
        with_deadline("a session", futures_util::future::join(writing, reader.read_to_end(&mut received))).await;
    read.unwrap();
    let key = received.windows(5).position(|bytes| bytes == b"K\0\0\0\x0c").unwrap();
    received.drain(key..key + 13);
    received
}

#[tokio::test]
async fn random_parts_change_nothing() {
    let server = shared().await;
    let sidecar = Sidecar::to(server).await;
    let direct = run((Ipv4Addr::LOCALHOST, server.port()).into(), |_| usize::MAX).await;
    assert!(direct.len() > 100_000 && direct.windows(5).any(|bytes| bytes == b"22012"));
    let through = run(sidecar.address, |_| usize::MAX).await;
    assert!(direct == through, "{} and {} bytes", direct.len(), through.len());
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let lengths: Vec<_> = (0..4096).map(|_| random.usize(1..=if seed % 2 == 0 { 20 } else { 3000 })).collect();
        let through = run(sidecar.address, |number| lengths[number % lengths.len()]).await;
        assert!(direct == through, "seed {seed}: {} and {} bytes", direct.len(), through.len());
    }
    let pool = sidecar.await_pool("raw", "the ends", |pool| pool.connections.live() == 0).await;
    assert_eq!((pool.created, pool.wires_lost), (13, 0));
    assert_adds_up(&pool);
    let queries: Vec<_> = pool.operations.iter().map(|operation| operation.queries).collect();
    assert_eq!(queries.iter().sum::<u64>() % 13, 0, "each session has as many: {queries:?}");
    assert_eq!(operation(&pool, "r").queries, operation(&pool, "r").queries_finished);
}

#[tokio::test]
async fn unknown_messages_pass_and_end_the_observation() {
    let sidecar = Sidecar::to(shared().await).await;
    let mut stream = raw_session(sidecar.address).await;
    stream.write_all(&[message(b'y', b"what"), query("SELECT 1")].concat()).await.unwrap();
    let mut received = Vec::new();
    with_deadline("the server's error", stream.read_to_end(&mut received)).await.unwrap();
    assert!(String::from_utf8_lossy(&received).contains("08P01"), "{received:?}");
    let pool = sidecar.await_pool("raw", "the end", |pool| pool.connections.live() == 0).await;
    assert_eq!((pool.wires_lost, pool.created), (1, 1));
    assert_adds_up(&pool);
}

#[tokio::test]
async fn half_closed_client_receives_its_answer() {
    let sidecar = Sidecar::to(shared().await).await;
    let mut stream = raw_session(sidecar.address).await;
    stream.write_all(&query("SELECT pg_sleep(0.2), 'answer'")).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    with_deadline("the answer", stream.read_to_end(&mut received)).await.unwrap();
    assert!(received.windows(6).any(|bytes| bytes == b"answer"), "{}", String::from_utf8_lossy(&received));
    let pool = sidecar.await_pool("raw", "the end", |pool| pool.connections.live() == 0).await;
    assert_eq!(closed(&pool, CloseReason::ClientLost), 1);
}

#[tokio::test]
async fn slow_reader_stops_the_server() {
    let sidecar = Sidecar::to(shared().await).await;
    let mut stream = raw_session(sidecar.address).await;
    stream.write_all(&query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)")).await.unwrap();
    let received = async || {
        let pool = sidecar.await_pool("raw", "the pool", |_| true).await;
        pool.operations.iter().map(|operation| operation.wire_bytes[1]).sum::<u64>()
    };
    // Until the buffers of the sockets are full.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = received().await;
        if now > 10_000 && now == before {
            break;
        }
        before = now;
    }
    assert!(before < 50_000_000, "{before} bytes were read, of 100 MB");
    let mut length = 0;
    let mut chunk = vec![0; 65_536];
    let mut tail = Vec::new();
    while !tail.ends_with(b"Z\0\0\0\x05I") {
        let count = with_deadline("the rest", stream.read(&mut chunk)).await.unwrap();
        assert!(count > 0);
        length += count;
        tail.extend_from_slice(&chunk[..count]);
        tail.drain(..tail.len().saturating_sub(6));
    }
    assert!(length > 100_000_000, "{length}");
}

/// `AuthenticationOk`, `BackendKeyData` and `ReadyForQuery`.
const READY: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\x12\x67\0\0\0\x01Z\0\0\0\x05I";

/// Connects through a proxy to a server that answers the start-up message with `answer`. Returns the client's stream and the
/// server's.
async fn to_scripted_server(answer: &[u8]) -> (Sidecar, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://127.0.0.1:{}?sslmode=disable", listener.local_addr().unwrap().port());
    let sidecar = Sidecar::with(&url, |_| {}).await;
    let mut client = TcpStream::connect(sidecar.address).await.unwrap();
    client.write_all(&startup("raw")).await.unwrap();
    let (mut server, _) = with_deadline("a connection", listener.accept()).await.unwrap();
    with_deadline("the start", server.read_exact(&mut vec![0; startup("raw").len()])).await.unwrap();
    server.write_all(answer).await.unwrap();
    let mut received = vec![0; answer.len()];
    with_deadline("the answer", client.read_exact(&mut received)).await.unwrap();
    assert_eq!(received, answer);
    (sidecar, client, server)
}

#[tokio::test]
async fn server_that_does_not_read_stops_the_client() {
    let (_sidecar, mut client, mut server) = to_scripted_server(READY).await;
    let data = message(b'd', &[b'x'; 60_000]);
    let mut sent = 0;
    // Until the buffers of the sockets are full.
    while let Ok(written) = timeout(Duration::from_millis(500), client.write(&data[sent % data.len()..])).await {
        sent += written.unwrap();
        assert!(sent < 100_000_000, "{sent} bytes were taken");
    }
    client.shutdown().await.unwrap();
    let mut received = 0;
    let mut chunk = vec![0; 65_536];
    loop {
        match with_deadline("the rest", server.read(&mut chunk)).await.unwrap() {
            0 => break,
            length => received += length,
        }
    }
    assert_eq!(received, sent);
}

#[tokio::test]
async fn unknown_messages_of_the_server_pass() {
    let (sidecar, mut client, mut server) = to_scripted_server(READY).await;
    let name = "raw postgres@postgres";
    poll_until("the session", async || sidecar.pool(name).filter(|pool| pool.connections.idle == 1)).await;
    server.write_all(b"?\0\0\0\x05!and what follows").await.unwrap();
    with_deadline("the bytes", client.read_exact(&mut [0; 22])).await.unwrap();
    client.write_all(b"a reply").await.unwrap();
    with_deadline("the reply", server.read_exact(&mut [0; 7])).await.unwrap();
    let pool = poll_until("the loss", async || sidecar.pool(name).filter(|pool| pool.wires_lost == 1)).await;
    assert_eq!((pool.connections.idle, pool.connections.used), (1, 0));

    // Also before a session has started.
    let (sidecar, mut client, mut server) = to_scripted_server(b"HTTP/1.1 400 Bad Request\r\n").await;
    client.write_all(b"a reply").await.unwrap();
    with_deadline("the reply", server.read_exact(&mut [0; 7])).await.unwrap();
    let pool = poll_until("the loss", async || sidecar.pool("other").filter(|pool| pool.wires_lost == 1)).await;
    drop((client, server));
    assert_eq!(pool.connections.live(), 1);
    let pool = poll_until("the end", async || sidecar.pool("other").filter(|pool| pool.connections.live() == 0)).await;
    assert_adds_up(&pool);
}

#[tokio::test]
async fn unix_sockets_work_on_both_sides() {
    let server = shared().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(".s.PGSQL.6432");
    // Left by a process that was killed.
    drop(UnixListener::bind(&path).unwrap());
    let upstream = server.url().replace("postgres@", "").replace("/postgres", "");
    let listen = path.to_str().unwrap().to_owned();
    let sidecar = Sidecar::with(&upstream, |settings| settings.listen.push(listen.parse().unwrap())).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(&[startup("raw"), query("SELECT 'unix'"), message(b'X', b"")].concat()).await.unwrap();
    let mut received = Vec::new();
    with_deadline("the answer", stream.read_to_end(&mut received)).await.unwrap();
    assert!(received.windows(4).any(|bytes| bytes == b"unix"), "{}", String::from_utf8_lossy(&received));
    let pool = sidecar.await_pool("raw", "the end", |pool| pool.connections.live() == 0).await;
    assert_eq!(closed(&pool, CloseReason::ClientClosed), 1);
    sidecar.stop().await;
    assert!(!path.exists(), "the socket's file is removed");
}

#[tokio::test]
async fn requests_for_encryption_are_declined() {
    let sidecar = Sidecar::to(shared().await).await;
    let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
    for code in [80_877_104_u32, 80_877_103] {
        stream.write_all(&[&8_u32.to_be_bytes()[..], &code.to_be_bytes()].concat()).await.unwrap();
        assert_eq!(with_deadline("an answer", stream.read_u8()).await.unwrap(), b'N');
    }
    stream.write_all(&startup("raw")).await.unwrap();
    assert_eq!(with_deadline("an answer", stream.read_u8()).await.unwrap(), b'R');
}

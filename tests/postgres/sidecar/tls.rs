//! TLS from clients and to the server, with SCRAM.

use std::fs;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::support::{Admin, TestPool};
use crate::tls::Authority;

/// Writes a certificate for localhost, and its key.
fn issue(authority: &Authority, directory: &Path) {
    let (certificate, key) = authority.issue("localhost");
    for (name, text) in [("tls.crt", certificate), ("tls.key", key)] {
        let new = directory.join("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        fs::rename(new, directory.join(name)).unwrap();
    }
}

/// Returns a server that requires TLS and SCRAM from the user `app`.
async fn server(authority: &Authority) -> Server {
    let (certificate, key) = authority.issue("localhost");
    let server = Server::builder().tls(certificate, key).start().await.unwrap();
    let admin = Admin::new(&server).await;
    admin.execute("CREATE ROLE app LOGIN PASSWORD 'secret'").await;
    let rules = "local all all trust\nhostssl all all all scram-sha-256\nhost all all all reject\n";
    fs::write(server.dir().join("data/pg_hba.conf"), rules).unwrap();
    admin.execute("SELECT pg_reload_conf()").await;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", server.port());
    eventually("the rules", async || tokio_postgres::connect(&url, NoTls).await.is_err()).await;
    server
}

#[tokio::test]
async fn tls_and_scram_work_on_both_sides() {
    let (servers, proxies, later) = (Authority::new("servers"), Authority::new("proxies"), Authority::new("later"));
    let server = server(&servers).await;
    let directory = tempfile::tempdir().unwrap();
    issue(&proxies, directory.path());
    let address = format!("postgres://localhost:{}?hostaddr=127.0.0.1", server.port());
    let upstream = format!("{address}&sslmode=verify-full{}", servers.parameter());
    let sidecar = Sidecar::with(&upstream, |settings| {
        settings.tls_certificate = Some(directory.path().join("tls.crt"));
        settings.tls_key = Some(directory.path().join("tls.key"));
    });
    let sidecar = sidecar.await;
    let test = |authority: &Authority, query: &str| {
        let address = format!("localhost:{}/postgres?hostaddr=127.0.0.1", sidecar.address.port());
        let url = format!("postgres://app:secret@{address}&sslmode=verify-full{}{query}", authority.parameter());
        TestPool::new("client", &url, |builder| builder)
    };
    for query in ["&channel_binding=disable", "&channel_binding=disable&sslnegotiation=direct"] {
        let test = test(&proxies, query);
        let connection = test.get().await;
        let row = connection.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
        assert!(row.get::<_, bool>(0), "{query}");
        let long: String = connection.query_one("SELECT repeat('x', 1000000)", &[]).await.unwrap().get(0);
        assert_eq!(long.len(), 1_000_000);
    }
    let name = "client app@postgres";
    let pool = poll_until("the ends", async || sidecar.pool(name).filter(|pool| pool.connections.live() == 0)).await;
    assert_eq!((pool.created, pool.wires_lost), (2, 0));
    assert_adds_up(&pool);

    // The server detects that its offer was changed.
    let error = test(&proxies, "").pool.get().await.err().unwrap();
    assert!(format!("{error:?}").contains("SCRAM channel binding negotiation error"), "{error:?}");

    issue(&later, directory.path());
    let reloaded = test(&later, "&channel_binding=disable");
    eventually("the new certificate", async || reloaded.pool.get().await.is_ok()).await;
}

/// Reads the server's first message after the start-up of the user `app`: its offer of SASL mechanisms.
async fn offer(stream: &mut TcpStream) -> String {
    let body = "user\0app\0database\0postgres\0application_name\0offered\0\0";
    let length = u32::try_from(body.len() + 8).unwrap();
    let startup = [&length.to_be_bytes()[..], &196_608_u32.to_be_bytes(), body.as_bytes()].concat();
    stream.write_all(&startup).await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"\0\0") {
        let count = with_deadline("the offer", stream.read_buf(&mut received)).await.unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&received));
    }
    String::from_utf8_lossy(&received).into_owned()
}

/// libpq refuses a server that offers channel binding without TLS. The server itself uses TLS.
#[tokio::test]
async fn plaintext_client_is_offered_no_channel_binding() {
    let servers = Authority::new("servers");
    let server = server(&servers).await;
    let parameters = format!("hostaddr=127.0.0.1&sslmode=verify-full{}", servers.parameter());
    let upstream = format!("postgres://localhost:{}?{parameters}", server.port());
    let sidecar = Sidecar::with(&upstream, |_| {}).await;
    let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
    let offer = offer(&mut stream).await;
    assert!(offer.contains("SCRAM-SHA-256\0\0") && !offer.contains("PLUS"), "{offer:?}");
    // The end of a client that was asked for its password reaches the server at once.
    stream.write_all(&limits::message(b'X', b"")).await.unwrap();
    let name = "other";
    poll_until("its end", async || sidecar.pool(name).filter(|pool| pool.closed.iter().sum::<u64>() == 1)).await;

    let url = format!("postgres://app:secret@127.0.0.1:{}/postgres?sslmode=disable", sidecar.address.port());
    let test = TestPool::new("client", &url, |builder| builder);
    let row =
        test.get().await.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
    assert!(row.get::<_, bool>(0));
}

#[tokio::test]
async fn unverified_server_is_refused() {
    let server = server(&Authority::new("servers")).await;
    let foreign = Authority::new("foreign");
    let upstream =
        format!("postgres://localhost:{}?hostaddr=127.0.0.1&sslmode=verify-full{}", server.port(), foreign.parameter());
    let sidecar = Sidecar::with(&upstream, |_| {}).await;
    let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
    stream.write_all(&limits::startup("raw")).await.unwrap();
    let mut received = Vec::new();
    with_deadline("an error", stream.read_to_end(&mut received)).await.unwrap();
    let text = String::from_utf8_lossy(&received);
    assert!(text.contains("08006") && text.contains("could not establish TLS"), "{text}");
    let pool =
        poll_until("the failure", async || sidecar.pool("other").filter(|pool| pool.closed.iter().sum::<u64>() == 1))
            .await;
    assert_eq!((pool.errors[0].code.as_str(), closed(&pool, CloseReason::ConnectFailed)), ("tls", 1));
}

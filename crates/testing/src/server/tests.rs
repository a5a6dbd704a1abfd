//! Tests of the server with a real PostgreSQL.

mod cleanup;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls};

use super::{Server, ServerError, Shutdown};

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

async fn query(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.expect("a row").get(0)
}

async fn start() -> Server {
    Server::builder().start().await.expect("a server")
}

#[tokio::test]
async fn settings_apply_and_probe_leaves_no_connection() {
    let settings = [("max_connections", "7"), ("search_path", r"it''s, C:\n")];
    let server = Server::builder().settings(settings).start().await.expect("a server");
    let client = connect(&server.url()).await;
    assert_eq!(query(&client, "SHOW max_connections").await, "7");
    assert_eq!(query(&client, "SHOW search_path").await, r"it''s, C:\n");
    assert_eq!(query(&client, "SHOW fsync").await, "off");
    assert_eq!(query(&client, "SHOW autovacuum").await, "on");
    assert_eq!(query(&client, "SHOW listen_addresses").await, "");
    let backends = "SELECT count(*)::text FROM pg_stat_activity WHERE backend_type = 'client backend'";
    assert_eq!(query(&client, backends).await, "1");
    assert_eq!(server.tcp_url(), None);
}

#[tokio::test]
async fn drop_ends_process_and_removes_directory() {
    let server = start().await;
    let _client = connect(&server.url()).await;
    let (directory, pid) = (server.dir().to_owned(), server.pid().expect("a process"));
    let name = directory.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(name.starts_with("poolscope-"), "{name}");
    assert_eq!(fs::metadata(&directory).expect("the directory").permissions().mode() & 0o777, 0o700);
    drop(server);
    assert!(!directory.exists());
    assert!(kill(Pid::from_raw(pid.try_into().expect("a pid")), None).is_err());
}

#[tokio::test]
async fn restart_keeps_address_and_data() {
    let server = Server::builder().tcp(true).start().await.expect("a server");
    let (socket, tcp) = (server.url(), server.tcp_url().expect("a URL"));
    connect(&tcp).await.batch_execute("CREATE TABLE kept AS SELECT 'yes'::text").await.expect("a table");
    for mode in [Shutdown::Fast, Shutdown::Immediate] {
        let session = connect(&socket).await;
        let before = server.pid();
        server.stop(mode).await.expect("a stop");
        assert_eq!(server.pid(), None);
        assert!(session.simple_query("SELECT 1").await.is_err());
        assert!(tokio_postgres::connect(&tcp, NoTls).await.is_err());
        server.stop(mode).await.expect("nothing to do");
        server.start().await.expect("a start");
        server.start().await.expect("nothing to do");
        assert_ne!(server.pid(), before);
        assert_eq!((server.url(), server.tcp_url()), (socket.clone(), Some(tcp.clone())));
        assert_eq!(query(&connect(&tcp).await, "TABLE kept").await, "yes");
    }
    server.restart(Shutdown::Fast).await.expect("a restart");
    assert_eq!(query(&connect(&socket).await, "TABLE kept").await, "yes");
}

#[tokio::test]
async fn killed_server_restarts() {
    let server = start().await;
    let pid = server.pid().expect("a process");
    kill(Pid::from_raw(pid.try_into().expect("a pid")), Signal::SIGKILL).expect("a kill");
    server.watchdog.wait_for(|state| state.pid.is_none()).await.expect("a report");
    // Its child processes still hold its shared memory for a moment.
    while server.start().await.is_err() {}
    assert_eq!(query(&connect(&server.url()).await, "SELECT 'here'").await, "here");
}

#[tokio::test]
async fn server_with_certificate_offers_tls() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let server = Server::builder().tls(certificate, key).start().await.expect("a server");
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.expect("a connection");
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await.expect("an SSLRequest");
    assert_eq!(stream.read_u8().await.expect("a response"), b'S');
}

#[tokio::test(start_paused = true)]
async fn server_starts_with_paused_clock() {
    let server = start().await;
    server.restart(Shutdown::Fast).await.expect("a restart");
}

#[test]
fn server_outlives_its_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let server = runtime().block_on(start());
    let answer = async {
        server.restart(Shutdown::Fast).await.expect("a restart");
        query(&connect(&server.url()).await, "SELECT 'here'").await
    };
    assert_eq!(runtime().block_on(answer), "here");
}

#[tokio::test]
async fn failed_start_contains_server_log() {
    let failed = Server::builder().setting("max_connections", "some").start().await;
    let Err(error @ ServerError::Start { .. }) = failed else {
        panic!("not a start error: {failed:?}");
    };
    let message = error.to_string();
    assert!(message.contains(r#"invalid value for parameter "max_connections": "some""#), "{message}");
}

/// Cargo sets variables for this process; any other may be a secret.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn server_has_only_the_allowed_variables() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let server = Server::builder().start().await.expect("a server");
    let environment = std::fs::read(format!("/proc/{}/environ", server.pid().expect("a pid"))).expect("its variables");
    let environment = String::from_utf8_lossy(&environment);
    let names: Vec<_> = environment.split('\0').filter_map(|variable| Some(variable.split_once('=')?.0)).collect();
    // The others are the shell's own.
    let expected = [&super::watchdog::VARIABLES[..], &["LC_ALL", "PWD", "OLDPWD", "SHLVL", "_"]].concat();
    assert!(names.iter().all(|name| expected.contains(name)), "{names:?}");
}

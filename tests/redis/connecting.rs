//! Connecting: logins, databases, sockets, and what the server refuses.

use std::time::Duration;

use poolscope::labels::{ConnectFailure, ErrorPhase, Outcome};
use poolscope::redis::redis::AsyncCommands;
use poolscope::redis::{CheckoutError, ConnectError};
use poolscope_testing::ports::ReservedPort;
use poolscope_testing::redis::Server;

use crate::support::{TestPool, eventually, poll_until, with_deadline};

/// Returns the code and the text of the error of a checkout.
async fn refused(url: &str) -> (String, String) {
    let test = TestPool::single(url);
    let error = with_deadline("an error", test.pool.get()).await.err().unwrap();
    let CheckoutError::Connect { source, .. } = &error else { panic!("{error}") };
    let code = source.code().as_str().to_owned();
    assert_eq!((test.errors(ErrorPhase::Connect, &code), test.outcomes(Outcome::Error)), (1, 1), "{error}");
    (code, error.to_string())
}

#[tokio::test]
async fn logins_are_checked_and_passwords_not_shown() {
    let server = Server::builder()
        .setting("requirepass", "hunter2")
        .setting("user", "app on >s3cr%2Ft ~app:* +@all -ping -config")
        .start()
        .await
        .unwrap();
    for protocol in ["resp2", "resp3"] {
        let url = |login: &str| format!("{}?protocol={protocol}", server.url_of(login));
        for login in [":hunter2", "default:hunter2", "app:s3cr%252Ft"] {
            let test = TestPool::new(&url(login), |builder| builder.pre_ping_idle(Duration::ZERO));
            for _ in 0..2 {
                let _: () = test.get().await.set("app:a", 1).await.unwrap();
            }
            assert_eq!(test.snapshot().created, 1, "{login}: a user without PING is pinged");
            assert!(!format!("{:?} {:?}", test.pool, test.pool.backend()).contains("hunter2"));
        }
        let (code, text) = refused(&url(":wrong-hunter2")).await;
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(code, "WRONGPASS", "{text}");
        let (code, text) = refused(&url("nobody:hunter2")).await;
        assert_eq!(code, "WRONGPASS", "{text}");
        let (code, text) = refused(&url("")).await;
        assert_eq!(code, "NOAUTH", "{text}");
        assert!(text.contains("requires a password"), "{text}");
    }
}

#[tokio::test]
async fn command_that_the_acl_forbids_is_an_error_of_the_command() {
    let server = Server::builder().setting("user", "app on >secret ~app:* +get +set").start().await.unwrap();
    let test = TestPool::single(&server.url_of("app:secret"));
    let mut connection = test.get().await;
    let error = connection.set::<_, _, ()>("other:a", 1).await.unwrap_err();
    assert_eq!(error.code(), Some("NOPERM"));
    drop(connection);
    assert_eq!(test.commands("SET", Some("NOPERM")), 1);
}

#[tokio::test]
async fn each_database_and_address_is_connected_to() {
    let server = Server::builder().tcp().start().await.unwrap();
    let tcp = server.tcp_url().unwrap();
    let three = TestPool::single(&format!("{tcp}/3"));
    let _: () = three.get().await.set("in", 3).await.unwrap();
    let by_name = tcp.replace("127.0.0.1", "localhost");
    for (url, expected) in [
        (format!("{tcp}/3"), Some(3)),
        (format!("{by_name}/3"), Some(3)),
        (format!("{tcp}/2"), None),
        (tcp.clone(), None),
        (format!("{}?db=3", server.url()), Some(3)),
    ] {
        let test = TestPool::single(&url);
        assert_eq!(test.get().await.get::<_, Option<i64>>("in").await.unwrap(), expected, "{url}");
    }
    let (code, text) = refused(&format!("{tcp}/77")).await;
    assert_eq!(code, "ERR", "{text}");
    assert!(text.contains("the database does not exist"), "{text}");
}

#[tokio::test]
async fn unreachable_servers_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("no.sock");
    let (code, text) = refused(&format!("redis+unix://{}", path.display())).await;
    assert_eq!(code, "io", "{text}");
    assert!(text.contains("no.sock"), "{text}");
    let closed = ReservedPort::new().unwrap();
    let port = closed.number();
    let (code, text) = refused(&format!("redis://127.0.0.1:{port}")).await;
    assert_eq!(code, "io", "{text}");
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
}

#[tokio::test]
async fn full_server_is_waited_for() {
    let server = Server::builder().setting("maxclients", "2").start().await.unwrap();
    let test = TestPool::new(&server.url(), |builder| builder.pool_size(3).max_overflow(0));
    // The connection that found the server ready may count for a moment.
    let connection = async || poll_until("a connection", async || test.pool.get().await.ok()).await;
    let (first, second) = (connection().await, connection().await);
    let before = test.errors(ErrorPhase::Connect, "MAXCLIENTS");
    // As long as the pool has connections that may be returned, the third waits for one of them.
    let third = tokio::spawn({
        let pool = test.pool.clone();
        async move { pool.get().await.map(drop) }
    });
    eventually("a refusal", async || test.errors(ErrorPhase::Connect, "MAXCLIENTS") > before).await;
    drop(first);
    with_deadline("the third", third).await.unwrap().unwrap();
    drop(second);

    // Without any, it fails with the reason.
    let other = TestPool::single(&server.url());
    eventually("both clients are connected", async || test.pool.status().idle == 2).await;
    let error = with_deadline("an error", other.pool.get()).await.err().unwrap();
    let CheckoutError::Connect { source: source @ ConnectError::Refused { .. }, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(source.code().as_str(), "MAXCLIENTS");
    assert!(error.to_string().contains("maxclients"), "{error}");
    let error = with_deadline("an error", other.pool.get()).await.err().unwrap();
    if let CheckoutError::Unavailable { source, .. } = &error {
        assert_eq!(source.failure, ConnectFailure::TooManyConnections);
    }
}

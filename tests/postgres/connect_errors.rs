//! Errors of connecting, and their codes.

use std::fs;

use poolscope::labels::{ConnectFailure, GiveUp};
use poolscope::{CheckoutError, RetryPolicy};
use poolscope_testing::ports::ReservedPort;
use poolscope_testing::server::{Server, Shutdown};

use crate::support::{Admin, TestPool, backend, error_chain, eventually, poll_until, shared, with_deadline};

async fn connect_error(test: &TestPool) -> CheckoutError {
    let error = with_deadline("an error", test.pool.get()).await.expect_err("an error");
    assert!(matches!(error, CheckoutError::Connect { .. }), "{error:?}");
    error
}

#[tokio::test]
async fn down_server_is_an_io_error_until_it_is_up() {
    let server = Server::builder().tcp(true).start().await.unwrap();
    let socket = TestPool::new("connect_errors_down_socket", &server.url(), |builder| builder);
    let tcp = TestPool::new("connect_errors_down_tcp", &server.tcp_url().unwrap(), |builder| builder);
    server.stop(Shutdown::Fast).await.unwrap();
    let path = server.dir().join(format!("run/.s.PGSQL.{}", server.port())).display().to_string();
    for (test, address) in [(&socket, path), (&tcp, format!("127.0.0.1:{}", server.port()))] {
        let error = connect_error(test).await;
        let name = test.pool.name();
        let expected = format!("pool `{name}` cannot connect: could not connect to PostgreSQL at {address}: ");
        assert!(error_chain(&error).starts_with(&expected), "{}", error_chain(&error));
        assert_eq!((test.errors("connect", "io"), test.closed("connect_failed")), (1, 1));
        assert_eq!((test.outcomes("error"), test.pool.status().live()), (1, 0));
    }
    server.start().await.unwrap();
    for test in [&socket, &tcp] {
        // Connecting is retried after a pause.
        drop(poll_until("a connection", async || test.pool.get().await.ok()).await);
        assert_eq!(test.outcomes("ok"), 1);
    }
}

#[tokio::test]
async fn closed_port_is_an_io_error() {
    let closed = ReservedPort::new().unwrap();
    let url = format!("postgres://u@127.0.0.1:{}/d", closed.number());
    let test = TestPool::new("connect_errors_port", &url, |builder| builder);
    let error = connect_error(&test).await;
    assert!(error_chain(&error).contains("refused"), "{}", error_chain(&error));
    assert_eq!(test.errors("connect", "io"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pool_larger_than_max_connections_serves_all() {
    let settings = [("max_connections", "4"), ("superuser_reserved_connections", "0")];
    let server = Server::builder().settings(settings).start().await.unwrap();
    let test = TestPool::new("connect_errors_full", &server.url(), |builder| builder.pool_size(10).max_overflow(20));
    let (gather, _) = tokio::sync::broadcast::channel::<()>(1);
    let tasks: Vec<_> = (0..30)
        .map(|_| {
            let (pool, mut everybody) = (test.pool.clone(), gather.subscribe());
            tokio::spawn(async move {
                let got = pool.get().await;
                let _ = everybody.recv().await;
                got.map(drop)
            })
        })
        .collect();
    // Connections are held until every other checkout has failed to connect.
    eventually("all but four wait", async || {
        let status = test.pool.status();
        (status.used, status.waiting) == (4, 26)
    })
    .await;
    let failures = || {
        let scrape = test.scrape();
        let errors =
            |code| scrape.count("poolscope_connection_errors_total", &[("phase", "connect"), ("error_type", code)]);
        let closed = scrape.count("poolscope_connections_closed_total", &[("reason", "connect_failed")]);
        (errors("53300"), errors("io"), closed)
    };
    // From version 16 on, the server's accept queue has room for twice `max_connections`; the system refuses the others
    // with EAGAIN. An attempt is closed a moment after its error is counted.
    let refused = poll_until("every failed attempt is closed", async || {
        let (refused, not_accepted, closed) = failures();
        (refused + not_accepted == closed).then_some(refused)
    });
    assert!(refused.await >= 1, "{:?}", failures());
    gather.send(()).unwrap();
    for task in tasks {
        with_deadline("a task", task).await.unwrap().unwrap();
    }
    assert_eq!((test.outcomes("error"), test.outcomes("ok")), (0, 30));
    // At first as many as the pool may open, then one at a time after pauses.
    let refused = test.errors("connect", "53300");
    assert!(refused <= 40, "{refused}");
    // The pool lost no capacity: idle connections serve again.
    let taken = test.get_many(4).await;
    backend(&taken[3]).await;
}

#[tokio::test]
async fn missing_password_is_an_auth_error() {
    let server = Server::builder().tcp(true).start().await.unwrap();
    Admin::new(&server).await.execute("CREATE ROLE app LOGIN PASSWORD 'right'").await;
    let path = server.dir().join("data/pg_hba.conf");
    let rules = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("host all app 127.0.0.1/32 scram-sha-256\n{rules}")).unwrap();
    server.restart(Shutdown::Fast).await.unwrap();

    let url = format!("postgres://app@127.0.0.1:{}/postgres", server.port());
    let test = TestPool::new("connect_errors_password", &url, |builder| builder);
    let error = connect_error(&test).await;
    assert!(error_chain(&error).contains("password missing"), "{}", error_chain(&error));
    assert_eq!((test.errors("connect", "auth"), test.outcomes("error")), (1, 1));
}

#[tokio::test]
async fn wrong_session_attrs_differ_from_server_down() {
    let url = shared().await.url();
    let of = |attrs: &str| {
        let url = format!("{url}?target_session_attrs={attrs}");
        TestPool::new(&format!("connect_errors_{attrs}"), &url, |builder| builder)
    };
    of("read-write").next_backend().await;
    let refused = of("read-only");
    let message = error_chain(&connect_error(&refused).await);
    assert!(message.ends_with(" allows writes (target_session_attrs=read-only)"), "{message}");
    assert_eq!((refused.errors("connect", "io"), refused.closed("connect_failed")), (1, 1));
}

#[tokio::test]
async fn missing_database_is_not_retried() {
    let url = shared().await.url();
    let (server, _) = url.rsplit_once('/').unwrap();
    let url = format!("{server}/missing");
    let test = TestPool::new("connect_errors_database", &url, |builder| builder);
    let operation = test.pool.operation("work").retry(RetryPolicy::default());
    let error = operation.run(async |connection| connection.query_one("SELECT 1", &[]).await).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.gave_up(), error.attempts()), (Some("3D000"), GiveUp::Permanent, 1));
    let CheckoutError::Unavailable { source, .. } = test.pool.get().await.unwrap_err() else { panic!("no pause") };
    assert_eq!(source.failure, ConnectFailure::Configuration);
}

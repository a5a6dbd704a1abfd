//! Connections that cannot be made.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use poolscope::CheckoutError;
use poolscope::demo::server::{Server, Shutdown};

use crate::support::{Admin, Counted, backend, chain, eventually, patiently, shared, until};

async fn connect_error(counted: &Counted) -> CheckoutError {
    let error = patiently("a refusal", counted.pool.get()).await.expect_err("a refusal");
    assert!(matches!(error, CheckoutError::Connect { .. }), "{error:?}");
    error
}

#[tokio::test]
async fn down_server_is_an_io_error_until_it_is_up() {
    let server = Server::builder().tcp(true).start().await.unwrap();
    let socket = Counted::new("refusals_down_socket", &server.url(), |builder| builder);
    let tcp = Counted::new("refusals_down_tcp", &server.tcp_url().unwrap(), |builder| builder);
    server.stop(Shutdown::Fast).await.unwrap();
    let path = server.dir().join(format!("run/.s.PGSQL.{}", server.port())).display().to_string();
    for (counted, address) in [(&socket, path), (&tcp, format!("127.0.0.1:{}", server.port()))] {
        let error = connect_error(counted).await;
        let name = counted.pool.name();
        let told = format!("pool `{name}` cannot connect: could not connect to PostgreSQL at {address}: ");
        assert!(chain(&error).starts_with(&told), "{}", chain(&error));
        assert_eq!((counted.errors("connect", "io"), counted.closed("connect_failed")), (1, 1));
        assert_eq!((counted.outcomes("error"), counted.pool.status().live()), (1, 0));
    }
    server.start().await.unwrap();
    for counted in [&socket, &tcp] {
        // Connecting is tried again after a pause.
        drop(until("a connection", async || counted.pool.get().await.ok()).await);
        assert_eq!(counted.outcomes("ok"), 1);
    }
}

#[tokio::test]
async fn closed_port_is_an_io_error() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let counted = Counted::new("refusals_port", &format!("postgres://u@127.0.0.1:{port}/d"), |builder| builder);
    let error = connect_error(&counted).await;
    assert!(chain(&error).contains("refused"), "{}", chain(&error));
    assert_eq!(counted.errors("connect", "io"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pool_larger_than_max_connections_serves_all() {
    let settings = [("max_connections", "4"), ("superuser_reserved_connections", "0")];
    let server = Server::builder().settings(settings).start().await.unwrap();
    let counted = Counted::new("refusals_full", &server.url(), |builder| builder.pool_size(10).max_overflow(20));
    let (gather, _) = tokio::sync::broadcast::channel::<()>(1);
    let tasks: Vec<_> = (0..30)
        .map(|_| {
            let (pool, mut everybody) = (counted.pool.clone(), gather.subscribe());
            tokio::spawn(async move {
                let got = pool.get().await;
                let _ = everybody.recv().await;
                got.map(drop)
            })
        })
        .collect();
    // Those who got one keep it until everybody else has heard that there is none.
    eventually("all but four wait", async || {
        let status = counted.pool.status();
        (status.used, status.waiting) == (4, 26)
    })
    .await;
    let refused = counted.errors("connect", "53300");
    assert!(refused >= 1 && refused == counted.closed("connect_failed"), "{refused}");
    gather.send(()).unwrap();
    for task in tasks {
        patiently("a task", task).await.unwrap().unwrap();
    }
    assert_eq!((counted.outcomes("error"), counted.outcomes("ok")), (0, 30));
    // At first as many as the pool may have, then one at a time and after pauses.
    let refused = counted.errors("connect", "53300");
    assert!(refused <= 40, "{refused}");
    // Nothing is taken from the pool: what is idle serves again.
    let taken = counted.take(4).await;
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
    let counted = Counted::new("refusals_password", &url, |builder| builder);
    let error = connect_error(&counted).await;
    assert!(chain(&error).contains("password missing"), "{}", chain(&error));
    assert_eq!((counted.errors("connect", "auth"), counted.outcomes("error")), (1, 1));
}

#[tokio::test]
async fn wrong_session_attrs_differ_from_server_down() {
    let url = shared().await.url();
    let of = |attrs: &str| {
        let url = format!("{url}?target_session_attrs={attrs}");
        Counted::new(&format!("refusals_{attrs}"), &url, |builder| builder)
    };
    of("read-write").next_backend().await;
    let refused = of("read-only");
    let told = chain(&connect_error(&refused).await);
    assert!(told.ends_with(" allows writes (target_session_attrs=read-only)"), "{told}");
    assert_eq!((refused.errors("connect", "io"), refused.closed("connect_failed")), (1, 1));
}

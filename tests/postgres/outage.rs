//! The pool while the server is down, full, silent or rejects it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use poolscope::labels::{CloseReason, ConnectFailure, ErrorPhase, Outcome, Phase};
use poolscope::telemetry::PoolSnapshot;
use poolscope::{CheckoutError, Collector, ConnectError, Pool, RetryPolicy};
use poolscope_testing::server::{Server, Shutdown};

use super::support::{Admin, Proxy, TEST_TIMEOUT, error_chain, eventually};
use super::{assert_adds_up, closed, outcomes, pool, server};

fn errors(snapshot: &PoolSnapshot, code: &str) -> u64 {
    let of = |errors: &&poolscope::telemetry::ConnectionErrors| {
        errors.phase == ErrorPhase::Connect && errors.code.as_str() == code
    };
    snapshot.errors.iter().filter(of).map(|errors| errors.count).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_under_load_recovers_consistently() {
    let server = server().await;
    let pool = pool(&server, |pool| {
        pool.pool_size(5)
            .max_overflow(5)
            .pre_ping_idle(Duration::from_millis(1))
            .checkout_timeout(Duration::from_secs(5))
    });
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (pool, stop, served) = (pool.clone(), Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if pool.run(async |connection| connection.query_one("SELECT 1", &[]).await).await.is_ok() {
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let progress = async |what: &str| {
        let before = served.load(Ordering::Relaxed);
        eventually(what, async || {
            assert_adds_up(&pool.snapshot());
            served.load(Ordering::Relaxed) > before + 100
        })
        .await;
    };
    progress("load is served").await;
    server.restart(Shutdown::Immediate).await.unwrap();
    progress("load is served after the restart").await;
    server.stop(Shutdown::Fast).await.unwrap();
    let refused = outcomes(&pool.snapshot(), Outcome::Error);
    eventually("checkouts fail", async || {
        assert_adds_up(&pool.snapshot());
        outcomes(&pool.snapshot(), Outcome::Error) > refused
    })
    .await;
    server.start().await.unwrap();
    progress("load is served again").await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        tokio::time::timeout(TEST_TIMEOUT, task).await.expect("no task hangs").unwrap();
    }
    let snapshot = pool.snapshot();
    assert_adds_up(&snapshot);
    assert_eq!((snapshot.in_flight, snapshot.connections.used, snapshot.connections.creating), (0, 0, 0));
    assert!(snapshot.connections.idle <= 5);
}

#[tokio::test]
async fn down_server_is_a_connect_error_with_cause() {
    let server = server().await;
    let pool = pool(&server, |pool| pool);
    server.stop(Shutdown::Fast).await.unwrap();
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, CheckoutError::Connect { .. }), "{error:?}");
    assert!(error_chain(&error).contains("pool `test` cannot connect"), "{}", error_chain(&error));
    let snapshot = pool.snapshot();
    assert_eq!((errors(&snapshot, "io"), outcomes(&snapshot, Outcome::Error)), (1, 1));
    assert_eq!(closed(&snapshot, CloseReason::ConnectFailed), 1);
    assert_adds_up(&snapshot);
}

#[tokio::test]
async fn full_server_times_out_with_the_cause() {
    let settings = [("max_connections", "4"), ("superuser_reserved_connections", "0")];
    let server = Server::builder().settings(settings).start().await.unwrap();
    let pool = pool(&server, |pool| pool.pool_size(10).checkout_timeout(Duration::from_secs(1)));
    let mut held = Vec::new();
    let error = loop {
        match pool.get().await {
            Ok(connection) => held.push(connection),
            Err(error) => break error,
        }
    };
    assert_eq!(held.len(), 4);
    let CheckoutError::Timeout(report) = &error else { panic!("{error:?}") };
    assert_eq!(report.backoff.as_ref().unwrap().code.as_str(), "53300");
    // It waited for a connection to be returned, unless the deadline passed during one of its attempts.
    let phase = if report.usage.status.creating == 0 { Phase::Queue } else { Phase::Connect };
    assert_eq!(report.phase, phase);
    assert!(error.to_string().contains("too many clients"), "{error}");
    let tries = errors(&pool.snapshot(), "53300");
    assert!((1..=8).contains(&tries), "after growing pauses: {tries}");
    assert_adds_up(&pool.snapshot());
    // A returned connection is given out at once, although no further connection can be opened.
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(drop) }
    });
    eventually("a checkout waits for a returned connection", async || {
        pool.snapshot().waiters.iter().any(|waiter| waiter.phase == Phase::Queue)
    })
    .await;
    drop(held.pop());
    waiting.await.unwrap().unwrap();
    // Without a connection of its own that could be returned, a pool has nothing to wait for.
    let stranger = Pool::builder().url(&server.url()).collector(Collector::new()).build().unwrap();
    held.push(pool.get().await.unwrap());
    let error = stranger.get().await.unwrap_err();
    assert!(matches!(&error, CheckoutError::Connect { source, .. } if source.code().as_str() == "53300"), "{error:?}");
    // On a busy machine the first pauses may be over before the next checkout. They double.
    eventually("connecting is suspended", async || {
        let error = stranger.get().await.unwrap_err();
        matches!(error, CheckoutError::Unavailable { source, .. } if source.code.as_str() == "53300")
    })
    .await;
}

/// A server that accepts and never answers, and callers that give up long before `connect_timeout`.
#[tokio::test]
async fn silent_server_is_detected_by_impatient_callers() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://u@127.0.0.1:{}/d?sslmode=disable", silent.local_addr().unwrap().port());
    let (accepted, counted) = (Arc::new(AtomicU64::new(0)), Duration::from_millis(50));
    let acceptor = tokio::spawn({
        let accepted = Arc::clone(&accepted);
        async move {
            let mut kept = Vec::new();
            while let Ok((socket, _)) = silent.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                kept.push(socket);
            }
        }
    });
    let builder = Pool::builder().url(&url).collector(Collector::new()).pool_size(2).max_overflow(2);
    let pool = builder.connect_timeout(Duration::from_millis(600)).build().unwrap();
    // They wrap the checkout in a timeout of their own.
    let began = std::time::Instant::now();
    let mut unavailable = None;
    while began.elapsed() < Duration::from_secs(4) {
        let checkouts = (0..10).map(|_| tokio::time::timeout(counted, pool.get()));
        for result in futures_util::future::join_all(checkouts).await {
            if let Ok(Err(CheckoutError::Unavailable { source, .. })) = result {
                unavailable = Some(source);
            }
        }
    }
    let source = unavailable.expect("connecting is suspended");
    assert_eq!(source.code.as_str(), "timeout");
    assert!(source.message.contains("connect_timeout (600ms)"), "{source}");
    // Four at once, then one at a time: each takes 600 ms, after a pause of 25 ms at least.
    let attempts = accepted.load(Ordering::Relaxed);
    assert!((5..=4 + 6).contains(&attempts), "{attempts}");
    let snapshot = pool.snapshot();
    assert_eq!(closed(&snapshot, CloseReason::ConnectAbandoned), 0);
    assert_adds_up(&snapshot);
    acceptor.abort();
}

/// Connecting takes longer than callers wait: each attempt goes on, and the pool fills with its connections.
#[tokio::test]
async fn slow_server_fills_the_pool() {
    let server = Server::builder().tcp(true).start().await.unwrap();
    let proxy = Proxy::to((std::net::Ipv4Addr::LOCALHOST, server.port()).into()).await;
    proxy.delay(Duration::from_millis(150));
    let url = format!("{}?sslmode=disable", proxy.url(&server.tcp_url().unwrap()));
    let builder = Pool::builder().url(&url).collector(Collector::new()).pool_size(4).max_overflow(0);
    let pool = builder.checkout_timeout(Duration::from_millis(100)).build().unwrap();
    let mut served = 0;
    eventually("the pool is full", async || {
        for result in futures_util::future::join_all((0..8).map(|_| pool.get())).await {
            served += usize::from(result.is_ok());
        }
        pool.status().idle == 4
    })
    .await;
    assert_eq!(proxy.accepted(), 4);
    assert_eq!(closed(&pool.snapshot(), CloseReason::ConnectAbandoned), 0);
    let connection = pool.get().await.unwrap();
    proxy.delay(Duration::ZERO);
    assert_eq!(connection.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    assert_adds_up(&pool.snapshot());
}

#[tokio::test]
async fn silent_server_hits_the_connect_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://u@127.0.0.1:{}/d?sslmode=disable", silent.local_addr().unwrap().port());
    let limit = Duration::from_millis(50);
    let pool = Pool::builder().url(&url).connect_timeout(limit).collector(Collector::new()).build().unwrap();
    let error = tokio::time::timeout(TEST_TIMEOUT, pool.get()).await.unwrap().unwrap_err();
    assert!(
        matches!(&error, CheckoutError::Connect { source: ConnectError::Timeout { after, .. }, .. } if *after == limit)
    );
    assert_eq!(errors(&pool.snapshot(), "timeout"), 1);
    assert_adds_up(&pool.snapshot());
}

#[tokio::test]
async fn wrong_password_is_never_shown() {
    let server = Server::builder().tcp(true).start().await.unwrap();
    let admin = Admin::new(&server).await;
    admin.execute("CREATE ROLE app LOGIN PASSWORD 'right'").await;
    let rules = server.dir().join("data/pg_hba.conf");
    std::fs::write(&rules, "local all all trust\nhost all all all scram-sha-256\n").unwrap();
    admin.execute("SELECT pg_reload_conf()").await;
    let with = |password: &str| {
        let url = format!("postgres://app:{password}@127.0.0.1:{}/postgres", server.port());
        Pool::builder().url(&url).collector(Collector::new()).build().unwrap()
    };
    // The reload is asynchronous: until then everyone is trusted.
    let refused = with("hunter2");
    let mut error = None;
    eventually("the new rules are in force", async || {
        error = refused.get().await.err();
        error.is_some()
    })
    .await;
    let error = error.unwrap();
    assert!(matches!(&error, CheckoutError::Connect { source, .. } if source.code().as_str() == "28P01"), "{error:?}");
    // It is not tried again at once, and reported as what it is.
    let CheckoutError::Unavailable { source, .. } = refused.get().await.unwrap_err() else { panic!("no pause") };
    assert_eq!(source.failure, ConnectFailure::Configuration);
    assert!(source.to_string().contains("because of the credentials or the configuration"), "{source}");
    for shown in [error_chain(&error), format!("{error:?}"), format!("{refused:?}"), format!("{:?}", refused.backend())]
    {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    drop(with("right").get().await.unwrap());
}

/// The default policy outlasts a server that is away for a second, with `fail_fast`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retried_operations_outlast_a_restart() {
    let server = server().await;
    let pool = pool(&server, |pool| pool.pool_size(4).max_overflow(0));
    server.stop(Shutdown::Fast).await.unwrap();
    let operations: Vec<_> = (0..20)
        .map(|_| {
            let operation = pool.operation("work").retry(RetryPolicy::default());
            tokio::spawn(operation.run(async |connection| connection.query_one("SELECT 1", &[]).await.map(drop)))
        })
        .collect();
    eventually("connecting has failed a few times", async || errors(&pool.snapshot(), "io") >= 4).await;
    server.start().await.unwrap();
    for operation in operations {
        tokio::time::timeout(TEST_TIMEOUT, operation).await.expect("no operation hangs").unwrap().unwrap();
    }
    assert_adds_up(&pool.snapshot());
}

/// The accept queue of the Unix socket is full for a moment: connecting fails with EAGAIN, and no checkout does.
#[tokio::test]
async fn full_accept_queue_fails_no_checkout() {
    let server = Server::builder().setting("max_connections", "20").start().await.unwrap();
    let pid = std::fs::read_to_string(server.dir().join("data/postmaster.pid")).unwrap();
    let postmaster = nix::unistd::Pid::from_raw(pid.lines().next().unwrap().parse().unwrap());
    let socket = server.dir().join(format!("run/.s.PGSQL.{}", server.port()));
    let pool = pool(&server, |pool| pool.pool_size(8).max_overflow(0).fail_fast(true));

    /// Resumes a stopped process when dropped.
    struct Stopped(nix::unistd::Pid);

    impl Drop for Stopped {
        fn drop(&mut self) {
            let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGCONT);
        }
    }

    nix::sys::signal::kill(postmaster, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let stopped = Stopped(postmaster);
    let address = socket2::SockAddr::unix(&socket).unwrap();
    let mut queued = Vec::new();
    loop {
        let client = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        match client.connect(&address) {
            Ok(()) => queued.push(client),
            Err(error) => break assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
    let checkouts: Vec<_> = (0..50)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.get().await.map(drop) })
        })
        .collect();
    eventually("connecting has failed", async || errors(&pool.snapshot(), "io") > 0).await;
    drop((queued, stopped));
    for checkout in checkouts {
        tokio::time::timeout(TEST_TIMEOUT, checkout).await.expect("no checkout hangs").unwrap().unwrap();
    }
    assert_eq!(outcomes(&pool.snapshot(), Outcome::Error), 0);
    assert_adds_up(&pool.snapshot());
}

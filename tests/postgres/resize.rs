//! A maximum that changes, and idle connections that are closed, as the server sees them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use poolscope::exporter::{Exporter, Readiness};
use poolscope_testing::server::Server;
use tokio::task::JoinSet;

use crate::support::{Admin, TestPool, eventually, http_get, poll_until, shared, with_deadline};

/// While 16 tasks check out connections, a maximum that shrinks and grows is kept at the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_never_exceed_the_current_maximum() {
    let name = "resize_load";
    let test = TestPool::shared(name, |builder| builder.pool_size(6).max_overflow(2)).await;
    let (stopping, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let (pool, stopping, served) = (test.pool.clone(), Arc::clone(&stopping), Arc::clone(&served));
        tasks.spawn(async move {
            while !stopping.load(SeqCst) {
                pool.get().await.unwrap().batch_execute("SELECT pg_sleep(0.002)").await.unwrap();
                served.fetch_add(1, SeqCst);
            }
        });
    }
    let admin = Admin::new(shared().await).await;
    let backends = async || admin.backends(name).await;
    for (pool_size, max_overflow) in [(2, 0), (3, 4), (1, 0), (8, 0), (4, 1)] {
        test.pool.resize(pool_size, max_overflow).unwrap();
        let max = pool_size + max_overflow;
        // Those in use are closed when they are returned.
        eventually("the pool has at most its maximum", async || {
            backends().await <= max && test.pool.status().live() <= max
        })
        .await;
        let before = served.load(SeqCst);
        poll_until("progress", async || {
            let (backends, live) = (backends().await, test.pool.status().live());
            assert!(live <= max, "{live} connections of at most {max}");
            // A backend ends a moment after its connection, and overflow connections are closed all the time.
            assert!(backends <= max || max_overflow > 0, "{backends} backends of at most {max}");
            (served.load(SeqCst) > before + 50).then_some(())
        })
        .await;
        let scrape = test.scrape();
        assert_eq!(scrape.sum("db_client_connection_max", &[]), max as f64);
        assert_eq!(scrape.sum("db_client_connection_idle_max", &[]), pool_size as f64);
    }
    stopping.store(true, SeqCst);
    with_deadline("every task ends", tasks.join_all()).await;
    assert!(test.closed("resized") > 0);
    assert_eq!(test.outcomes("timeout") + test.outcomes("error"), 0);
}

#[tokio::test]
async fn idle_connections_end_at_the_server() {
    let name = "idle_timeout";
    let test = TestPool::shared(name, |builder| {
        builder.pool_size(5).min_idle(2).idle_timeout(Some(Duration::from_millis(100)))
    })
    .await;
    drop(test.get_many(5).await);
    let admin = Admin::new(shared().await).await;
    admin.await_backends(name, 5).await;
    let watching = tokio::spawn(test.pool.watch());
    admin.await_backends(name, 2).await;
    assert_eq!((test.closed("idle_timeout"), test.pool.status().idle), (3, 2));
    watching.abort();
}

/// Ten processes start together. None connects more than one by one, each is ready when it is warm, and a server that is
/// down delays them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployment_is_ready_when_it_is_warm() {
    const PROCESSES: usize = 10;
    const MIN_IDLE: usize = 4;
    let server = Server::builder().setting("max_connections", "60").start().await.unwrap();
    server.stop(poolscope_testing::server::Shutdown::Fast).await.unwrap();
    let mut processes = Vec::new();
    for _ in 0..PROCESSES {
        let test = TestPool::new("deployed", &server.url(), |builder| {
            builder.pool_size(5).min_idle(MIN_IDLE).checkout_timeout(Duration::from_secs(1))
        });
        let readiness = Readiness::new();
        let bound = Exporter::new(test.collector()).readiness(readiness.clone()).bind("127.0.0.1:0").await.unwrap();
        let address = bound.local_addr();
        tokio::spawn(bound.serve(std::future::pending()));
        let pool = test.pool.clone();
        tokio::spawn(async move { readiness.ready_after(|| pool.warm_up()).await });
        processes.push((test, address));
    }
    for (_, address) in &processes {
        poll_until("a failed warm-up", async || {
            let (head, body) = http_get(*address, "/-/ready").await;
            assert!(head.starts_with("HTTP/1.1 503"), "{head}");
            body.contains("warming up has failed").then_some(())
        })
        .await;
    }
    server.start().await.unwrap();
    let mut ready = [false; PROCESSES];
    poll_until("every process is ready", async || {
        for ((test, address), ready) in processes.iter().zip(&mut ready) {
            let before = test.pool.status();
            assert!(before.creating <= 1 && before.live() <= MIN_IDLE, "{before:?}");
            if !*ready && http_get(*address, "/-/ready").await.0.starts_with("HTTP/1.1 200") {
                *ready = true;
                assert_eq!(test.pool.status().idle, MIN_IDLE);
            }
        }
        ready.iter().all(|ready| *ready).then_some(())
    })
    .await;
}

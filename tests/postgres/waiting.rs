//! Checkouts that wait, and those who stop waiting.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use poolscope::CheckoutError;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::support::{Admin, Counted, Growth, PATIENCE, backend, chain, patiently, shared, until};

const WAITERS: usize = 300;

/// For how long nobody may be served while somebody waits: far longer than a query takes.
const STALL: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_are_served_while_others_give_up() {
    // With a ping at each checkout, those who give up do so while they queue, ping and connect.
    let counted = Counted::shared("waiting_crowd", |builder| {
        builder.pool_size(4).max_overflow(4).pre_ping_idle(Duration::ZERO).checkout_timeout(PATIENCE)
    })
    .await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    println!("seed {seed}");

    let served = Arc::new(AtomicUsize::new(0));
    let held = counted.take(8).await;
    let mut waiters = Vec::new();
    for _ in 0..WAITERS {
        let (pool, served) = (counted.pool.clone(), Arc::clone(&served));
        waiters.push(tokio::spawn(async move {
            let connection = pool.get().await.unwrap();
            connection.query_one("SELECT pg_sleep(0.001)", &[]).await.unwrap();
            drop(connection);
            served.fetch_add(1, Ordering::Relaxed);
        }));
    }
    until("a full queue", async || (counted.pool.status().waiting == WAITERS).then_some(())).await;

    // While it still waits in the queue, and later wherever it happens to be.
    random.shuffle(&mut waiters);
    let mut quitters = waiters.split_off(WAITERS / 2);
    for quitter in quitters.drain(..WAITERS / 6) {
        quitter.abort();
    }
    drop(held);
    let quitting = tokio::spawn(async move {
        for quitter in quitters {
            tokio::time::sleep(Duration::from_micros(random.u64(..2_000))).await;
            quitter.abort();
        }
    });

    let mut growth = Growth::default();
    let mut progress = (served.load(Ordering::Relaxed), Instant::now());
    while !waiters.iter().all(tokio::task::JoinHandle::is_finished) {
        growth.next(&counted.scrape());
        let now = served.load(Ordering::Relaxed);
        if now != progress.0 {
            progress = (now, Instant::now());
        }
        let status = counted.pool.status();
        assert!(progress.1.elapsed() < STALL, "{now} served, then a stall, with {status:?} (seed {seed})");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for waiter in waiters {
        waiter.await.unwrap();
    }
    patiently("the last who gives up", quitting).await.unwrap();
    let scrape = until("nobody in flight", async || {
        let scrape = counted.scrape();
        (scrape.count("poolscope_checkouts_in_flight", &[]) == 0 && counted.pool.status().used == 0).then_some(scrape)
    })
    .await;
    let outcomes = |outcome| scrape.count("poolscope_checkouts_total", &[("outcome", outcome)]);
    assert_eq!(outcomes("ok") + outcomes("cancelled"), (8 + WAITERS) as u64);
    assert!(outcomes("cancelled") >= (WAITERS / 6) as u64);
    assert!(served.load(Ordering::Relaxed) >= WAITERS / 2);
    let status = counted.pool.status();
    assert!(status.idle <= status.size, "{status:?}");
    // No place was lost: as many as ever can be had at once.
    assert_eq!(counted.take(8).await.len(), 8);
}

#[tokio::test]
async fn timeout_while_connecting_closes_the_socket() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("postgres://u@{}/d", listener.local_addr().unwrap());
    let counted = Counted::new("waiting_deadline", &url, |builder| {
        builder.checkout_timeout(Duration::from_millis(100)).connect_timeout(PATIENCE)
    });
    let checkout = tokio::spawn({
        let pool = counted.pool.clone();
        async move { pool.get().await.map(drop) }
    });
    let (mut peer, _) = patiently("a client", listener.accept()).await.unwrap();
    let error = patiently("a timeout", checkout).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("ms, while connecting: 0 used"), "{error}");
    assert_eq!((counted.outcomes("timeout"), counted.closed("connect_abandoned")), (1, 1));
    assert_eq!(counted.pool.status().live(), 0);
    patiently("the end of the socket", peer.read_to_end(&mut Vec::new())).await.unwrap();
}

#[tokio::test]
async fn closing_fails_waiters_and_awaits_returns() {
    let admin = Admin::new(shared().await).await;
    let counted = Counted::shared("waiting_close", |builder| builder.pool_size(2).max_overflow(0)).await;
    let held = counted.pool.operation("slow_import").get().await.unwrap();
    let other = counted.get().await;
    let waiter = tokio::spawn({
        let pool = counted.pool.clone();
        async move { pool.get().await.map(drop) }
    });
    until("somebody who waits", async || (counted.pool.status().waiting == 1).then_some(())).await;

    let closing = tokio::spawn({
        let pool = counted.pool.clone();
        async move { pool.close().await }
    });
    let refused = patiently("a refusal", waiter).await.unwrap();
    assert!(matches!(refused, Err(CheckoutError::Closed { .. })), "{refused:?}");
    assert_eq!(chain(&counted.pool.get().await.unwrap_err()), "pool `waiting_close` is closed");
    drop(other);
    let late = counted.pool.close_within(Duration::from_millis(50)).await.unwrap_err().to_string();
    assert!(late.contains("after 50ms: 1 used") && late.contains("held by slow_import ×1 (oldest "), "{late}");
    assert!(!closing.is_finished());
    // What is out goes on working.
    backend(&held).await;
    drop(held);
    patiently("the end of closing", closing).await.unwrap();
    admin.await_backends("waiting_close", 0).await;
    assert_eq!((counted.closed("shutdown"), counted.outcomes("closed")), (2, 2));
}

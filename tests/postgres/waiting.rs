//! Waiting checkouts, and checkouts that are cancelled while they wait.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use poolscope::CheckoutError;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::support::{
    Admin, MonotonicCheck, TEST_TIMEOUT, TestPool, backend, error_chain, poll_until, shared, with_deadline,
};

const WAITERS: usize = 300;

/// Longest time without progress while checkouts wait; far longer than a query takes.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_are_served_while_others_give_up() {
    // With a ping at each checkout, checkouts are cancelled while they queue, ping and connect.
    let test = TestPool::shared("waiting_crowd", |builder| {
        builder.pool_size(4).max_overflow(4).pre_ping_idle(Duration::ZERO).checkout_timeout(TEST_TIMEOUT)
    })
    .await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    println!("seed {seed}");

    let served = Arc::new(AtomicUsize::new(0));
    let held = test.get_many(8).await;
    let mut waiters = Vec::new();
    for _ in 0..WAITERS {
        let (pool, served) = (test.pool.clone(), Arc::clone(&served));
        waiters.push(tokio::spawn(async move {
            let connection = pool.get().await.unwrap();
            connection.query_one("SELECT pg_sleep(0.001)", &[]).await.unwrap();
            drop(connection);
            served.fetch_add(1, Ordering::Relaxed);
        }));
    }
    poll_until("a full queue", async || (test.pool.status().waiting == WAITERS).then_some(())).await;

    // Some are cancelled in the queue, the others later, wherever they are.
    random.shuffle(&mut waiters);
    let mut cancelled = waiters.split_off(WAITERS / 2);
    for waiter in cancelled.drain(..WAITERS / 6) {
        waiter.abort();
    }
    drop(held);
    let cancelling = tokio::spawn(async move {
        for waiter in cancelled {
            tokio::time::sleep(Duration::from_micros(random.u64(..2_000))).await;
            waiter.abort();
        }
    });

    let mut monotonic = MonotonicCheck::default();
    let mut progress = (served.load(Ordering::Relaxed), Instant::now());
    while !waiters.iter().all(tokio::task::JoinHandle::is_finished) {
        monotonic.observe(&test.scrape());
        let now = served.load(Ordering::Relaxed);
        if now != progress.0 {
            progress = (now, Instant::now());
        }
        let status = test.pool.status();
        assert!(progress.1.elapsed() < STALL_TIMEOUT, "{now} served, then a stall, with {status:?} (seed {seed})");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for waiter in waiters {
        waiter.await.unwrap();
    }
    with_deadline("the last cancellation", cancelling).await.unwrap();
    let scrape = poll_until("nothing in flight", async || {
        let scrape = test.scrape();
        (scrape.count("poolscope_checkouts_in_flight", &[]) == 0 && test.pool.status().used == 0).then_some(scrape)
    })
    .await;
    let outcomes = |outcome| scrape.count("poolscope_checkouts_total", &[("outcome", outcome)]);
    assert_eq!(outcomes("ok") + outcomes("cancelled"), (8 + WAITERS) as u64);
    assert!(outcomes("cancelled") >= (WAITERS / 6) as u64);
    assert!(served.load(Ordering::Relaxed) >= WAITERS / 2);
    let status = test.pool.status();
    assert!(status.idle <= status.size, "{status:?}");
    // No slot was lost: the whole capacity is available.
    assert_eq!(test.get_many(8).await.len(), 8);
}

/// An attempt to connect outlives its checkout, and ends when the pool is closed.
#[tokio::test]
async fn attempt_outlives_its_checkout_and_ends_with_the_pool() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("postgres://u@{}/d", listener.local_addr().unwrap());
    let test = TestPool::new("waiting_deadline", &url, |builder| {
        builder.checkout_timeout(Duration::from_millis(100)).connect_timeout(TEST_TIMEOUT)
    });
    let checkout = tokio::spawn({
        let pool = test.pool.clone();
        async move { pool.get().await.map(drop) }
    });
    let (mut peer, _) = with_deadline("a client", listener.accept()).await.unwrap();
    let error = with_deadline("a timeout", checkout).await.unwrap().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("ms, as connecting takes longer than checkout_timeout: 0 used, 0 idle, 1 being created"),
        "{error}"
    );
    assert_eq!((test.outcomes("timeout"), test.pool.status().creating), (1, 1));
    with_deadline("the pool is closed", test.pool.close()).await;
    assert_eq!((test.closed("connect_abandoned"), test.pool.status().live()), (1, 0));
    with_deadline("the socket is closed", peer.read_to_end(&mut Vec::new())).await.unwrap();
}

#[tokio::test]
async fn closing_fails_waiters_and_awaits_returns() {
    let admin = Admin::new(shared().await).await;
    let test = TestPool::shared("waiting_close", |builder| builder.pool_size(2).max_overflow(0)).await;
    let held = test.pool.operation("slow_import").get().await.unwrap();
    let other = test.get().await;
    let waiter = tokio::spawn({
        let pool = test.pool.clone();
        async move { pool.get().await.map(drop) }
    });
    poll_until("one waiter", async || (test.pool.status().waiting == 1).then_some(())).await;

    let closing = tokio::spawn({
        let pool = test.pool.clone();
        async move { pool.close().await }
    });
    let refused = with_deadline("an error", waiter).await.unwrap();
    assert!(matches!(refused, Err(CheckoutError::Closed { .. })), "{refused:?}");
    assert_eq!(error_chain(&test.pool.get().await.unwrap_err()), "pool `waiting_close` is closed");
    drop(other);
    let late = test.pool.close_within(Duration::from_millis(50)).await.unwrap_err().to_string();
    assert!(late.contains("after 50ms: 1 used") && late.contains("held by slow_import ×1 (oldest "), "{late}");
    assert!(!closing.is_finished());
    // Connections in use keep working.
    backend(&held).await;
    drop(held);
    with_deadline("closing completes", closing).await.unwrap();
    admin.await_backends("waiting_close", 0).await;
    assert_eq!((test.closed("shutdown"), test.outcomes("closed")), (2, 2));
}

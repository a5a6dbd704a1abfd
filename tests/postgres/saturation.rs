//! A saturated pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use poolscope::CheckoutError;
use poolscope::labels::Outcome;

use super::{assert_adds_up, outcomes, pool, server};

#[tokio::test]
async fn timeout_reports_holders_and_waiters() {
    let server = server().await;
    let pool = pool(&server, |pool| pool.pool_size(2).max_overflow(1).checkout_timeout(Duration::from_secs(2)));
    let (reports, list) = (pool.operation("sales_report"), pool.operation("list_orders"));
    let _held = (reports.get().await.unwrap(), reports.get().await.unwrap(), list.get().await.unwrap());
    let error = pool.get().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, CheckoutError::Timeout(_)), "{text}");
    assert!(text.contains("3 used, 0 idle, 0 being created of 3"), "{text}");
    assert!(text.contains("held by sales_report ×2") && text.contains("list_orders ×1"), "{text}");
    assert_adds_up(&pool.snapshot());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_cancellations_never_stall_the_queue() {
    const WAITERS: usize = 300;
    let server = server().await;
    let pool = pool(&server, |pool| pool.pool_size(3).max_overflow(2));
    let served = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..WAITERS)
        .map(|waiter| {
            let (pool, served) = (pool.clone(), Arc::clone(&served));
            tokio::spawn(async move {
                for _ in 0..20 {
                    // Every third waits long; the others are cancelled within three milliseconds.
                    let timeout = if waiter % 3 == 0 { 60_000_000 } else { fastrand::u64(0..3_000) };
                    let checkout = tokio::time::timeout(Duration::from_micros(timeout), pool.get());
                    if let Ok(connection) = checkout.await {
                        connection.unwrap().query_one("SELECT pg_sleep(0.0005)", &[]).await.unwrap();
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let (mut last, mut since) = (0, Instant::now());
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        let snapshot = pool.snapshot();
        assert_adds_up(&snapshot);
        let now = served.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < Duration::from_secs(20), "stalled: {snapshot:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let snapshot = pool.snapshot();
    assert_adds_up(&snapshot);
    assert_eq!((snapshot.in_flight, snapshot.queued, snapshot.connections.used), (0, 0, 0));
    assert_eq!(
        outcomes(&snapshot, Outcome::Ok) + outcomes(&snapshot, Outcome::Cancelled),
        snapshot.operations.iter().map(|operation| operation.started).sum::<u64>()
    );
    assert!(outcomes(&snapshot, Outcome::Ok) >= (WAITERS / 3 * 20) as u64);
    assert!(outcomes(&snapshot, Outcome::Cancelled) > 0);
    assert!(snapshot.saturated_nanos > 0);
}

//! Connections that are opened ahead.

use std::time::Duration;

use poolscope::labels::Outcome;

use super::backend::{Behavior, Completion};
use super::harness::{TestPool, ms, settings};

fn pool(min_idle: usize) -> TestPool {
    let mut settings = settings(5, 3);
    settings.min_idle = min_idle;
    settings.checkout_timeout = ms(30_000);
    TestPool::with(&settings)
}

#[tokio::test(start_paused = true)]
async fn connections_are_opened_one_after_another() {
    let test = pool(4);
    test.backend.set_connect(Behavior::After(ms(30), Completion::Ok));
    let pool = test.pool.clone();
    let started = tokio::time::Instant::now();
    let warming = tokio::spawn(async move { pool.warm_up().await });
    while !warming.is_finished() {
        let status = test.pool.status();
        assert!(status.creating <= 1 && status.live() <= 4, "{status:?}");
        tokio::time::sleep(ms(1)).await;
    }
    warming.await.unwrap().unwrap();
    let took = started.elapsed();
    assert!((ms(120)..ms(120) + Duration::from_millis(450)).contains(&took), "{took:?}");
    let status = test.pool.status();
    assert_eq!((status.idle, status.used, test.backend.creates().started()), (4, 0, 4));
    assert_eq!(test.outcomes("warm_up", Outcome::Ok), 4);

    // There are enough connections, also if they are in use.
    let held = test.get_many("held", 3);
    test.pool.warm_up().await.unwrap();
    assert_eq!(test.backend.creates().started(), 4);
    drop(held);
    test.snapshot();
}

#[tokio::test(start_paused = true)]
async fn idle_connections_count() {
    let test = pool(3);
    drop(test.get_many("before", 2));
    test.pool.warm_up().await.unwrap();
    assert_eq!((test.pool.status().idle, test.backend.creates().started()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn server_that_is_down_is_awaited_at_the_gate() {
    let test = pool(4);
    test.backend.set_connect(Behavior::Down);
    let pool = test.pool.clone();
    let warming = tokio::spawn(async move { pool.warm_up().await });
    tokio::time::sleep(ms(5000)).await;
    assert!(!warming.is_finished(), "it waits also with fail_fast");
    let attempts = test.backend.creates().started();
    assert!((2..20).contains(&attempts), "{attempts}");
    test.backend.set_connect(Behavior::Ok);
    warming.await.unwrap().unwrap();
    assert_eq!(test.pool.status().idle, 4);
}

#[tokio::test(start_paused = true)]
async fn lasting_failures_are_returned() {
    let test = pool(2);
    test.backend.set_connect(Behavior::Misconfigured);
    test.pool.warm_up().await.unwrap_err();
    assert_eq!(test.backend.creates().started(), 1);

    let test = pool(2);
    test.backend.set_connect(Behavior::Error);
    let started = tokio::time::Instant::now();
    test.pool.warm_up().await.unwrap_err();
    let took = started.elapsed();
    assert!((ms(30_000)..ms(31_000)).contains(&took), "{took:?}");
    test.pool.close().await;
    test.pool.warm_up().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn dropped_future_keeps_what_was_opened() {
    let test = pool(4);
    test.backend.set_connect(Behavior::After(ms(100), Completion::Ok));
    assert!(tokio::time::timeout(ms(250), test.pool.warm_up()).await.is_err());
    test.advance(ms(200)).await;
    test.run_detached().await;
    let status = test.pool.status();
    assert!((1..4).contains(&status.idle) && status.used == 0, "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_opened_by_default() {
    let test = pool(0);
    test.pool.warm_up().await.unwrap();
    assert_eq!(test.pool.status().live(), 0);
}

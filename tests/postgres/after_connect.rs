//! The hook that is called with each new connection.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use poolscope::{CancelToken, CheckoutError, ConnectError, PoolBuilder};
use tokio::time::timeout;

use crate::places::without_cancels;
use crate::support::{Admin, TestPool, backend, eventually, shared, with_deadline};

#[tokio::test]
async fn each_connection_is_prepared_once() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let test = TestPool::shared("after_connect_calls", |builder| {
        builder.pool_size(2).max_overflow(0).after_connect(move |client| {
            counted.fetch_add(1, SeqCst);
            Box::pin(async move { client.batch_execute("SET statement_timeout = '4321ms'").await })
        })
    })
    .await;
    for _ in 0..3 {
        for connection in test.get_many(2).await {
            let shown: String = connection.query_one("SHOW statement_timeout", &[]).await.unwrap().get(0);
            assert_eq!(shown, "4321ms");
        }
    }
    assert_eq!(calls.load(SeqCst), 2);
    let unpooled = test.pool.connect_unpooled().await.unwrap();
    let shown: String = unpooled.query_one("SHOW statement_timeout", &[]).await.unwrap().get(0);
    assert_eq!((&*shown, calls.load(SeqCst)), ("4321ms", 3));
    // Its query belongs to no operation.
    assert_eq!(test.scrape().count("poolscope_queries_total", &[]), 6);
}

#[tokio::test]
async fn failure_has_a_code_of_its_own() {
    let test = TestPool::shared("after_connect_fails", |builder| {
        builder.after_connect(|client| Box::pin(async move { client.batch_execute("SET no_such_setting = 1").await }))
    })
    .await;
    let error = test.pool.get().await.unwrap_err();
    let CheckoutError::Connect { source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(source, ConnectError::AfterConnect { .. }), "{source:?}");
    assert_eq!(
        source.to_string(),
        "the hook after_connect failed: db error: ERROR: SQLSTATE 42704 (its message may quote values)"
    );
    assert_eq!(test.errors("connect", "hook"), 1);
    let status = test.pool.status();
    assert_eq!((test.closed("connect_failed"), status.live() - status.closing), (1, 0));
}

#[tokio::test]
async fn hook_that_hangs_is_limited() {
    let test = TestPool::shared("after_connect_hangs", |builder| {
        let builder = builder.connect_timeout(Duration::from_millis(200));
        builder.after_connect(|_| Box::pin(std::future::pending::<Result<(), std::io::Error>>()))
    })
    .await;
    let error = with_deadline("an error", test.pool.get()).await.unwrap_err();
    assert!(matches!(error, CheckoutError::Connect { source: ConnectError::AfterConnect { .. }, .. }), "{error:?}");
    assert_eq!(test.errors("connect", "hook"), 1);
}

/// Returns a pool whose hook executes `query` and drops it after 100 ms, if it has not ended by then.
async fn with_hook(name: &'static str, query: &'static str) -> TestPool {
    TestPool::shared(name, |builder| {
        builder.pool_size(1).max_overflow(0).after_connect(move |client| {
            Box::pin(async move {
                match timeout(Duration::from_millis(100), client.batch_execute(query)).await {
                    Ok(result) => result,
                    Err(_) => Ok(()),
                }
            })
        })
    })
    .await
}

async fn hook_error(test: &TestPool) -> String {
    let error = with_deadline("an error", test.pool.get()).await.unwrap_err();
    let CheckoutError::Connect { source: source @ ConnectError::AfterConnect { .. }, .. } = error else {
        panic!("{error:?}")
    };
    source.to_string().strip_prefix("the hook after_connect failed: ").unwrap().to_owned()
}

/// The connections have ended at the server, and their places are free.
async fn assert_all_end(test: &TestPool, name: &str) {
    eventually("the place is free", async || test.pool.status().live() == 0).await;
    Admin::new(shared().await).await.await_backends(name, 0).await;
    assert_eq!((test.closed("connect_failed"), test.errors("connect", "hook")), (1, 1));
    assert_eq!(test.scrape().count("poolscope_close_timeouts_total", &[]), 0);
}

#[tokio::test]
async fn transaction_that_is_left_open_is_a_failure() {
    let test = with_hook("after_connect_begins", "BEGIN").await;
    assert_eq!(hook_error(&test).await, "it left a transaction open: commit it, or roll it back");
    assert_all_end(&test, "after_connect_begins").await;
}

#[tokio::test]
async fn query_that_is_dropped_is_a_failure_and_cancelled() {
    let test = with_hook("after_connect_drops", "SELECT pg_sleep(300)").await;
    assert_eq!(hook_error(&test).await, "it dropped a query before its end: await it");
    assert_all_end(&test, "after_connect_drops").await;
}

#[tokio::test]
async fn query_of_a_hook_that_hangs_is_cancelled() {
    let test = TestPool::shared("after_connect_slow", |builder| {
        let builder = builder.pool_size(1).max_overflow(0).connect_timeout(Duration::from_millis(500));
        builder.after_connect(|client| Box::pin(async move { client.batch_execute("SELECT pg_sleep(300)").await }))
    })
    .await;
    assert_eq!(hook_error(&test).await, "deadline has elapsed");
    assert_all_end(&test, "after_connect_slow").await;
}

/// Without cancel requests, the connection keeps its place while the server executes.
#[tokio::test]
async fn uncancelled_query_of_a_hook_keeps_the_place() {
    let hangs = |builder: PoolBuilder| {
        let builder = builder.pool_size(1).max_overflow(0).connect_timeout(Duration::from_millis(500));
        builder.after_connect(|client| Box::pin(async move { client.batch_execute("SELECT pg_sleep(300)").await }))
    };
    let (_proxy, test) = without_cancels("after_connect_lost", hangs).await;
    hook_error(&test).await;
    assert_eq!(test.pool.status().closing, 1);
    let admin = Admin::new(shared().await).await;
    admin
        .execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'after_connect_lost'")
        .await;
    assert_all_end(&test, "after_connect_lost").await;
}

/// A token that was made in the hook does not concern the first holder.
#[tokio::test]
async fn cancel_token_is_valid_only_within_the_hook() {
    let tokens = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&tokens);
    let test = TestPool::shared("after_connect_token", |builder| {
        builder.after_connect(move |client| {
            *kept.lock().unwrap() = Some(client.cancel_token());
            Box::pin(async { Ok::<_, std::io::Error>(()) })
        })
    })
    .await;
    let connection = test.get().await;
    let token: CancelToken = tokens.lock().unwrap().take().unwrap();
    let process = backend(&connection).await;
    let admin = Admin::new(shared().await).await;
    let cancel_while_busy = async {
        admin.await_busy(process).await;
        token.cancel().await.unwrap();
    };
    let (slept, ()) = tokio::join!(connection.batch_execute("SELECT pg_sleep(0.5)"), cancel_while_busy);
    slept.unwrap();
}

//! The hook that is called before each checkout.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use poolscope::{CancelToken, CheckoutError, ConnectError};

use crate::support::{Admin, TestPool, backend, eventually, shared, with_deadline};

#[tokio::test]
async fn each_checkout_is_prepared() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let test = TestPool::shared("before_checkout_calls", |builder| {
        builder.pool_size(2).max_overflow(0).before_checkout(move |client| {
            let call = counted.fetch_add(1, SeqCst) + 1;
            Box::pin(async move { client.batch_execute(&format!("SET app.call = '{call}'")).await })
        })
    })
    .await;
    for round in 0..3 {
        for (index, connection) in test.get_many(2).await.into_iter().enumerate() {
            let shown: String = connection.query_one("SHOW app.call", &[]).await.unwrap().get(0);
            assert_eq!(shown, (2 * round + index + 1).to_string());
        }
    }
    assert_eq!((calls.load(SeqCst), test.errors("hook", "hook")), (6, 0));
    drop(test.pool.connect_unpooled().await.unwrap());
    assert_eq!(calls.load(SeqCst), 6, "connections outside the pool have no checkout");
}

#[tokio::test]
async fn failure_closes_the_connection_and_tries_the_next() {
    let (failing, all_fail) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let (asked, all) = (Arc::clone(&failing), Arc::clone(&all_fail));
    let test = TestPool::shared("before_checkout_fails", |builder| {
        builder.pool_size(3).max_overflow(0).before_checkout(move |client| {
            let (failing, all) = (Arc::clone(&asked), all.load(SeqCst));
            Box::pin(async move {
                let process: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
                let fails = all || failing.lock().unwrap().contains(&process);
                if fails { client.batch_execute("SELECT 1 / 0").await } else { Ok(()) }
            })
        })
    })
    .await;
    let held = test.get_many(3).await;
    let mut processes = Vec::new();
    for connection in &held {
        processes.push(backend(connection).await);
    }
    drop(held);
    let good = processes.pop().unwrap();
    *failing.lock().unwrap() = processes;
    assert_eq!(test.next_backend().await, good);
    assert_eq!((test.closed("hook_failed"), test.errors("hook", "hook")), (2, 2));

    // A hook that fails for each connection fails the checkout, after one attempt to connect.
    all_fail.store(true, SeqCst);
    let error = test.pool.get().await.unwrap_err();
    let CheckoutError::Connect { source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(source, ConnectError::BeforeCheckout { .. }), "{source:?}");
    assert_eq!(source.to_string(), "the hook before_checkout failed: db error: ERROR: division by zero");
    assert_eq!((test.closed("hook_failed"), test.pool.status().live()), (4, 0));
}

/// What the server executes for a checkout that ends meanwhile is cancelled.
#[tokio::test]
async fn deadline_of_the_checkout_bounds_it() {
    let slow = Arc::new(AtomicUsize::new(0));
    let sleeps = Arc::clone(&slow);
    let test = TestPool::shared("before_checkout_slow", |builder| {
        let builder = builder.pool_size(1).max_overflow(0).checkout_timeout(Duration::from_millis(500));
        builder.before_checkout(move |client| {
            let seconds = sleeps.load(SeqCst);
            Box::pin(async move { client.batch_execute(&format!("SELECT pg_sleep({seconds})")).await })
        })
    })
    .await;
    drop(test.get().await);
    slow.store(300, SeqCst);
    let error = with_deadline("an error", test.pool.get()).await.unwrap_err();
    let CheckoutError::Timeout(report) = &error else { panic!("{error:?}") };
    assert!(report.to_string().contains("in the hook before_checkout"), "{report}");
    eventually("the place is free", async || test.pool.status().live() == 0).await;
    Admin::new(shared().await).await.await_backends("before_checkout_slow", 0).await;
    assert_eq!(test.closed("hook_abandoned"), 1);
    assert!(test.scrape().sum("poolscope_checkout_phase_seconds_total", &[("phase", "hook")]) >= 0.4);
}

#[tokio::test]
async fn what_it_leaves_behind_is_a_failure() {
    for (name, statement, problem) in [
        ("before_checkout_begins", "BEGIN", "it left a transaction open: commit it, or roll it back"),
        ("before_checkout_drops", "SELECT pg_sleep(300)", "it dropped a query before its end: await it"),
    ] {
        let test = TestPool::shared(name, |builder| {
            builder.pool_size(1).max_overflow(0).before_checkout(move |client| {
                Box::pin(async move {
                    let executed = tokio::time::timeout(Duration::from_millis(100), client.batch_execute(statement));
                    executed.await.unwrap_or(Ok(()))
                })
            })
        })
        .await;
        let error = with_deadline("an error", test.pool.get()).await.unwrap_err();
        let CheckoutError::Connect { source, .. } = &error else { panic!("{error:?}") };
        assert_eq!(source.to_string(), format!("the hook before_checkout failed: {problem}"));
        eventually("the place is free", async || test.pool.status().live() == 0).await;
        Admin::new(shared().await).await.await_backends(name, 0).await;
    }
}

/// A token that was made in the hook does not concern the holder.
#[tokio::test]
async fn cancel_token_is_valid_only_within_the_hook() {
    let tokens = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&tokens);
    let test = TestPool::shared("before_checkout_token", |builder| {
        builder.before_checkout(move |client| {
            *kept.lock().unwrap() = Some(client.cancel_token());
            Box::pin(async { Ok::<_, std::io::Error>(()) })
        })
    })
    .await;
    drop(test.get().await);
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

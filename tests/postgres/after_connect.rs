//! The hook that is called with each new connection.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use poolscope::{CheckoutError, ConnectError};

use crate::support::TestPool;

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
    assert_eq!(source.to_string(), "the hook after_connect failed");
    assert_eq!(source.source().unwrap().to_string(), "db error");
    assert_eq!(test.errors("connect", "hook"), 1);
    let status = test.pool.status();
    assert_eq!((test.closed("connect_failed"), status.live() - status.closing), (1, 0));
}

#[tokio::test]
async fn hook_that_hangs_is_limited() {
    let test = TestPool::shared("after_connect_hangs", |builder| {
        let builder = builder.connect_timeout(std::time::Duration::from_millis(200));
        builder.after_connect(|_| Box::pin(std::future::pending::<Result<(), std::io::Error>>()))
    })
    .await;
    let error = crate::support::with_deadline("an error", test.pool.get()).await.unwrap_err();
    assert!(matches!(error, CheckoutError::Connect { source: ConnectError::AfterConnect { .. }, .. }), "{error:?}");
    assert_eq!(test.errors("connect", "hook"), 1);
}

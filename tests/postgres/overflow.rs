//! Overflow connections, as seen on the server.

use crate::support::{Admin, TestPool, shared};

#[tokio::test]
async fn overflow_closes_when_its_waiter_gives_up() {
    let admin = Admin::new(shared().await).await;
    let test = TestPool::shared("overflow_waiter", |builder| builder.pool_size(1).max_overflow(1)).await;
    let taken = test.get_many(2).await;
    let mut waiter = Box::pin(test.pool.get());
    tokio::select! {
        biased;
        _ = &mut waiter => panic!("the pool is exhausted"),
        () = std::future::ready(()) => {}
    }
    // Both are kept, as the waiter has not taken one yet.
    drop(taken);
    assert_eq!((test.pool.status().idle, test.pool.status().waiting), (2, 1));
    drop(waiter);
    assert_eq!((test.pool.status().idle, test.closed("overflow")), (1, 1));
    admin.await_backends("overflow_waiter", 1).await;
    test.next_backend().await;
}

#[tokio::test]
async fn dropped_pool_leaves_no_backends() {
    let admin = Admin::new(shared().await).await;
    let test = TestPool::shared("overflow_dropped", |builder| builder.pool_size(2).max_overflow(1)).await;
    let mut taken = test.get_many(3).await;
    let last = taken.pop().unwrap();
    drop(taken);
    admin.await_backends("overflow_dropped", 3).await;
    drop(test);
    admin.await_backends("overflow_dropped", 1).await;
    drop(last);
    admin.await_backends("overflow_dropped", 0).await;
}

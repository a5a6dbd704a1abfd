//! Connections beyond `pool_size`, as the server sees them.

use crate::support::{Admin, Counted, shared};

#[tokio::test]
async fn overflow_closes_when_its_waiter_gives_up() {
    let admin = Admin::new(shared().await).await;
    let counted = Counted::shared("overflow_waiter", |builder| builder.pool_size(1).max_overflow(1)).await;
    let taken = counted.take(2).await;
    let mut waiter = Box::pin(counted.pool.get());
    tokio::select! {
        biased;
        _ = &mut waiter => panic!("there is nothing to get"),
        () = std::future::ready(()) => {}
    }
    // Both stay, since somebody is about to take one, and has not yet.
    drop(taken);
    assert_eq!((counted.pool.status().idle, counted.pool.status().waiting), (2, 1));
    drop(waiter);
    assert_eq!((counted.pool.status().idle, counted.closed("overflow")), (1, 1));
    admin.await_backends("overflow_waiter", 1).await;
    counted.next_backend().await;
}

#[tokio::test]
async fn dropped_pool_leaves_no_backends() {
    let admin = Admin::new(shared().await).await;
    let counted = Counted::shared("overflow_dropped", |builder| builder.pool_size(2).max_overflow(1)).await;
    let mut taken = counted.take(3).await;
    let last = taken.pop().unwrap();
    drop(taken);
    admin.await_backends("overflow_dropped", 3).await;
    drop(counted);
    admin.await_backends("overflow_dropped", 1).await;
    drop(last);
    admin.await_backends("overflow_dropped", 0).await;
}

//! Connections whose holders end in other ways than by returning them.

use std::thread;

use tokio::runtime::Runtime;

use crate::support::{Admin, Counted, backend, shared};

#[tokio::test]
async fn panicking_task_returns_its_connection() {
    let counted = Counted::shared("lifetime_panic", |builder| builder.pool_size(1).max_overflow(0)).await;
    let first = counted.next_backend().await;
    for operation in [false, true] {
        let pool = counted.pool.clone();
        let panicking = tokio::spawn(async move {
            if operation {
                let work = async |_: &mut poolscope::Connection| -> Result<(), tokio_postgres::Error> {
                    panic!("as the test wants it")
                };
                let _ = pool.operation("panicking").run(work).await;
            } else {
                let _held = pool.get().await.unwrap();
                panic!("as the test wants it");
            }
        });
        assert!(panicking.await.unwrap_err().is_panic());
        let status = counted.pool.status();
        assert_eq!((status.idle, status.used), (1, 0));
        assert_eq!(counted.next_backend().await, first);
    }
    let panicked = [("operation", "panicking"), ("outcome", "cancelled")];
    assert_eq!(counted.scrape().count("poolscope_operation_duration_seconds_count", &panicked), 1);
}

#[tokio::test]
async fn guard_can_be_dropped_without_a_runtime() {
    let admin = Admin::new(shared().await).await;
    let counted = Counted::shared("lifetime_thread", |builder| builder.pool_size(1).max_overflow(1)).await;
    let (one, other) = (counted.get().await, counted.get().await);
    let backends = [backend(&one).await, backend(&other).await];
    for connection in [one, other] {
        thread::spawn(move || drop(connection)).join().unwrap();
    }
    assert_eq!(counted.closed("overflow"), 1);
    assert!(backends.contains(&counted.next_backend().await));
    admin.await_backends("lifetime_thread", 1).await;
}

#[tokio::test]
async fn return_from_a_thread_wakes_a_waiter() {
    let counted = Counted::shared("lifetime_waiter", |builder| builder.pool_size(1).max_overflow(0)).await;
    let held = counted.get().await;
    let first = backend(&held).await;
    let returning = thread::spawn({
        let pool = counted.pool.clone();
        move || {
            while pool.status().waiting == 0 {
                thread::yield_now();
            }
            drop(held);
        }
    });
    assert_eq!(counted.next_backend().await, first);
    returning.join().unwrap();
}

#[test]
fn pool_outlives_its_runtime() {
    let runtime = Runtime::new().unwrap();
    let (counted, held) = runtime.block_on(async {
        let counted = Counted::shared("lifetime_runtime", |builder| builder.pool_size(2).max_overflow(0)).await;
        let mut taken = counted.take(2).await;
        let held = taken.pop();
        drop(taken);
        (counted, held)
    });
    drop(runtime);
    drop(held);
    // What drove the connections went with the runtime.
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        counted.next_backend().await;
        assert_eq!(counted.outcomes("ok"), 3);
    });
    assert_eq!(counted.closed("broken"), 2);
}

//! Guards that are dropped by panics, on other threads, or after their runtime.

use std::thread;

use tokio::runtime::Runtime;

use crate::support::{Admin, TestPool, backend, shared};

#[tokio::test]
async fn panicking_task_returns_its_connection() {
    let test = TestPool::shared("guards_panic", |builder| builder.pool_size(1).max_overflow(0)).await;
    let first = test.next_backend().await;
    for operation in [false, true] {
        let pool = test.pool.clone();
        let panicking = tokio::spawn(async move {
            if operation {
                let work =
                    async |_: &mut poolscope::Connection| -> Result<(), tokio_postgres::Error> { panic!("scripted") };
                let _ = pool.operation("panicking").run(work).await;
            } else {
                let _held = pool.get().await.unwrap();
                panic!("scripted");
            }
        });
        assert!(panicking.await.unwrap_err().is_panic());
        let status = test.pool.status();
        assert_eq!((status.idle, status.used), (1, 0));
        assert_eq!(test.next_backend().await, first);
    }
    let panicked = [("operation", "panicking"), ("outcome", "error")];
    assert_eq!(test.scrape().count("poolscope_operation_duration_seconds_count", &panicked), 1);
}

#[tokio::test]
async fn guard_can_be_dropped_without_a_runtime() {
    let admin = Admin::new(shared().await).await;
    let test = TestPool::shared("guards_thread", |builder| builder.pool_size(1).max_overflow(1)).await;
    let (one, other) = (test.get().await, test.get().await);
    let backends = [backend(&one).await, backend(&other).await];
    for connection in [one, other] {
        thread::spawn(move || drop(connection)).join().unwrap();
    }
    assert_eq!(test.closed("overflow"), 1);
    assert!(backends.contains(&test.next_backend().await));
    admin.await_backends("guards_thread", 1).await;
}

#[tokio::test]
async fn return_from_a_thread_wakes_a_waiter() {
    let test = TestPool::shared("guards_waiter", |builder| builder.pool_size(1).max_overflow(0)).await;
    let held = test.get().await;
    let first = backend(&held).await;
    let returning = thread::spawn({
        let pool = test.pool.clone();
        move || {
            while pool.status().waiting == 0 {
                thread::yield_now();
            }
            drop(held);
        }
    });
    assert_eq!(test.next_backend().await, first);
    returning.join().unwrap();
}

#[test]
fn pool_outlives_its_runtime() {
    let runtime = Runtime::new().unwrap();
    let (test, held) = runtime.block_on(async {
        let test = TestPool::shared("guards_runtime", |builder| builder.pool_size(2).max_overflow(0)).await;
        let mut taken = test.get_many(2).await;
        let held = taken.pop();
        drop(taken);
        (test, held)
    });
    drop(runtime);
    drop(held);
    // The connections' tasks ended with the runtime.
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        test.next_backend().await;
        assert_eq!(test.outcomes("ok"), 3);
    });
    assert_eq!(test.closed("broken"), 2);
}

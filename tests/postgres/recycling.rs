//! Connections past their age limit, and connections whose backend was terminated.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use poolscope::RunError;
use tokio_postgres::error::SqlState;

use crate::support::{Admin, TestPool, backend, block_on_other_thread, poll_until, shared, with_deadline};

const NEVER: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn expired_connection_is_replaced_at_checkout() {
    let admin = Admin::new(shared().await).await;
    let age = Duration::from_millis(200);
    let test = TestPool::shared("recycling_age", |builder| builder.recycle_after(Some(age))).await;
    let first = test.next_backend().await;
    let connected = Instant::now();
    let second = poll_until("another backend", async || {
        let next = test.next_backend().await;
        (next != first).then_some(next)
    })
    .await;
    // Up to a tenth earlier; it was established a moment before `connected`.
    assert!(connected.elapsed() >= age * 8 / 10, "{:?}", connected.elapsed());
    assert_eq!(test.closed("recycled"), 1);
    admin.await_backends("recycling_age", 1).await;
    assert_ne!(second, first);
}

#[tokio::test]
async fn connection_without_age_limit_stays() {
    let test = TestPool::shared("recycling_never", |builder| builder.recycle_after(None)).await;
    let first = test.next_backend().await;
    assert_eq!(test.next_backend().await, first);
}

#[tokio::test]
async fn ping_detects_unnoticed_termination() {
    let server = shared().await;
    let test = TestPool::shared("recycling_ping", |builder| builder.pre_ping_idle(Duration::ZERO)).await;
    let connection = test.get().await;
    let first = backend(&connection).await;
    // Leaves nothing for the connection's task to do: if it ran, it would notice the end by itself.
    connection.batch_execute("").await.unwrap();
    drop(connection);
    block_on_other_thread(async || Admin::new(server).await.terminate(first).await);
    assert_ne!(test.next_backend().await, first);
    assert_eq!(test.closed("ping_failed"), 1);
    // Whether the error is the answer to the ping or the closed socket depends on which the connection reads first.
    assert_eq!(test.scrape().count("poolscope_connection_errors_total", &[("phase", "ping")]), 1);
    assert!(test.scrape().sum("poolscope_checkout_phase_seconds_total", &[("phase", "ping")]) > 0.0);
}

#[tokio::test]
async fn terminated_connection_is_not_reused() {
    let admin = Admin::new(shared().await).await;
    let test = TestPool::shared("recycling_run", |builder| builder.pool_size(1).max_overflow(0)).await;
    for round in 1..=10 {
        let ended = test.next_backend().await;
        let work = test.pool.run(async |connection| connection.batch_execute("SELECT pg_sleep(60)").await);
        // The next checkout comes at once, before the connection can have noticed its end.
        let work_and_next = async { (work.await, test.next_backend().await) };
        let ((result, next), ()) = tokio::join!(work_and_next, admin.terminate_busy(ended));
        let Err(RunError::Operation(error)) = result else { panic!("{result:?}") };
        assert_eq!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN));
        assert_ne!(next, ended);
        assert_eq!(test.closed("ping_failed") + test.closed("broken"), round);
    }
    let first = test.next_backend().await;
    let failed = test.pool.run(async |connection| connection.batch_execute("SELECT 1/0").await).await;
    assert!(failed.is_err());
    assert_eq!(test.next_backend().await, first, "an error does not close the connection");
}

#[tokio::test]
async fn only_stale_connections_are_pinged() {
    let admin = Admin::new(shared().await).await;
    for (name, pre_ping, idle, pings) in [
        ("recycling_soon", true, NEVER, false),
        ("recycling_late", true, Duration::ZERO, true),
        ("recycling_off", false, Duration::ZERO, false),
    ] {
        let test = TestPool::shared(name, |builder| builder.pre_ping(pre_ping).pre_ping_idle(idle)).await;
        let backend = test.next_backend().await;
        drop(test.get().await);
        // A ping is an empty statement.
        let last = admin.last_statement(backend).await;
        assert_eq!(last, if pings { "" } else { "SELECT pg_backend_pid()" }, "{name}");
        let pinging = test.scrape().sum("poolscope_checkout_phase_seconds_total", &[("phase", "ping")]);
        assert_eq!(pinging > 0.0, pings, "{name}");
    }
}

/// Processes that are stopped until this is dropped.
struct StoppedProcesses(Vec<i32>);

impl StoppedProcesses {
    fn new(processes: Vec<i32>) -> Self {
        for process in &processes {
            kill(Pid::from_raw(*process), Signal::SIGSTOP).unwrap();
        }
        Self(processes)
    }
}

impl Drop for StoppedProcesses {
    fn drop(&mut self) {
        for process in &self.0 {
            let _ = kill(Pid::from_raw(*process), Signal::SIGCONT);
        }
    }
}

/// Connections that all fell silent cost one ping timeout together, not one each.
#[tokio::test]
async fn silent_connections_cost_one_ping_timeout() {
    let timeout = Duration::from_millis(200);
    let test = TestPool::shared("recycling_silent", |builder| {
        builder.pool_size(5).max_overflow(0).pre_ping_idle(Duration::ZERO).ping_timeout(timeout)
    })
    .await;
    let taken = test.get_many(5).await;
    let mut backends = Vec::new();
    for connection in &taken {
        backends.push(backend(connection).await);
    }
    drop(taken);
    let stopped = StoppedProcesses::new(backends);
    let started = Instant::now();
    let taken = with_deadline("five connections", test.get_many(5)).await;
    assert!(started.elapsed() >= timeout);
    assert_eq!((test.errors("ping", "timeout"), test.closed("ping_failed")), (1, 1));
    assert_eq!(test.closed("invalidated"), 4);
    for connection in &taken {
        assert!(!stopped.0.contains(&backend(connection).await));
    }
}

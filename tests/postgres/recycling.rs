//! Connections that are too old, or that the server has ended.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use poolscope::RunError;
use tokio_postgres::error::SqlState;

use crate::support::{Admin, Counted, backend, behind_the_runtimes_back, patiently, shared, until};

const NEVER: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn expired_connection_is_replaced_at_checkout() {
    let admin = Admin::new(shared().await).await;
    let age = Duration::from_millis(200);
    let counted = Counted::shared("recycling_age", |builder| builder.recycle_after(Some(age))).await;
    let first = counted.next_backend().await;
    let connected = Instant::now();
    let second = until("another backend", async || {
        let next = counted.next_backend().await;
        (next != first).then_some(next)
    })
    .await;
    // Up to a tenth earlier; established a moment before it answered here.
    assert!(connected.elapsed() >= age * 8 / 10, "{:?}", connected.elapsed());
    assert_eq!(counted.closed("recycled"), 1);
    admin.await_backends("recycling_age", 1).await;
    assert_ne!(second, first);
}

#[tokio::test]
async fn connection_without_age_limit_stays() {
    let counted = Counted::shared("recycling_never", |builder| builder.recycle_after(None)).await;
    let first = counted.next_backend().await;
    assert_eq!(counted.next_backend().await, first);
}

#[tokio::test]
async fn ping_detects_unnoticed_termination() {
    let server = shared().await;
    let counted = Counted::shared("recycling_ping", |builder| builder.pre_ping_idle(Duration::ZERO)).await;
    let connection = counted.get().await;
    let first = backend(&connection).await;
    // Nothing is left for its task to do: had it to run, it would hear of the end by itself.
    connection.batch_execute("").await.unwrap();
    drop(connection);
    behind_the_runtimes_back(async || Admin::new(server).await.terminate(first).await);
    assert_ne!(counted.next_backend().await, first);
    assert_eq!(counted.closed("ping_failed"), 1);
    // Whether the ping's answer is the reason or just the end depends on which of the two the connection saw first.
    assert_eq!(counted.scrape().count("poolscope_connection_errors_total", &[("phase", "ping")]), 1);
    assert!(counted.scrape().sum("poolscope_checkout_phase_seconds_total", &[("phase", "ping")]) > 0.0);
}

#[tokio::test]
async fn terminated_connection_is_not_reused() {
    let admin = Admin::new(shared().await).await;
    let counted = Counted::shared("recycling_run", |builder| builder.pool_size(1).max_overflow(0)).await;
    for round in 1..=10 {
        let ended = counted.next_backend().await;
        let work = counted.pool.run(async |connection| connection.batch_execute("SELECT pg_sleep(60)").await);
        // The next checkout comes at once, before the connection can have heard of its end.
        let work_and_next = async { (work.await, counted.next_backend().await) };
        let ((answer, next), ()) = tokio::join!(work_and_next, admin.terminate_busy(ended));
        let Err(RunError::Operation(error)) = answer else { panic!("{answer:?}") };
        assert_eq!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN));
        assert_ne!(next, ended);
        assert_eq!(counted.closed("ping_failed") + counted.closed("broken"), round);
    }
    let first = counted.next_backend().await;
    let failed = counted.pool.run(async |connection| connection.batch_execute("SELECT 1/0").await).await;
    assert!(failed.is_err());
    assert_eq!(counted.next_backend().await, first, "an error alone is no end");
}

#[tokio::test]
async fn only_stale_connections_are_pinged() {
    let admin = Admin::new(shared().await).await;
    for (name, pre_ping, idle, pings) in [
        ("recycling_soon", true, NEVER, false),
        ("recycling_late", true, Duration::ZERO, true),
        ("recycling_off", false, Duration::ZERO, false),
    ] {
        let counted = Counted::shared(name, |builder| builder.pre_ping(pre_ping).pre_ping_idle(idle)).await;
        let backend = counted.next_backend().await;
        drop(counted.get().await);
        // A ping is an empty statement.
        let last = admin.last_statement(backend).await;
        assert_eq!(last, if pings { "" } else { "SELECT pg_backend_pid()" }, "{name}");
        let pinging = counted.scrape().sum("poolscope_checkout_phase_seconds_total", &[("phase", "ping")]);
        assert_eq!(pinging > 0.0, pings, "{name}");
    }
}

/// Processes that do not run until this is dropped.
struct Frozen(Vec<i32>);

impl Frozen {
    fn new(processes: Vec<i32>) -> Self {
        for process in &processes {
            kill(Pid::from_raw(*process), Signal::SIGSTOP).unwrap();
        }
        Self(processes)
    }
}

impl Drop for Frozen {
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
    let counted = Counted::shared("recycling_silent", |builder| {
        builder.pool_size(5).max_overflow(0).pre_ping_idle(Duration::ZERO).ping_timeout(timeout)
    })
    .await;
    let taken = counted.take(5).await;
    let mut backends = Vec::new();
    for connection in &taken {
        backends.push(backend(connection).await);
    }
    drop(taken);
    let frozen = Frozen::new(backends);
    let begun = Instant::now();
    let taken = patiently("five connections", counted.take(5)).await;
    assert!(begun.elapsed() >= timeout);
    assert_eq!((counted.errors("ping", "timeout"), counted.closed("ping_failed")), (1, 1));
    assert_eq!(counted.closed("invalidated"), 4);
    for connection in &taken {
        assert!(!frozen.0.contains(&backend(connection).await));
    }
}

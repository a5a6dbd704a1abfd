//! Restarts of the server under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use poolscope::PoolBuilder;
use poolscope_testing::server::{Server, Shutdown};
use tokio::task::JoinSet;

use crate::support::{
    MonotonicCheck, TestPool, backend, block_on_other_thread, error_chain, poll_until, with_deadline,
};

#[tokio::test]
async fn restart_costs_one_failed_ping() {
    let server = Server::builder().start().await.unwrap();
    let test = TestPool::new("restarts_ping", &server.url(), |builder| {
        builder.pool_size(5).max_overflow(0).pre_ping_idle(Duration::ZERO)
    });
    drop(test.get_many(5).await);
    block_on_other_thread(async || server.restart(Shutdown::Immediate).await).unwrap();
    let taken = test.get_many(5).await;
    for connection in &taken {
        backend(connection).await;
    }
    let scrape = test.scrape();
    assert_eq!(scrape.count("poolscope_connection_errors_total", &[("phase", "ping")]), 1);
    assert_eq!((test.closed("ping_failed"), test.closed("invalidated")), (1, 4));
    assert_eq!(scrape.count("poolscope_connections_created_total", &[]), 10);
    assert_eq!(test.outcomes("ok"), 10);
}

/// A failed operation.
#[derive(Debug)]
struct Failure {
    began: Instant,
    ended: Instant,
    #[allow(dead_code, reason = "shown when the test fails")]
    error: String,
}

/// Tasks that check out and query without a pause.
struct Load {
    tasks: JoinSet<Vec<Failure>>,
    stopping: Arc<AtomicBool>,
    served: Arc<[AtomicUsize]>,
}

impl Load {
    fn start(test: &TestPool, count: usize) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let served: Arc<[AtomicUsize]> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        let mut tasks = JoinSet::new();
        for task in 0..count {
            let (pool, stopping, served) = (test.pool.clone(), Arc::clone(&stopping), Arc::clone(&served));
            let operation = pool.operation(&format!("load_{}", task % 3));
            tasks.spawn(async move {
                let mut failures = Vec::new();
                while !stopping.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let work = operation
                        .clone()
                        .run(async |connection| connection.query_one("SELECT pg_sleep(0.001)", &[]).await.map(drop));
                    match with_deadline("a result", work).await {
                        Ok(()) => {
                            served[task].fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            failures.push(Failure { began, ended: Instant::now(), error: error_chain(&error) });
                            tokio::task::yield_now().await;
                        }
                    }
                }
                failures
            });
        }
        Self { tasks, stopping, served }
    }

    /// Waits until every task has completed more operations.
    async fn progress(&self) {
        let now: Vec<usize> = self.served.iter().map(|served| served.load(Ordering::Relaxed)).collect();
        poll_until("progress of every task", async || {
            let moved = |(served, before): (&AtomicUsize, &usize)| served.load(Ordering::Relaxed) > before + 1;
            self.served.iter().zip(&now).all(moved).then_some(())
        })
        .await;
    }

    async fn end(mut self) -> Vec<Failure> {
        self.stopping.store(true, Ordering::Relaxed);
        let tasks = std::mem::take(&mut self.tasks);
        with_deadline("every task ends", tasks.join_all()).await.into_iter().flatten().collect()
    }
}

/// Tasks that never yield cannot be aborted, and would keep a failing test from ending.
impl Drop for Load {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

/// The longest pause between two attempts to connect, during which checkouts may fail at once.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

async fn restart_under_load(name: &str, how: Shutdown, fail_fast: bool) {
    let server = Server::builder().start().await.unwrap();
    let set = |builder: PoolBuilder| builder.pool_size(4).max_overflow(4).fail_fast(fail_fast);
    let test = TestPool::new(name, &server.url(), set);
    let scraping = Arc::new(AtomicBool::new(true));
    let scraper = tokio::spawn({
        let (test, scraping) = (test.clone(), Arc::clone(&scraping));
        async move {
            let mut monotonic = MonotonicCheck::default();
            while scraping.load(Ordering::Relaxed) {
                monotonic.observe(&test.scrape());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            monotonic
        }
    });

    let load = Load::start(&test, 20);
    load.progress().await;
    let created = || test.scrape().count("poolscope_connections_created_total", &[]);
    let (down, before) = (Instant::now(), created());
    with_deadline("a restart", server.restart(how)).await.unwrap();
    let up = Instant::now();
    let last = if fail_fast { up + MAX_BACKOFF } else { up };
    load.progress().await;
    let failures = load.end().await;

    // Operations that are not running at that moment need not fail, but no old connection survives.
    assert!(created() > before, "no connection was opened");
    for failure in &failures {
        assert!(failure.ended >= down && failure.began <= last, "outside {:?}: {failure:?}", up - down);
    }
    scraping.store(false, Ordering::Relaxed);
    let monotonic = scraper.await.unwrap();
    assert!(monotonic.scrapes() >= 10, "{} scrapes", monotonic.scrapes());
    let status = test.pool.status();
    assert_eq!((status.used, status.creating, status.in_flight), (0, 0, 0));
    assert!((1..=4).contains(&status.idle), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_fails_only_concurrent_operations() {
    restart_under_load("restarts_immediate", Shutdown::Immediate, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_fails_only_concurrent_operations() {
    restart_under_load("restarts_fast", Shutdown::Fast, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_are_served_when_the_server_is_back() {
    restart_under_load("restarts_waiting", Shutdown::Fast, false).await;
}

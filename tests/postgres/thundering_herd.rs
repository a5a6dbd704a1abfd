//! Two hundred tasks during an outage of ten seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use poolscope::{Connection, PoolBuilder, RetryPolicy};
use poolscope_testing::server::{Server, Shutdown};
use tokio::task::JoinSet;

use crate::support::{TestPool, poll_until, with_deadline};

const TASKS: usize = 200;
const OUTAGE: Duration = Duration::from_secs(10);

/// Every task is served within this time of the server's return: two seconds, unless the machine is busy.
const MAX_RECOVERY: Duration = Duration::from_secs(10);

/// Tasks that repeat an operation until they are stopped.
struct Load {
    test: TestPool,
    tasks: JoinSet<()>,
    stopping: Arc<AtomicBool>,
    served: Arc<[AtomicUsize]>,
    failed: Arc<AtomicUsize>,
}

impl Load {
    fn start(name: &str, server: &Server, set: fn(PoolBuilder) -> PoolBuilder) -> Self {
        let test = TestPool::new(name, &server.url(), set);
        let (stopping, failed) = (Arc::default(), Arc::default());
        let served: Arc<[AtomicUsize]> = (0..TASKS).map(|_| AtomicUsize::new(0)).collect();
        let mut load = Self { test, tasks: JoinSet::new(), stopping, served, failed };
        let policy = RetryPolicy::new().backoff(Duration::from_millis(50), Duration::from_millis(500));
        let operation = load.test.pool.operation("work").retry(policy);
        for task in 0..TASKS {
            let (operation, stopping) = (operation.clone(), Arc::clone(&load.stopping));
            let (served, failed) = (Arc::clone(&load.served), Arc::clone(&load.failed));
            load.tasks.spawn(async move {
                while !stopping.load(Ordering::Relaxed) {
                    let work =
                        async |connection: &mut Connection| connection.query_one("SELECT 1", &[]).await.map(drop);
                    match operation.clone().idempotent(true).run(work).await {
                        Ok(()) => served[task].fetch_add(1, Ordering::Relaxed),
                        Err(_) => failed.fetch_add(1, Ordering::Relaxed),
                    };
                    // A client has other things to do as well.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        load
    }

    /// Waits until every task was served once more. Returns how long it took.
    async fn progress(&self) -> Duration {
        let started = Instant::now();
        let before: Vec<usize> = self.served.iter().map(|served| served.load(Ordering::Relaxed)).collect();
        poll_until("progress of every task", async || {
            let mut all = self.served.iter().zip(&before);
            all.all(|(served, before)| served.load(Ordering::Relaxed) > *before).then_some(())
        })
        .await;
        started.elapsed()
    }

    /// Returns how many connections were opened so far.
    fn created(&self) -> u64 {
        self.test.scrape().count("poolscope_connections_created_total", &[])
    }

    async fn end(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        while let Some(ended) = with_deadline("a task ends", self.tasks.join_next()).await {
            ended.unwrap();
        }
    }
}

/// A server that is down is not stormed with connects, and all tasks are served soon after its return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_causes_no_connect_storm() {
    let server = Server::builder().setting("max_connections", "80").start().await.unwrap();
    let mut loads = [
        Load::start("herd_waits", &server, |builder| builder.fail_fast(false)),
        // The operations before the outage would otherwise pay for a retry of each task.
        Load::start("herd_fails", &server, |builder| builder.fail_fast(true).retry_percent(0)),
    ];
    for load in &loads {
        load.progress().await;
    }
    server.stop(Shutdown::Fast).await.unwrap();
    let down = Instant::now();
    // Running operations have failed.
    for load in &loads {
        poll_until("connecting is suspended", async || {
            (!load.test.pool.snapshot().connecting_suspended.is_zero()).then_some(())
        })
        .await;
    }
    let mut tries = [Vec::new(), Vec::new()];
    let mut before = loads.each_ref().map(Load::created);
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.tick().await;
    while down.elapsed() < OUTAGE {
        seconds.tick().await;
        let now = loads.each_ref().map(Load::created);
        for (tries, (now, before)) in tries.iter_mut().zip(now.iter().zip(before)) {
            tries.push(now - before);
        }
        before = now;
    }
    server.start().await.unwrap();
    let [waits, fails] = &loads;
    let recovery: [Duration; 2] = tokio::join!(waits.progress(), fails.progress()).into();
    for ((load, tries), recovery) in loads.iter().zip(&tries).zip(recovery) {
        let name = load.test.pool.name();
        let failed = load.failed.load(Ordering::Relaxed);
        println!("{name}: connects by second {tries:?}, {failed} operations failed, all served {recovery:?} after");
        // The pauses grow from 50 to 800 ms within two seconds, and each is at least half of that.
        let (first, later) = tries.split_at(2);
        assert!(first.iter().sum::<u64>() <= 12, "{name}: {tries:?}");
        assert!(later.iter().all(|tries| *tries <= 3) && later.iter().sum::<u64>() >= 4, "{name}: {tries:?}");
        assert!(recovery <= MAX_RECOVERY, "{name}: {recovery:?}");
        let snapshot = load.test.pool.snapshot();
        assert!(snapshot.connecting_suspended.is_zero());
    }
    // Waiting operations have nothing to retry; failing ones are limited by the budget.
    let retries = |load: &Load| load.test.scrape().count("poolscope_retries_total", &[]);
    assert_eq!(waits.failed.load(Ordering::Relaxed), 0);
    assert!(fails.failed.load(Ordering::Relaxed) > 0);
    let exhausted = [("operation", "work"), ("reason", "budget")];
    assert!(fails.test.scrape().count("poolscope_retry_exhausted_total", &exhausted) > 0);
    println!("retries: {} and {}", retries(waits), retries(fails));
    for load in &mut loads {
        load.end().await;
    }
}

//! Two hundred tasks, and a server that is away for ten seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use poolscope::demo::server::{Server, Shutdown};
use poolscope::{Connection, PoolBuilder, RetryPolicy};
use tokio::task::JoinSet;

use crate::support::{Counted, patiently, until};

const TASKS: usize = 200;
const DOWN: Duration = Duration::from_secs(10);

/// Within which time of the server's return everybody is served.
const RECOVERY: Duration = Duration::from_secs(2);

/// Tasks that run an operation again and again, until they are told to end.
struct Load {
    counted: Counted,
    tasks: JoinSet<()>,
    ending: Arc<AtomicBool>,
    served: Arc<[AtomicUsize]>,
    failed: Arc<AtomicUsize>,
}

impl Load {
    fn start(name: &str, server: &Server, set: fn(PoolBuilder) -> PoolBuilder) -> Self {
        let counted = Counted::new(name, &server.url(), set);
        let (ending, failed) = (Arc::default(), Arc::default());
        let served: Arc<[AtomicUsize]> = (0..TASKS).map(|_| AtomicUsize::new(0)).collect();
        let mut load = Self { counted, tasks: JoinSet::new(), ending, served, failed };
        let policy = RetryPolicy::new().backoff(Duration::from_millis(50), Duration::from_millis(500));
        let operation = load.counted.pool.operation("work").retry(policy);
        for task in 0..TASKS {
            let (operation, ending) = (operation.clone(), Arc::clone(&load.ending));
            let (served, failed) = (Arc::clone(&load.served), Arc::clone(&load.failed));
            load.tasks.spawn(async move {
                while !ending.load(Ordering::Relaxed) {
                    let work =
                        async |connection: &mut Connection| connection.query_one("SELECT 1", &[]).await.map(drop);
                    match operation.clone().idempotent(true).run(work).await {
                        Ok(()) => served[task].fetch_add(1, Ordering::Relaxed),
                        Err(_) => failed.fetch_add(1, Ordering::Relaxed),
                    };
                    // As a client would that has something else to do, too.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        load
    }

    /// Waits until every task was served once more than now; answers how long that took.
    async fn progress(&self) -> Duration {
        let begun = Instant::now();
        let before: Vec<usize> = self.served.iter().map(|served| served.load(Ordering::Relaxed)).collect();
        until("progress of every task", async || {
            let mut all = self.served.iter().zip(&before);
            all.all(|(served, before)| served.load(Ordering::Relaxed) > *before).then_some(())
        })
        .await;
        begun.elapsed()
    }

    /// How many connections were begun so far.
    fn created(&self) -> u64 {
        self.counted.scrape().count("poolscope_connections_created_total", &[])
    }

    async fn end(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        while let Some(ended) = patiently("the end of a task", self.tasks.join_next()).await {
            ended.unwrap();
        }
    }
}

/// A server that is down is not stormed with connects, and all tasks are served within two seconds of its return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_causes_no_connect_storm() {
    let server = Server::builder().setting("max_connections", "80").start().await.unwrap();
    let mut loads = [
        Load::start("stampede_waits", &server, |builder| builder.fail_fast(false)),
        Load::start("stampede_fails", &server, |builder| builder.fail_fast(true)),
    ];
    for load in &loads {
        load.progress().await;
    }
    server.stop(Shutdown::Fast).await.unwrap();
    let down = Instant::now();
    // What was under way has met its end.
    for load in &loads {
        until("connecting is suspended", async || {
            (!load.counted.pool.snapshot().connecting_suspended.is_zero()).then_some(())
        })
        .await;
    }
    let mut tries = [Vec::new(), Vec::new()];
    let mut before = loads.each_ref().map(Load::created);
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.tick().await;
    while down.elapsed() < DOWN {
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
        let name = load.counted.pool.name();
        let failed = load.failed.load(Ordering::Relaxed);
        println!("{name}: connects by second {tries:?}, {failed} operations failed, all served {recovery:?} after");
        // The pauses grow from 50 ms to 800 within the first two, and are then half of that at least.
        let (first, later) = tries.split_at(2);
        assert!(first.iter().sum::<u64>() <= 12, "{name}: {tries:?}");
        assert!(later.iter().all(|tries| *tries <= 3) && later.iter().sum::<u64>() >= 4, "{name}: {tries:?}");
        assert!(recovery <= RECOVERY, "{name}: {recovery:?}");
        let snapshot = load.counted.pool.snapshot();
        assert!(snapshot.connecting_suspended.is_zero());
    }
    // Who waits has nothing to repeat; who fails at once is kept to the budget.
    let retries = |load: &Load| load.counted.scrape().count("poolscope_retries_total", &[]);
    assert_eq!(waits.failed.load(Ordering::Relaxed), 0);
    assert!(fails.failed.load(Ordering::Relaxed) > 0);
    let exhausted = [("operation", "work"), ("reason", "budget")];
    assert!(fails.counted.scrape().count("poolscope_retry_exhausted_total", &exhausted) > 0);
    println!("retries: {} and {}", retries(waits), retries(fails));
    for load in &mut loads {
        load.end().await;
    }
}

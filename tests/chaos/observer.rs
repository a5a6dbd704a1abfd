//! What monitoring sees while faults occur: ten scrapes per second, and the server's own count of connections.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use poolscope::labels::Phase;
use poolscope::telemetry::PoolSnapshot;
use poolscope::tokio_postgres::Client;
use poolscope_testing::scrape::{MonotonicCheck, Scrape};
use prometheus::TextEncoder;

use super::world::{Target, World};

const INTERVAL: Duration = Duration::from_millis(100);

/// A backend ends at most this long after its connection: when it has executed what it was executing, and reads.
const BACKEND_END: Duration = Duration::from_secs(10);

/// How far the server's and the pools' counts may differ while connections come and go, without faults.
const MAX_DIFFERENCE: usize = 2;

/// How many scrapes in succession may show a queued checkout beside an idle connection, which it is about to take.
const MAX_IDLE_BESIDE_QUEUE: u32 = 50;

#[derive(Default)]
pub(crate) struct Observed {
    pub(crate) scrapes: usize,
    /// How often the server's count was compared.
    pub(crate) comparisons: usize,
    /// The most backends that the server had beyond the pool's live connections.
    pub(crate) most_beyond: usize,
}

pub(crate) struct Observer {
    world: Arc<World>,
    thread: Option<JoinHandle<Observed>>,
    stopping: Arc<AtomicBool>,
}

impl Observer {
    pub(crate) fn start(world: &Arc<World>) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (world, stopping) = (Arc::clone(world), Arc::clone(&stopping));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(observe(&world, &stopping))
            }
        });
        Self { world: Arc::clone(world), thread: Some(thread), stopping }
    }

    /// Returns whether the server has as many connections as the pools, while they come and go.
    pub(crate) async fn agrees(&self) -> bool {
        assert!(!self.thread.as_ref().is_some_and(JoinHandle::is_finished), "the observer has failed");
        let before = self.world.targets.each_ref().map(live);
        let Some(client) = self.world.connect().await else { return false };
        let Some(counts) = backends(&client).await else { return false };
        let after = self.world.targets.each_ref().map(live);
        self.world.targets.iter().zip(before.iter().zip(after)).all(|(target, (before, after))| {
            let count = counts.get(target.name).copied().unwrap_or_default();
            count + MAX_DIFFERENCE >= after.min(*before) && count <= after.max(*before) + MAX_DIFFERENCE
        })
    }

    pub(crate) fn stop(mut self) -> Observed {
        self.stopping.store(true, Relaxed);
        self.thread.take().unwrap().join().expect("every scrape keeps the invariants")
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stopping.store(true, Relaxed);
    }
}

fn live(target: &Target) -> usize {
    target.pool.status().live()
}

/// Returns the number of backends by application.
async fn backends(client: &Client) -> Option<BTreeMap<String, usize>> {
    let query = "SELECT application_name, count(*) FROM pg_stat_activity GROUP BY application_name";
    let rows = tokio::time::timeout(Duration::from_secs(2), client.query(query, &[])).await.ok()?.ok()?;
    Some(rows.iter().map(|row| (row.get(0), usize::try_from(row.get::<_, i64>(1)).unwrap())).collect())
}

/// What was seen of a pool so far.
#[derive(Default)]
struct History {
    monotonic: MonotonicCheck,
    idle_beside_queue: u32,
    /// The time, and how many connections were live and had been closed.
    counts: VecDeque<(Instant, usize, u64)>,
}

impl History {
    fn observe(&mut self, target: &Target) {
        let text = TextEncoder::new().encode_to_string(&target.registry.gather()).unwrap();
        let scrape = Scrape::parse(&text);
        scrape.assert_adds_up(target.name);
        self.monotonic.observe(&scrape);
        let snapshot = target.pool.snapshot();
        assert_consistent(&snapshot);
        let beside = snapshot.queued > 0 && snapshot.connections.idle > 0;
        self.idle_beside_queue = if beside { self.idle_beside_queue + 1 } else { 0 };
        assert!(self.idle_beside_queue < MAX_IDLE_BESIDE_QUEUE, "checkouts wait although connections are idle");
        self.note(&snapshot);
    }

    fn note(&mut self, snapshot: &PoolSnapshot) {
        let now = Instant::now();
        self.counts.push_back((now, snapshot.connections.live(), snapshot.closed.iter().sum()));
        // One is kept that is older.
        while self.counts.get(1).is_some_and(|(at, ..)| now - *at > BACKEND_END) {
            self.counts.pop_front();
        }
    }

    /// Checks the server's count against what was live, or was closed, within [`BACKEND_END`].
    fn compare(&mut self, target: &Target, count: usize) -> usize {
        let snapshot = target.pool.snapshot();
        self.note(&snapshot);
        let most = self.counts.iter().map(|(_, live, _)| *live).max().unwrap_or_default();
        let closed = |at: Option<&(Instant, usize, u64)>| at.map_or(0, |(.., closed)| *closed);
        let closed = usize::try_from(closed(self.counts.back()) - closed(self.counts.front())).unwrap();
        assert!(count <= most + closed, "{}: {count} backends, {most} live and {closed} closed", target.name);
        count.saturating_sub(snapshot.connections.live())
    }
}

/// Checks the invariants that concern a snapshot alone.
fn assert_consistent(snapshot: &PoolSnapshot) {
    for operation in &snapshot.operations {
        assert_eq!(operation.started, operation.outcomes.iter().sum::<u64>() + operation.in_flight, "{operation:?}");
    }
    let live = snapshot.connections.live();
    assert!(live <= snapshot.limits.max(), "{:?}", snapshot.connections);
    assert_eq!(snapshot.created, snapshot.closed.iter().sum::<u64>() + live as u64, "created = closed + live");
    assert_eq!((snapshot.holders.len(), snapshot.waiters.len()), (snapshot.connections.used, snapshot.in_flight));
    let queued = snapshot.waiters.iter().filter(|waiter| waiter.phase == Phase::Queue).count();
    assert_eq!(snapshot.queued, queued);
    for request in &snapshot.requests {
        let ended: u64 = request.durations.iter().map(poolscope::telemetry::Histogram::count).sum();
        assert_eq!(request.started, ended + request.in_flight, "{request:?}");
    }
}

async fn observe(world: &World, stopping: &AtomicBool) -> Observed {
    let mut observed = Observed::default();
    let mut histories = world.targets.each_ref().map(|_| History::default());
    let mut client = None;
    while !stopping.load(Relaxed) {
        for (target, history) in world.targets.iter().zip(&mut histories) {
            history.observe(target);
            observed.scrapes += 1;
        }
        if client.is_none() {
            client = world.connect().await;
        }
        let counts = match &client {
            Some(client) => backends(client).await,
            None => None,
        };
        if let Some(counts) = counts {
            for (target, history) in world.targets.iter().zip(&mut histories) {
                let beyond = history.compare(target, counts.get(target.name).copied().unwrap_or_default());
                observed.most_beyond = observed.most_beyond.max(beyond);
                observed.comparisons += 1;
            }
        } else {
            client = None;
        }
        tokio::time::sleep(INTERVAL).await;
    }
    observed
}

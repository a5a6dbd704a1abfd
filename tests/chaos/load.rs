//! The tasks that use the pools.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use poolscope::retry::Effects;
use poolscope::{Connection, RetryPolicy};
use tokio::task::JoinSet;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::money::{self, Effect};
use super::world::{Target, World, assert_clean};

/// No task may wait for longer for anything: its checkouts, its retries and its own limit are shorter.
const HANG: Duration = Duration::from_secs(60);

/// The limit of work that is not cancelled at random.
const LIMIT: Duration = Duration::from_secs(4);

const POLICY: RetryPolicy = RetryPolicy::new()
    .attempts(5)
    .backoff(Duration::from_millis(2), Duration::from_millis(50))
    .deadline(Some(Duration::from_secs(3)));

/// How work ended, counted by its callers.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) succeeded: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) panicked: AtomicU64,
}

pub(crate) struct Load {
    tasks: JoinSet<()>,
    stopping: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl Load {
    pub(crate) fn start(world: &Arc<World>, tasks: usize) -> Self {
        let (stopping, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let mut set = JoinSet::new();
        for task in 0..tasks {
            let (world, stopping, counts) = (Arc::clone(world), Arc::clone(&stopping), Arc::clone(&counts));
            let random = fastrand::Rng::with_seed(world.seed.wrapping_add(task as u64));
            set.spawn(async move {
                let mut caller = Caller { target: task % world.targets.len(), world, random, counts };
                while !stopping.load(Relaxed) {
                    caller.act().await;
                }
            });
        }
        Self { tasks: set, stopping, counts }
    }

    /// Waits until every task has ended.
    pub(crate) async fn stop(mut self) -> Arc<Counts> {
        self.stopping.store(true, Relaxed);
        while let Some(ended) = tokio::time::timeout(HANG, self.tasks.join_next()).await.expect("every task ends") {
            ended.unwrap();
        }
        Arc::clone(&self.counts)
    }
}

/// Tasks of a failing run end.
impl Drop for Load {
    fn drop(&mut self) {
        self.stopping.store(true, Relaxed);
    }
}

struct Caller {
    target: usize,
    world: Arc<World>,
    random: fastrand::Rng,
    counts: Arc<Counts>,
}

/// How a caller sees the end of its work; `Break` if it was cancelled.
type End = ControlFlow<(), bool>;

impl Caller {
    async fn act(&mut self) {
        // The load is far above what the pools can serve for short times only.
        tokio::time::sleep(Duration::from_millis(self.random.u64(0..500))).await;
        let cancelled_after =
            if self.random.u8(..10) < 3 { Duration::from_micros(self.random.u64(0..200_000)) } else { LIMIT };
        let (world, kind, seed) = (Arc::clone(&self.world), self.random.u8(..20), self.random.u64(..));
        let target = &world.targets[self.target];
        let began = Instant::now();
        let end = match kind {
            0..=5 => transfer(&world, target, kind % 2 == 0, seed, cancelled_after).await,
            6..=7 => do_once(&world, target, cancelled_after).await,
            8 => panics(&self.counts, target).await,
            _ => within(cancelled_after, work(target, kind, seed)).await,
        };
        assert!(began.elapsed() < HANG, "work of kind {kind} took {:?}", began.elapsed());
        let count = match end {
            ControlFlow::Continue(true) => &self.counts.succeeded,
            ControlFlow::Continue(false) => &self.counts.failed,
            ControlFlow::Break(()) => &self.counts.cancelled,
        };
        count.fetch_add(1, Relaxed);
    }
}

async fn within(limit: Duration, work: impl Future<Output = bool>) -> End {
    tokio::time::timeout(limit, work).await.map_or(ControlFlow::Break(()), ControlFlow::Continue)
}

/// Transfers money, with retries or without, and records the effect.
async fn transfer(world: &World, target: &Target, retried: bool, seed: u64, limit: Duration) -> End {
    let token = world.money.token();
    let work = async |connection: &mut Connection| {
        let _held = target.hold(connection);
        money::transfer(connection, token, seed).await
    };
    let mut effect = Effect::Unknown;
    let operation = target.pool.operation("transfer");
    let end = within(limit, async {
        if retried {
            let result = operation.retry(POLICY).run(work).await;
            effect = result.as_ref().map_or_else(|error| Effect::of(error.effects()), |()| Effect::Once);
            result.is_ok()
        } else {
            let result = operation.run(work).await;
            if result.is_ok() {
                effect = Effect::Once;
            }
            result.is_ok()
        }
    })
    .await;
    world.money.transferred(token, effect);
    end
}

/// Does idempotent work, which is retried wherever it fails.
async fn do_once(world: &World, target: &Target, limit: Duration) -> End {
    let token = world.money.token();
    let mut effect = Effect::Unknown;
    let end = within(limit, async {
        let operation = target.pool.operation("once").idempotent(true).retry(POLICY);
        let result = operation
            .run(async |connection: &mut Connection| {
                let _held = target.hold(connection);
                money::do_once(connection, token).await
            })
            .await;
        effect = match &result {
            Ok(()) => Effect::Once,
            Err(error) if error.effects() == Effects::None => Effect::Never,
            Err(_) => Effect::Unknown,
        };
        result.is_ok()
    })
    .await;
    world.money.done_once(token, effect);
    end
}

/// Panics in an operation.
async fn panics(counts: &Counts, target: &Target) -> End {
    let work = target.pool.operation("panics").run(async |connection: &mut Connection| {
        let _held = target.hold(connection);
        // Without the hook, which would print it.
        resume_unwind(Box::new("scripted"));
        #[allow(unreachable_code, reason = "determines the type of the error")]
        Ok::<(), Infallible>(())
    });
    use futures_util::FutureExt as _;
    match within(LIMIT, std::panic::AssertUnwindSafe(work).catch_unwind().map(|result| result.is_ok())).await {
        ControlFlow::Continue(false) => {
            counts.panicked.fetch_add(1, Relaxed);
            ControlFlow::Continue(false)
        }
        end => end,
    }
}

async fn work(target: &Target, kind: u8, seed: u64) -> bool {
    let pool = &target.pool;
    let mut random = fastrand::Rng::with_seed(seed);
    if matches!(kind, 9..=11) {
        return request(target, seed).await;
    }
    let Ok(connection) = pool.operation("work").get().await else { return false };
    let held = target.hold(&connection);
    let done = match kind {
        12..=13 => money::audit(&connection).await,
        14..=15 => assert_clean(&connection).await,
        16 => connection.batch_execute(&format!("SELECT pg_sleep({})", random.f64() * 0.2)).await,
        17 => {
            let dirt = [
                "BEGIN",
                "BEGIN; SELECT broken",
                "SET search_path = pg_catalog",
                "SELECT pg_advisory_lock_shared(1)",
                "LISTEN chaos",
            ];
            connection.batch_execute(dirt[random.usize(..dirt.len())]).await
        }
        18 => read_some_rows(&connection).await,
        _ => {
            drop(held);
            connection.discard();
            return true;
        }
    };
    done.is_ok()
}

/// Leaves a stream before its end.
pub(crate) async fn read_some_rows(connection: &Connection) -> Result<(), poolscope::tokio_postgres::Error> {
    let parameters: [i32; 0] = [];
    let rows = connection.query_raw("SELECT n FROM generate_series(1, 2000) AS n", parameters).await?;
    let mut rows = std::pin::pin!(rows);
    for _ in 0..3 {
        let Some(row) = rows.next().await else { break };
        row?;
    }
    Ok(())
}

/// Serves a request through the middleware, whose handler uses the pool.
async fn request(target: &Target, seed: u64) -> bool {
    let handler = service_fn(|_: Request<Full<Bytes>>| async {
        let answer = |status| Response::builder().status(status).body(Full::<Bytes>::from("done")).unwrap();
        let Ok(connection) = target.pool.get().await else { return Ok(answer(StatusCode::SERVICE_UNAVAILABLE)) };
        let _held = target.hold(&connection);
        let done = money::audit(&connection).await;
        Ok::<_, Infallible>(answer(if done.is_ok() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }))
    });
    let path = if seed.is_multiple_of(2) { "/orders" } else { "/items" };
    let request = Request::get(path).body(Full::default()).unwrap();
    let Ok(response) = target.layer.layer(handler).oneshot(request).await;
    let status = response.status();
    response.into_body().collect().await.is_ok() && status == StatusCode::OK
}

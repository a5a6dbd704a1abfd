//! `SELECT 1` on a real server, over a Unix socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleResult};
use deadpool_postgres::{ClientWrapper, ManagerConfig, RecyclingMethod};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use poolscope::pool::Backend;
use poolscope::telemetry::Collector;
use poolscope_testing::server::Server;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{NoTls, Statement};

use crate::affinity::Pinned;
use crate::comparison::{Comparison, interquartile_mean, median, ratio};
use crate::minimal_pool::MinimalPool;
use crate::pools::{BareDeadpool, BenchPool, POOL_SIZE, Poolscope, SimpleWrapper, deadpool_with_timeouts, fill};
use crate::report::Row;
use crate::{BoxError, Scale};

/// A connection, its prepared query, and its backend process.
#[derive(Debug)]
struct Session {
    client: ClientWrapper,
    select: Statement,
    server: i32,
}

impl Session {
    async fn select(&self) -> Result<(), tokio_postgres::Error> {
        self.client.query_one(&self.select, &[]).await.map(drop)
    }
}

/// Gives the same few connections to each compared pool, so that sockets and server processes are the same for all.
#[derive(Clone, Debug)]
struct SharedSessions {
    sessions: Arc<[Arc<Session>]>,
    next: Arc<AtomicUsize>,
}

impl SharedSessions {
    async fn open(server: &Server, count: usize) -> Result<Self, BoxError> {
        let mut sessions = Vec::with_capacity(count);
        for _ in 0..count {
            let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await?;
            let task = tokio::spawn(async move { drop(connection.await) });
            let client = ClientWrapper::new(client, task);
            let select = client.prepare("SELECT 1").await?;
            let server = client.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
            sessions.push(Arc::new(Session { client, select, server }));
        }
        Ok(Self { sessions: sessions.into(), next: Arc::default() })
    }

    fn for_next_pool(&self) -> Self {
        Self { next: Arc::default(), ..self.clone() }
    }

    fn servers(&self) -> Vec<i32> {
        self.sessions.iter().map(|session| session.server).collect()
    }
}

impl Manager for SharedSessions {
    type Type = Arc<Session>;
    type Error = tokio_postgres::Error;

    async fn create(&self) -> Result<Arc<Session>, tokio_postgres::Error> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::clone(&self.sessions[turn % self.sessions.len()]))
    }

    /// Checks only whether the session is closed, as deadpool-postgres does by default. Poolscope checks that itself,
    /// and would ping here.
    async fn recycle(&self, session: &mut Arc<Session>, _: &Metrics) -> RecycleResult<tokio_postgres::Error> {
        if session.client.is_closed() {
            return Err(deadpool::managed::RecycleError::message("closed"));
        }
        Ok(())
    }
}

impl Backend for SharedSessions {
    fn is_broken(session: &Arc<Session>) -> bool {
        session.client.is_closed()
    }
}

/// The rows of these sections, and facts about the server.
pub(crate) struct Measured {
    pub(crate) rows: Vec<Row>,
    pub(crate) version: String,
    pub(crate) pinned: bool,
}

pub(crate) fn measure(scale: Scale) -> Result<Measured, BoxError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let server = runtime.block_on(Server::builder().setting("max_connections", "60").start())?;
    let version = runtime.block_on(version(&server))?;
    let (mut rows, pinned) = one_task(scale, &runtime, &server)?;
    crate::log_progress("throughput and client CPU, 16 and 64 tasks");
    rows.extend(many_tasks(scale, &server)?);
    crate::log_progress("one connection per query, and Verified");
    rows.extend(defaults(scale, &runtime, &server)?);
    crate::log_progress("protocol observer");
    rows.extend(crate::wire::measure(scale, &runtime, &server)?);
    Ok(Measured { rows, version, pinned })
}

async fn version(server: &Server) -> Result<String, BoxError> {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await?;
    let task = tokio::spawn(connection);
    let version = client.query_one("SHOW server_version", &[]).await?.try_get(0)?;
    drop(client);
    task.await??;
    Ok(version)
}

/// One connection for all pools, whose order is random for every query.
fn one_task(scale: Scale, runtime: &Runtime, server: &Server) -> Result<(Vec<Row>, bool), BoxError> {
    let sessions = runtime.block_on(SharedSessions::open(server, 1))?;
    let pinned = Pinned::on_separate_cores(&sessions.servers());
    let pool = || sessions.for_next_pool();
    let pools = (
        BareDeadpool::with_timeouts(pool())?,
        BareDeadpool::with_timeouts(pool())?,
        BareDeadpool::without_timeouts(pool())?,
        SimpleWrapper::new(pool())?,
        Poolscope::new(pool())?,
    );
    let mut comparison = Comparison::new();
    let bare = comparison.add(|| query(&pools.0));
    let control = comparison.add(|| query(&pools.1));
    let untimed = comparison.add(|| query(&pools.2));
    let wrapper = comparison.add(|| query(&pools.3));
    let ours = comparison.add(|| query(&pools.4));
    let times = runtime.block_on(comparison.run(scale.of(150_000)))?;
    let means: Vec<f64> = times.iter().map(|times| interquartile_mean(times)).collect();
    let rows = vec![
        Row::ratio("select1_1", "time of checkout, SELECT 1 and return, one task", means[ours] / means[bare])
            .control(means[control] / means[bare])
            .at_most(1.005),
        Row::ratio(
            "select1_1_median",
            "the same by medians",
            median(times[ours].clone()) / median(times[bare].clone()),
        )
        .control(median(times[control].clone()) / median(times[bare].clone())),
        Row::ratio("select1_1_untimed", "the same, over deadpool without timeouts", means[ours] / means[untimed]),
        Row::ratio("select1_1_naive", "the same for the simple wrapper", means[wrapper] / means[bare]),
        Row::count("select1_1_bare_us", "microseconds per query, deadpool", means[bare] * 1e6),
    ];
    Ok((rows, pinned.is_some()))
}

async fn query<C: BenchPool<Arc<Session>>>(pool: &C) -> Result<f64, BoxError> {
    let start = Instant::now();
    let guard = pool.checkout().await.map_err(|error| format!("{error:?}"))?;
    guard.select().await?;
    drop(guard);
    Ok(start.elapsed().as_secs_f64())
}

/// Wall-clock and CPU time of a batch of queries, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

/// Queries in a batch, whatever the number of tasks.
pub(crate) const BATCH: usize = 2_560;

fn many_tasks(scale: Scale, server: &Server) -> Result<Vec<Row>, BoxError> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let sessions = runtime.block_on(SharedSessions::open(server, POOL_SIZE))?;
    let pool = || sessions.for_next_pool();
    let pools = (
        BareDeadpool::with_timeouts(pool())?,
        BareDeadpool::with_timeouts(pool())?,
        BareDeadpool::without_timeouts(pool())?,
        Poolscope::new(pool())?,
        MinimalPool::with_timeouts(pool())?,
    );
    runtime.block_on(async {
        fill(&pools.0).await?;
        fill(&pools.1).await?;
        fill(&pools.2).await?;
        fill(&pools.3).await?;
        fill(&pools.4).await
    })?;
    let mut rows = Vec::new();
    for tasks in [64, 16] {
        let mut comparison = Comparison::new();
        let bare = comparison.add(|| batch(&pools.0, &runtime, tasks));
        let control = comparison.add(|| batch(&pools.1, &runtime, tasks));
        let untimed = comparison.add(|| batch(&pools.2, &runtime, tasks));
        let ours = comparison.add(|| batch(&pools.3, &runtime, tasks));
        let minimal = comparison.add(|| batch(&pools.4, &runtime, tasks));
        let costs = runtime.block_on(comparison.run(scale.of(250)))?;
        let of = |what: fn(&Cost) -> f64| -> Vec<Vec<f64>> {
            costs.iter().map(|costs| costs.iter().map(what).collect()).collect()
        };
        let (wall, cpu) = (of(|cost| cost.wall), of(|cost| cost.cpu));
        if tasks == 64 {
            rows.push(
                Row::ratio("select1_64_throughput", "SELECT 1 per second, 64 tasks", ratio(&wall[bare], &wall[ours]))
                    .control(ratio(&wall[bare], &wall[control]))
                    .at_least(0.99),
            );
            rows.push(Row::ratio(
                "select1_64_minimal",
                "the same for the least accounting",
                ratio(&wall[bare], &wall[minimal]),
            ));
        }
        let [key, key_untimed, key_minimal] = if tasks == 64 {
            ["cpu_64", "cpu_64_untimed", "cpu_64_minimal"]
        } else {
            ["cpu_16", "cpu_16_untimed", "cpu_16_minimal"]
        };
        let what =
            if tasks == 64 { "client CPU time per query, 64 tasks" } else { "client CPU time per query, 16 tasks" };
        rows.push(
            Row::ratio(key, what, ratio(&cpu[ours], &cpu[bare]))
                .control(ratio(&cpu[control], &cpu[bare]))
                .at_most(1.015),
        );
        rows.push(Row::ratio(
            key_untimed,
            "the same, over deadpool without timeouts",
            ratio(&cpu[ours], &cpu[untimed]),
        ));
        rows.push(Row::ratio(
            key_minimal,
            "the same for the least accounting, over deadpool",
            ratio(&cpu[minimal], &cpu[bare]),
        ));
    }
    Ok(rows)
}

async fn batch<C: BenchPool<Arc<Session>>>(pool: &C, runtime: &Runtime, tasks: usize) -> Result<Cost, BoxError> {
    let cpu = cpu()?;
    let start = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let pool = pool.clone();
            runtime.spawn(async move {
                for _ in 0..BATCH / tasks {
                    let Ok(guard) = pool.checkout().await else { return false };
                    if guard.select().await.is_err() {
                        return false;
                    }
                }
                true
            })
        })
        .collect();
    for task in tasks {
        if !task.await? {
            return Err("a checkout or a query failed".into());
        }
    }
    Ok(Cost { wall: start.elapsed().as_secs_f64(), cpu: self::cpu()? - cpu })
}

/// Returns the CPU time of this process, in seconds.
#[allow(clippy::cast_precision_loss, reason = "exact for 285 years of microseconds")]
pub(crate) fn cpu() -> Result<f64, BoxError> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
}

/// Poolscope with its own manager and pre-ping, against the alternatives.
fn defaults(scale: Scale, runtime: &Runtime, server: &Server) -> Result<Vec<Row>, BoxError> {
    const QUERIES: u32 = 500;
    const CONNECTIONS: u32 = 20;

    let url = server.url();
    let ours = poolscope::Pool::builder().url(&url).collector(Collector::new()).build()?;
    let verified = || {
        let config = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let manager = deadpool_postgres::Manager::from_config(url.parse()?, NoTls, config);
        deadpool_with_timeouts(manager, true)
    };
    let (verified, control) = (verified()?, verified()?);

    let mut comparison = Comparison::new();
    let [prepared, simple] = [Query::Prepared, Query::Simple].map(|query| {
        let ours = comparison.add({
            let ours = &ours;
            move || time_each(QUERIES, async move || query.run(&*ours.get().await?).await)
        });
        let [verified, control] = [&verified, &control]
            .map(|pool| comparison.add(move || time_each(QUERIES, async move || query.run(&*pool.get().await?).await)));
        [ours, verified, control]
    });
    let times = runtime.block_on(comparison.run(scale.of(60)))?;
    let pinging = |key, what, [ours, verified, control]: [usize; 3]| {
        Row::ratio(key, what, ratio(&times[verified], &times[ours])).control(ratio(&times[verified], &times[control]))
    };

    // Separate from the above, as the server is busy with closed connections for a while.
    let mut comparison = Comparison::new();
    let pooled = comparison.add(|| time_each(QUERIES, async || Query::Simple.run(&*ours.get().await?).await));
    let connecting = comparison.add(|| {
        time_each(CONNECTIONS, async || {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
            let task = tokio::spawn(connection);
            client.simple_query("SELECT 1").await?;
            drop(client);
            task.await??;
            Ok(())
        })
    });
    let rates = runtime.block_on(comparison.run(scale.of(60)))?;
    Ok(vec![
        Row::ratio(
            "pooled_vs_connect_per_query",
            "queries per second, over one connection per query",
            ratio(&rates[connecting], &rates[pooled]),
        )
        .at_least(50.0),
        pinging("preping_vs_verified", "queries per second, pre-ping over deadpool's Verified", prepared).at_least(2.0),
        pinging("preping_vs_verified_simple", "the same by the simple query protocol", simple),
    ])
}

/// How `SELECT 1` is sent, in one round trip each.
#[derive(Clone, Copy, Debug)]
enum Query {
    /// Prepared once per connection, as in the other comparisons.
    Prepared,
    /// By the simple query protocol.
    Simple,
}

impl Query {
    async fn run(self, client: &ClientWrapper) -> Result<(), BoxError> {
        match self {
            Self::Prepared => {
                let select = client.prepare_cached("SELECT 1").await?;
                client.query_one(&select, &[]).await?;
            }
            Self::Simple => {
                client.simple_query("SELECT 1").await?;
            }
        }
        Ok(())
    }
}

/// Returns the seconds per call over `count` calls.
pub(crate) async fn time_each(count: u32, mut one: impl AsyncFnMut() -> Result<(), BoxError>) -> Result<f64, BoxError> {
    let start = Instant::now();
    for _ in 0..count {
        one().await?;
    }
    Ok((start.elapsed() / count).max(Duration::from_nanos(1)).as_secs_f64())
}

//! `SELECT 1` on a real server, through a Unix socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleResult};
use deadpool_postgres::{ClientWrapper, ManagerConfig, RecyclingMethod};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use poolscope::demo::server::Server;
use poolscope::pool::Backend;
use poolscope::telemetry::Collector;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{NoTls, Statement};

use crate::affinity::Pinned;
use crate::comparison::{Rounds, median, middle_mean, ratio};
use crate::pools::{Bare, Contestant, Ours, POOL_SIZE, Straightforward, fill, timed};
use crate::report::Row;
use crate::{Failure, Scale};

/// A connection, its prepared query, and the process that serves it.
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

/// Hands the same few connections to each pool that is compared, so that none has the better socket, nor a server
/// process in the better place.
#[derive(Clone, Debug)]
struct SameSessions {
    sessions: Arc<[Arc<Session>]>,
    next: Arc<AtomicUsize>,
}

impl SameSessions {
    async fn open(server: &Server, count: usize) -> Result<Self, Failure> {
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

    fn for_another_pool(&self) -> Self {
        Self { next: Arc::default(), ..self.clone() }
    }

    fn servers(&self) -> Vec<i32> {
        self.sessions.iter().map(|session| session.server).collect()
    }
}

impl Manager for SameSessions {
    type Type = Arc<Session>;
    type Error = tokio_postgres::Error;

    async fn create(&self) -> Result<Arc<Session>, tokio_postgres::Error> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::clone(&self.sessions[turn % self.sessions.len()]))
    }

    /// What deadpool-postgres does by default: look whether it is closed. Ours asks that itself, and would ping here.
    async fn recycle(&self, session: &mut Arc<Session>, _: &Metrics) -> RecycleResult<tokio_postgres::Error> {
        if session.client.is_closed() {
            return Err(deadpool::managed::RecycleError::message("closed"));
        }
        Ok(())
    }
}

impl Backend for SameSessions {
    fn is_broken(session: &Arc<Session>) -> bool {
        session.client.is_closed()
    }
}

/// What the sections below found, and what is to be said beside the table.
pub(crate) struct Measured {
    pub(crate) rows: Vec<Row>,
    pub(crate) version: String,
    pub(crate) pinned: bool,
}

pub(crate) fn measure(scale: Scale) -> Result<Measured, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let server = runtime.block_on(Server::builder().setting("max_connections", "60").start())?;
    let version = runtime.block_on(version(&server))?;
    let (mut rows, pinned) = one_task(scale, &runtime, &server)?;
    crate::say("throughput and client CPU, 16 and 64 tasks");
    rows.extend(many_tasks(scale, &server)?);
    crate::say("a connection for each query, and Verified");
    rows.extend(defaults(scale, &runtime, &server)?);
    crate::say("reading the wire");
    rows.extend(crate::wire::measure(scale, &runtime, &server)?);
    Ok(Measured { rows, version, pinned })
}

async fn version(server: &Server) -> Result<String, Failure> {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await?;
    let task = tokio::spawn(connection);
    let version = client.query_one("SHOW server_version", &[]).await?.try_get(0)?;
    drop(client);
    task.await??;
    Ok(version)
}

/// One connection for all pools; which one's turn it is changes with every query.
fn one_task(scale: Scale, runtime: &Runtime, server: &Server) -> Result<(Vec<Row>, bool), Failure> {
    let sessions = runtime.block_on(SameSessions::open(server, 1))?;
    let pinned = Pinned::apart(&sessions.servers());
    let pool = || sessions.for_another_pool();
    let pools = (
        Bare::timed(pool())?,
        Bare::timed(pool())?,
        Bare::untimed(pool())?,
        Straightforward::new(pool())?,
        Ours::new(pool())?,
    );
    let mut rounds = Rounds::new();
    let bare = rounds.add(|| query(&pools.0));
    let control = rounds.add(|| query(&pools.1));
    let untimed = rounds.add(|| query(&pools.2));
    let naive = rounds.add(|| query(&pools.3));
    let ours = rounds.add(|| query(&pools.4));
    let times = runtime.block_on(rounds.run(scale.of(150_000)))?;
    let means: Vec<f64> = times.iter().map(|times| middle_mean(times)).collect();
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
        Row::ratio("select1_1_untimed", "over a deadpool without timeouts", means[ours] / means[untimed]),
        Row::ratio("select1_1_naive", "the straightforward wrapper", means[naive] / means[bare]),
        Row::count("select1_1_bare_us", "microseconds, deadpool", means[bare] * 1e6),
    ];
    Ok((rows, pinned.is_some()))
}

async fn query<C: Contestant<Arc<Session>>>(pool: &C) -> Result<f64, Failure> {
    let begun = Instant::now();
    let guard = pool.checkout().await.map_err(|error| format!("{error:?}"))?;
    guard.select().await?;
    drop(guard);
    Ok(begun.elapsed().as_secs_f64())
}

/// What a batch of queries took: of the clock, and of this process's processors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

/// Queries in a batch, however many tasks share them.
pub(crate) const BATCH: usize = 2_560;

fn many_tasks(scale: Scale, server: &Server) -> Result<Vec<Row>, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let sessions = runtime.block_on(SameSessions::open(server, POOL_SIZE))?;
    let pool = || sessions.for_another_pool();
    let pools = (Bare::timed(pool())?, Bare::timed(pool())?, Bare::untimed(pool())?, Ours::new(pool())?);
    runtime.block_on(async {
        fill(&pools.0).await?;
        fill(&pools.1).await?;
        fill(&pools.2).await?;
        fill(&pools.3).await
    })?;
    let mut rows = Vec::new();
    for tasks in [64, 16] {
        let mut rounds = Rounds::new();
        let bare = rounds.add(|| batch(&pools.0, &runtime, tasks));
        let control = rounds.add(|| batch(&pools.1, &runtime, tasks));
        let untimed = rounds.add(|| batch(&pools.2, &runtime, tasks));
        let ours = rounds.add(|| batch(&pools.3, &runtime, tasks));
        let costs = runtime.block_on(rounds.run(scale.of(250)))?;
        let of = |what: fn(&Cost) -> f64| -> Vec<Vec<f64>> {
            costs.iter().map(|costs| costs.iter().map(what).collect()).collect()
        };
        let (wall, cpu) = (of(|cost| cost.wall), of(|cost| cost.cpu));
        if tasks == 64 {
            rows.push(
                Row::ratio("select1_64_throughput", "SELECT 1 a second, 64 tasks", ratio(&wall[bare], &wall[ours]))
                    .control(ratio(&wall[bare], &wall[control]))
                    .at_least(0.99),
            );
        }
        let (key, key_untimed) = if tasks == 64 { ("cpu_64", "cpu_64_untimed") } else { ("cpu_16", "cpu_16_untimed") };
        let what = if tasks == 64 { "client CPU for a query, 64 tasks" } else { "client CPU for a query, 16 tasks" };
        rows.push(
            Row::ratio(key, what, ratio(&cpu[ours], &cpu[bare]))
                .control(ratio(&cpu[control], &cpu[bare]))
                .at_most(1.015),
        );
        rows.push(Row::ratio(key_untimed, "over a deadpool without timeouts", ratio(&cpu[ours], &cpu[untimed])));
    }
    Ok(rows)
}

async fn batch<C: Contestant<Arc<Session>>>(pool: &C, runtime: &Runtime, tasks: usize) -> Result<Cost, Failure> {
    let cpu = cpu()?;
    let begun = Instant::now();
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
    Ok(Cost { wall: begun.elapsed().as_secs_f64(), cpu: self::cpu()? - cpu })
}

/// Seconds of processor time that this process has had.
#[allow(clippy::cast_precision_loss, reason = "exact for 285 years of microseconds")]
pub(crate) fn cpu() -> Result<f64, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
}

/// Our pool as it comes, by its own manager and with pre-ping, against what one would do without it.
fn defaults(scale: Scale, runtime: &Runtime, server: &Server) -> Result<Vec<Row>, Failure> {
    const QUERIES: u32 = 500;
    const CONNECTIONS: u32 = 20;

    let url = server.url();
    let ours = poolscope::Pool::builder().url(&url).collector(Collector::new()).build()?;
    let verified = || {
        let config = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let manager = deadpool_postgres::Manager::from_config(url.parse()?, NoTls, config);
        timed(manager, true)
    };
    let (verified, control) = (verified()?, verified()?);

    let mut rounds = Rounds::new();
    let [prepared, simple] = [Query::Prepared, Query::Simple].map(|query| {
        let ours = rounds.add({
            let ours = &ours;
            move || each(QUERIES, async move || query.run(&*ours.get().await?).await)
        });
        let [verified, control] = [&verified, &control]
            .map(|pool| rounds.add(move || each(QUERIES, async move || query.run(&*pool.get().await?).await)));
        [ours, verified, control]
    });
    let times = runtime.block_on(rounds.run(scale.of(60)))?;
    let pinging = |key, what, [ours, verified, control]: [usize; 3]| {
        Row::ratio(key, what, ratio(&times[verified], &times[ours])).control(ratio(&times[verified], &times[control]))
    };

    // Apart from the above, for the server is busy with the connections that ended for a while longer.
    let mut rounds = Rounds::new();
    let pooled = rounds.add(|| each(QUERIES, async || Query::Simple.run(&*ours.get().await?).await));
    let connecting = rounds.add(|| {
        each(CONNECTIONS, async || {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
            let task = tokio::spawn(connection);
            client.simple_query("SELECT 1").await?;
            drop(client);
            task.await??;
            Ok(())
        })
    });
    let rates = runtime.block_on(rounds.run(scale.of(60)))?;
    Ok(vec![
        Row::ratio(
            "pooled_vs_connect_per_query",
            "queries a second, ours over a connection for each query",
            ratio(&rates[connecting], &rates[pooled]),
        )
        .at_least(50.0),
        pinging("preping_vs_verified", "queries a second, ours with its pre-ping over deadpool's Verified", prepared)
            .at_least(2.0),
        pinging("preping_vs_verified_simple", "the same, the query not prepared but sent as text", simple),
    ])
}

/// How `SELECT 1` is asked: in one round trip either way.
#[derive(Clone, Copy, Debug)]
enum Query {
    /// Prepared once for each connection, as in the other comparisons.
    Prepared,
    /// By the simple protocol.
    Simple,
}

impl Query {
    async fn run(self, client: &ClientWrapper) -> Result<(), Failure> {
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

/// Seconds for each of so many.
pub(crate) async fn each(count: u32, mut one: impl AsyncFnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let begun = Instant::now();
    for _ in 0..count {
        one().await?;
    }
    Ok((begun.elapsed() / count).max(Duration::from_nanos(1)).as_secs_f64())
}

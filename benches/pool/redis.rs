//! `GET` on a real Redis, over a Unix socket.

use std::fmt::Debug;
use std::time::Instant;

use deadpool::managed::{Manager, Metrics, RecycleResult};
use deadpool_redis::Manager as RedisManager;
use poolscope::redis::PoolBuilder;
use poolscope::redis::redis::aio::{ConnectionLike, MultiplexedConnection};
use poolscope::redis::redis::{RedisError, cmd};
use poolscope::telemetry::Collector;
use poolscope_testing::redis::Server;
use tokio::runtime::Builder;

use crate::affinity::Pinned;
use crate::comparison::{Comparison, interquartile_mean};
use crate::pools::{POOL_SIZE, deadpool_with_timeouts};
use crate::report::Row;
use crate::{BoxError, Scale};

/// deadpool-redis's manager without its round trip at each checkout: Poolscope sends none either to a connection that was
/// alive a moment ago.
#[derive(Debug)]
struct Unpinged(RedisManager);

impl Manager for Unpinged {
    type Type = MultiplexedConnection;
    type Error = RedisError;

    async fn create(&self) -> Result<MultiplexedConnection, RedisError> {
        self.0.create().await
    }

    async fn recycle(&self, _: &mut MultiplexedConnection, _: &Metrics) -> RecycleResult<RedisError> {
        Ok(())
    }
}

pub(crate) fn measure(scale: Scale) -> Result<Vec<Row>, BoxError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let server = runtime.block_on(Server::builder().start())?;
    server.command(&["SET", "key", "value"])?;
    let process = server.info("process_id")?.and_then(|id| id.parse().ok());
    let _pinned = process.map(|process: i32| Pinned::on_separate_cores(&[process]));
    let url = server.url();
    let pinged = || deadpool_with_timeouts(RedisManager::new(&*url)?, true);
    let unpinged = || deadpool_with_timeouts(Unpinged(RedisManager::new(&*url)?), false);
    let (pinged, pinged_control) = (pinged()?, pinged()?);
    let (unpinged, unpinged_control) = (unpinged()?, unpinged()?);
    let collector = Collector::new();
    let ours = PoolBuilder::new().url(&url).pool_size(POOL_SIZE).max_overflow(0).collector(collector).build()?;

    let mut comparison = Comparison::new();
    let bare = comparison.add(|| timed(async || get(&mut *failed(pinged.get().await)?).await));
    let control = comparison.add(|| timed(async || get(&mut *failed(pinged_control.get().await)?).await));
    let bare_unpinged = comparison.add(|| timed(async || get(&mut *failed(unpinged.get().await)?).await));
    let control_unpinged = comparison.add(|| timed(async || get(&mut *failed(unpinged_control.get().await)?).await));
    let poolscope = comparison.add(|| timed(async || get(&mut failed(ours.get().await)?).await));
    let times = runtime.block_on(comparison.run(scale.of(40_000)))?;
    let means: Vec<f64> = times.iter().map(|times| interquartile_mean(times)).collect();
    Ok(vec![
        Row::ratio(
            "redis_get_1",
            "time of checkout, GET and return, over deadpool-redis",
            means[poolscope] / means[bare],
        )
        .control(means[control] / means[bare])
        .at_most(1.01),
        Row::ratio(
            "redis_get_1_unpinged",
            "the same, over deadpool-redis without its round trip at each checkout",
            means[poolscope] / means[bare_unpinged],
        )
        .control(means[control_unpinged] / means[bare_unpinged]),
        Row::count("redis_get_1_bare_us", "microseconds per GET, deadpool-redis", means[bare] * 1e6),
    ])
}

fn failed<T, E: Debug>(checkout: Result<T, E>) -> Result<T, BoxError> {
    checkout.map_err(|error| format!("{error:?}").into())
}

async fn get(connection: &mut impl ConnectionLike) -> Result<(), BoxError> {
    let value: Vec<u8> = cmd("GET").arg("key").query_async(connection).await?;
    if value == b"value" { Ok(()) } else { Err("another value".into()) }
}

/// Returns the seconds that one call takes.
async fn timed(one: impl AsyncFnOnce() -> Result<(), BoxError>) -> Result<f64, BoxError> {
    let start = Instant::now();
    one().await?;
    Ok(start.elapsed().as_secs_f64())
}

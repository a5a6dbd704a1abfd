//! A hit of the cache against a bare `GET`, and a cached page against an uncached one.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use poolscope::Pool;
use poolscope::cache::Cache;
use poolscope::redis::PoolBuilder;
use poolscope::redis::redis::cmd;
use poolscope::telemetry::Collector;
use poolscope_testing::redis::Server as RedisServer;
use poolscope_testing::server::Server;
use tokio::runtime::Builder;

use crate::affinity::Pinned;
use crate::comparison::{Comparison, interquartile_mean};
use crate::pools::POOL_SIZE;
use crate::report::Row;
use crate::{BoxError, Scale};

/// A query that reads 20,000 rows, as for a report on a page.
const PAGE: &str =
    "SELECT string_agg(n::text, ',') FROM (SELECT n FROM generate_series(1, 20000) n WHERE n % 200 = 0) AS n";

/// The length of the header of stored values.
const HEADER_BYTES: usize = 32;

pub(crate) fn measure(scale: Scale) -> Result<Vec<Row>, BoxError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let redis_server = runtime.block_on(RedisServer::builder().start())?;
    let server = runtime.block_on(Server::builder().start())?;
    let process = redis_server.info("process_id")?.and_then(|id| id.parse().ok());
    let _pinned = process.map(|process: i32| Pinned::on_separate_cores(&[process]));
    let pool = Pool::builder().url(&server.url()).collector(Collector::new()).build()?;
    let builder = PoolBuilder::new().url(&redis_server.url()).pool_size(POOL_SIZE).max_overflow(0);
    let redis = builder.collector(Collector::new()).build()?;
    let cache = Cache::<String>::builder(&redis, "page").time_to_live(Duration::from_secs(3600));
    let cache = cache.deadline(Duration::from_secs(60)).loads_from(&pool).build()?;
    let page = async || -> Result<String, BoxError> {
        let connection = failed(pool.get().await)?;
        let statement = connection.prepare_cached(PAGE).await?;
        Ok(connection.query_one(&statement, &[]).await?.get(0))
    };
    let cached = async || {
        let load = async || page().await.map(Some).map_err(|error| error.to_string());
        failed(cache.get_or_load("1", load).await)?.ok_or_else(|| "no page".into())
    };
    let bare = async || -> Result<String, BoxError> {
        let mut connection = failed(redis.get().await)?;
        let stored: Vec<u8> = cmd("GET").arg("poolscope:page:v1:1").query_async(&mut connection).await?;
        // With the decoding, which both need.
        Ok(serde_json::from_slice(stored.get(HEADER_BYTES..).unwrap_or_default())?)
    };
    // Stores the page.
    let length = runtime.block_on(cached())?.len();
    let check =
        |page: Result<String, BoxError>| if page?.len() >= length { Ok(()) } else { Err("another page".into()) };

    let mut comparison = Comparison::new();
    let get = comparison.add(|| timed(async || check(bare().await)));
    let control = comparison.add(|| timed(async || check(bare().await)));
    let hit = comparison.add(|| timed(async || check(cached().await)));
    let uncached = comparison.add(|| timed(async || check(page().await)));
    let times = runtime.block_on(comparison.run(scale.of(10_000)))?;
    let means: Vec<f64> = times.iter().map(|times| interquartile_mean(times)).collect();
    Ok(vec![
        Row::ratio(
            "cache_hit",
            "time of a hit, over checkout, GET and return of the same value",
            means[hit] / means[get],
        )
        .control(means[control] / means[get])
        .at_most(1.05),
        Row::ratio("cached_page", "time of a page of one query, cached over uncached", means[hit] / means[uncached]),
        Row::count("uncached_page_us", "microseconds of that page, uncached", means[uncached] * 1e6),
    ])
}

fn failed<T, E: Debug>(result: Result<T, E>) -> Result<T, BoxError> {
    result.map_err(|error| format!("{error:?}").into())
}

/// Returns the seconds that one call takes.
async fn timed(one: impl AsyncFnOnce() -> Result<(), BoxError>) -> Result<f64, BoxError> {
    let start = Instant::now();
    one().await?;
    Ok(start.elapsed().as_secs_f64())
}

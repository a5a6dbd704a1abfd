//! The invariants of accounting while the server fails and callers give up, as for PostgreSQL.

#[allow(dead_code, reason = "shared with the tests over a scripted backend")]
#[path = "../support/invariants.rs"]
mod shared;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use poolscope::cache::{Cache, LoadError};
use poolscope::labels::{CacheResult, Outcome};
use poolscope::redis::redis::{AsyncCommands, cmd, pipe};
use poolscope::redis::{Connection, redis};
use poolscope::telemetry::OperationTotals;

use crate::support::{TestPool, eventually, server, with_deadline};
use shared::{check_accounts, check_monotonic};

/// Uses a connection in one of several ways, some of which leave it dirty.
async fn use_somehow(connection: &mut Connection, kind: u8) -> redis::RedisResult<()> {
    match kind {
        0 => connection.set("a", 1).await,
        1 => pipe().atomic().incr("n", 1).get("a").query_async::<(i64, i64)>(connection).await.map(drop),
        2 => cmd("MULTI").query_async(connection).await,
        3 => cmd("SELECT").arg(7).query_async(connection).await,
        4 => cmd("WATCH").arg("a").query_async(connection).await,
        5 => connection.blpop("nothing", 0.002).await,
        6 => cmd("DEBUG").arg("SLEEP").arg(0.002).query_async(connection).await,
        _ => connection.lpush::<_, _, i64>("a", 1).await.map(drop),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hold_while_the_server_fails_and_callers_give_up() {
    let server = server().await;
    let settings = |builder: poolscope::redis::PoolBuilder| {
        builder.pool_size(4).max_overflow(2).checkout_timeout(Duration::from_millis(300)).pre_ping_idle(Duration::ZERO)
    };
    let test = TestPool::new(&server.url(), settings);
    let until = Instant::now() + Duration::from_secs(2);
    let workers: Vec<_> = (0..24)
        .map(|worker| {
            let pool = test.pool.clone();
            tokio::spawn(async move {
                let operation = pool.operation(&format!("worker {}", worker % 6));
                while Instant::now() < until {
                    let kind = fastrand::u8(..8);
                    let work = async {
                        if let Ok(mut connection) = with_deadline("a checkout", operation.get()).await {
                            let _ = with_deadline(&format!("kind {kind}"), use_somehow(&mut connection, kind)).await;
                        }
                    };
                    // Some are dropped at any point.
                    if fastrand::u8(..4) == 0 {
                        let _ = tokio::time::timeout(Duration::from_micros(fastrand::u64(..5000)), work).await;
                    } else {
                        work.await;
                    }
                }
            })
        })
        .collect();
    let mut before = test.snapshot();
    let mut faults = 0;
    while Instant::now() < until {
        let now = test.snapshot();
        check_accounts(&now, 0);
        check_monotonic(&before, &now);
        before = now;
        faults += 1;
        if faults % 40 == 0 {
            server.kill().unwrap();
            server.start().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for worker in workers {
        worker.await.unwrap();
    }
    eventually("quiescence", async || {
        let status = test.pool.status();
        status.used + status.creating + status.closing + status.in_flight == 0
    })
    .await;
    let snapshot = test.snapshot();
    check_accounts(&snapshot, 0);
    check_monotonic(&before, &snapshot);
    let sum = |of: fn(&OperationTotals) -> u64| snapshot.operations.iter().map(of).sum::<u64>();
    assert_eq!(snapshot.use_time.count(), sum(|operation| operation.returned), "uses");
    assert_eq!(snapshot.use_time.sum_nanos, sum(|operation| operation.use_nanos), "use time");
    assert_eq!(sum(|operation| operation.returned), test.outcomes(Outcome::Ok), "all were returned");
    assert_eq!(snapshot.wires_lost, 0);
    for operation in &snapshot.operations {
        assert!(operation.queries >= operation.queries_finished, "{operation:?}");
    }
    assert!(test.outcomes(Outcome::Ok) > 0);
    test.scrape();
    // The server agrees, apart from the connection that asks.
    eventually("the server has as many clients", async || {
        server.info("connected_clients").unwrap().unwrap() == (test.pool.status().idle + 1).to_string()
    })
    .await;
    with_deadline("the end", test.pool.close()).await;
    eventually("no client", async || server.info("connected_clients").unwrap().as_deref() == Some("1")).await;
}

/// Looks up a key whose loader takes some milliseconds, or fails.
async fn look_up_somehow(cache: &Cache<u64>, key: u64) -> Result<Option<u64>, LoadError<&'static str>> {
    let (took, fails) = (Duration::from_micros(fastrand::u64(..5000)), fastrand::u8(..8) == 0);
    let load = async || {
        tokio::time::sleep(took).await;
        if fails { Err("failed") } else { Ok((!key.is_multiple_of(5)).then_some(key)) }
    };
    cache.get_or_load(&key.to_string(), load).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_cache_hold_while_the_server_fails() {
    let server = server().await;
    let test = TestPool::new(&server.url(), |builder| builder.pool_size(4).max_overflow(0));
    let cache = Cache::<u64>::builder(&test.pool, "numbers")
        .time_to_live(Duration::from_millis(200))
        .negative_time_to_live(Duration::from_millis(50))
        .deadline(Duration::from_millis(50))
        .max_loads(5)
        .load_wait(Duration::from_millis(20));
    let cache = cache.build().unwrap();
    let until = Instant::now() + Duration::from_secs(2);
    let workers: Vec<_> = (0..24)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move {
                while Instant::now() < until {
                    let key = fastrand::u64(..40);
                    let looked = async {
                        match with_deadline("a lookup", look_up_somehow(&cache, key)).await {
                            Ok(Some(value)) => assert_eq!(value, key, "the value of another key"),
                            Ok(None) => assert_eq!(key % 5, 0, "{key} has a value"),
                            Err(LoadError::Loader(error)) => assert_eq!(*error, "failed"),
                            Err(LoadError::TooManyLoads { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    };
                    match fastrand::u8(..8) {
                        // Some are dropped at any point.
                        0 | 1 => drop(tokio::time::timeout(Duration::from_micros(fastrand::u64(..5000)), looked).await),
                        2 => drop(cache.invalidate(&key.to_string()).await),
                        _ => looked.await,
                    }
                }
            })
        })
        .collect();
    let mut before = test.snapshot();
    let mut rounds = 0;
    while Instant::now() < until {
        let now = test.snapshot();
        check_accounts(&now, 0);
        check_monotonic(&before, &now);
        before = now;
        rounds += 1;
        if rounds % 40 == 0 {
            server.kill().unwrap();
            server.start().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for worker in workers {
        worker.await.unwrap();
    }
    let snapshot = test.snapshot();
    check_accounts(&snapshot, 0);
    check_monotonic(&before, &snapshot);
    let totals = &snapshot.caches[0];
    assert_eq!((totals.in_flight, totals.loads_in_flight), (0, 0), "{totals:?}");
    // No value is stale: each load is that of a lookup.
    let of = |result: CacheResult| totals.results[result.index()];
    let loads: u64 = totals.loads.iter().map(poolscope::telemetry::Histogram::count).sum();
    assert_eq!(loads, of(CacheResult::Miss) + of(CacheResult::Bypassed), "{totals:?}");
    assert!(of(CacheResult::Hit) > 0 && totals.saved_nanos > 0, "{totals:?}");
    let load = async || Ok::<_, Infallible>(Some(1000));
    assert_eq!(with_deadline("a value", cache.get_or_load("1000", load)).await.unwrap(), Some(1000));
    test.scrape();
}

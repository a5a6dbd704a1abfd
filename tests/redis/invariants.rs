//! The invariants of accounting while the server fails and callers give up, as for PostgreSQL.

#[allow(dead_code, reason = "shared with the tests over a scripted backend")]
#[path = "../support/invariants.rs"]
mod shared;

use std::time::{Duration, Instant};

use poolscope::labels::Outcome;
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

//! Observation of the wire protocol, for every client API.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, pin_mut};
use poolscope::labels::Activity;
use poolscope::telemetry::{Holder, OperationTotals};

use crate::holders::CapturedLog;
use crate::support::{Admin, TestPool, eventually, shared, with_deadline};

fn totals(test: &TestPool, operation: &str) -> OperationTotals {
    let found = test.pool.snapshot().operations.into_iter().find(|totals| &*totals.name == operation);
    found.unwrap_or_else(|| panic!("no operation {operation}"))
}

fn only_holder(test: &TestPool) -> Holder {
    let mut holders = test.pool.holders();
    assert_eq!(holders.len(), 1, "{holders:?}");
    holders.remove(0)
}

#[tokio::test]
async fn queries_are_counted_through_every_api() {
    let test = TestPool::shared("wire_queries", |builder| builder.pool_size(1).max_overflow(0)).await;
    let queries = |operation: &str| totals(&test, operation).queries;

    let mut connection = test.pool.operation("mixed").get().await.unwrap();
    connection.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(queries("mixed"), 1, "a simple query");
    connection.simple_query("SELECT 1; SELECT 2").await.unwrap();
    assert_eq!(queries("mixed"), 2, "several statements in one");
    let statement = connection.prepare("SELECT $1::int").await.unwrap();
    assert_eq!(queries("mixed"), 2, "preparing is not counted");
    connection.query(&statement, &[&1]).await.unwrap();
    assert_eq!(queries("mixed"), 3, "a prepared statement");
    connection.query_typed("SELECT 5", &[]).await.unwrap();
    assert_eq!(queries("mixed"), 4, "without preparing");
    let transaction = connection.transaction().await.unwrap();
    transaction.execute("SELECT 1", &[]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(queries("mixed"), 7, "BEGIN, SELECT, COMMIT");
    let together = futures_util::future::join3(
        connection.query(&statement, &[&1]),
        connection.query(&statement, &[&2]),
        connection.query(&statement, &[&3]),
    );
    let (one, two, three) = together.await;
    drop((one.unwrap(), two.unwrap(), three.unwrap()));
    assert_eq!(queries("mixed"), 10, "pipelined");
    connection.batch_execute("SELECT 1/0").await.unwrap_err();
    assert_eq!(queries("mixed"), 11, "a failing query");
    assert_eq!(only_holder(&test).queries, 11, "since this checkout");
    drop((statement, connection));

    let held = test.pool.operation("second").get().await.unwrap();
    assert_eq!(only_holder(&test).queries, 0, "since the next checkout");
    drop(held);
    eventually("all queries finished", async || totals(&test, "mixed").queries_finished == 11).await;
}

#[tokio::test]
async fn pings_are_not_counted_as_queries() {
    let settings = |builder: poolscope::PoolBuilder| builder.pool_size(1).max_overflow(0).pre_ping_idle(Duration::ZERO);
    let test = TestPool::shared("wire_pings", settings).await;
    for _ in 0..3 {
        let connection = test.pool.operation("pinged").get().await.unwrap();
        connection.batch_execute("SELECT 1").await.unwrap();
    }
    assert!(test.scrape().sum("poolscope_checkout_phase_seconds_total", &[("phase", "ping")]) > 0.0);
    assert_eq!(totals(&test, "pinged").queries, 3);
}

#[tokio::test]
async fn copy_keeps_the_observer_in_sync() {
    let test = TestPool::shared("wire_copy", |builder| builder.pool_size(1).max_overflow(0)).await;
    let connection = test.pool.operation("copy").get().await.unwrap();
    connection.batch_execute("CREATE TEMP TABLE lines (text text)").await.unwrap();

    let sink = connection.copy_in("COPY lines FROM STDIN").await.unwrap();
    pin_mut!(sink);
    let line = Bytes::from(format!("{}\n", "x".repeat(999)));
    for _ in 0..1000 {
        sink.send(line.clone()).await.unwrap();
    }
    assert_eq!(only_holder(&test).activity, Some(Activity::Executing));
    assert_eq!(sink.finish().await.unwrap(), 1000);
    eventually("the COPY ends", async || only_holder(&test).activity == Some(Activity::Idle)).await;

    let out = connection.copy_out("COPY lines TO STDOUT").await.unwrap();
    pin_mut!(out);
    let mut bytes = 0;
    while let Some(chunk) = out.next().await {
        bytes += chunk.unwrap().len();
    }
    assert_eq!(bytes, 1_000_000);
    // One row of 64 MiB.
    let row = connection.query_one("SELECT repeat('x', 64 * 1024 * 1024)", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0).len(), 64 * 1024 * 1024);
    // A COPY that fails midway.
    connection.batch_execute("CREATE TEMP TABLE numbers (n int)").await.unwrap();
    let sink = connection.copy_in("COPY numbers FROM STDIN").await.unwrap();
    pin_mut!(sink);
    sink.send(Bytes::from_static(b"one\n")).await.unwrap();
    sink.finish().await.unwrap_err();
    eventually("the other COPY ends", async || only_holder(&test).activity == Some(Activity::Idle)).await;
    let copied = totals(&test, "copy");
    let [sent, received] = copied.wire_bytes;
    assert!((1_000_000..1_100_000).contains(&sent), "{sent}");
    assert!((68_000_000..69_500_000).contains(&received), "{received}");
    assert_eq!(copied.queries, copied.queries_finished);
    assert_eq!(test.pool.snapshot().wires_lost, 0);
    assert_eq!(test.scrape().count("poolscope_query_errors_total", &[("sqlstate", "22P02")]), 1);
}

#[tokio::test]
async fn errors_are_counted_by_sqlstate_and_operation() {
    let test = TestPool::shared("wire_errors", |builder| builder.pool_size(1).max_overflow(0)).await;
    let pool = &test.pool;
    for (operation, query, code) in [
        ("divide", "SELECT 1/0", "22012"),
        ("divide", "SELECT 1/0", "22012"),
        ("divide", "SELECT nothing", "42703"),
        ("insert", "SELECT * FROM nowhere", "42P01"),
        ("own", "DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'P1234'; END $$", "P1234"),
    ] {
        let error = pool.operation(operation).run(async |connection| connection.batch_execute(query).await).await;
        assert!(error.is_err(), "{code}");
    }
    let scrape = test.scrape();
    let errors = |operation: &str, code: &str| {
        scrape.count("poolscope_query_errors_total", &[("operation", operation), ("sqlstate", code)])
    };
    assert_eq!((errors("divide", "22012"), errors("divide", "42703")), (2, 1));
    assert_eq!((errors("insert", "42P01"), errors("own", "P1234"), errors("insert", "22012")), (1, 1, 0));
    assert_eq!(test.errors("query", "22012"), 2);
}

#[tokio::test]
async fn holder_activity_follows_the_wire() {
    let test = TestPool::shared("wire_activity", |builder| builder.pool_size(1).max_overflow(0)).await;
    let admin = Admin::new(shared().await).await;
    let mut connection = test.pool.operation("busy").get().await.unwrap();
    let backend = crate::support::backend(&connection).await;
    let activity = || only_holder(&test).activity;
    assert_eq!(activity(), Some(Activity::Idle));
    assert_eq!(only_holder(&test).backend_pid, Some(backend));

    let transaction = connection.transaction().await.unwrap();
    assert_eq!(activity(), Some(Activity::IdleInTransaction));
    admin.execute("SELECT pg_advisory_lock(4711)").await;
    let waiting = transaction.batch_execute("SELECT pg_advisory_xact_lock(4711)");
    let watching = async {
        eventually("the query on the wire", async || activity() == Some(Activity::Executing)).await;
        admin.execute("SELECT pg_advisory_unlock(4711)").await;
    };
    let (done, ()) = tokio::join!(waiting, watching);
    done.unwrap();
    assert_eq!(activity(), Some(Activity::IdleInTransaction));
    transaction.batch_execute("SELECT 1/0").await.unwrap_err();
    // The error comes first, then ReadyForQuery.
    eventually("a failed transaction", async || activity() == Some(Activity::IdleInTransaction)).await;
    transaction.rollback().await.unwrap();
    assert_eq!(activity(), Some(Activity::Idle));
}

#[tokio::test]
async fn unsolicited_notifications_are_harmless() {
    let test = TestPool::shared("wire_listen", |builder| builder.pool_size(1).max_overflow(0)).await;
    let admin = Admin::new(shared().await).await;
    let connection = test.get().await;
    connection.batch_execute("LISTEN news").await.unwrap();
    let before = test.pool.snapshot();
    for _ in 0..100 {
        admin.execute("NOTIFY news, 'x'").await;
    }
    let received = |snapshot: &poolscope::telemetry::PoolSnapshot| -> u64 {
        snapshot.operations.iter().map(|operation| operation.wire_bytes[1]).sum()
    };
    eventually("the notifications", async || received(&test.pool.snapshot()) > received(&before) + 1000).await;
    assert_eq!(only_holder(&test).activity, Some(Activity::Idle));
    assert_eq!(crate::support::backend(&connection).await, only_holder(&test).backend_pid.unwrap());
    assert_eq!(test.pool.snapshot().wires_lost, 0);
}

#[tokio::test]
async fn read_wire_off_disables_observation_only() {
    let test = TestPool::shared("wire_off", |builder| builder.pool_size(1).max_overflow(0).read_wire(false)).await;
    let connection = test.pool.operation("blind").get().await.unwrap();
    connection.batch_execute("BEGIN").await.unwrap();
    assert_eq!(only_holder(&test).activity, None);
    connection.batch_execute("ROLLBACK").await.unwrap();
    drop(connection);
    let blind = totals(&test, "blind");
    assert_eq!((blind.queries, blind.wire_bytes), (0, [0, 0]));
    assert!(blind.activity_nanos[Activity::Idle.index()] > 0, "it was held");
}

/// Use by operation and activity adds up to the time for which the callers held connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_seconds_equal_the_time_held() {
    let test = TestPool::shared("wire_held", |builder| builder.pool_size(3).max_overflow(1)).await;
    let used = |test: &TestPool| {
        let scrape = test.scrape();
        let name = "poolscope_connection_use_seconds_total";
        let by = |activity| scrape.sum(name, &[("activity", activity)]);
        [by("executing"), by("idle"), by("idle_in_transaction")]
    };
    // Four tasks hold a connection nearly all the time, each in a different way.
    let until = Instant::now() + Duration::from_secs(3);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..4 {
        let pool = test.pool.clone();
        tasks.spawn(async move {
            let operation = pool.operation(&format!("op{n}"));
            // A use begins before its checkout returns, and ends while the connection is dropped.
            let (mut uses, mut within, mut around) = (0.0, Duration::ZERO, Duration::ZERO);
            while Instant::now() < until {
                let called = Instant::now();
                let mut connection = operation.get().await.unwrap();
                let begun = Instant::now();
                match n {
                    0 => connection.batch_execute("SELECT pg_sleep(0.05)").await.unwrap(),
                    1 => tokio::time::sleep(Duration::from_millis(7)).await,
                    2 => {
                        let transaction = connection.transaction().await.unwrap();
                        tokio::time::sleep(Duration::from_millis(150)).await;
                        transaction.commit().await.unwrap();
                    }
                    _ => connection.batch_execute("SELECT 1").await.unwrap(),
                }
                within += begun.elapsed();
                drop(connection);
                around += called.elapsed();
                uses += 1.0;
            }
            (n, uses, within.as_secs_f64(), around.as_secs_f64())
        });
    }
    // Counts decreases of the counters.
    let scraping = test.clone();
    let scraper = tokio::spawn(async move {
        let (mut falls, mut last) = (0, [0.0; 3]);
        while Instant::now() < until {
            let current = used(&scraping);
            falls += usize::from(current.iter().zip(last).any(|(now, last)| *now < last));
            last = current;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        falls
    });
    let held = tasks.join_all().await;
    assert_eq!(scraper.await.unwrap(), 0, "no counter decreased");
    let by = |n: usize, activity: &str| {
        let of = [("operation", &*format!("op{n}")), ("activity", activity)];
        test.scrape().sum("poolscope_connection_use_seconds_total", &of)
    };
    for (n, uses, within, around) in held {
        let sum: f64 = ["executing", "idle", "idle_in_transaction"].map(|activity| by(n, activity)).iter().sum();
        // The two clocks may differ by a millionth.
        assert!(within * 0.999_99 <= sum && sum <= around * 1.000_01, "op{n}: {within} to {around}, not {sum}");
        // Each of its uses took at least as long, and none of the others had a transaction.
        match n {
            0 => assert!(by(n, "executing") >= 0.05 * uses, "{}", by(n, "executing")),
            1 => assert!(by(n, "idle") >= 0.007 * uses, "{}", by(n, "idle")),
            2 => assert!(by(n, "idle_in_transaction") >= 0.15 * uses, "{}", by(n, "idle_in_transaction")),
            _ => assert!(by(n, "executing") > 0.0),
        }
        assert!(n == 2 || by(n, "idle_in_transaction") == 0.0, "op{n}: {}", by(n, "idle_in_transaction"));
    }
}

#[tokio::test]
async fn cancelled_query_keeps_the_observer_in_sync() {
    let test = TestPool::shared("wire_cancel", |builder| builder.pool_size(1).max_overflow(0)).await;
    let connection = test.pool.operation("slow").get().await.unwrap();
    let token = connection.cancel_token();
    let slow = connection.batch_execute("SELECT pg_sleep(60)");
    let cancelling = async {
        eventually("the query on the wire", async || only_holder(&test).activity == Some(Activity::Executing)).await;
        token.cancel().await.unwrap();
    };
    let (slow, ()) = with_deadline("the query ends", async { tokio::join!(slow, cancelling) }).await;
    assert_eq!(slow.unwrap_err().code(), Some(&tokio_postgres::error::SqlState::QUERY_CANCELED));
    eventually("the request ends", async || only_holder(&test).activity == Some(Activity::Idle)).await;
    let of = [("operation", "slow"), ("sqlstate", "57014")];
    assert_eq!(test.scrape().count("poolscope_query_errors_total", &of), 1);
}

/// A query is logged by its summary, never its text, and the lines of one summary do not hide those of another.
#[tokio::test]
async fn slow_queries_are_logged_by_summary() {
    let log = CapturedLog::default();
    let _capture = log.capture();
    let settings = |threshold| move |builder: poolscope::PoolBuilder| builder.slow_query_threshold(threshold);
    let limit = Duration::from_millis(400);
    let test = TestPool::shared("wire_slow", settings(Some(limit))).await;
    let line = line!() + 1;
    let connection = test.pool.operation("reports").get().await.unwrap();
    connection.query("SELECT 'secret' AS fast FROM pg_class LIMIT 1", &[]).await.unwrap();
    for _ in 0..2 {
        connection.query("SELECT 'secret', pg_sleep(0.5) FROM pg_class LIMIT 1", &[]).await.unwrap();
    }
    connection.batch_execute("DO $$ BEGIN PERFORM pg_sleep(0.5); RAISE EXCEPTION 'secret'; END $$").await.unwrap_err();
    // The caller has the error before the server is ready for the next query, which ends the request.
    eventually("the failed query's line", async || log.containing("summary=\"DO\"").len() == 1).await;
    let lines = log.containing("slow query");
    assert!((2..=3).contains(&lines.len()), "{lines:#?}");
    let site = format!("call_site=\"{}:{line}\"", file!());
    for (shown, parts) in [
        (
            &lines[0],
            ["WARN", "pool=\"wire_slow\"", "summary=\"SELECT pg_class\"", "operation=\"reports\"", &site, "seconds=0."],
        ),
        (
            lines.last().unwrap(),
            ["summary=\"DO\"", "sqlstate=\"P0001\"", "operation=\"reports\"", &site, "seconds=0.", "WARN"],
        ),
    ] {
        assert!(parts.iter().all(|part| shown.contains(part)), "{parts:?} in {shown}");
        assert!(!shown.contains("secret") && !shown.contains("pg_sleep"), "{shown}");
    }
    drop(connection);

    let off = TestPool::shared("wire_slow_off", settings(None)).await;
    let pool_lines = log.containing("slow query").len();
    off.get().await.query("SELECT pg_sleep(0.5)", &[]).await.unwrap();
    assert_eq!(log.containing("slow query").len(), pool_lines);
}

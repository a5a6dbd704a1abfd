//! Commands as they are observed on the wire.

use std::time::Duration;

use poolscope::labels::{Activity, ErrorPhase};
use poolscope::redis::redis::{AsyncCommands, ErrorKind, ServerErrorKind, Value, cmd, pipe};

use crate::support::{TestPool, eventually, server, with_deadline};

#[tokio::test]
async fn commands_are_counted_by_name_in_both_protocols() {
    let server = server().await;
    for protocol in ["resp2", "resp3"] {
        let test = TestPool::single(&format!("{}?protocol={protocol}", server.url()));
        let mut connection = test.pool.operation("mixed").get().await.unwrap();
        let _: () = connection.set("key-of-a-user", "a value\r\n$5\r\n").await.unwrap();
        let value: String = connection.get("key-of-a-user").await.unwrap();
        assert_eq!(value, "a value\r\n$5\r\n");
        let missing: Option<Vec<u8>> = connection.get("missing").await.unwrap();
        assert_eq!(missing, None);
        let _: () = connection.hset_multiple("hash", &[("a", 1), ("b", 2)]).await.unwrap();
        let hash: std::collections::BTreeMap<String, i64> = connection.hgetall("hash").await.unwrap();
        assert_eq!(hash.len(), 2);
        // A long value arrives in several parts, and nested ones in one reply.
        let long = "x".repeat(3_000_000);
        let _: () = connection.set("long", &long).await.unwrap();
        assert_eq!(connection.get::<_, String>("long").await.unwrap().len(), long.len());
        let nested = cmd("EVAL").arg("return {1, {2, {3, 'four'}}, {}, false}").arg(0).to_owned();
        nested.query_async::<Value>(&mut connection).await.unwrap();
        let error = connection.lpush::<_, _, ()>("hash", 1).await.unwrap_err();
        assert_eq!(error.code(), Some("WRONGTYPE"));
        let error = cmd("NOSUCHCOMMAND").arg("a secret").query_async::<()>(&mut connection).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::ResponseError));
        let holder = &test.pool.holders()[0];
        assert_eq!((holder.activity, holder.queries), (Some(Activity::Idle), test.totals("mixed").queries));
        drop(connection);
        for (name, error, count) in [
            ("SET", None, 2),
            ("GET", None, 3),
            ("HMSET", None, 1),
            ("HGETALL", None, 1),
            ("LPUSH", Some("WRONGTYPE"), 1),
            ("LPUSH", None, 0),
            ("other", Some("ERR"), 1),
        ] {
            assert_eq!(test.commands(name, error), count, "{name} {error:?} in {protocol}");
        }
        assert_eq!(test.errors(ErrorPhase::Query, "WRONGTYPE"), 1);
        let totals = test.totals("mixed");
        assert_eq!(totals.queries, totals.queries_finished);
        assert!(totals.wire_bytes.iter().all(|bytes| *bytes > 3_000_000), "{:?}", totals.wire_bytes);
        assert_eq!(test.snapshot().wires_lost, 0);
        // No key, value or message is in the metrics.
        let scrape = test.scrape();
        let summaries = scrape.values("db_client_operation_duration_seconds_count", "db_query_summary");
        assert!(summaries.contains(&"GET"), "{summaries:?}");
        for label in ["db_query_summary", "error_type", "operation", "sqlstate"] {
            for name in scrape.names() {
                let values = scrape.values(name, label);
                assert!(!values.iter().any(|value| value.contains("secret") || value.contains("key-of")), "{values:?}");
            }
        }
    }
}

#[tokio::test]
async fn pipelines_and_transactions_keep_the_observer_in_sync() {
    let server = server().await;
    for protocol in ["resp2", "resp3"] {
        let test = TestPool::single(&format!("{}?protocol={protocol}", server.url()));
        let mut connection = test.pool.operation("pipelines").get().await.unwrap();
        let mut pipeline = pipe();
        for number in 0..1000 {
            pipeline.cmd("SET").arg(format!("key{number}")).arg(number).ignore();
        }
        pipeline.cmd("GET").arg("key999");
        assert_eq!(pipeline.query_async::<(i64,)>(&mut connection).await.unwrap(), (999,));
        let (first, second): (i64, i64) =
            pipe().atomic().incr("counter", 1).incr("counter", 1).query_async(&mut connection).await.unwrap();
        assert_eq!(first + 1, second);
        // Concurrent commands on one connection are multiplexed by the driver.
        let mut failing = pipe();
        failing.atomic().lpush("key1", 1).incr("counter", 1);
        failing.query_async::<(i64, i64)>(&mut connection).await.unwrap_err();
        // One that the server does not queue makes it discard the transaction.
        let mut discarded = pipe();
        discarded.atomic().cmd("NOSUCHCOMMAND").incr("counter", 1);
        discarded.query_async::<(i64, i64)>(&mut connection).await.unwrap_err();
        let counter: i64 = connection.get("counter").await.unwrap();
        assert_eq!(counter, second + 1, "the second transaction was executed in part, the third not at all");
        assert_eq!(test.pool.holders()[0].activity, Some(Activity::Idle));
        drop(connection);
        assert_eq!((test.commands("SET", None), test.commands("MULTI", None)), (1000, 3));
        assert_eq!((test.commands("EXEC", None), test.commands("EXEC", Some("WRONGTYPE"))), (1, 1));
        assert_eq!(test.commands("EXEC", Some("EXECABORT")), 1);
        assert_eq!(test.snapshot().wires_lost, 0);
        let _: () = cmd("DEL").arg("counter").query_async(&mut test.get().await).await.unwrap();
    }
}

#[tokio::test]
async fn blocking_command_counts_as_executing() {
    let server = server().await;
    let test = TestPool::new(&server.url(), |builder| builder.pool_size(2).max_overflow(0));
    let mut waiting = test.pool.operation("waits").get().await.unwrap();
    let popping = tokio::spawn(async move { waiting.blpop::<_, (String, i64)>("queue", 0.0).await });
    let activity = async || test.pool.holders().first().and_then(|holder| holder.activity);
    eventually("the command is executing", async || activity().await == Some(Activity::Executing)).await;
    let _: () = test.get().await.rpush("queue", 7).await.unwrap();
    assert_eq!(with_deadline("a value", popping).await.unwrap().unwrap(), ("queue".to_owned(), 7));
    test.await_idle(2).await;
    assert!(test.totals("waits").activity_nanos[Activity::Executing.index()] > 0);
}

/// A connection that is held without traffic is a suspected leak, and one whose command waits at the server is not.
#[tokio::test]
async fn idle_holder_is_a_suspected_leak() {
    let server = server().await;
    let leaks_after = Duration::from_millis(100);
    let test =
        TestPool::new(&server.url(), |builder| builder.pool_size(2).max_overflow(0).leak_threshold(Some(leaks_after)));
    let mut waiting = test.pool.operation("waits").get().await.unwrap();
    let popping = tokio::spawn(async move { waiting.blpop::<_, (String, i64)>("queue", 0.0).await });
    eventually("the command is executing", async || test.totals("waits").queries == 1).await;
    let mut leaked = test.pool.operation("leaks").get().await.unwrap();
    eventually("a suspected leak", async || test.snapshot().suspected_leaks == 1).await;
    let _: () = leaked.rpush("queue", 7).await.unwrap();
    with_deadline("a value", popping).await.unwrap().unwrap();
    drop(leaked);
    assert_eq!(test.snapshot().suspected_leaks, 0);
}

#[tokio::test]
async fn wire_that_is_not_read_counts_no_commands() {
    let server = server().await;
    let test = TestPool::new(&server.url(), |builder| builder.read_wire(false));
    let mut connection = test.pool.operation("unread").get().await.unwrap();
    let _: () = connection.set("a", 1).await.unwrap();
    assert_eq!(test.pool.holders()[0].activity, None);
    drop(connection);
    assert_eq!(test.totals("unread").queries, 0);
}

#[tokio::test]
async fn reply_beyond_the_limit_closes_the_connection() {
    let server = server().await;
    let test = TestPool::new(&server.url(), |builder| builder.max_answer_kib(64));
    let mut connection = test.get().await;
    let _: () = connection.set("long", "x".repeat(10_000_000)).await.unwrap();
    let error = connection.get::<_, String>("long").await.unwrap_err();
    assert!(error.is_io_error(), "{error}");
    drop(connection);
    let _: () = test.get().await.set("short", "x").await.unwrap();
}

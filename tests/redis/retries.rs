//! Retries of operations, by what the wire shows.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use poolscope::labels::GiveUp;
use poolscope::redis::redis::AsyncCommands;
use poolscope::redis::{Connection, redis};
use poolscope::retry::{Class, RetryPolicy};

use crate::support::{TestPool, eventually, server};

/// Kills the connection by a command from outside.
async fn lose(server: &poolscope_testing::redis::Server, connection: &mut Connection) {
    let id: i64 = redis::cmd("CLIENT").arg("ID").query_async(connection).await.unwrap();
    assert_eq!(server.command(&["CLIENT", "KILL", "ID", &id.to_string()]).unwrap(), ":1");
}

#[tokio::test]
async fn reads_are_retried_and_writes_only_if_idempotent() {
    let server = server().await;
    let test = TestPool::single(&server.url());
    let policy = || RetryPolicy::new().attempts(3);
    // A read that was not answered has changed nothing.
    let attempts = AtomicU32::new(0);
    let read = test.pool.operation("read").retry(policy()).run(async |connection| {
        if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
            lose(&server, connection).await;
        }
        connection.get::<_, Option<i64>>("a").await
    });
    assert_eq!(read.await.unwrap(), None);
    assert_eq!(attempts.into_inner(), 2);

    // What an earlier write of the same attempt has changed would be changed twice.
    for (idempotent, expected) in [(false, 1), (true, 2)] {
        let attempts = AtomicU32::new(0);
        let written = test.pool.operation("write").idempotent(idempotent).retry(policy()).run(async |connection| {
            connection.incr::<_, _, i64>("counter", 1).await?;
            if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
                lose(&server, connection).await;
            }
            connection.get::<_, i64>("counter").await
        });
        match written.await {
            Ok(written) => assert!(idempotent, "{written:?}"),
            Err(error) => {
                assert!(!idempotent, "{error}");
                assert_eq!((error.class(), error.gave_up()), (Class::Lost, GiveUp::NotIdempotent));
            }
        }
        assert_eq!(attempts.into_inner(), expected);
    }
}

#[tokio::test]
async fn errors_are_retried_by_their_code() {
    let server = server().await;
    let test = TestPool::single(&server.url());
    let policy = RetryPolicy::new().attempts(2);
    let wrong = test.pool.operation("wrong").idempotent(true).retry(policy).run(async |connection| {
        connection.set::<_, _, ()>("text", "a").await?;
        connection.lpush::<_, _, i64>("text", 1).await
    });
    let error = wrong.await.unwrap_err();
    assert_eq!((error.class(), error.gave_up(), error.attempts()), (Class::Permanent, GiveUp::Permanent, 1));
    assert_eq!((error.error_type(), error.sqlstate()), (Some("WRONGTYPE"), None));

    // A replica refuses writes: the connection is closed, and the next attempt finds the new primary.
    let attempts = AtomicU32::new(0);
    assert_eq!(server.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap(), "+OK");
    let policy = RetryPolicy::new().attempts(20).backoff(Duration::from_millis(20), Duration::from_millis(50));
    let written = test.pool.operation("failover").retry(policy).run(async |connection| {
        if attempts.fetch_add(1, Ordering::Relaxed) == 1 {
            assert_eq!(server.command(&["REPLICAOF", "NO", "ONE"]).unwrap(), "+OK");
        }
        connection.set::<_, _, ()>("text", "b").await
    });
    written.await.unwrap();
    let found = test.snapshot().retries.iter().any(|retries| retries.code.as_str() == "READONLY");
    assert!(found, "{:?}", test.snapshot().retries);
    eventually("all returned", async || test.pool.status().used == 0).await;
}

//! Effects that are not obvious from the messages on the wire.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use poolscope::labels::GiveUp;
use poolscope::retry::{Class, Effects};
use poolscope::{Connection, RetryPolicy};
use tokio_postgres::Error;

use crate::support::{Admin, Proxy, TestPool, eventually, shared};

const POLICY: RetryPolicy = RetryPolicy::new().attempts(3).backoff(Duration::from_millis(1), Duration::from_millis(5));

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

async fn table(name: &str) -> Admin {
    let admin = Admin::new(shared().await).await;
    admin.execute(&format!("CREATE TABLE {name} (id int)")).await;
    admin
}

async fn rows(admin: &Admin, table: &str) -> i64 {
    admin.count(&format!("SELECT count(*) FROM {table}")).await
}

fn increment(counter: &AtomicU32) -> u32 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}

async fn proxy() -> (Proxy, String) {
    let server = shared().await;
    let proxy = Proxy::to(SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()))).await;
    let url = proxy.url(&server.tcp_url().unwrap());
    (proxy, url)
}

#[tokio::test]
async fn lost_wire_prevents_retry() {
    let admin = table("effects_lost").await;
    let (proxy, url) = proxy().await;
    let test = TestPool::new("effects_lost", &url, |builder| builder.pool_size(1).max_overflow(0));
    let connection = test.get().await;
    proxy.garble(b"Z\0\0\0\x05I");
    connection.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(test.scrape().count("poolscope_wires_lost_total", &[]), 1);
    drop(connection);
    let work = async |connection: &mut Connection| {
        connection.batch_execute("INSERT INTO effects_lost VALUES (1)").await?;
        admin.terminate(test.pool.holders()[0].backend_pid.unwrap()).await;
        connection.batch_execute("SELECT 1").await
    };
    let error = test.pool.operation("work").idempotent(true).retry(POLICY).run(work).await.unwrap_err();
    assert_eq!((error.gave_up(), error.effects(), error.attempts()), (GiveUp::Unseen, Effects::Unseen, 1), "{error}");
    assert_eq!(rows(&admin, "effects_lost").await, 1);
}

/// The connection's task is blocked on the socket and does not see the COMMIT queued behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buffered_commit_prevents_retry() {
    const ROUNDS: u64 = 30;
    let admin = table("effects_waits").await;
    admin
        .execute(
            "CREATE FUNCTION effects_locked() RETURNS int LANGUAGE plpgsql AS \
             $$ BEGIN RAISE SQLSTATE '55P03'; END $$",
        )
        .await;
    let test = TestPool::shared("effects_waits", |builder| builder.pool_size(2).max_overflow(0)).await;
    let large = "x".repeat(600_000);
    for round in 0..ROUNDS {
        let attempts = AtomicU32::new(0);
        let work = async |connection: &mut Connection| -> Result<(), BoxedError> {
            let client: &tokio_postgres::Client = connection;
            let length = client.prepare("SELECT length($1::text)").await?;
            client.batch_execute("BEGIN").await?;
            client.batch_execute(&format!("INSERT INTO effects_waits VALUES ({round})")).await?;
            client.batch_execute("SAVEPOINT a").await?;
            client.batch_execute("SELECT effects_locked()").await.unwrap_err();
            client.batch_execute("ROLLBACK TO a").await?;
            let all = async {
                let large = async { client.execute(&length, &[&large]).await };
                let commit = async { client.batch_execute("COMMIT").await };
                let (_, _, committed) = tokio::join!(client.batch_execute("SELECT pg_sleep(0.05)"), large, commit);
                committed
            };
            if increment(&attempts) == 1 {
                tokio::time::timeout(Duration::from_millis(50 + round % 4), all).await??;
            } else {
                all.await?;
            }
            Ok(())
        };
        let _ = test.pool.operation("work").retry(POLICY).run(work).await;
        drop(test.get_many(2).await);
        let found = admin.count(&format!("SELECT count(*) FROM effects_waits WHERE id = {round}")).await;
        assert!(found <= 1, "{found} rows after {} attempts", attempts.into_inner());
    }
}

#[tokio::test]
async fn abandoned_commit_is_unknown() {
    table("effects_given_up").await;
    let test = TestPool::shared("effects_given_up", |builder| builder.pool_size(2).max_overflow(0)).await;
    let work = async |connection: &mut Connection| -> Result<(), BoxedError> {
        let transaction = connection.transaction().await?;
        transaction.batch_execute("INSERT INTO effects_given_up VALUES (1)").await?;
        // Abandoned in the poll that sent the COMMIT.
        tokio::select! {
            biased;
            committed = transaction.commit() => Ok(committed?),
            () = std::future::ready(()) => Err("cancelled".into()),
        }
    };
    let error = test.pool.operation("work").retry(POLICY).run(work).await.unwrap_err();
    assert_eq!(error.gave_up(), GiveUp::Permanent);
    // It may have been answered by now.
    assert!([Effects::CommitUnknown, Effects::Committed].contains(&error.effects()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commit_sent_at_the_deadline_is_unknown() {
    let admin = table("effects_deadline").await;
    let test = TestPool::shared("effects_deadline", |builder| builder.pool_size(2).max_overflow(0)).await;
    drop(test.get().await);
    for _ in 0..20 {
        let before = rows(&admin, "effects_deadline").await;
        let operation = test.pool.operation("work").retry(POLICY.deadline(Some(Duration::from_millis(20))));
        let running = tokio::spawn(async move {
            let work = async |connection: &mut Connection| {
                let transaction = connection.transaction().await?;
                transaction.batch_execute("INSERT INTO effects_deadline VALUES (1)").await?;
                // Blocks its thread, so that the deadline is noticed only after the COMMIT was sent.
                std::thread::sleep(Duration::from_millis(40));
                transaction.commit().await
            };
            operation.run(work).await
        });
        let done = running.await.unwrap();
        eventually("the connections are returned", async || test.pool.status().used == 0).await;
        let committed = rows(&admin, "effects_deadline").await > before;
        if let Err(error) = done {
            assert!(!committed || error.effects() != Effects::None, "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn execute_may_run_a_commit() {
    let admin = table("effects_execute").await;
    let (proxy, url) = proxy().await;
    let test = TestPool::new("effects_execute", &url, |builder| builder.pool_size(1).max_overflow(0));
    proxy.cut_unanswered("EXECUTE");
    let work = async |connection: &mut Connection| {
        let client: &tokio_postgres::Client = connection;
        // Prepared statements of the protocol are visible to SQL, named s0 and up.
        let _commit = client.prepare("COMMIT").await?;
        client.batch_execute("BEGIN").await?;
        client.batch_execute("INSERT INTO effects_execute VALUES (1)").await?;
        let names: String =
            client.query_one("SELECT name FROM pg_prepared_statements WHERE statement = 'COMMIT'", &[]).await?.get(0);
        client.batch_execute(&format!("EXECUTE {names}")).await
    };
    let error = test.pool.operation("work").retry(POLICY).run(work).await.unwrap_err();
    assert_eq!((error.gave_up(), error.attempts(), proxy.sprung()), (GiveUp::CommitUnknown, 1, 1), "{error}");
    admin.await_backends("effects_execute", 0).await;
    assert_eq!(rows(&admin, "effects_execute").await, 1);
}

#[tokio::test]
async fn first_error_of_pipelined_queries_counts() {
    let test = TestPool::shared("effects_together", |builder| builder.pool_size(2).max_overflow(0)).await;
    let attempts = AtomicU32::new(0);
    let work = async |connection: &mut Connection| {
        let transaction = connection.transaction().await?;
        if increment(&attempts) < 3 {
            let fails = transaction.batch_execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$");
            let (failed, follows) = tokio::join!(biased; fails, transaction.batch_execute("SELECT 1"));
            assert_eq!(follows.unwrap_err().code().map(tokio_postgres::error::SqlState::code), Some("25P02"));
            failed?;
        }
        transaction.commit().await
    };
    let done = test.pool.operation("work").retry(POLICY).run_reporting(work).await.unwrap();
    assert_eq!(done.report.attempts, 3);
}

#[tokio::test]
async fn rollback_outside_transaction_has_no_effect() {
    let test = TestPool::shared("effects_nothing", |builder| builder.pool_size(2).max_overflow(0)).await;
    let attempts = AtomicU32::new(0);
    let work = async |connection: &mut Connection| {
        connection.batch_execute("ROLLBACK").await?;
        connection.batch_execute("rollback;").await?;
        if increment(&attempts) == 1 {
            let transaction = connection.transaction().await?;
            transaction.batch_execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$").await?;
        }
        Ok::<_, Error>(())
    };
    test.pool.operation("work").retry(POLICY).run(work).await.unwrap();
    assert_eq!(attempts.into_inner(), 2);
}

#[tokio::test]
async fn read_only_session_closes_no_connection() {
    let test = TestPool::shared("effects_choice", |builder| builder.pool_size(3).max_overflow(0)).await;
    drop(test.get_many(3).await);
    for choice in ["SET default_transaction_read_only = on", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"] {
        let work = async |connection: &mut Connection| {
            connection.batch_execute(choice).await?;
            connection.batch_execute("CREATE TABLE effects_choice ()").await
        };
        let error = test.pool.operation("work").idempotent(true).retry(POLICY).run(work).await.unwrap_err();
        assert_eq!((error.class(), error.sqlstate()), (Class::Permanent, Some("25006")), "{error}");
        test.pool.operation("work").run(work).await.unwrap_err();
        eventually("the connections are returned", async || test.pool.status().idle == 3).await;
        drop(test.get_many(3).await);
    }
    assert_eq!((test.closed("read_only"), test.closed("invalidated")), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadline_covers_collecting_the_evidence() {
    let (proxy, url) = proxy().await;
    let set =
        |builder: poolscope::PoolBuilder| builder.pool_size(1).max_overflow(0).clean_timeout(Duration::from_secs(20));
    let test = TestPool::new("effects_slow", &url, set);
    let work = async |connection: &mut Connection| {
        let transaction = connection.transaction().await?;
        let failed = transaction.batch_execute("DO $$ BEGIN RAISE SQLSTATE '25006'; END $$").await;
        // No further bytes pass.
        proxy.delay(Duration::from_secs(3600));
        failed
    };
    let started = Instant::now();
    let policy = POLICY.deadline(Some(Duration::from_millis(300)));
    let error = test.pool.operation("work").retry(policy).run(work).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}: {error}", started.elapsed());
}

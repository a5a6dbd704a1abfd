//! Which errors are retried, by class and effects.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use poolscope::labels::GiveUp;
use poolscope::retry::{Class, Effects};
use poolscope::{Connection, RetryError, RetryPolicy};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::support::{Admin, TestPool, backend, error_chain, eventually, shared, with_deadline};

type RunResult<T> = Result<T, RetryError<Error>>;

/// Short pauses, and enough attempts for these tests.
const POLICY: RetryPolicy =
    RetryPolicy::new().attempts(10).backoff(Duration::from_millis(1), Duration::from_millis(20));

/// Creates a table with two rows.
async fn table(name: &str) -> Admin {
    let admin = Admin::new(shared().await).await;
    let make = "(id int PRIMARY KEY, value int NOT NULL); INSERT INTO";
    admin.execute(&format!("CREATE TABLE {name} {make} {name} VALUES (1, 0), (2, 0)")).await;
    admin
}

async fn pool(name: &str) -> TestPool {
    TestPool::shared(name, |builder| builder.pool_size(8).max_overflow(0).retry_floor(1000)).await
}

fn increment(counter: &AtomicU32) -> u32 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}

/// Terminates the connection's backend.
async fn terminate(connection: &Connection) {
    let own = backend(connection).await;
    Admin::new(shared().await).await.terminate(own).await;
}

/// Transactions with serialization failures succeed when retried, and each takes effect exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serialization_failures_are_retried_exactly_once() {
    const TASKS: i64 = 8;
    const ROUNDS: i64 = 10;

    let admin = table("serialized").await;
    let test = pool("serialized").await;
    let transfer = test.pool.operation("transfer").retry(POLICY.attempts(1000));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let transfer = transfer.clone();
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let id = i32::try_from(100 + task * ROUNDS + round).unwrap();
                    let work = async |connection: &mut Connection| {
                        let serializable = tokio_postgres::IsolationLevel::Serializable;
                        let transaction = connection.build_transaction().isolation_level(serializable).start().await?;
                        let sum: i64 = transaction.query_one("SELECT sum(value) FROM serialized", &[]).await?.get(0);
                        let next = i32::try_from(sum + 1).unwrap();
                        transaction.execute("UPDATE serialized SET value = $1 WHERE id = 1", &[&next]).await?;
                        transaction.execute("INSERT INTO serialized VALUES ($1, 0)", &[&id]).await?;
                        transaction.commit().await
                    };
                    transfer.clone().run(work).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        with_deadline("a task", task).await.unwrap();
    }
    // Each has read what all earlier ones had written, and has inserted exactly one row.
    let (rows, sum) = (TASKS * ROUNDS + 2, TASKS * ROUNDS);
    let found = format!("SELECT 1 FROM serialized HAVING count(*) = {rows} AND sum(value) = {sum}");
    assert!(!admin.is_empty(&found).await);
    let scrape = test.scrape();
    let conflicts = scrape.count("poolscope_retries_total", &[("operation", "transfer"), ("sqlstate", "40001")]);
    assert!(conflicts > 0, "no conflicts occurred");
    assert!(scrape.count("poolscope_retry_recovered_total", &[("operation", "transfer")]) > 0);
    assert_eq!(scrape.count("poolscope_retry_exhausted_total", &[]), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlock_victim_is_retried() {
    let admin = table("deadlocked").await;
    let test = pool("deadlocked").await;
    let both = std::sync::Arc::new(tokio::sync::Barrier::new(2));
    let won = std::sync::Arc::new(tokio::sync::Notify::new());
    let tasks = [(1, 2), (2, 1)].map(|(first, second)| {
        let (operation, both) = (test.pool.operation("swap").retry(POLICY), std::sync::Arc::clone(&both));
        let won = std::sync::Arc::clone(&won);
        tokio::spawn(async move {
            let attempts = AtomicU32::new(0);
            let work = async |connection: &mut Connection| {
                if attempts.load(Ordering::Relaxed) == 1 {
                    // The victim waits for the other to commit; otherwise it may be the victim again.
                    won.notified().await;
                }
                let transaction = connection.transaction().await?;
                transaction.batch_execute("SET LOCAL deadlock_timeout = '10ms'").await?;
                let add = "UPDATE deadlocked SET value = value + 1 WHERE id = $1";
                transaction.execute(add, &[&first]).await?;
                if increment(&attempts) == 1 {
                    both.wait().await;
                }
                transaction.execute(add, &[&second]).await?;
                transaction.commit().await
            };
            let attempts = operation.run_reporting(work).await.unwrap().report.attempts;
            won.notify_one();
            attempts
        })
    });
    let mut attempts = 0;
    for task in tasks {
        attempts += with_deadline("a task", task).await.unwrap();
    }
    assert_eq!(attempts, 3, "one deadlock victim");
    assert!(!admin.is_empty("SELECT 1 FROM deadlocked HAVING min(value) = 2 AND max(value) = 2").await);
    let scrape = test.scrape();
    assert_eq!(scrape.count("poolscope_retries_total", &[("operation", "swap"), ("sqlstate", "40P01")]), 1);
}

#[tokio::test]
async fn permanent_error_is_not_retried() {
    table("permanent").await;
    let test = pool("permanent").await;
    let attempts = AtomicU32::new(0);
    let insert = async |connection: &mut Connection| {
        increment(&attempts);
        connection.execute("INSERT INTO permanent VALUES (1, 1)", &[]).await
    };
    let error = test.pool.operation("insert").idempotent(true).retry(POLICY).run(insert).await.unwrap_err();
    assert_eq!((error.class(), error.sqlstate()), (Class::Permanent, Some("23505")));
    assert_eq!((error.gave_up(), error.effects(), attempts.into_inner()), (GiveUp::Permanent, Effects::None, 1));
    assert!(error_chain(&error).contains("duplicate key"), "{}", error_chain(&error));
    let reason = [("operation", "insert"), ("reason", "permanent"), ("sqlstate", "23505")];
    assert_eq!(test.scrape().count("poolscope_retry_exhausted_total", &reason), 1);
}

#[tokio::test]
async fn application_error_is_not_retried() {
    let test = pool("application").await;
    let attempts = AtomicU32::new(0);
    let refuse = async |connection: &mut Connection| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        increment(&attempts);
        // An error that was handled is not the cause of the failure.
        let transaction = connection.transaction().await?;
        transaction.batch_execute("SAVEPOINT a").await?;
        transaction.batch_execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$").await.unwrap_err();
        transaction.batch_execute("ROLLBACK TO a").await?;
        transaction.batch_execute("SELECT 1").await?;
        Err("the account is empty".into())
    };
    let error = test.pool.operation("refuse").retry(POLICY).run(refuse).await.unwrap_err();
    assert_eq!((error.class(), error.gave_up(), error.sqlstate()), (Class::Application, GiveUp::Permanent, None));
    assert_eq!((error.effects(), attempts.into_inner()), (Effects::None, 1));
}

#[tokio::test]
async fn boxed_error_is_classified_from_the_wire() {
    let test = pool("boxed").await;
    let attempts = AtomicU32::new(0);
    let fail = async |connection: &mut Connection| -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
        let attempt = increment(&attempts);
        if attempt < 3 {
            connection.batch_execute("DO $$ BEGIN RAISE SQLSTATE '55P03'; END $$").await.map_err(|_| "locked")?;
        }
        Ok(attempt)
    };
    // A DO block may commit: outside a transaction a retry is not known to be safe.
    let error = test.pool.operation("fail").retry(POLICY).run(fail).await.unwrap_err();
    assert_eq!((error.class(), error.gave_up()), (Class::Transient, GiveUp::NotIdempotent));
    assert_eq!((error.effects(), attempts.swap(0, Ordering::Relaxed)), (Effects::Committed, 1));
    assert_eq!(test.pool.operation("fail").idempotent(true).retry(POLICY).run(fail).await.unwrap(), 3);
}

#[tokio::test]
async fn committed_statement_prevents_retry() {
    let admin = table("committed").await;
    let test = pool("committed").await;
    let attempts = AtomicU32::new(0);
    let half = async |connection: &mut Connection| {
        increment(&attempts);
        connection.execute("UPDATE committed SET value = value + 1 WHERE id = 1", &[]).await?;
        let transaction = connection.transaction().await?;
        transaction.batch_execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$").await?;
        transaction.commit().await
    };
    let error = test.pool.operation("half").retry(POLICY).run(half).await.unwrap_err();
    assert_eq!((error.class(), error.effects()), (Class::Transient, Effects::Committed));
    assert_eq!((error.gave_up(), attempts.into_inner()), (GiveUp::NotIdempotent, 1));
    assert!(error.to_string().contains("a statement before the failure may have been committed"), "{error}");
    assert!(!admin.is_empty("SELECT 1 FROM committed WHERE id = 1 AND value = 1").await);
}

#[tokio::test]
async fn statement_in_flight_prevents_retry() {
    let admin = table("underway").await;
    let test = pool("underway").await;
    let mut lock = test.get().await;
    let transaction = lock.transaction().await.unwrap();
    transaction.execute("SELECT * FROM underway WHERE id = 1 FOR UPDATE", &[]).await.unwrap();
    let attempts = AtomicU32::new(0);
    let work = async |connection: &mut Connection| {
        increment(&attempts);
        let locked = connection.batch_execute("SELECT * FROM underway WHERE id = 1 FOR UPDATE NOWAIT").await;
        // Sent and abandoned: it would take effect a moment later, outside any transaction.
        tokio::select! {
            biased;
            late = connection.batch_execute("UPDATE underway SET value = 1 WHERE id = 2 AND pg_sleep(5) IS NOT NULL") => late?,
            () = std::future::ready(()) => {}
        }
        locked
    };
    let error = test.pool.operation("work").retry(POLICY).run(work).await.unwrap_err();
    assert_eq!((error.class(), error.sqlstate()), (Class::Transient, Some("55P03")), "{error}");
    assert_eq!((error.gave_up(), error.effects()), (GiveUp::NotIdempotent, Effects::StatementUnknown));
    assert_eq!(attempts.into_inner(), 1);
    transaction.commit().await.unwrap();
    // It was cancelled when its connection was returned.
    eventually("nothing runs", async || {
        admin.is_empty("SELECT 1 FROM pg_stat_activity WHERE application_name = 'underway' AND state <> 'idle'").await
    })
    .await;
    assert!(admin.is_empty("SELECT 1 FROM underway WHERE value > 0").await);
}

#[tokio::test]
async fn terminated_transaction_is_retried() {
    let admin = table("terminated").await;
    let test = pool("terminated").await;
    let attempts = AtomicU32::new(0);
    let add = async |connection: &mut Connection| {
        let own = backend(connection).await;
        let transaction = connection.transaction().await?;
        transaction.execute("UPDATE terminated SET value = value + 1 WHERE id = 1", &[]).await?;
        if increment(&attempts) == 1 {
            // During a query.
            let (slept, ()) = tokio::join!(transaction.execute("SELECT pg_sleep(60)", &[]), admin.terminate_busy(own));
            slept?;
        }
        transaction.commit().await
    };
    // The query for the process id is outside the transaction, and could have written.
    let error = test.pool.operation("add").retry(POLICY).run(add).await.unwrap_err();
    assert_eq!((error.class(), error.sqlstate(), error.effects()), (Class::Lost, Some("57P01"), Effects::Committed));
    attempts.store(0, Ordering::Relaxed);
    let own = AtomicU32::new(0);
    let add = async |connection: &mut Connection| {
        let transaction = connection.transaction().await?;
        let pid: i32 = transaction.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        own.store(pid.unsigned_abs(), Ordering::Relaxed);
        transaction.execute("UPDATE terminated SET value = value + 1 WHERE id = 1", &[]).await?;
        if increment(&attempts) == 1 {
            let (slept, ()) = tokio::join!(transaction.execute("SELECT pg_sleep(60)", &[]), admin.terminate_busy(pid));
            slept?;
        }
        transaction.commit().await
    };
    let completed = test.pool.operation("add").retry(POLICY).run_reporting(add).await.unwrap();
    assert_eq!(completed.report.attempts, 2);
    assert!(!admin.is_empty("SELECT 1 FROM terminated WHERE id = 1 AND value = 1").await);
    let lost = [("operation", "add"), ("sqlstate", "57P01")];
    assert_eq!(test.scrape().count("poolscope_retries_total", &lost), 1);
}

/// A statement outside a transaction whose backend is terminated is retried only if it is idempotent.
#[tokio::test]
async fn terminated_statement_is_retried_if_idempotent() {
    let admin = Admin::new(shared().await).await;
    let test = pool("interrupted").await;
    let run = async |idempotent: bool| -> RunResult<u32> {
        let attempts = AtomicU32::new(0);
        let sleep = async |connection: &mut Connection| {
            if increment(&attempts) == 1 {
                // Known from the pool, so that no query is needed.
                let own = test.pool.holders()[0].backend_pid.unwrap();
                let (slept, ()) =
                    tokio::join!(connection.execute("SELECT pg_sleep(60)", &[]), admin.terminate_busy(own));
                slept?;
            }
            Ok(attempts.load(Ordering::Relaxed))
        };
        test.pool.operation("sleep").idempotent(idempotent).retry(POLICY).run(sleep).await
    };
    let error = run(false).await.unwrap_err();
    assert_eq!((error.class(), error.sqlstate()), (Class::Lost, Some("57P01")));
    assert_eq!((error.gave_up(), error.effects()), (GiveUp::NotIdempotent, Effects::StatementUnknown));
    assert!(error.to_string().contains("whether the last statement took effect is unknown"), "{error}");
    assert_eq!(run(true).await.unwrap(), 2);
}

#[tokio::test]
async fn loss_before_first_query_is_retried() {
    let test = pool("unasked").await;
    let attempts = AtomicU32::new(0);
    let work = async |connection: &mut Connection| {
        if increment(&attempts) == 1 {
            let own = test.pool.holders()[0].backend_pid.unwrap();
            Admin::new(shared().await).await.terminate(own).await;
            // It has noticed: further queries are not sent.
            eventually("the connection is closed", async || connection.is_closed()).await;
        }
        connection.query_one("SELECT 1", &[]).await.map(|row| row.get::<_, i32>(0))
    };
    assert_eq!(test.pool.operation("work").retry(POLICY).run(work).await.unwrap(), 1);
    assert_eq!(attempts.into_inner(), 2);
}

/// A stale cached plan is dropped from all connections and its operation retried once.
#[tokio::test]
async fn stale_plan_is_dropped_by_all_connections() {
    let admin = table("stale").await;
    let test = pool("stale").await;
    let select = async |connection: &mut Connection| {
        let transaction = connection.transaction().await?;
        let statement = transaction.prepare_cached("SELECT * FROM stale WHERE id = 1").await?;
        let row = transaction.query_one(&statement, &[]).await?;
        transaction.commit().await?;
        Ok::<_, Error>(row.len())
    };
    let cached = test.get_many(4).await;
    for connection in &cached {
        let statement = connection.prepare_cached("SELECT * FROM stale WHERE id = 1").await.unwrap();
        connection.query_one(&statement, &[]).await.unwrap();
    }
    drop(cached);
    admin.execute("ALTER TABLE stale ADD COLUMN more int").await;
    let select = async || test.pool.operation("select").retry(POLICY).run_reporting(select).await.unwrap();
    let first = select().await;
    assert_eq!((first.value, first.report.attempts), (3, 2));
    for _ in 0..8 {
        assert_eq!(select().await.report.attempts, 1, "no other connection has the stale plan");
    }
    let stale = [("operation", "select"), ("sqlstate", "0A000")];
    assert_eq!(test.scrape().count("poolscope_retries_total", &stale), 1);
    // Unsupported statements have the same code.
    let cannot =
        async |connection: &mut Connection| connection.batch_execute("ALTER SYSTEM SET x.y.z FROM CURRENT").await;
    let error = test.pool.operation("cannot").retry(POLICY).run(cannot).await.unwrap_err();
    assert_eq!((error.class(), error.attempts()), (Class::Permanent, 1), "{}", error_chain(&error));
}

#[tokio::test]
async fn missing_statement_is_prepared_again_once() {
    let test = pool("gone").await;
    let select = async |connection: &mut Connection| {
        let statement = connection.prepare_cached("SELECT 1").await?;
        connection.query_one(&statement, &[]).await.map(drop)
    };
    let connection = test.get().await;
    connection.prepare_cached("SELECT 1").await.unwrap();
    connection.batch_execute("DEALLOCATE ALL").await.unwrap();
    drop(connection);
    let done = test.pool.operation("select").retry(POLICY).run_reporting(select).await.unwrap();
    assert_eq!(done.report.attempts, 2);
    let never = async |connection: &mut Connection| connection.batch_execute("EXECUTE nothing").await;
    let error = test.pool.operation("never").retry(POLICY).run(never).await.unwrap_err();
    assert_eq!((error.class(), error.gave_up()), (Class::StaleStatement, GiveUp::Permanent));
    assert_eq!((error.sqlstate(), error.attempts()), (Some("26000"), 2));
}

#[tokio::test]
async fn read_only_transaction_closes_no_connection() {
    let test = pool("choice").await;
    let first = test.next_backend().await;
    let write = async |connection: &mut Connection| {
        let transaction = connection.build_transaction().read_only(true).start().await?;
        transaction.batch_execute("CREATE TABLE choice ()").await?;
        transaction.commit().await
    };
    let error = test.pool.operation("write").retry(POLICY).run(write).await.unwrap_err();
    assert_eq!((error.class(), error.sqlstate()), (Class::Permanent, Some("25006")));
    // Nor without a policy.
    let error = test.pool.operation("write").run(write).await.unwrap_err();
    assert!(
        matches!(error, poolscope::RunError::Operation(error) if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION))
    );
    eventually("the connection is returned", async || test.pool.status().idle == 1).await;
    assert_eq!(test.next_backend().await, first);
    assert_eq!((test.closed("read_only"), test.closed("invalidated")), (0, 0));
}

/// Without `read_wire`, only attempts that got no connection are retried.
#[tokio::test]
async fn unobserved_failure_is_not_retried() {
    let test = TestPool::shared("unseen", |builder| builder.read_wire(false)).await;
    let attempts = AtomicU32::new(0);
    let fail = async |connection: &mut Connection| {
        increment(&attempts);
        connection.batch_execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$").await
    };
    let error = test.pool.operation("fail").idempotent(true).retry(POLICY).run(fail).await.unwrap_err();
    assert_eq!((error.gave_up(), error.class(), attempts.into_inner()), (GiveUp::Unseen, Class::Unseen, 1));
    assert!(error.to_string().contains("the effects are unknown, because protocol messages are not read"), "{error}");
}

#[tokio::test]
async fn deadline_cancels_the_query_on_the_server() {
    let admin = table("deadline").await;
    let test = pool("deadline").await;
    // Long enough for a busy machine to begin the query.
    let policy = POLICY.deadline(Some(Duration::from_secs(1)));
    let in_transaction = async |connection: &mut Connection| {
        let transaction = connection.transaction().await?;
        transaction.execute("UPDATE deadline SET value = 1 WHERE id = 1", &[]).await?;
        transaction.execute("SELECT pg_sleep(60)", &[]).await?;
        transaction.commit().await
    };
    let error = test.pool.operation("slow").retry(policy).run(in_transaction).await.unwrap_err();
    assert_eq!((error.gave_up(), error.effects()), (GiveUp::Deadline, Effects::None));
    let outside = async |connection: &mut Connection| connection.execute("SELECT pg_sleep(60)", &[]).await;
    let error = test.pool.operation("slow").retry(policy).run(outside).await.unwrap_err();
    assert_eq!((error.gave_up(), error.effects()), (GiveUp::Deadline, Effects::StatementUnknown));
    assert!(error.to_string().ends_with("(1s); whether a statement took effect is unknown"), "{error}");
    eventually("nothing runs", async || {
        admin.is_empty("SELECT 1 FROM pg_stat_activity WHERE application_name = 'deadline' AND state <> 'idle'").await
    })
    .await;
    assert!(!admin.is_empty("SELECT 1 FROM deadline WHERE id = 1 AND value = 0").await);
}

#[tokio::test]
async fn terminated_holder_does_not_affect_the_next_run() {
    let test = pool("terminated_holder").await;
    let mut held = test.get().await;
    terminate(&held).await;
    let error = held.transaction().await.map(drop).unwrap_err();
    assert!(error.is_closed() || error.code() == Some(&SqlState::ADMIN_SHUTDOWN), "{error:?}");
    drop(held);
    let done = test.pool.operation("named").retry(POLICY).run(async |_| Ok::<_, Error>(1)).await;
    assert_eq!(done.unwrap(), 1);
    assert_eq!(test.scrape().count("poolscope_retry_exhausted_total", &[]), 0);
}

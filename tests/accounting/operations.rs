//! Names of operations, and what is counted for them.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::FutureExt as _;
use poolscope::RetryPolicy;
use poolscope::error::RunError;
use poolscope::labels::Outcome;
use poolscope::telemetry::{MAX_NAME_BYTES, MAX_OPERATIONS, OperationTotals};

use super::backend::{Behavior, ScriptedError, TRANSIENT_ERROR};
use super::harness::{ManualFuture, TestPool, ms};

/// Returns how many runs had `outcome`, and their total duration.
fn duration(totals: &OperationTotals, outcome: Outcome) -> (u64, Duration) {
    let histogram = &totals.durations[outcome.index()];
    (histogram.count(), Duration::from_nanos(histogram.sum_nanos))
}

#[tokio::test(start_paused = true)]
async fn unnamed_checkout_is_named_after_its_call_site() {
    let test = TestPool::new(1, 0);
    let line = line!() + 1;
    drop(test.pool.get().await.unwrap());
    let name = format!("tests/accounting/operations.rs:{line}");
    assert_eq!(test.totals(&name).returned, 1);

    let line = line!() + 1;
    test.pool.run(async |_| Ok::<_, Infallible>(())).await.unwrap();
    let totals = test.totals(&format!("tests/accounting/operations.rs:{line}"));
    assert_eq!((totals.started, duration(&totals, Outcome::Ok).0), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn waiter_reports_its_call_site() {
    let test = TestPool::new(1, 0);
    let held = test.get("holder");
    let pool = test.pool.clone();
    let line = line!() + 1;
    let waiting = ManualFuture::new(async move { pool.operation("named").get().await }).assert_pending();
    let snapshot = test.snapshot();
    assert_eq!((&*snapshot.waiters[0].operation, snapshot.waiters[0].call_site.line()), ("named", line));
    drop((waiting, held));
}

#[tokio::test(start_paused = true)]
async fn names_beyond_the_limit_count_as_other() {
    let test = TestPool::new(1, 0);
    for name in 0..MAX_OPERATIONS + 50 {
        drop(test.get(&format!("operation {name}")));
    }
    let snapshot = test.snapshot();
    assert_eq!(snapshot.operations.len(), MAX_OPERATIONS + 1);
    assert_eq!((&*snapshot.operations[0].name, snapshot.operations[0].returned), ("other", 50));
    assert_eq!(test.pool.operation("one more").name(), "other");
    assert_eq!(test.pool.operation("operation 7").name(), "operation 7");
    // A call site beyond the limit of names is counted too, also while it waits.
    let held = test.pool.get().await.unwrap();
    drop(test.checkout("late").assert_pending());
    assert_eq!(test.outcomes("other", Outcome::Cancelled), 1);
    drop(held);
    assert_eq!(test.totals("other").returned, 51);
}

#[tokio::test(start_paused = true)]
async fn long_names_are_cut_at_char_boundaries() {
    let test = TestPool::new(1, 0);
    let long = "ü".repeat(MAX_NAME_BYTES);
    let operation = test.pool.operation(&long);
    assert_eq!(operation.name(), "ü".repeat(MAX_NAME_BYTES / 2));
    assert_eq!(test.pool.operation("").name(), "other");
}

#[tokio::test(start_paused = true)]
async fn run_is_one_observation_of_wait_and_work() {
    let test = TestPool::new(1, 0);
    let held = test.get("holder");
    let operation = test.pool.operation("work");
    let (start_work, work_started) = tokio::sync::oneshot::channel::<()>();
    let mut run = ManualFuture::new(async move {
        operation
            .run(async |connection| {
                work_started.await.unwrap();
                Ok::<_, Infallible>(connection.id())
            })
            .await
    })
    .assert_pending();
    test.advance(ms(30)).await;
    drop(held);
    let mut run = {
        run = run.assert_pending();
        test.advance(ms(12)).await;
        run
    };
    start_work.send(()).unwrap();
    assert_eq!(run.poll().unwrap().unwrap(), 0);
    let totals = test.totals("work");
    assert_eq!(duration(&totals, Outcome::Ok), (1, ms(42)));
    assert_eq!((totals.wait_nanos, totals.use_nanos), (30_000_000, 12_000_000));
    assert_eq!(test.snapshot().connections.idle, 1, "the connection is returned");
}

#[tokio::test(start_paused = true)]
async fn run_outcome_is_that_of_work_or_checkout() {
    let test = TestPool::new(1, 0);
    let run = |name: &str| test.pool.operation(name).run(async |_| Ok::<_, ScriptedError>(()));

    let failed = test.pool.operation("fails").run(async |_| Err::<(), _>(TRANSIENT_ERROR)).await.unwrap_err();
    assert!(matches!(failed, RunError::Operation(TRANSIENT_ERROR)));
    assert_eq!(failed.to_string(), "the scripted failure");
    let totals = test.totals("fails");
    assert_eq!((duration(&totals, Outcome::Error).0, totals.outcomes[Outcome::Ok.index()]), (1, 1));
    test.get("holder").discard();

    test.backend.push_connect(Behavior::Error);
    let refused = run("refused").await.unwrap_err();
    assert_eq!(refused.outcome(), Outcome::Error);
    assert_eq!(refused.to_string(), "pool `test` cannot connect: the scripted failure");
    assert_eq!(duration(&test.totals("refused"), Outcome::Error).0, 1);

    let held = test.get("holder");
    assert_eq!(run("late").await.unwrap_err().outcome(), Outcome::Timeout);
    assert_eq!(duration(&test.totals("late"), Outcome::Timeout).0, 1);
    drop(held);

    test.pool.close().await;
    assert_eq!(run("closed").await.unwrap_err().outcome(), Outcome::Closed);
    assert_eq!(duration(&test.totals("closed"), Outcome::Closed).0, 1);
}

#[tokio::test(start_paused = true)]
async fn dropped_run_counts_as_cancelled() {
    let test = TestPool::new(1, 0);
    let start = || {
        let operation = test.pool.operation("dropped");
        ManualFuture::new(operation.run(async |_| std::future::pending::<Result<(), Infallible>>().await))
    };
    drop(start());
    assert_eq!(test.totals("dropped").started, 0, "a run that was never polled is not counted");
    let working = start().assert_pending();
    let waiting = start().assert_pending();
    test.advance(ms(10)).await;
    drop(waiting);
    let totals = test.totals("dropped");
    assert_eq!(duration(&totals, Outcome::Cancelled), (1, ms(10)));
    assert_eq!(totals.outcomes[Outcome::Cancelled.index()], 1);
    drop(working);
    let totals = test.totals("dropped");
    assert_eq!(duration(&totals, Outcome::Cancelled), (2, ms(20)));
    assert_eq!((totals.returned, totals.outcomes[Outcome::Ok.index()]), (1, 1));
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn panicking_work_counts_as_error() {
    let test = TestPool::new(1, 0);
    for retried in [false, true] {
        let name = if retried { "retried" } else { "run" };
        let operation = test.pool.operation(name);
        let work = async |_: &mut _| -> Result<(), ScriptedError> { std::panic::resume_unwind(Box::new("scripted")) };
        // Not an async block, which would drop the operation while it unwinds.
        let mut running = if retried {
            let running = operation.retry(RetryPolicy::new()).run(work);
            ManualFuture::new(running.map(|result| result.is_ok()))
        } else {
            ManualFuture::new(operation.run(work).map(|result| result.is_ok()))
        };
        running.try_poll().unwrap_err();
        drop(running);
        assert_eq!(duration(&test.totals(name), Outcome::Error).0, 1, "{name}");
        assert_eq!(duration(&test.totals(name), Outcome::Cancelled).0, 0, "{name}");
    }
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn use_time_counts_for_the_holding_operation() {
    let test = TestPool::new(1, 1);
    let one = test.get("one");
    test.advance(ms(10)).await;
    let two = test.get("two");
    test.advance(ms(5)).await;
    let snapshot = test.snapshot();
    let holders: Vec<_> = snapshot.holders.iter().map(|holder| &*holder.operation).collect();
    assert_eq!(holders, ["one", "two"], "oldest first");
    // Connections record their start in units of 1,024 ns.
    let error = snapshot.holders[0].age - ms(15);
    assert!(error < Duration::from_nanos(1024), "{error:?}");
    drop((one, two));
    assert_eq!(test.totals("one").use_nanos, 15_000_000);
    assert_eq!(test.totals("two").use_nanos, 5_000_000);
    // The next use of the same connection counts for its new holder.
    drop(test.get("two"));
    assert_eq!((test.totals("one").returned, test.totals("two").returned), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn totals_outlive_closed_connections() {
    let test = TestPool::new(1, 0);
    for _ in 0..20 {
        let held = test.get("work");
        test.advance(ms(3)).await;
        held.discard();
    }
    let totals = test.totals("work");
    assert_eq!((totals.started, totals.returned, totals.use_nanos), (20, 20, 60_000_000));
    assert_eq!(test.snapshot().use_time.count(), 20);
}

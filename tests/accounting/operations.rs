//! Names, and what is done under them.

use std::convert::Infallible;
use std::time::Duration;

use poolscope::error::RunError;
use poolscope::labels::Outcome;
use poolscope::telemetry::{MAX_NAME_BYTES, MAX_OPERATIONS, OperationTotals};

use super::backend::{Answer, FAILURE, Failure};
use super::harness::{Attempt, Rig, ms};

/// How often an operation ended so, and how long that took.
fn duration(totals: &OperationTotals, outcome: Outcome) -> (u64, Duration) {
    let histogram = &totals.durations[outcome.index()];
    (histogram.count(), Duration::from_nanos(histogram.sum_nanos))
}

#[tokio::test(start_paused = true)]
async fn a_checkout_without_a_name_is_named_after_its_file_and_line() {
    let rig = Rig::new(1, 0);
    let line = line!() + 1;
    drop(rig.core.get().await.unwrap());
    let name = format!("tests/accounting/operations.rs:{line}");
    assert_eq!(rig.totals(&name).returned, 1);

    let line = line!() + 1;
    rig.core.run(async |_| Ok::<_, Infallible>(())).await.unwrap();
    let totals = rig.totals(&format!("tests/accounting/operations.rs:{line}"));
    assert_eq!((totals.started, duration(&totals, Outcome::Ok).0), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_waiters_call_site_is_where_it_was_asked_for() {
    let rig = Rig::new(1, 0);
    let held = rig.take("holder");
    let core = rig.core.clone();
    let line = line!() + 1;
    let waiting = Attempt::new(async move { core.operation("named").get().await }).stays();
    let pool = rig.snapshot();
    assert_eq!((&*pool.waiters[0].operation, pool.waiters[0].call_site.line()), ("named", line));
    drop((waiting, held));
}

#[tokio::test(start_paused = true)]
async fn names_are_bounded_and_those_beyond_are_counted_as_other() {
    let rig = Rig::new(1, 0);
    for name in 0..MAX_OPERATIONS + 50 {
        drop(rig.take(&format!("operation {name}")));
    }
    let pool = rig.snapshot();
    assert_eq!(pool.operations.len(), MAX_OPERATIONS + 1);
    assert_eq!((&*pool.operations[0].name, pool.operations[0].returned), ("other", 50));
    assert_eq!(rig.core.operation("one more").name(), "other");
    assert_eq!(rig.core.operation("operation 7").name(), "operation 7");
    // A call site that finds the table full is counted too, in the queue as well.
    let held = rig.core.get().await.unwrap();
    drop(rig.checkout("late").stays());
    assert_eq!(rig.outcomes("other", Outcome::Cancelled), 1);
    drop(held);
    assert_eq!(rig.totals("other").returned, 51);
}

#[tokio::test(start_paused = true)]
async fn a_long_name_is_cut_between_characters() {
    let rig = Rig::new(1, 0);
    let long = "ü".repeat(MAX_NAME_BYTES);
    let operation = rig.core.operation(&long);
    assert_eq!(operation.name(), "ü".repeat(MAX_NAME_BYTES / 2));
    assert_eq!(rig.core.operation("").name(), "other");
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_one_observation_with_its_checkout_and_its_work() {
    let rig = Rig::new(1, 0);
    let held = rig.take("holder");
    let operation = rig.core.operation("work");
    let (begin, begun) = tokio::sync::oneshot::channel::<()>();
    let mut run = Attempt::new(async move {
        operation
            .run(async |connection| {
                begun.await.unwrap();
                Ok::<_, Infallible>(connection.id())
            })
            .await
    })
    .stays();
    rig.advance(ms(30)).await;
    drop(held);
    let mut run = {
        run = run.stays();
        rig.advance(ms(12)).await;
        run
    };
    begin.send(()).unwrap();
    assert_eq!(run.poll().unwrap().unwrap(), 0);
    let totals = rig.totals("work");
    assert_eq!(duration(&totals, Outcome::Ok), (1, ms(42)));
    assert_eq!((totals.wait_nanos, totals.use_nanos), (30_000_000, 12_000_000));
    assert_eq!(rig.snapshot().connections.idle, 1, "and the connection is back");
}

#[tokio::test(start_paused = true)]
async fn an_operation_ends_as_its_work_does_or_else_as_its_checkout() {
    let rig = Rig::new(1, 0);
    let run = |name: &str| rig.core.operation(name).run(async |_| Ok::<_, Failure>(()));

    let failed = rig.core.operation("fails").run(async |_| Err::<(), _>(FAILURE)).await.unwrap_err();
    assert!(matches!(failed, RunError::Operation(FAILURE)));
    assert_eq!(failed.to_string(), "the scripted failure");
    let totals = rig.totals("fails");
    assert_eq!((duration(&totals, Outcome::Error).0, totals.outcomes[Outcome::Ok.index()]), (1, 1));
    rig.take("holder").discard();

    rig.backend.next_connect(Answer::Error);
    let refused = run("refused").await.unwrap_err();
    assert_eq!(refused.outcome(), Outcome::Error);
    assert_eq!(refused.to_string(), "pool `rig` cannot connect");
    assert_eq!(duration(&rig.totals("refused"), Outcome::Error).0, 1);

    let held = rig.take("holder");
    assert_eq!(run("late").await.unwrap_err().outcome(), Outcome::Timeout);
    assert_eq!(duration(&rig.totals("late"), Outcome::Timeout).0, 1);
    drop(held);

    rig.core.close().await;
    assert_eq!(run("closed").await.unwrap_err().outcome(), Outcome::Closed);
    assert_eq!(duration(&rig.totals("closed"), Outcome::Closed).0, 1);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_is_dropped_is_cancelled_whether_it_waits_or_works() {
    let rig = Rig::new(1, 0);
    let start = || {
        let operation = rig.core.operation("dropped");
        Attempt::new(operation.run(async |_| std::future::pending::<Result<(), Infallible>>().await))
    };
    drop(start());
    assert_eq!(rig.totals("dropped").started, 0, "one that was never polled is none");
    let working = start().stays();
    let waiting = start().stays();
    rig.advance(ms(10)).await;
    drop(waiting);
    let totals = rig.totals("dropped");
    assert_eq!(duration(&totals, Outcome::Cancelled), (1, ms(10)));
    assert_eq!(totals.outcomes[Outcome::Cancelled.index()], 1);
    drop(working);
    let totals = rig.totals("dropped");
    assert_eq!(duration(&totals, Outcome::Cancelled), (2, ms(20)));
    assert_eq!((totals.returned, totals.outcomes[Outcome::Ok.index()]), (1, 1));
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_charged_to_the_operation_that_holds_it() {
    let rig = Rig::new(1, 1);
    let one = rig.take("one");
    rig.advance(ms(10)).await;
    let two = rig.take("two");
    rig.advance(ms(5)).await;
    let pool = rig.snapshot();
    let holders: Vec<_> = pool.holders.iter().map(|holder| &*holder.operation).collect();
    assert_eq!(holders, ["one", "two"], "oldest first");
    // Seats keep their time in units of 1,024 ns.
    let off = pool.holders[0].age - ms(15);
    assert!(off < Duration::from_nanos(1024), "{off:?}");
    drop((one, two));
    assert_eq!(rig.totals("one").use_nanos, 15_000_000);
    assert_eq!(rig.totals("two").use_nanos, 5_000_000);
    // The next use of the same connection is its holder's.
    drop(rig.take("two"));
    assert_eq!((rig.totals("one").returned, rig.totals("two").returned), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn what_a_closed_connection_served_stays_counted() {
    let rig = Rig::new(1, 0);
    for _ in 0..20 {
        let held = rig.take("work");
        rig.advance(ms(3)).await;
        held.discard();
    }
    let totals = rig.totals("work");
    assert_eq!((totals.started, totals.returned, totals.use_nanos), (20, 20, 60_000_000));
    assert_eq!(rig.snapshot().use_time.count(), 20);
}

//! What is tried again, how often, after which pauses, and what is told of it.

use std::time::Duration;

use poolscope::RetryPolicy;
use poolscope::error::{CheckoutError, RunError};
use poolscope::labels::{GiveUp, Outcome};
use poolscope::retry::{Class, Completed, Effects, RetryError};
use poolscope::telemetry::PoolSnapshot;

use super::backend::{Answer, Failure};
use super::harness::{Attempt, Rig, ms, settings};

type Answered = Result<Completed<u32>, RetryError<Failure, Failure>>;

/// Pauses of nothing, so that nobody has to know how long they are.
const AT_ONCE: RetryPolicy = RetryPolicy::new().backoff(Duration::ZERO, Duration::ZERO);

/// Work that succeeds whenever it gets a connection.
fn run(rig: &Rig, operation: &str, policy: RetryPolicy) -> Attempt<Answered> {
    let operation = rig.core.operation(operation).retry(policy);
    Attempt::new(async move { operation.run_reporting(async |_| Ok::<_, Failure>(7)).await })
}

/// How often operations ended so.
fn ended(snapshot: &PoolSnapshot, outcome: Outcome) -> u64 {
    snapshot.operations.iter().map(|operation| operation.durations[outcome.index()].count()).sum()
}

fn retries(snapshot: &PoolSnapshot) -> u64 {
    snapshot.retries.iter().map(|retries| retries.count).sum()
}

/// A pool whose operations pay for so many retries.
fn rich(retry_floor: usize, retry_percent: usize) -> Rig {
    let mut settings = settings(2, 0);
    (settings.retry_floor, settings.retry_percent) = (retry_floor, retry_percent);
    Rig::with(&settings)
}

#[tokio::test(start_paused = true)]
async fn what_fails_without_a_connection_is_tried_until_it_succeeds_and_that_is_told() {
    let rig = Rig::new(2, 0);
    rig.backend.next_connect(Answer::Error);
    rig.backend.next_connect(Answer::Error);
    let mut running = run(&rig, "works", AT_ONCE);
    while running.poll().is_none_or(|answered| {
        let Completed { value, report, .. } = answered.unwrap();
        assert_eq!((value, report.attempts), (7, 3));
        false
    }) {
        rig.advance(ms(1)).await;
    }
    let snapshot = rig.snapshot();
    assert_eq!((retries(&snapshot), ended(&snapshot, Outcome::Ok)), (2, 1));
    assert_eq!((snapshot.retries[0].code.as_str(), &*snapshot.retries[0].operation), ("57P03", "works"));
    assert_eq!(rig.totals("works").recovered, 1);
    assert_eq!(rig.totals("works").outcomes[Outcome::Error.index()], 2);
}

#[tokio::test(start_paused = true)]
async fn the_policy_says_how_often_and_the_error_how_often_it_was() {
    let rig = Rig::new(2, 0);
    rig.backend.connects(Answer::Error);
    let error = run(&rig, "fails", AT_ONCE.attempts(3)).finish(&rig).await.unwrap_err();
    assert_eq!((error.attempts(), error.gave_up(), error.class()), (3, GiveUp::Attempts, Class::Connect));
    assert_eq!((error.sqlstate(), error.effects(), error.outcome()), (Some("57P03"), Effects::None, Outcome::Error));
    assert!(matches!(error.error(), Some(RunError::Checkout(CheckoutError::Connect { .. }))));
    let told = "operation `fails` failed after 3 attempts (connect, 57P03; 0s waiting, 0s executing, 0s backing off) and \
                is not tried again: the policy allows no more attempts";
    assert_eq!(error.to_string(), told);
    let snapshot = rig.snapshot();
    let [exhausted] = &snapshot.retries_exhausted[..] else { panic!("{snapshot:?}") };
    assert_eq!((exhausted.reason, exhausted.code.as_str(), exhausted.count), (GiveUp::Attempts, "57P03", 1));
    assert_eq!((retries(&snapshot), ended(&snapshot, Outcome::Error)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn where_the_time_went_is_told_to_the_nanosecond() {
    let rig = Rig::new(1, 0);
    rig.backend.next_connect(Answer::After(ms(30), super::backend::End::Error));
    let operation = rig.core.operation("times").retry(RetryPolicy::new().backoff(ms(100), ms(100)));
    let mut running = Attempt::new(async move {
        let work = async |_: &mut _| {
            tokio::time::sleep(ms(70)).await;
            Ok::<_, Failure>(())
        };
        operation.run_reporting(work).await
    })
    .stays();
    rig.advance(ms(30)).await;
    assert!(running.poll().is_none(), "it backs off");
    let began = rig.now();
    while rig.backend.creates().begun() < 2 {
        rig.advance(Duration::from_micros(100)).await;
        assert!(running.poll().is_none());
    }
    let backed_off = Duration::from_nanos(rig.now() - began);
    assert!(backed_off <= ms(101), "{backed_off:?}");
    rig.advance(ms(70)).await;
    let report = running.poll().unwrap().unwrap().report;
    assert_eq!((report.waiting, report.executing, report.backing_off), (ms(30), ms(70), backed_off));
}

#[tokio::test(start_paused = true)]
async fn when_the_budget_is_spent_retries_stop_and_say_so() {
    let rig = rich(0, 50);
    rig.backend.connects(Answer::Error);
    // Two operations pay for one retry.
    for (attempts, reason) in [(1, GiveUp::Budget), (2, GiveUp::Budget), (1, GiveUp::Budget), (2, GiveUp::Budget)] {
        let error = run(&rig, "fails", AT_ONCE).finish(&rig).await.unwrap_err();
        assert_eq!((error.attempts(), error.gave_up()), (attempts, reason));
        assert!(error.to_string().ends_with("the pool's budget for retries is spent"), "{error}");
    }
    let snapshot = rig.snapshot();
    assert_eq!((retries(&snapshot), snapshot.retry_budget as u32), (2, 0));
    assert_eq!(snapshot.retries_exhausted[0].count, 4);
}

#[tokio::test(start_paused = true)]
async fn the_budgets_floor_is_there_in_every_ten_seconds() {
    let rig = rich(1, 0);
    rig.backend.connects(Answer::Error);
    let policy = AT_ONCE.attempts(100).deadline(None);
    for _ in 0..2 {
        let error = run(&rig, "fails", policy).finish(&rig).await.unwrap_err();
        assert_eq!((error.attempts(), error.gave_up()), (11, GiveUp::Budget));
        rig.advance(ms(10_000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_it_backs_off_leaves_nothing_behind() {
    let rig = Rig::new(1, 0);
    rig.backend.next_connect(Answer::Error);
    let running = run(&rig, "leaves", RetryPolicy::new().backoff(ms(3_600_000), ms(3_600_000)).deadline(None)).stays();
    let snapshot = rig.snapshot();
    assert_eq!((retries(&snapshot), snapshot.in_flight, snapshot.connections.live()), (1, 0, 0));
    drop(running);
    let snapshot = rig.snapshot();
    assert_eq!((ended(&snapshot, Outcome::Cancelled), snapshot.retries_exhausted.len()), (1, 0));
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn no_pause_is_begun_that_would_last_beyond_the_deadline() {
    let rig = Rig::new(1, 0);
    rig.backend.connects(Answer::Error);
    // Of pauses of an hour at most, hardly any is shorter than a millisecond.
    let policy = RetryPolicy::new().backoff(ms(3_600_000), ms(3_600_000)).deadline(Some(ms(1)));
    let error = run(&rig, "fails", policy).poll().unwrap().unwrap_err();
    assert_eq!((error.gave_up(), error.attempts(), error.outcome()), (GiveUp::Deadline, 1, Outcome::Timeout));
    assert_eq!((error.class(), error.sqlstate()), (Class::Connect, Some("57P03")));
    assert!(error.to_string().ends_with("the policy's deadline has passed, or would have (1ms)"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_cuts_off_whatever_is_under_way() {
    let rig = Rig::new(1, 0);
    let policy = RetryPolicy::new().deadline(Some(ms(100)));
    // A checkout.
    let held = rig.take("holder");
    let mut running = run(&rig, "waits", policy).stays();
    rig.advance(ms(100)).await;
    let error = running.poll().unwrap().unwrap_err();
    assert_eq!((error.gave_up(), error.report().waiting, error.effects()), (GiveUp::Deadline, ms(100), Effects::None));
    assert!(error.error().is_none() && error.sqlstate().is_none());
    assert_eq!(rig.outcomes("waits", Outcome::Cancelled), 1);
    drop(held);
    // Work: without a wire nobody knows what it did.
    let operation = rig.core.operation("works").retry(policy);
    let work = async move { operation.run(async |_| std::future::pending::<Result<(), Failure>>().await).await };
    let mut running = Attempt::new(work).stays();
    rig.advance(ms(100)).await;
    let error = running.poll().unwrap().unwrap_err();
    assert_eq!((error.report().executing, error.effects()), (ms(100), Effects::Unseen));
    let snapshot = rig.snapshot();
    assert_eq!((ended(&snapshot, Outcome::Timeout), snapshot.connections.used), (2, 0));
    assert!(snapshot.retries_exhausted.iter().all(|exhausted| exhausted.code.as_str() == "none"));
}

#[tokio::test(start_paused = true)]
async fn a_checkout_that_met_its_own_deadline_is_not_asked_for_again() {
    let rig = Rig::new(1, 0);
    let _held = rig.take("holder");
    let mut running = run(&rig, "waits", AT_ONCE).stays();
    rig.advance(ms(1000)).await;
    let error = running.poll().unwrap().unwrap_err();
    assert_eq!(
        (error.gave_up(), error.class(), error.outcome()),
        (GiveUp::Permanent, Class::Permanent, Outcome::Timeout)
    );
    assert_eq!(error.sqlstate(), Some("timeout"));
}

#[tokio::test(start_paused = true)]
async fn work_that_failed_unseen_is_not_done_again_even_if_it_is_idempotent() {
    let rig = Rig::new(1, 0);
    let operation = rig.core.operation("fails").idempotent(true).retry(AT_ONCE);
    let mut running = Attempt::new(async move { operation.run(async |_| Err::<(), _>("no")).await });
    let error = running.poll().unwrap().unwrap_err();
    assert_eq!((error.gave_up(), error.class(), error.effects()), (GiveUp::Unseen, Class::Unseen, Effects::Unseen));
    assert!(matches!(error.into_error(), Some(RunError::Operation("no"))));
}

impl Attempt<Answered> {
    /// Polls it until it is done, as time goes on.
    async fn finish(&mut self, rig: &Rig) -> Answered {
        loop {
            if let Some(answered) = self.poll() {
                return answered;
            }
            rig.advance(Duration::ZERO).await;
        }
    }
}

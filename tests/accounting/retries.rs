//! Which failures are retried, how often, after which pauses, and how this is reported.

use std::time::Duration;

use poolscope::RetryPolicy;
use poolscope::error::{CheckoutError, RunError};
use poolscope::labels::{GiveUp, Outcome};
use poolscope::retry::{Class, Completed, Effects, RetryError};
use poolscope::telemetry::PoolSnapshot;

use super::backend::{Behavior, ScriptedError};
use super::harness::{ManualFuture, TestPool, ms, poll_woken, settings};

type RunResult = Result<Completed<u32>, RetryError<ScriptedError, ScriptedError>>;

/// Without pauses, so that tests need not know their length.
const NO_BACKOFF: RetryPolicy = RetryPolicy::new().backoff(Duration::ZERO, Duration::ZERO);

/// Runs work that succeeds once it gets a connection.
fn run(test: &TestPool, operation: &str, policy: RetryPolicy) -> ManualFuture<RunResult> {
    let operation = test.pool.operation(operation).retry(policy);
    ManualFuture::new(async move { operation.run_reporting(async |_| Ok::<_, ScriptedError>(7)).await })
}

/// Returns how many runs had `outcome`.
fn run_count(snapshot: &PoolSnapshot, outcome: Outcome) -> u64 {
    snapshot.operations.iter().map(|operation| operation.durations[outcome.index()].count()).sum()
}

fn retries(snapshot: &PoolSnapshot) -> u64 {
    snapshot.retries.iter().map(|retries| retries.count).sum()
}

/// Returns a pool with this retry budget.
fn pool_with_budget(retry_floor: usize, retry_percent: usize) -> TestPool {
    let mut settings = settings(2, 0);
    (settings.retry_floor, settings.retry_percent) = (retry_floor, retry_percent);
    TestPool::with(&settings)
}

#[tokio::test(start_paused = true)]
async fn connect_failures_are_retried_until_success() {
    let test = TestPool::new(2, 0);
    test.backend.push_connect(Behavior::Error);
    test.backend.push_connect(Behavior::Error);
    let mut running = run(&test, "works", NO_BACKOFF);
    while running.poll().is_none_or(|result| {
        let Completed { value, report, .. } = result.unwrap();
        assert_eq!((value, report.attempts), (7, 3));
        false
    }) {
        test.advance(ms(1)).await;
    }
    let snapshot = test.snapshot();
    assert_eq!((retries(&snapshot), run_count(&snapshot, Outcome::Ok)), (2, 1));
    assert_eq!((snapshot.retries[0].code.as_str(), &*snapshot.retries[0].operation), ("57P03", "works"));
    assert_eq!(test.totals("works").recovered, 1);
    assert_eq!(test.totals("works").outcomes[Outcome::Error.index()], 2);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_limited_and_reported() {
    let test = TestPool::new(2, 0);
    test.backend.set_connect(Behavior::Error);
    let error = run(&test, "fails", NO_BACKOFF.attempts(3)).finish(&test).await.unwrap_err();
    assert_eq!((error.attempts(), error.gave_up(), error.class()), (3, GiveUp::Attempts, Class::Connect));
    assert_eq!((error.sqlstate(), error.effects(), error.outcome()), (Some("57P03"), Effects::None, Outcome::Error));
    assert!(matches!(error.error(), Some(RunError::Checkout(CheckoutError::Connect { .. }))));
    let expected = "operation `fails` failed after 3 attempts (connect, 57P03; 0s waiting, 0s executing, 0s backing off) and \
                is not retried: the policy allows no more attempts: pool `test` cannot connect: the scripted failure";
    assert_eq!(error.to_string(), expected);
    let snapshot = test.snapshot();
    let [exhausted] = &snapshot.retries_exhausted[..] else { panic!("{snapshot:?}") };
    assert_eq!((exhausted.reason, exhausted.code.as_str(), exhausted.count), (GiveUp::Attempts, "57P03", 1));
    assert_eq!((retries(&snapshot), run_count(&snapshot, Outcome::Error)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn report_splits_time_to_the_nanosecond() {
    let test = TestPool::new(1, 0);
    test.backend.push_connect(Behavior::After(ms(30), super::backend::Completion::Error));
    let operation = test.pool.operation("times").retry(RetryPolicy::new().backoff(ms(100), ms(100)));
    let mut running = ManualFuture::new(async move {
        let work = async |_: &mut _| {
            tokio::time::sleep(ms(70)).await;
            Ok::<_, ScriptedError>(())
        };
        operation.run_reporting(work).await
    })
    .assert_pending();
    test.advance(ms(30)).await;
    assert!(running.poll().is_none(), "it backs off");
    let began = test.now();
    while test.backend.creates().started() < 2 {
        test.advance(Duration::from_micros(100)).await;
        assert!(running.poll().is_none());
    }
    let backed_off = Duration::from_nanos(test.now() - began);
    assert!(backed_off <= ms(101), "{backed_off:?}");
    test.advance(ms(70)).await;
    let report = running.poll().unwrap().unwrap().report;
    assert_eq!((report.waiting, report.executing, report.backing_off), (ms(30), ms(70), backed_off));
}

#[tokio::test(start_paused = true)]
async fn retries_stop_when_budget_is_spent() {
    let test = pool_with_budget(0, 50);
    test.backend.set_connect(Behavior::Error);
    // Two operations earn one retry.
    for (attempts, reason) in [(1, GiveUp::Budget), (2, GiveUp::Budget), (1, GiveUp::Budget), (2, GiveUp::Budget)] {
        let error = run(&test, "fails", NO_BACKOFF).finish(&test).await.unwrap_err();
        assert_eq!((error.attempts(), error.gave_up()), (attempts, reason));
        assert!(
            error.to_string().contains("the pool's retry budget is exhausted: pool `test` cannot connect"),
            "{error}"
        );
    }
    let snapshot = test.snapshot();
    assert_eq!((retries(&snapshot), snapshot.retry_budget as u32), (2, 0));
    assert_eq!(snapshot.retries_exhausted[0].count, 4);
}

#[tokio::test(start_paused = true)]
async fn budget_floor_is_granted_every_ten_seconds() {
    let test = pool_with_budget(1, 0);
    test.backend.set_connect(Behavior::Error);
    let policy = NO_BACKOFF.attempts(100).deadline(None);
    for _ in 0..2 {
        let error = run(&test, "fails", policy).finish(&test).await.unwrap_err();
        assert_eq!((error.attempts(), error.gave_up()), (11, GiveUp::Budget));
        test.advance(ms(10_000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn drop_during_backoff_leaks_nothing() {
    let test = TestPool::new(1, 0);
    test.backend.push_connect(Behavior::Error);
    let running =
        run(&test, "leaves", RetryPolicy::new().backoff(ms(3_600_000), ms(3_600_000)).deadline(None)).assert_pending();
    let snapshot = test.snapshot();
    assert_eq!((retries(&snapshot), snapshot.in_flight, snapshot.connections.live()), (1, 0, 0));
    drop(running);
    let snapshot = test.snapshot();
    assert_eq!((run_count(&snapshot, Outcome::Cancelled), snapshot.retries_exhausted.len()), (1, 0));
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn backoff_never_outlasts_the_deadline() {
    let test = TestPool::new(1, 0);
    test.backend.set_connect(Behavior::Error);
    // With pauses of up to an hour, hardly any is shorter than a millisecond.
    let policy = RetryPolicy::new().backoff(ms(3_600_000), ms(3_600_000)).deadline(Some(ms(1)));
    let error = run(&test, "fails", policy).poll().unwrap().unwrap_err();
    assert_eq!((error.gave_up(), error.attempts(), error.outcome()), (GiveUp::Deadline, 1, Outcome::Timeout));
    assert_eq!((error.class(), error.sqlstate()), (Class::Connect, Some("57P03")));
    let expected =
        "the policy's deadline has passed, or would pass (1ms): pool `test` cannot connect: the scripted failure";
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[tokio::test(start_paused = true)]
async fn deadline_cancels_checkout_and_work() {
    let test = TestPool::new(1, 0);
    let policy = RetryPolicy::new().deadline(Some(ms(100)));
    // While checking out.
    let held = test.get("holder");
    let mut running = run(&test, "waits", policy).assert_pending();
    test.advance(ms(100)).await;
    let error = running.poll().unwrap().unwrap_err();
    assert_eq!((error.gave_up(), error.report().waiting, error.effects()), (GiveUp::Deadline, ms(100), Effects::None));
    assert!(error.error().is_none() && error.sqlstate().is_none());
    assert_eq!(
        error.to_string(),
        "operation `waits` failed after 1 attempt (cut_off; 100ms waiting, 0s executing, 0s backing off) and is not retried: \
         the policy's deadline has passed, or would pass (100ms); it was waiting for a connection of pool `test`: 1 used, \
         0 idle, 0 being created of 1, 0 waiting; held by holder ×1 (oldest 100ms)"
    );
    assert_eq!(test.outcomes("waits", Outcome::Cancelled), 1);
    drop(held);
    // While working: without the protocol observer the effects are unknown.
    let operation = test.pool.operation("works").retry(policy);
    let work = async move { operation.run(async |_| std::future::pending::<Result<(), ScriptedError>>().await).await };
    let mut running = ManualFuture::new(work).assert_pending();
    test.advance(ms(100)).await;
    let error = running.poll().unwrap().unwrap_err();
    assert_eq!((error.report().executing, error.effects()), (ms(100), Effects::Unseen));
    let snapshot = test.snapshot();
    assert_eq!((run_count(&snapshot, Outcome::Timeout), snapshot.connections.used), (2, 0));
    assert!(snapshot.retries_exhausted.iter().all(|exhausted| exhausted.code.as_str() == "none"));
}

#[tokio::test(start_paused = true)]
async fn checkout_timeout_is_not_retried() {
    let test = TestPool::new(1, 0);
    let _held = test.get("holder");
    let mut running = run(&test, "waits", NO_BACKOFF).assert_pending();
    test.advance(ms(1000)).await;
    let error = running.poll().unwrap().unwrap_err();
    assert_eq!(
        (error.gave_up(), error.class(), error.outcome()),
        (GiveUp::CheckoutTimeout, Class::CheckoutTimeout, Outcome::Timeout)
    );
    let text = error.to_string();
    let expected = "operation `waits` failed after 1 attempt (checkout_timeout; 1s waiting, 0s executing, 0s backing off) and is \
                    not retried: its checkout timed out: no connection from pool `test` for waits at ";
    assert!(text.starts_with(expected), "{text}");
    let expected = " within 1s, waiting for one to be returned: 1 used, 0 idle, 0 being created of 1, 0 waiting; held by \
                    holder ×1 (oldest 1s); the waiting task itself held one, checked out for holder at ";
    assert!(text.contains(expected), "{text}");
    assert_eq!((error.sqlstate(), error.error_type()), (None, Some("timeout")));
}

#[tokio::test(start_paused = true)]
async fn unobserved_failure_is_never_retried() {
    let test = TestPool::new(1, 0);
    let operation = test.pool.operation("fails").idempotent(true).retry(NO_BACKOFF);
    let mut running = ManualFuture::new(async move { operation.run(async |_| Err::<(), _>("no")).await });
    let error = running.poll().unwrap().unwrap_err();
    assert_eq!((error.gave_up(), error.class(), error.effects()), (GiveUp::Unseen, Class::Unseen, Effects::Unseen));
    assert!(matches!(error.into_error(), Some(RunError::Operation("no"))));
}

impl ManualFuture<RunResult> {
    /// Polls it until it completes, letting timers fire.
    async fn finish(&mut self, test: &TestPool) -> RunResult {
        loop {
            if let Some(result) = self.poll() {
                return result;
            }
            test.advance(Duration::ZERO).await;
        }
    }
}

/// Polls runs until all have ended, for at most `limit`, and recovers the backend at `recovery`. Returns their results.
async fn finish_all(
    test: &TestPool,
    mut running: Vec<ManualFuture<RunResult>>,
    recovery: Option<Duration>,
    limit: Duration,
) -> Vec<RunResult> {
    let (began, mut results) = (test.now(), Vec::new());
    while !running.is_empty() {
        poll_woken(&mut running, |_, result| results.push(result));
        test.advance(ms(1)).await;
        let waited = Duration::from_nanos(test.now() - began);
        if recovery.is_some_and(|recovery| waited >= recovery) {
            test.backend.recover();
        }
        assert!(waited <= limit, "{} of them still run", running.len());
    }
    results
}

/// Five attempts are five attempts at the server, also with `fail_fast`: a retry waits for the gate's next one.
#[tokio::test(start_paused = true)]
async fn denied_retry_waits_for_the_gate() {
    for suspended in [false, true] {
        let test = TestPool::new(2, 0);
        test.backend.set_connect(Behavior::Down);
        if suspended {
            assert!(test.checkout("other").poll().unwrap().is_err());
        }
        let before = test.backend.creates().started();
        let running = vec![run(&test, "waits", NO_BACKOFF)];
        let began = test.now();
        let error = finish_all(&test, running, None, ms(2000)).await.pop().unwrap().unwrap_err();
        assert_eq!((error.attempts(), error.gave_up()), (5, GiveUp::Attempts));
        assert_eq!(test.backend.creates().started() - before, 5);
        assert!(matches!(error.error(), Some(RunError::Checkout(CheckoutError::Connect { .. }))));
        // Pauses of at most 50, 100, 200 and 400 ms, and at least half of that.
        let took = Duration::from_nanos(test.now() - began);
        assert!(took >= ms(375), "{took:?}");
    }
}

/// No attempt of any operation is used up while another one tries.
#[tokio::test(start_paused = true)]
async fn denied_retries_outlast_a_long_outage() {
    let mut settings = settings(4, 0);
    settings.checkout_timeout = ms(500);
    let test = TestPool::with(&settings);
    test.backend.set_connect(Behavior::Down);
    let running: Vec<_> = (0..20).map(|_| run(&test, "waits", NO_BACKOFF)).collect();
    let results = finish_all(&test, running, Some(ms(8000)), ms(12_000)).await;
    let (mut failed_attempts, mut served) = (0, 0);
    for result in results {
        match result {
            Ok(completed) => {
                served += 1;
                failed_attempts += completed.report.attempts - 1;
            }
            Err(error) => failed_attempts += error.attempts(),
        }
    }
    assert_eq!(failed_attempts as usize, test.backend.creates().failed(), "each attempt was one at the server");
    // Four attempts in the first 0.8 s, then one each 0.4 s at most: four operations may have used up theirs.
    assert!(served >= 20 - 5, "{served} of 20");
}

#[tokio::test(start_paused = true)]
async fn denied_retry_is_bounded_by_the_deadline() {
    let test = TestPool::new(2, 0);
    test.backend.set_connect(Behavior::Down);
    let policy = NO_BACKOFF.attempts(100).deadline(Some(ms(3000)));
    let running = vec![run(&test, "waits", policy), run(&test, "waits", policy)];
    let began = test.now();
    for result in finish_all(&test, running, None, ms(3100)).await {
        let error = result.unwrap_err();
        assert_eq!((error.gave_up(), error.sqlstate()), (GiveUp::Deadline, Some("57P03")));
    }
    assert!(test.now() - began >= 3_000_000_000);
}

/// Without a retry there is nothing to wait for.
#[tokio::test(start_paused = true)]
async fn only_attempt_fails_at_once() {
    let test = TestPool::new(2, 0);
    test.backend.set_connect(Behavior::Down);
    assert!(test.checkout("other").poll().unwrap().is_err());
    let error = run(&test, "fails", NO_BACKOFF.attempts(1)).poll().unwrap().unwrap_err();
    assert_eq!((error.attempts(), error.gave_up()), (1, GiveUp::Attempts));
    assert!(matches!(error.error(), Some(RunError::Checkout(CheckoutError::Unavailable { .. }))));
}

/// An attempt that was given up after `connect_timeout` has reached the server, and counts.
#[tokio::test(start_paused = true)]
async fn attempt_that_was_given_up_is_counted() {
    let mut settings = settings(2, 0);
    settings.connect_timeout = ms(100);
    settings.checkout_timeout = ms(30_000);
    let test = TestPool::with(&settings);
    test.backend.set_connect(Behavior::Blocked);
    let running = vec![run(&test, "hangs", NO_BACKOFF.attempts(2))];
    let error = finish_all(&test, running, None, ms(10_000)).await.pop().unwrap().unwrap_err();
    assert_eq!((error.attempts(), error.gave_up()), (2, GiveUp::Attempts));
    assert_eq!(test.backend.creates().started(), 2);
}

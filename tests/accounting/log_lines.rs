//! How many lines ten minutes of each fault log.

#[path = "../support/log_lines.rs"]
mod lines;

use std::time::Duration;

use tracing::Level;

use self::lines::LogLines;
use super::backend::{Behavior, Completion};
use super::harness::{ManualFuture, TestPool, ms, settings};

const STEP: Duration = ms(250);
const STEPS: u32 = 2400;

/// Lines of one kind in ten minutes.
const MAX_LINES: u64 = 11;

/// Runs ten minutes of `step`, which is given its number.
async fn ten_minutes(test: &TestPool, mut step: impl FnMut(&TestPool, u32)) -> LogLines {
    let lines = LogLines::default();
    let _capture = lines.capture();
    for number in 0..STEPS {
        step(test, number);
        test.advance(STEP).await;
    }
    lines
}

#[track_caller]
fn assert_lines(lines: &LogLines, level: Level, message: &str, least: u64, most: u64) {
    let count = lines.count(level, message).lines;
    assert!((least..=most).contains(&count), "{count} × {message}: {lines:?}");
}

#[tokio::test(start_paused = true)]
async fn unreachable_server_logs_a_few_lines() {
    for fail_fast in [true, false] {
        let mut settings = settings(4, 0);
        settings.fail_fast = fail_fast;
        let test = TestPool::with(&settings);
        test.backend.set_connect(Behavior::Down);
        let mut waiting: Vec<ManualFuture> = Vec::new();
        let lines = ten_minutes(&test, |test, _| {
            waiting.extend((0..4).map(|_| test.checkout("work")));
            waiting.retain_mut(|checkout| checkout.poll().is_none());
        })
        .await;
        assert_lines(&lines, Level::WARN, "connection error", 9, MAX_LINES);
        assert_lines(&lines, Level::WARN, "connecting failed", 1, 1);
        assert!(lines.total() <= 1 + 2 * MAX_LINES, "{lines:?}");
        assert!(lines.count(Level::WARN, "connection error").suppressed > 500, "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn flapping_server_logs_a_few_lines() {
    let test = TestPool::new(1, 0);
    let lines = ten_minutes(&test, |test, number| {
        // Down for 4 s of 8 s, and connections end whenever it goes down.
        let is_down = number / 16 % 2 == 1;
        let (connect, ping) = if is_down { (Behavior::Down, Behavior::Error) } else { (Behavior::Ok, Behavior::Ok) };
        test.backend.set_connect(connect);
        test.backend.set_ping(ping);
        test.advance_pool_clock(ms(300));
        drop(test.checkout("probe").poll());
    })
    .await;
    let (down, up) = ("connecting failed", "connecting succeeded again");
    assert_lines(&lines, Level::WARN, down, 4, 2 * MAX_LINES);
    let difference = lines.count(Level::WARN, down).lines - lines.count(Level::INFO, up).lines;
    assert!(difference <= 1, "{lines:?}");
    assert!(lines.total() <= 6 * MAX_LINES, "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn wrong_configuration_logs_a_few_lines() {
    let test = TestPool::new(4, 0);
    test.backend.set_connect(Behavior::Misconfigured);
    let lines = ten_minutes(&test, |test, _| drop(test.checkout("work").poll())).await;
    assert_lines(&lines, Level::WARN, "connecting failed because of", 1, 1);
    assert!(lines.total() <= 1 + MAX_LINES, "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn exhausted_pool_logs_a_few_lines() {
    let test = TestPool::new(1, 0);
    let held = test.get("holder");
    let mut waiting: Vec<ManualFuture> = Vec::new();
    let lines = ten_minutes(&test, |test, _| {
        waiting.extend((0..4).map(|_| test.checkout("work")));
        waiting.retain_mut(|checkout| checkout.poll().is_none());
    })
    .await;
    drop(held);
    assert_lines(&lines, Level::WARN, "checkout timed out", 9, MAX_LINES);
    assert!(lines.total() <= 2 * MAX_LINES, "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn silent_server_logs_a_few_lines() {
    let test = TestPool::new(4, 0);
    test.backend.set_connect(Behavior::After(ms(3_600_000), Completion::Ok));
    let mut waiting: Vec<ManualFuture> = Vec::new();
    let lines = ten_minutes(&test, |test, _| {
        waiting.extend((0..4).map(|_| test.checkout("work")));
        waiting.retain_mut(|checkout| checkout.poll().is_none());
    })
    .await;
    assert_lines(&lines, Level::WARN, "checkout timed out", 9, MAX_LINES);
    assert!(lines.total() <= 1 + 3 * MAX_LINES, "{lines:?}");
}

/// The line is the error's text, and the timeouts of one operation do not hide those of another.
#[tokio::test(start_paused = true)]
async fn timeouts_log_their_error_by_operation() {
    let test = TestPool::new(1, 0);
    let held = test.get("holder");
    let lines = LogLines::default();
    let _capture = lines.capture();
    let mut errors = Vec::new();
    for _ in 0..3 {
        let mut waiting = ["list_orders", "add_order"].map(|operation| test.checkout(operation).assert_pending());
        test.advance(ms(1001)).await;
        errors.push(waiting.each_mut().map(|checkout| checkout.poll().unwrap().unwrap_err().to_string()));
    }
    drop(held);
    let text = "no connection from pool `test` for list_orders at tests/accounting/harness.rs:109 within 1s 1ms, waiting for \
                one to be returned: 1 used, 0 idle, 0 being created of 1, 1 waiting (the first for 1s 1ms); held by holder ×1";
    assert!(errors[0][0].starts_with(text), "{}", errors[0][0]);
    // The first at once, the second within the next second.
    for error in errors[..2].iter().flatten() {
        assert_lines(&lines, Level::WARN, &format!("checkout timed out: {error}"), 1, 1);
    }
    assert_lines(&lines, Level::WARN, "checkout timed out", 4, 4);
}

#[tokio::test(start_paused = true)]
async fn slow_checkouts_are_logged_by_operation() {
    for (threshold, slow) in [(Some(ms(500)), true), (Some(ms(501)), false), (None, false)] {
        let mut settings = settings(1, 0);
        settings.slow_checkout_threshold = threshold;
        let test = TestPool::with(&settings);
        let lines = LogLines::default();
        let _capture = lines.capture();
        for _ in 0..2 {
            let held = test.get("holder");
            let mut waiting = ["list_orders", "list_orders"].map(|operation| test.checkout(operation).assert_pending());
            test.advance(ms(500)).await;
            drop(held);
            for checkout in &mut waiting {
                drop(checkout.poll().unwrap().unwrap());
            }
        }
        // The others are counted in the next line.
        assert_lines(&lines, Level::WARN, "slow checkout", u64::from(slow), u64::from(slow));
        assert_eq!(lines.total(), u64::from(slow));
    }
}

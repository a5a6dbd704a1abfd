//! Counts the lines of ten minutes of losses.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tracing::Level;

use super::*;
use crate::telemetry::log::log_lines::{Count, LogLines};

/// Logs ten minutes of a fault that ends 90 connections every 5 s, and returns the numbers of warnings and of debug
/// lines.
fn ten_minutes(code: &str, is_held: bool) -> (Count, u64) {
    let (clock, mock) = Clock::mock();
    let (losses, lines) = (LossLog::new(PoolName::wanted("shop"), clock), LogLines::default());
    let _capture = lines.capture();
    for _ in 0..120 {
        (0..90).for_each(|_| losses.record(ErrorCode::new(code), matches!(code, "57P01" | "57P05"), is_held, &"no"));
        mock.increment(Duration::from_secs(5));
    }
    (lines.count(Level::WARN, "connection lost"), lines.count(Level::DEBUG, "the server closed an idle").lines)
}

#[test]
fn losses_of_a_pool_are_counted_together() {
    for (code, is_held) in [("57P01", true), ("57P05", true), ("57P02", false), ("io", false)] {
        let (warnings, debug_lines) = ten_minutes(code, is_held);
        assert!((6..=10).contains(&warnings.lines), "{code}: {warnings:?}");
        assert!(warnings.suppressed > 5_000, "{code}: {warnings:?}");
        assert_eq!(debug_lines, 0, "{code}");
    }
}

#[test]
fn idle_connections_that_the_server_closed_are_no_warning() {
    for code in ["57P01", "57P05"] {
        assert_eq!(ten_minutes(code, false), (Count::default(), 90 * 120), "{code}");
    }
}

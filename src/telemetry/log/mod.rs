//! The log lines of a pool, written with `tracing`.
//!
//! Levels: `info` for the start and end of a pool, `warn` for conditions that need attention, `debug` for the life of
//! connections. Checkouts that succeed are not logged. Lines that an unreachable server would repeat endlessly are
//! limited to one per second for each pool and kind; the next line has the number of suppressed ones.

#[cfg(feature = "middleware")]
mod requests;

use std::error::Error;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::clock::{Clock, Nanos};
use crate::labels::{CloseReason, ConnectFailure, Dirt, ErrorCode, ErrorPhase, GiveUp};
use crate::text::{ErrorChain, Printable};

/// The minimum time between two lines of a limiter.
const INTERVAL_NANOS: u64 = 1_000_000_000;

/// Passes one line per second and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    /// When the next line may pass, in nanoseconds of the clock.
    next: AtomicU64,
    suppressed: AtomicU64,
}

impl Limiter {
    /// Returns the number of lines suppressed since the last one that passed, or `None` if this one is suppressed.
    pub(crate) fn pass(&self, now: Nanos) -> Option<u64> {
        let next = self.next.load(Relaxed);
        let free = now.as_nanos() >= next
            && self.next.compare_exchange(next, now.as_nanos() + INTERVAL_NANOS, Relaxed, Relaxed).is_ok();
        if free {
            Some(self.suppressed.swap(0, Relaxed))
        } else {
            self.suppressed.fetch_add(1, Relaxed);
            None
        }
    }
}

/// The limiters of one pool's log lines, by kind.
#[derive(Debug, Default)]
pub(crate) struct Limiters {
    errors: Limiter,
    timeouts: Limiter,
    dirt: Limiter,
    wires: Limiter,
    retries: Limiter,
    exhausted: Limiter,
}

/// The log of one pool: a method for each line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log<'a> {
    pool: &'a str,
    limiters: &'a Limiters,
    clock: &'a Clock,
}

type Site = Option<&'static Location<'static>>;

impl<'a> Log<'a> {
    pub(crate) fn new(pool: &'a str, limiters: &'a Limiters, clock: &'a Clock) -> Self {
        Self { pool, limiters, clock }
    }

    /// Passes a line; see [`Limiter::pass`].
    fn pass(self, limiter: &Limiter) -> Option<u64> {
        limiter.pass(self.clock.now())
    }

    #[cold]
    pub(crate) fn pool_opened(self, pool_size: usize, max_overflow: usize) {
        tracing::info!(pool = self.pool, pool_size, max_overflow, "pool opened");
    }

    #[cold]
    pub(crate) fn pool_closing(self) {
        tracing::info!(pool = self.pool, "pool closing");
    }

    #[cold]
    pub(crate) fn checkout_timed_out(self) {
        let Some(suppressed) = self.pass(&self.limiters.timeouts) else { return };
        tracing::warn!(pool = self.pool, suppressed, "checkout timed out");
    }

    #[cold]
    pub(crate) fn connection_created(self, took: Duration) {
        tracing::debug!(pool = self.pool, seconds = took.as_secs_f64(), "connection created");
    }

    #[cold]
    pub(crate) fn connection_error(self, phase: ErrorPhase, code: ErrorCode, error: &dyn Error) {
        let Some(suppressed) = self.pass(&self.limiters.errors) else { return };
        let (pool, error) = (self.pool, ErrorChain(error));
        tracing::warn!(pool, phase = phase.as_str(), sqlstate = code.as_str(), %error, suppressed, "connection error");
    }

    /// Logs that a connection was closed, unless connecting failed, whose error has been logged.
    #[cold]
    pub(crate) fn connection_closed(self, reason: CloseReason) {
        if reason != CloseReason::ConnectFailed {
            tracing::debug!(pool = self.pool, reason = reason.as_str(), "connection closed");
        }
    }

    #[cold]
    pub(crate) fn connecting_suspended(self, failure: ConnectFailure, code: ErrorCode, error: &dyn Error) {
        let (error, kind) = (ErrorChain(error), failure.as_str());
        let (pool, sqlstate) = (self.pool, code.as_str());
        if failure == ConnectFailure::Configuration {
            let message = "connecting failed because of the credentials or the configuration, which have to be corrected; one \
                           checkout at a time retries after pauses of up to 10 s";
            tracing::warn!(pool, sqlstate, kind, %error, "{message}");
        } else {
            tracing::warn!(pool, sqlstate, kind, %error, "connecting failed; one checkout at a time retries until it succeeds");
        }
    }

    #[cold]
    pub(crate) fn connecting_resumed(self, after: Duration) {
        tracing::info!(pool = self.pool, seconds = after.as_secs_f64(), "connecting succeeded again");
    }

    #[cold]
    pub(crate) fn connection_dirty(self, operation: &str, call_site: Site, dirt: Dirt) {
        let Some(suppressed) = self.pass(&self.limiters.dirt) else { return };
        tracing::warn!(
            pool = self.pool,
            operation,
            call_site = call_site_text(call_site),
            kind = dirt.as_str(),
            suppressed,
            "connection was returned dirty; it is reset or closed"
        );
    }

    #[cold]
    pub(crate) fn leak_suspected(self, operation: &str, call_site: Site, held: Duration) {
        tracing::warn!(
            pool = self.pool,
            operation,
            call_site = call_site_text(call_site),
            held_seconds = held.as_secs_f64(),
            "suspected leak: connection is held but not used; check the call site"
        );
    }

    #[cold]
    pub(crate) fn suspect_used(self, operation: &str, call_site: Site, held: Duration) {
        tracing::info!(
            pool = self.pool,
            operation,
            call_site = call_site_text(call_site),
            held_seconds = held.as_secs_f64(),
            "no leak: the suspected connection is used again"
        );
    }

    #[cold]
    pub(crate) fn suspect_returned(self, operation: &str, call_site: Site, held: Duration) {
        tracing::info!(
            pool = self.pool,
            operation,
            call_site = call_site_text(call_site),
            held_seconds = held.as_secs_f64(),
            "no leak: the suspected connection was returned"
        );
    }

    #[cold]
    pub(crate) fn wire_lost(self, problem: &'static str) {
        let Some(suppressed) = self.pass(&self.limiters.wires) else { return };
        tracing::warn!(
            pool = self.pool,
            problem,
            suppressed,
            "protocol of a connection was not understood; the connection is no longer observed"
        );
    }

    #[cold]
    pub(crate) fn retrying(self, operation: &str, code: ErrorCode, attempt: u32, pause: Duration) {
        let Some(suppressed) = self.pass(&self.limiters.retries) else { return };
        tracing::info!(
            pool = self.pool,
            operation,
            sqlstate = code.as_str(),
            attempt,
            pause_seconds = pause.as_secs_f64(),
            suppressed,
            "operation failed; retrying"
        );
    }

    #[cold]
    pub(crate) fn retry_recovered(self, operation: &str, attempts: u32) {
        tracing::debug!(pool = self.pool, operation, attempts, "operation succeeded after retries");
    }

    /// Logs that an operation is not retried, unless its error is permanent, which is left to the caller.
    #[cold]
    pub(crate) fn retry_exhausted(self, operation: &str, code: ErrorCode, reason: GiveUp, attempts: u32) {
        if reason == GiveUp::Permanent {
            return;
        }
        let Some(suppressed) = self.pass(&self.limiters.exhausted) else { return };
        tracing::warn!(
            pool = self.pool,
            operation,
            sqlstate = code.as_str(),
            reason = reason.as_str(),
            attempts,
            suppressed,
            "operation failed; not retrying"
        );
    }

    #[cold]
    pub(crate) fn unpooled_opened(self, operation: &str, took: Duration) {
        let seconds = took.as_secs_f64();
        tracing::debug!(pool = self.pool, operation, seconds, "connection created outside the pool");
    }

    #[cold]
    pub(crate) fn unpooled_closed(self, operation: &str) {
        tracing::debug!(pool = self.pool, operation, "connection outside the pool closed");
    }

    #[cold]
    pub(crate) fn operations_full(self, operation: &str, limit: usize) {
        tracing::warn!(
            pool = self.pool,
            operation = %Printable(operation),
            limit,
            "too many operations; this and further new ones are counted as `other`"
        );
    }

    #[cold]
    pub(crate) fn routes_full(self, route: &str, limit: usize) {
        tracing::warn!(
            pool = self.pool,
            route = %Printable(route),
            limit,
            "too many routes; this and further new ones are counted as `other`"
        );
    }

    #[cold]
    pub(crate) fn queries_full(self, summary: &str, limit: usize) {
        tracing::warn!(
            pool = self.pool,
            summary = %Printable(summary),
            limit,
            "too many query summaries; this and further new ones are counted as `other`"
        );
    }
}

/// Returns file and line, as in `src/orders.rs:42`, or an empty text.
fn call_site_text(site: Site) -> String {
    site.map_or_else(String::new, |site| format!("{}:{}", site.file(), site.line()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limiter_passes_one_line_per_second() {
        let limiter = Limiter::default();
        let at = |millis: u64| Nanos::from_nanos(millis * 1_000_000);
        assert_eq!(limiter.pass(at(5)), Some(0));
        assert_eq!(limiter.pass(at(6)), None);
        assert_eq!(limiter.pass(at(1004)), None);
        assert_eq!(limiter.pass(at(1005)), Some(2));
        assert_eq!(limiter.pass(at(2005)), Some(0));
    }
}

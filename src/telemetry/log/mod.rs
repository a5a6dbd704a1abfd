//! The log lines of a pool, written with `tracing`.
//!
//! Levels: `info` for the start and end of a pool, `warn` for conditions that need attention, `debug` for the life of
//! connections. Checkouts that succeed are logged only if they are slow. Lines above `debug` that a lasting fault would repeat pass a
//! limiter for each pool and kind, some also for each operation or query summary: the first at once, then one after 1 s, 2 s, 4 s, …, and at last every five minutes.
//! Each has the number of those suppressed before it.

mod limiter;
#[cfg(test)]
#[path = "../../../tests/support/log_lines.rs"]
pub(crate) mod log_lines;
#[cfg(feature = "middleware")]
mod requests;
mod slow;

use std::error::Error;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

pub(crate) use self::limiter::{ConditionLimiter, Limiter, ReloadLimiter};
use super::clock::{Clock, Nanos};
use super::names::NAME_IDS;
use super::operations::OperationId;
use super::verdict::Verdict;
use crate::labels::{Cause, CloseReason, ConnectFailure, Dirt, ErrorCode, ErrorPhase, GiveUp};
use crate::text::{ErrorChain, Printable};

/// Logs an event, as the macro of `tracing` with the name of the level does, and contains its panics: a subscriber that
/// panics must take down neither a checkout nor the work of the pool.
macro_rules! event {
    ($level:ident, $($event:tt)+) => {
        $crate::telemetry::log::contain_panics(|| tracing::$level!($($event)+))
    };
}
pub(crate) use event;

/// Runs `write`, and drops its panic, which the panic hook has reported.
#[cold]
pub(crate) fn contain_panics(write: impl FnOnce()) {
    // What is logged is only read, and nothing of the pool is locked or half changed meanwhile.
    let _ = catch_unwind(AssertUnwindSafe(write));
}

/// The limiters of one pool's log lines, by kind.
#[derive(Debug, Default)]
pub(crate) struct Limiters {
    errors: Limiter,
    timeouts: PerId,
    slow_checkouts: PerId,
    slow_queries: PerId,
    dirt: Limiter,
    wires: Limiter,
    closes: Limiter,
    busy: Limiter,
    retries: Limiter,
    exhausted: Limiter,
    self_deadlocks: Limiter,
    suspension: ConditionLimiter<ConnectFailure>,
    /// Whether it was logged that the server does not keep prepared statements.
    unknown_statements: AtomicBool,
    server_view: ConditionLimiter,
    diagnosis: ConditionLimiter<Cause>,
    /// By operation, since each leak is reported once, and another operation's must not hide it.
    leaks: PerId,
    used_suspects: Limiter,
    returned_suspects: Limiter,
}

/// A limiter for each operation or query summary, so that the lines of one do not hide those of another. Allocated at the
/// first line.
#[derive(Debug, Default)]
struct PerId(OnceLock<Box<[Limiter]>>);

impl PerId {
    /// Passes a line about the operation or summary with this index; see [`Limiter::pass`].
    fn pass(&self, index: usize, now: Nanos) -> Option<u64> {
        let limiters = self.0.get_or_init(|| (0..NAME_IDS).map(|_| Limiter::new()).collect());
        limiters.get(index)?.pass(now)
    }
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
        event!(info, pool = self.pool, pool_size, max_overflow, "pool opened");
    }

    /// Logs that the first client of a proxy's pool was authenticated.
    #[cfg(feature = "proxy")]
    #[cold]
    pub(crate) fn proxied_pool_seen(self) {
        event!(info, pool = self.pool, "first connection of a pool");
    }

    #[cold]
    pub(crate) fn pool_resized(self, pool_size: usize, max_overflow: usize) {
        event!(info, pool = self.pool, pool_size, max_overflow, "pool resized");
    }

    #[cold]
    pub(crate) fn pool_closing(self) {
        event!(info, pool = self.pool, "pool closing");
    }

    /// Logs that a checkout waits while its own task holds a connection, each with its operation.
    #[cold]
    pub(crate) fn self_deadlock(
        self,
        (operation, call_site): (&str, Site),
        (held_operation, held_call_site): (&str, Site),
    ) {
        let Some(suppressed) = self.pass(&self.limiters.self_deadlocks) else { return };
        event!(
            warn,
            pool = self.pool,
            operation,
            call_site = call_site_text(call_site),
            held_operation,
            held_call_site = call_site_text(held_call_site),
            suppressed,
            "possible self-deadlock: a task waits for a connection while it holds one of the same pool; pass the held one on"
        );
    }

    #[cold]
    pub(crate) fn connection_created(self, took: Duration) {
        event!(debug, pool = self.pool, seconds = took.as_secs_f64(), "connection created");
    }

    #[cold]
    pub(crate) fn connection_error(self, phase: ErrorPhase, code: ErrorCode, error: &(dyn Error + 'static)) {
        let Some(suppressed) = self.pass(&self.limiters.errors) else { return };
        let (pool, error) = (self.pool, ErrorChain(error));
        let (sqlstate, error_type) = code.fields();
        event!(warn, pool, phase = phase.as_str(), sqlstate, error_type, %error, suppressed, "connection error");
    }

    /// Logs that a connection was closed, unless connecting failed, whose error has been logged.
    #[cold]
    pub(crate) fn connection_closed(self, reason: CloseReason) {
        if reason != CloseReason::ConnectFailed {
            event!(debug, pool = self.pool, reason = reason.as_str(), "connection closed");
        }
    }

    /// Logs that a connection was closed because what it was doing at its return did not end in time.
    #[cold]
    pub(crate) fn kept_busy(self, operation: &str, call_site: Site) {
        let Some(suppressed) = self.pass(&self.limiters.busy) else { return };
        event!(
            warn,
            pool = self.pool,
            operation,
            call_site = call_site_text(call_site),
            suppressed,
            "connection was busy until clean_timeout after its return, and is closed; drop COPY sinks and row streams before \
             the connection they belong to"
        );
    }

    #[cold]
    pub(crate) fn close_timed_out(self, operation: &str) {
        let Some(suppressed) = self.pass(&self.limiters.closes) else { return };
        event!(
            warn,
            pool = self.pool,
            operation,
            suppressed,
            "the server has not let go of a closed connection in time; it may have more backends of this pool than its maximum"
        );
    }

    /// Logs that connecting is suspended. Called at each failure while it is, and logged again if the kind of the failure
    /// has changed, since that changes what has to be done.
    #[cold]
    pub(crate) fn connecting_suspended(self, failure: ConnectFailure, code: ErrorCode, error: &(dyn Error + 'static)) {
        let Some(suppressed) = self.limiters.suspension.holds_as(failure, self.clock.now()) else { return };
        let (error, kind) = (ErrorChain(error), failure.as_str());
        let (pool, (sqlstate, error_type)) = (self.pool, code.fields());
        let message = if failure == ConnectFailure::Configuration {
            "connecting failed because of the credentials or the configuration, which have to be corrected; one checkout at a \
             time retries after pauses of up to 10 s"
        } else {
            "connecting failed; one checkout at a time retries until it succeeds"
        };
        event!(warn, pool, sqlstate, error_type, kind, %error, suppressed, "{message}");
    }

    #[cold]
    pub(crate) fn connecting_resumed(self, after: Duration) {
        if self.limiters.suspension.ended() {
            event!(info, pool = self.pool, seconds = after.as_secs_f64(), "connecting succeeded again");
        }
    }

    /// Logs that the server's view cannot be queried. Called at each failure.
    #[cold]
    pub(crate) fn server_view_failed(self, error: &(dyn Error + 'static)) {
        let Some(suppressed) = self.limiters.server_view.holds(self.clock.now()) else { return };
        event!(warn, pool = self.pool, error = %ErrorChain(error), suppressed, "querying the server's state failed");
    }

    /// Logs that the server's view is queried again. Called at each success.
    pub(crate) fn server_view_succeeded(self) {
        if self.limiters.server_view.ended() {
            event!(info, pool = self.pool, "querying the server's state succeeded again");
        }
    }

    #[cold]
    pub(crate) fn connection_dirty(self, operation: &str, call_site: Site, dirt: Dirt) {
        let Some(suppressed) = self.pass(&self.limiters.dirt) else { return };
        event!(
            warn,
            pool = self.pool,
            operation,
            call_site = call_site_text(call_site),
            kind = dirt.as_str(),
            suppressed,
            "connection was returned dirty; it is reset or closed"
        );
    }

    /// Logs that a client of a proxy has left its session.
    #[cfg(feature = "proxy")]
    #[cold]
    pub(crate) fn session_dirty(self, operation: &str, dirt: Dirt) {
        let Some(suppressed) = self.pass(&self.limiters.dirt) else { return };
        let (pool, kind) = (self.pool, dirt.as_str());
        event!(warn, pool, operation, kind, suppressed, "client left its session in a transaction or during a query");
    }

    #[cold]
    pub(crate) fn leak_suspected(self, (id, operation): (OperationId, &str), call_site: Site, held: Duration) {
        let Some(suppressed) = self.limiters.leaks.pass(id.index(), self.clock.now()) else { return };
        event!(
            warn,
            pool = self.pool,
            operation,
            call_site = call_site_text(call_site),
            held_seconds = held.as_secs_f64(),
            suppressed,
            "suspected leak: connection is held but not used; check the call site"
        );
    }

    #[cold]
    pub(crate) fn suspect_used(self, operation: &str, call_site: Site, held: Duration) {
        let Some(suppressed) = self.pass(&self.limiters.used_suspects) else { return };
        event!(
            info,
            pool = self.pool,
            operation,
            call_site = call_site_text(call_site),
            held_seconds = held.as_secs_f64(),
            suppressed,
            "no leak: the suspected connection is used again"
        );
    }

    #[cold]
    pub(crate) fn suspect_returned(self, operation: &str, call_site: Site, held: Duration) {
        let Some(suppressed) = self.pass(&self.limiters.returned_suspects) else { return };
        event!(
            info,
            pool = self.pool,
            operation,
            call_site = call_site_text(call_site),
            held_seconds = held.as_secs_f64(),
            suppressed,
            "no leak: the suspected connection was returned"
        );
    }

    /// Logs a verdict with another cause than the last that was logged, and the end of a problem. Called with each verdict.
    #[cold]
    pub(crate) fn diagnosed(self, verdict: &Verdict) {
        let (pool, cause) = (self.pool, verdict.cause.as_str());
        if verdict.is_problem() {
            let Some(suppressed) = self.limiters.diagnosis.holds_as(verdict.cause, self.clock.now()) else { return };
            let operation = verdict.operation.as_deref().unwrap_or_default();
            event!(warn, pool, cause, operation, suppressed, "diagnosis: {verdict}");
        } else if self.limiters.diagnosis.ended() {
            event!(info, pool, cause, "diagnosis: {verdict}");
        }
    }

    #[cold]
    pub(crate) fn wire_lost(self, problem: &'static str) {
        let Some(suppressed) = self.pass(&self.limiters.wires) else { return };
        event!(
            warn,
            pool = self.pool,
            problem,
            suppressed,
            "protocol of a connection was not understood; the connection is no longer observed"
        );
    }

    /// Logs, once, that the server does not know a statement that was prepared on its connection, or knows another one of
    /// its name.
    #[cold]
    pub(crate) fn statement_unknown(self, code: ErrorCode) {
        if !self.limiters.unknown_statements.swap(true, Relaxed) {
            event!(
                warn,
                pool = self.pool,
                sqlstate = code.fields().0,
                error_type = code.fields().1,
                "the server does not keep the prepared statements of a connection; if a pooler such as PgBouncer is in \
                 transaction mode, set its max_prepared_statements (PgBouncer 1.21), or turn cache_statements off and use \
                 each statement in the transaction that prepares it; otherwise check for DEALLOCATE and DISCARD ALL"
            );
        }
    }

    #[cold]
    pub(crate) fn retrying(self, operation: &str, code: ErrorCode, attempt: u32, pause: Duration) {
        let Some(suppressed) = self.pass(&self.limiters.retries) else { return };
        event!(
            info,
            pool = self.pool,
            operation,
            sqlstate = code.fields().0,
            error_type = code.fields().1,
            attempt,
            pause_seconds = pause.as_secs_f64(),
            suppressed,
            "operation failed; retrying"
        );
    }

    #[cold]
    pub(crate) fn retry_recovered(self, operation: &str, attempts: u32) {
        event!(debug, pool = self.pool, operation, attempts, "operation succeeded after retries");
    }

    /// Logs that an operation is not retried, unless its error is permanent, which is left to the caller, or the timeout of
    /// a checkout, which has been logged.
    #[cold]
    pub(crate) fn retry_exhausted(self, operation: &str, code: ErrorCode, reason: GiveUp, attempts: u32) {
        if matches!(reason, GiveUp::Permanent | GiveUp::CheckoutTimeout) {
            return;
        }
        let Some(suppressed) = self.pass(&self.limiters.exhausted) else { return };
        event!(
            warn,
            pool = self.pool,
            operation,
            sqlstate = code.fields().0,
            error_type = code.fields().1,
            reason = reason.as_str(),
            attempts,
            suppressed,
            "operation failed; not retrying"
        );
    }

    #[cold]
    pub(crate) fn unpooled_opened(self, operation: &str, took: Duration) {
        let seconds = took.as_secs_f64();
        event!(debug, pool = self.pool, operation, seconds, "connection created outside the pool");
    }

    #[cold]
    pub(crate) fn unpooled_closed(self, operation: &str) {
        event!(debug, pool = self.pool, operation, "connection outside the pool closed");
    }

    #[cold]
    pub(crate) fn operations_full(self, operation: &str, limit: usize) {
        event!(
            warn,
            pool = self.pool,
            operation = %Printable(operation),
            limit,
            "too many operations; this and further new ones are counted as `other`"
        );
    }

    #[cold]
    pub(crate) fn routes_full(self, route: &str, limit: usize) {
        event!(
            warn,
            pool = self.pool,
            route = %Printable(route),
            limit,
            "too many routes; this and further new ones are counted as `other`"
        );
    }

    #[cold]
    pub(crate) fn queries_full(self, summary: &str, limit: usize) {
        event!(
            warn,
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
mod tests;

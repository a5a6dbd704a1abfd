//! The log's reading of events, by `tracing`.
//!
//! Levels: `info` for a pool's beginning and end, `warn` for what somebody should look at, `debug` for the life of
//! connections. Nothing is said of a checkout that is served. What a dead database would repeat without end is
//! limited to one line a second for each pool and kind, which says how many were held back before it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::clock::{Nanos, seconds};
use super::ledger::{Ledger, Suspicion};
use super::operations::SiteId;
use crate::event::{CloseReason, Event, GiveUp, Outcome};

const INTERVAL_NANOS: u64 = 1_000_000_000;

/// Lets one line through each second, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    /// When the next line may pass, in nanoseconds.
    next: AtomicU64,
    suppressed: AtomicU64,
}

impl Limiter {
    /// How many lines were suppressed since the last one that passed, if this one may.
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

/// What the log of one pool remembers.
#[derive(Debug, Default)]
pub(crate) struct LogState {
    errors: Limiter,
    timeouts: Limiter,
    dirt: Limiter,
    wires: Limiter,
    retries: Limiter,
    exhausted: Limiter,
    held: Limiter,
    many_checkouts: Limiter,
}

impl LogState {
    /// What limits the lines of such events, if anything does.
    fn limiter(&self, event: &Event<'_>) -> Option<&Limiter> {
        match event {
            Event::ConnectionError { .. } => Some(&self.errors),
            Event::CheckoutFinished { .. } => Some(&self.timeouts),
            Event::ConnectionDirty { .. } => Some(&self.dirt),
            Event::WireLost { .. } => Some(&self.wires),
            Event::Retrying { .. } => Some(&self.retries),
            // What cannot succeed by being repeated is the caller's affair, and no line.
            Event::RetryExhausted { reason, .. } if *reason != GiveUp::Permanent => Some(&self.exhausted),
            Event::RequestHeld { .. } => Some(&self.held),
            Event::RequestManyCheckouts { .. } => Some(&self.many_checkouts),
            _ => None,
        }
    }
}

/// The reader of events.
#[inline(always)]
pub(crate) fn record(ledger: &Ledger, event: Event<'_>) {
    match event {
        Event::CheckoutFinished { outcome: Outcome::Timeout, .. }
        | Event::PoolOpened
        | Event::PoolClosing
        | Event::ConnectionCreated { .. }
        | Event::ConnectionError { .. }
        | Event::ConnectionClosed { .. }
        | Event::SuspectReturned { .. }
        | Event::ConnectionDirty { .. }
        | Event::WireLost { .. }
        | Event::Retrying { .. }
        | Event::RetryRecovered { .. }
        | Event::RetryExhausted { .. }
        | Event::ConnectingSuspended { .. }
        | Event::ConnectingResumed { .. }
        | Event::UnpooledOpened { .. }
        | Event::UnpooledEnded { open: true, .. }
        | Event::RequestHeld { .. }
        | Event::RequestManyCheckouts { .. }
        | Event::RoutesFull { .. }
        | Event::OperationsFull { .. }
        | Event::QueriesFull { .. } => write(ledger, event),
        Event::HandingOut { .. }
        | Event::CheckoutServed { .. }
        | Event::CheckoutFinished { .. }
        | Event::CheckoutWaiting { .. }
        | Event::PhaseEntered { .. }
        | Event::CheckoutRefused { .. }
        | Event::ConnectionCreating { .. }
        | Event::TendingStarted { .. }
        | Event::TendingFinished { .. }
        | Event::QueryFailed { .. }
        | Event::QueryEnded { .. }
        | Event::QueryTraced { .. }
        | Event::ConnectionReturned { .. }
        | Event::ConnectionIdle { .. }
        | Event::UnpooledConnecting { .. }
        | Event::UnpooledEnded { .. }
        | Event::OperationFinished { .. } => {}
    }
}

/// Holders that became suspect, or no longer are: a line each, which is once for each hold.
pub(crate) fn suspicions(ledger: &Ledger, changes: &[Suspicion]) {
    let pool = &**ledger.name();
    for Suspicion { suspected, operation, site, age, .. } in changes {
        let (operation, call_site) = (ledger.operations().name(*operation), place(ledger, *site));
        let held_seconds = age.as_secs_f64();
        if *suspected {
            tracing::warn!(pool, operation, call_site, held_seconds, "suspected leak: a connection is held and silent");
        } else {
            tracing::info!(
                pool,
                operation,
                call_site,
                held_seconds,
                "no leak: a connection that was suspected is in use again"
            );
        }
    }
}

/// `src/orders.rs:42`, whole.
fn place(ledger: &Ledger, site: SiteId) -> String {
    ledger.operations().location(site).map_or_else(String::new, |site| format!("{}:{}", site.file(), site.line()))
}

#[cold]
#[inline(never)]
fn write(ledger: &Ledger, event: Event<'_>) {
    let suppressed = match ledger.log_state().limiter(&event).map(|limiter| limiter.pass(ledger.clock().now())) {
        // It is counted, and not told.
        Some(None) => return,
        Some(Some(suppressed)) => suppressed,
        None => 0,
    };
    let pool = &**ledger.name();
    match event {
        Event::PoolOpened => {
            let limits = ledger.limits();
            tracing::info!(pool, pool_size = limits.pool_size, max_overflow = limits.max_overflow, "pool opened");
        }
        Event::PoolClosing => tracing::info!(pool, "pool closing"),
        Event::ConnectionCreated { took, .. } => {
            tracing::debug!(pool, seconds = took.as_secs_f64(), "connection created");
        }
        Event::ConnectionError { phase, code, error } => {
            let error = Chain(error);
            tracing::warn!(pool, phase = phase.as_str(), sqlstate = code.as_str(), %error, suppressed, "connection error");
        }
        Event::CheckoutFinished { outcome: Outcome::Timeout, .. } => {
            tracing::warn!(pool, suppressed, "checkout timed out");
        }
        Event::ConnectionClosed { reason: CloseReason::ConnectFailed, .. } => {}
        Event::ConnectionClosed { reason, .. } => tracing::debug!(pool, reason = reason.as_str(), "connection closed"),
        Event::OperationsFull { name } => tracing::warn!(
            pool,
            operation = name,
            limit = super::operations::MAX_OPERATIONS,
            "too many operations: this one and all further new ones are counted as `other`"
        ),
        Event::RequestHeld { kind, site, spent } => {
            let (route, method) = (ledger.requests().route(kind), kind.method().as_str());
            let call_site = place(ledger, site);
            let (idle_seconds, executing_seconds) = (seconds(spent.not_executing()), seconds(spent.executing));
            tracing::warn!(
                pool,
                route,
                method,
                call_site,
                idle_seconds,
                executing_seconds,
                suppressed,
                "a request held a connection and asked nothing of it: does it call elsewhere meanwhile?"
            );
        }
        Event::RequestManyCheckouts { kind, checkouts, sites } => {
            let (route, method) = (ledger.requests().route(kind), kind.method().as_str());
            let call_sites = sites.named(ledger);
            tracing::warn!(
                pool,
                route,
                method,
                checkouts,
                %call_sites,
                suppressed,
                "a request made many checkouts: could it do with one?"
            );
        }
        Event::RoutesFull { route } => tracing::warn!(
            pool,
            route,
            limit = super::names::MAX_NAMES,
            "too many routes: this one and all further new ones are counted as `other`"
        ),
        Event::QueriesFull { summary } => tracing::warn!(
            pool,
            summary,
            limit = super::names::MAX_NAMES,
            "too many kinds of queries: this one and all further new ones are counted as `other`"
        ),
        Event::SuspectReturned { stats, operation, since, at } => {
            let (operation, call_site) = (ledger.operations().name(operation), place(ledger, stats.site()));
            let held_seconds = at.duration_since(since).as_secs_f64();
            tracing::info!(
                pool,
                operation,
                call_site,
                held_seconds,
                "no leak: a connection that was suspected came back"
            );
        }
        Event::ConnectionDirty { stats, operation, dirt, .. } => {
            let (operation, call_site) = (ledger.operations().name(operation), place(ledger, stats.site()));
            tracing::warn!(
                pool,
                operation,
                call_site,
                kind = dirt.as_str(),
                suppressed,
                "a connection came back dirty"
            );
        }
        Event::WireLost { problem } => {
            tracing::warn!(
                pool,
                problem,
                suppressed,
                "what passes on a connection is not understood, and no longer read"
            );
        }
        Event::Retrying { operation, code, attempt, pause } => {
            let operation = ledger.operations().name(operation);
            let (sqlstate, pause_seconds) = (code.as_str(), pause.as_secs_f64());
            tracing::info!(
                pool,
                operation,
                sqlstate,
                attempt,
                pause_seconds,
                suppressed,
                "an operation failed: it is tried again"
            );
        }
        Event::RetryRecovered { operation, attempts } => {
            let operation = ledger.operations().name(operation);
            tracing::debug!(pool, operation, attempts, "an operation succeeded that had failed");
        }
        Event::RetryExhausted { reason: GiveUp::Permanent, .. } => {}
        Event::RetryExhausted { operation, code, reason, attempts } => {
            let operation = ledger.operations().name(operation);
            let (sqlstate, reason) = (code.as_str(), reason.as_str());
            tracing::warn!(
                pool,
                operation,
                sqlstate,
                reason,
                attempts,
                suppressed,
                "an operation failed: it is not tried again"
            );
        }
        Event::ConnectingSuspended { code, error } => {
            let error = Chain(error);
            tracing::warn!(
                pool,
                sqlstate = code.as_str(),
                %error,
                "connecting failed: from now on one checkout at a time tries, until it succeeds"
            );
        }
        Event::ConnectingResumed { after } => {
            tracing::info!(pool, seconds = after.as_secs_f64(), "connecting succeeds again");
        }
        Event::UnpooledOpened { operation, took, .. } => {
            let (operation, seconds) = (ledger.operations().name(operation), took.as_secs_f64());
            tracing::debug!(pool, operation, seconds, "connection created outside the pool");
        }
        Event::UnpooledEnded { operation, open: true, .. } => {
            let operation = ledger.operations().name(operation);
            tracing::debug!(pool, operation, "connection outside the pool closed");
        }
        Event::HandingOut { .. }
        | Event::CheckoutServed { .. }
        | Event::CheckoutFinished { .. }
        | Event::CheckoutWaiting { .. }
        | Event::PhaseEntered { .. }
        | Event::CheckoutRefused { .. }
        | Event::ConnectionCreating { .. }
        | Event::TendingStarted { .. }
        | Event::TendingFinished { .. }
        | Event::QueryFailed { .. }
        | Event::QueryEnded { .. }
        | Event::QueryTraced { .. }
        | Event::ConnectionReturned { .. }
        | Event::ConnectionIdle { .. }
        | Event::UnpooledConnecting { .. }
        | Event::UnpooledEnded { .. }
        | Event::OperationFinished { .. } => {}
    }
}

/// An error and its causes on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limiter_passes_one_line_a_second_and_says_how_many_it_held_back() {
        let limiter = Limiter::default();
        let at = |millis: u64| Nanos::from_nanos(millis * 1_000_000);
        assert_eq!(limiter.pass(at(5)), Some(0));
        assert_eq!(limiter.pass(at(6)), None);
        assert_eq!(limiter.pass(at(1004)), None);
        assert_eq!(limiter.pass(at(1005)), Some(2));
        assert_eq!(limiter.pass(at(2005)), Some(0));
    }
}

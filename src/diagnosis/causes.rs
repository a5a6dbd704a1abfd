//! What each cause means and what to do about it, as constant texts: for tools that explain the metric `poolscope_diagnosis`.
//!
//! ```
//! let leak = poolscope::causes::descriptions().find(|description| description.cause.as_str() == "leak").unwrap();
//! assert_eq!(leak.finding, "`{operation}` does not return its connections");
//! ```

use super::rules::RULES;
use crate::labels::Cause;

/// Stands for the operation responsible in [`Description::finding`] and [`Description::advice`].
pub const OPERATION_PLACEHOLDER: &str = "{operation}";

/// A cause in words, without measured values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// The cause.
    pub cause: Cause,
    /// The state in one clause, without a capital and a full stop.
    pub finding: &'static str,
    /// What to do, in one sentence with its full stop; empty if there is no problem.
    pub advice: &'static str,
    /// The causes whose conditions hold as a consequence of this one.
    pub explains: &'static [Cause],
}

/// Returns the descriptions of all causes: problems in the order of the rules, those that explain others first, then
/// `healthy` and `not_enough_data`.
pub fn descriptions() -> impl Iterator<Item = Description> {
    let problems = RULES.iter().map(|rule| (rule.cause, rule.explains));
    let others = [(Cause::Healthy, &[][..]), (Cause::NotEnoughData, &[])];
    problems.chain(others).map(|(cause, explains)| {
        let (finding, advice) = texts(cause);
        Description { cause, finding, advice, explains }
    })
}

/// Returns the finding and the advice.
pub(super) const fn texts(cause: Cause) -> (&'static str, &'static str) {
    match cause {
        Cause::Healthy => ("the pool is healthy", ""),
        Cause::NotEnoughData => ("the pool has been observed for too short a time", ""),
        Cause::Undersized => (
            "all connections are in use most of the time, and checkouts wait; `{operation}` holds most connections",
            "Raise pool_size or max_overflow, or make `{operation}`, which holds most connections, shorter.",
        ),
        Cause::Burst => (
            "peaks exhaust the pool, though connections are free on average; `{operation}` holds most connections",
            "Raise max_overflow for the peaks, or spread the checkouts of `{operation}` over time.",
        ),
        Cause::SlowQueries => (
            "queries of `{operation}` are slow and occupy the pool",
            "Look at the plans of the queries of `{operation}` with EXPLAIN (ANALYZE, BUFFERS), and at the server's load; a larger pool makes it worse.",
        ),
        Cause::LockWait => (
            "queries wait for a lock that another session holds; `{operation}` blocks them, or waits the longest",
            "Find the session that blocks with pg_blocking_pids, end its transaction sooner, and lock rows in the same order everywhere.",
        ),
        Cause::HeldIdle => (
            "`{operation}` holds connections without a running query",
            "In `{operation}`, return the connection before calling other services or computing, and check it out again afterwards; until then limit its route's share of the pool.",
        ),
        Cause::IdleInTransaction => (
            "`{operation}` holds connections idle in a transaction",
            "In `{operation}`, commit before calling other services; set idle_in_transaction_session_timeout as a safeguard.",
        ),
        Cause::Leak => (
            "`{operation}` does not return its connections",
            "Return or drop the connections of `{operation}`: look for one that is stored, forgotten in a task, or passed to `mem::forget`.",
        ),
        Cause::SelfDeadlock => (
            "tasks of `{operation}` hold a connection while they wait for another one of the same pool",
            "Pass on the connection of `{operation}` instead of checking out a second one.",
        ),
        Cause::ServerDown => (
            "the server cannot be reached",
            "Check that the server is running and reachable from this host; the pool reconnects by itself.",
        ),
        Cause::ServerFull => (
            "the server refuses connections because all its slots are taken",
            "Close connections of other clients, lower the sum of the pools' sizes below max_connections, or put a proxy in front of the server.",
        ),
        Cause::ConnectSlow => (
            "connecting takes long, and checkouts wait for it",
            "Check name lookup, TLS and the load of the server; raise pool_size so that connections stay open.",
        ),
        Cause::Churn => (
            "connections are closed and replaced all the time",
            "Look at poolscope_connections_closed_total for the reasons.",
        ),
        Cause::RetryStorm => (
            "a large share of the checkouts are retries, most of them of `{operation}`",
            "Find out why `{operation}` fails (poolscope_retries_total has the SQLSTATE), and retry it less until then.",
        ),
        Cause::CacheDown => (
            "a cache in front of the pool is away, and the pool has its load",
            "Restore the server of the cache, which is tried again by itself; its loads are limited to max_loads until then, and a larger pool is no remedy.",
        ),
        Cause::RuntimeStalled => (
            "the runtime does not poll its tasks in time: connections are idle while checkouts wait",
            "Look for blocking calls in async code (use spawn_blocking) and for a CPU limit; the size of the pool does not matter.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::Responsible;
    use super::*;

    #[test]
    fn every_cause_is_described_once() {
        let mut described: Vec<_> = descriptions().map(|description| description.cause.as_str()).collect();
        described.sort_unstable();
        let mut causes: Vec<_> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
        causes.sort_unstable();
        assert_eq!(described, causes);
    }

    #[test]
    fn texts_name_the_operation_if_one_is_responsible() {
        for rule in RULES {
            let (finding, advice) = texts(rule.cause);
            let is_named = finding.contains(OPERATION_PLACEHOLDER);
            assert_eq!(is_named, rule.responsible != Responsible::None, "{}", rule.cause.as_str());
            assert!(advice.ends_with('.') && !finding.ends_with('.'), "{}", rule.cause.as_str());
            assert!(is_named || !advice.contains(OPERATION_PLACEHOLDER), "{}", rule.cause.as_str());
        }
    }
}

//! When to refuse a request rather than let it wait.

use std::fmt;
use std::time::Duration;

use crate::pool::request::LayerConfig;
use crate::telemetry::ledger::Backlog;
use crate::telemetry::requests::RouteKey;

/// From when on requests are refused.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    /// More checkouts wait than that.
    pub(super) queue: Option<usize>,
    /// One more would wait for longer.
    pub(super) wait: Option<Duration>,
}

/// Why requests are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overload {
    /// How many checkouts wait for capacity.
    pub queued: usize,
    /// How long one more could expect to wait.
    pub expected_wait: Duration,
}

impl Limits {
    /// Whether the pool is beyond them, or the share of the route, if one is asked about. Costs next to nothing where they are
    /// off, or nobody waits.
    pub(super) fn overload(&self, terms: &LayerConfig, route: Option<RouteKey>) -> Option<Overload> {
        if self.queue.is_none() && self.wait.is_none() {
            return None;
        }
        let ledger = terms.recorder.ledger();
        let of_route =
            terms.route_limits.as_ref().zip(route).map(|(shares, kind)| shares.backlog(kind, ledger.clock().now()));
        [Some(ledger.backlog()), of_route].into_iter().flatten().find_map(|backlog| self.exceeded(backlog))
    }

    fn exceeded(&self, backlog: Backlog) -> Option<Overload> {
        let Backlog { queued, expected_wait } = backlog;
        let over = self.queue.is_some_and(|longest| queued > longest)
            || self.wait.is_some_and(|longest| queued > 0 && expected_wait > longest);
        over.then_some(Overload { queued, expected_wait })
    }
}

/// The longest that a client is told to stay away, in seconds.
const LONGEST: u64 = 30;

impl Overload {
    /// After how many seconds to try again: what one would have waited, rounded up.
    pub(super) fn retry_after(&self) -> u64 {
        let seconds = self.expected_wait.as_secs() + u64::from(self.expected_wait.subsec_nanos() > 0);
        seconds.clamp(1, LONGEST)
    }
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queued, expected_wait } = self;
        write!(f, "the pool is overloaded: {queued} wait for a connection, and one more would for {expected_wait:.1?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_to_stay_away_for_as_long_as_it_would_wait() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (29_500, 30), (90_000, 30)] {
            let expected_wait = Duration::from_millis(millis);
            assert_eq!(Overload { queued: 1, expected_wait }.retry_after(), seconds, "{millis} ms");
        }
    }
}

//! Shedding: requests are refused instead of queued while the pool is overloaded.

use std::fmt;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, Response, StatusCode};

use crate::pool::request::LayerConfig;
use crate::telemetry::ledger::backlog::Backlog;
use crate::telemetry::requests::RouteKey;

/// The limits beyond which requests are refused.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SheddingLimits {
    /// The number of waiting checkouts.
    pub(super) max_queue_len: Option<usize>,
    /// The expected wait of another checkout.
    pub(super) max_expected_wait: Option<Duration>,
}

/// The load of a pool that refuses requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overload {
    /// The number of checkouts that wait for a connection.
    pub queued: usize,
    /// The expected wait of another checkout.
    pub expected_wait: Duration,
}

impl SheddingLimits {
    /// Returns the load if the pool, or the route if one is given, exceeds a limit. Costs almost nothing if no limit is set
    /// or no checkout waits.
    #[inline]
    pub(super) fn overload(&self, config: &LayerConfig, route: Option<RouteKey>) -> Option<Overload> {
        let has_limits = self.max_queue_len.is_some() || self.max_expected_wait.is_some();
        if has_limits { self.measure(config, route) } else { None }
    }

    fn measure(&self, config: &LayerConfig, route: Option<RouteKey>) -> Option<Overload> {
        let ledger = config.recorder.ledger();
        let limits = config.route_limits.as_ref();
        let of_route = limits.zip(route).map(|(limits, route)| limits.backlog(route, ledger.clock().now()));
        [Some(ledger.backlog()), of_route].into_iter().flatten().find_map(|backlog| self.exceeded_by(backlog))
    }

    fn exceeded_by(&self, backlog: Backlog) -> Option<Overload> {
        let Backlog { queued, expected_wait } = backlog;
        let exceeded = self.max_queue_len.is_some_and(|max| queued > max)
            || self.max_expected_wait.is_some_and(|max| queued > 0 && expected_wait > max);
        exceeded.then_some(Overload { queued, expected_wait })
    }
}

/// Returns the response to a refused request.
pub(super) fn refusal<B>(overload: &Overload, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(overload.retry_after()));
    response
}

/// The maximum of `Retry-After`, in seconds.
const MAX_RETRY_AFTER: u64 = 30;

impl Overload {
    /// Returns the value of `Retry-After` in seconds: the expected wait, rounded up.
    fn retry_after(&self) -> u64 {
        let seconds = self.expected_wait.as_secs() + u64::from(self.expected_wait.subsec_nanos() > 0);
        seconds.clamp(1, MAX_RETRY_AFTER)
    }
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queued, expected_wait } = self;
        write!(f, "the pool is overloaded: {queued} checkouts wait, expected wait {expected_wait:.1?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_the_expected_wait_rounded_up() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (29_500, 30), (90_000, 30)] {
            let expected_wait = Duration::from_millis(millis);
            assert_eq!(Overload { queued: 1, expected_wait }.retry_after(), seconds, "{millis} ms");
        }
    }
}

//! The metrics of requests that the middleware serves.

use super::{Kind, Metric};
use crate::labels::{Activity, Outcome, RequestWarning};
use crate::telemetry::clock::{seconds, to_f64};

/// Defines a metric with a sample for each route and method: `$of` its
/// [`RequestTotals`](crate::telemetry::RequestTotals).
macro_rules! of_requests {
    ($name:literal, $kind:ident, $help:literal, $of:expr) => {
        Metric::of_own_pool($name, Kind::$kind, &["route", "method"], $help, |pool, sink| {
            for request in &pool.requests {
                let of: fn(&crate::telemetry::RequestTotals) -> f64 = $of;
                sink.value(&[&request.route, request.method.as_str()], of(request));
            }
        })
    };
}

pub(super) const DURATION: Metric = Metric::of_own_pool(
    "poolscope_request_duration_seconds",
    Kind::Histogram,
    &["route", "method", "outcome"],
    "Duration of requests served by the middleware, whether they used the pool or not, from the call of the service to the end of the response body, by outcome: ok, timeout (a status of 504 or 408, or gRPC's deadline exceeded), error (another status of 500 or above, a server-side gRPC failure, an error of the service or the body, or a panic), shed (refused at once because the pool was overloaded) or cancelled (dropped before its end). At most 200 routes per pool; further ones are counted as other, and requests without a known route as unknown.",
    |pool, sink| {
        for request in &pool.requests {
            for outcome in Outcome::ALL {
                let durations = &request.durations[outcome.index()];
                if durations.count() > 0 {
                    sink.histogram(&[&request.route, request.method.as_str(), outcome.as_str()], durations);
                }
            }
        }
    },
);

pub(super) const IN_FLIGHT: Metric =
    of_requests!("poolscope_request_in_flight", Gauge, "Requests started and not yet ended.", |request| to_f64(
        request.in_flight
    ));

pub(super) const CHECKOUTS: Metric = of_requests!(
    "poolscope_request_checkouts_total",
    Counter,
    "Checkouts started by requests, including those of tasks that run in the scope of the request. Divided by the count of poolscope_request_duration_seconds: checkouts per request.",
    |request| to_f64(request.checkouts)
);

pub(super) const WAIT: Metric = of_requests!(
    "poolscope_request_wait_seconds_total",
    Counter,
    "Time that requests spent waiting in checkouts, including failed and cancelled ones; counted at the end of each checkout.",
    |request| seconds(request.wait_nanos)
);

pub(super) const USE: Metric = Metric::of_own_pool(
    "poolscope_request_use_seconds_total",
    Kind::Counter,
    &["route", "method", "activity"],
    "Time for which requests held connections, by activity; counted at the return. If the wire is not observed, all of it counts as idle.",
    |pool, sink| {
        for request in &pool.requests {
            for activity in Activity::ALL {
                let nanos = request.use_nanos[activity.index()];
                sink.value(&[&request.route, request.method.as_str(), activity.as_str()], seconds(nanos));
            }
        }
    },
);

pub(super) const RETRIES: Metric =
    of_requests!("poolscope_request_retries_total", Counter, "Retries of operations made by requests.", |request| {
        to_f64(request.retries)
    });

pub(super) const WARNINGS: Metric = Metric::of_own_pool(
    "poolscope_request_warnings_total",
    Kind::Counter,
    &["route", "method", "kind"],
    "Requests that misused the pool, by kind of misuse: many_checkouts (more checkouts than PoolLayer::warn_checkouts_over) or held_elsewhere (a connection was held without executing a query for PoolLayer::warn_idle_hold or longer, apart from waits for another connection of the same pool). The log has the call sites.",
    |pool, sink| {
        for request in &pool.requests {
            for warning in RequestWarning::ALL {
                let count = request.warnings[warning.index()];
                sink.value(&[&request.route, request.method.as_str(), warning.as_str()], to_f64(count));
            }
        }
    },
);

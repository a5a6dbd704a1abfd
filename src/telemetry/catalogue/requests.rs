//! What requests cost, by the route and method that the middleware serves.

use super::{Kind, Metric};
use crate::labels::{Activity, Outcome, RequestWarning};
use crate::telemetry::clock::{seconds, to_f64};

/// A metric with a sample for each route and method, which is `$of` its [`RequestTotals`](crate::telemetry::RequestTotals).
macro_rules! of_requests {
    ($name:literal, $kind:ident, $help:literal, $of:expr) => {
        Metric::of_pool($name, Kind::$kind, &["route", "method"], $help, |pool, sink| {
            for request in &pool.requests {
                let of: fn(&crate::telemetry::RequestTotals) -> f64 = $of;
                sink.value(&[&request.route, request.method.as_str()], of(request));
            }
        })
    };
}

pub(super) const DURATION: Metric = Metric::of_pool(
    "poolscope_request_duration_seconds",
    Kind::Histogram,
    &["route", "method", "outcome"],
    "Time of requests that the middleware served, whether they used the pool or not, from the call of its service until the body of the answer ended: ok, error (a status of 500 or more, a failure of gRPC's that is the server's, or an error of the service or of the body), shed (refused at once, as the pool was overloaded) or cancelled (dropped before that). At most 200 routes are told apart, then the label says other; it says unknown where the route is not known.",
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
    of_requests!("poolscope_request_in_flight", Gauge, "Requests currently begun and not ended.", |request| to_f64(
        request.in_flight
    ));

pub(super) const CHECKOUTS: Metric = of_requests!(
    "poolscope_request_checkouts_total",
    Counter,
    "Checkouts begun while requests were served, in tasks to which their scope was handed on, too. Divided by the count of poolscope_request_duration_seconds: how many a request makes.",
    |request| to_f64(request.checkouts)
);

pub(super) const WAIT: Metric = of_requests!(
    "poolscope_request_wait_seconds_total",
    Counter,
    "Time that requests spent waiting in checkouts, failed and cancelled ones included; counted when a checkout ends.",
    |request| seconds(request.wait_nanos)
);

pub(super) const USE: Metric = Metric::of_pool(
    "poolscope_request_use_seconds_total",
    Kind::Counter,
    &["route", "method", "activity"],
    "Time for which requests held connections, by what those did; counted when a connection is returned. Where the wire is not read all of it is idle.",
    |pool, sink| {
        for request in &pool.requests {
            for activity in Activity::ALL {
                let nanos = request.use_nanos[activity.index()];
                sink.value(&[&request.route, request.method.as_str(), activity.as_str()], seconds(nanos));
            }
        }
    },
);

pub(super) const RETRIES: Metric = of_requests!(
    "poolscope_request_retries_total",
    Counter,
    "Attempts after the first that operations made while requests were served.",
    |request| to_f64(request.retries)
);

pub(super) const WARNINGS: Metric = Metric::of_pool(
    "poolscope_request_warnings_total",
    Kind::Counter,
    &["route", "method", "kind"],
    "What requests do with the pool that they had better not: many_checkouts (a request made more than PoolLayer::warn_checkouts_over), held_elsewhere (a connection was held, and not executing, for PoolLayer::warn_idle_hold or longer). The log has the call sites.",
    |pool, sink| {
        for request in &pool.requests {
            for warning in RequestWarning::ALL {
                let count = request.warnings[warning.index()];
                sink.value(&[&request.route, request.method.as_str(), warning.as_str()], to_f64(count));
            }
        }
    },
);

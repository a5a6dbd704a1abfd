//! The row with requests by route, of services with the middleware.

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{Description, PanelBuilder};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{metric, sum_by, unless_zero};
use crate::monitoring::dashboards::unit::Unit;

/// The labels of a route.
const ROUTE_LABELS: [&str; 2] = ["method", "route"];
const ROUTE_LEGEND: &str = "{{method}} {{route}}";

pub(super) fn row() -> Row {
    let panels = vec![
        requests_in_flight(),
        request_time(),
        route_holders(),
        route_waiters(),
        checkouts_per_request(),
        failed_requests(),
        request_warnings(),
    ];
    Row::open("Requests", panels)
}

fn requests_in_flight() -> PanelBuilder {
    let description = Description {
        shows: "Requests in flight at each scrape by route, stacked. Empty without the middleware.",
        normal: "Steady. A growing route receives requests faster than it serves them.",
        action: "Check whether they wait for the pool or for something else.",
    };
    PanelBuilder::lines(PanelId::RequestsInFlight, "Requests in flight by route", description)
        .size(12, 8)
        .query(unless_zero(sum_by(&ROUTE_LABELS, metric!("poolscope_request_in_flight"))), ROUTE_LEGEND)
        .stacked()
        .legend_table()
}

fn request_time() -> PanelBuilder {
    let description = Description {
        shows: "99th percentile of the request time, until the last byte of the response. Points are exemplars with a \
                link to their trace.",
        normal: "Close to the time of the route's queries.",
        action: "Compare with the waiting requests and the holders by route.",
    };
    PanelBuilder::lines(PanelId::RequestTime, "Request time, p99, by route", description)
        .size(12, 8)
        .query(metric!("poolscope_request_duration_seconds").quantile(0.99, &ROUTE_LABELS), ROUTE_LEGEND)
        .unit(Unit::Seconds)
        .legend_table()
}

fn route_holders() -> PanelBuilder {
    let description = Description {
        shows: "Average number of connections held by route and activity, stacked. Recorded when a connection is \
                returned.",
        normal: "Mostly executing, and no route that holds most of the pool. Idle bands are connections held during \
                 other work.",
        action: "Limit the route (max_route_percent), or return the connection before the other work.",
    };
    let held = sum_by(&["method", "route", "activity"], metric!("poolscope_request_use_seconds_total").rate());
    PanelBuilder::lines(PanelId::RouteHolders, "Connection holders by route", description)
        .size(12, 8)
        .query(unless_zero(held), "{{method}} {{route}} · {{activity}}")
        .stacked()
        .legend_table()
}

fn route_waiters() -> PanelBuilder {
    let description = Description {
        shows: "Average number of requests waiting in a checkout by route, stacked. Recorded when a checkout ends.",
        normal: "Near 0. The routes that wait are rarely the cause.",
        action: "Compare with the holders by route.",
    };
    let waiting = sum_by(&ROUTE_LABELS, metric!("poolscope_request_wait_seconds_total").rate());
    PanelBuilder::lines(PanelId::RouteWaiters, "Waiting requests by route", description)
        .size(12, 8)
        .query(unless_zero(waiting), ROUTE_LEGEND)
        .stacked()
        .legend_table()
}

fn checkouts_per_request() -> PanelBuilder {
    let description = Description {
        shows: "Average number of checkouts and retries per request, by route.",
        normal: "A few checkouts, and no retries. Many checkouts: a query in a loop, or a connection for each step.",
        action: "Use one connection for all queries of a request, or one query.",
    };
    let requests = sum_by(&ROUTE_LABELS, metric!("poolscope_request_duration_seconds").count().rate());
    let per_request = |of: String| format!("{} / ({requests} > 0)", sum_by(&ROUTE_LABELS, of));
    PanelBuilder::lines(PanelId::CheckoutsPerRequest, "Checkouts and retries per request, by route", description)
        .size(24, 8)
        .legend_table()
        .query(per_request(metric!("poolscope_request_checkouts_total").rate()), "checkouts · {{method}} {{route}}")
        .query(
            unless_zero(per_request(metric!("poolscope_request_retries_total").rate())),
            "retries · {{method}} {{route}}",
        )
}

fn failed_requests() -> PanelBuilder {
    let description = Description {
        shows: "Requests per second without success by route and outcome: error (status 500 or more), shed (rejected \
                because the pool is overloaded), cancelled (the client disconnected).",
        normal: "0. shed: the pool cannot serve them. error on all routes: the pool or the server.",
        action: "shed: check the holders. error: check the failures above.",
    };
    let ended = metric!("poolscope_request_duration_seconds").count().only(r#"outcome!="ok""#);
    PanelBuilder::lines(PanelId::FailedRequests, "Failed requests by route", description)
        .size(12, 8)
        .query(unless_zero(sum_by(&["method", "route", "outcome"], ended.rate())), "{{method}} {{route}} · {{outcome}}")
        .unit(Unit::PerSecond)
        .stacked()
}

fn request_warnings() -> PanelBuilder {
    let description = Description {
        shows: "Requests per second that misuse the pool, by route and kind: many_checkouts (too many in one request), \
                held_elsewhere (a connection held during other work).",
        normal: "0. Such requests take capacity from others.",
        action: "The log has the call sites.",
    };
    let warnings = sum_by(&["method", "route", "kind"], metric!("poolscope_request_warnings_total").rate());
    PanelBuilder::lines(PanelId::RequestWarnings, "Warnings by route", description)
        .size(12, 8)
        .query(unless_zero(warnings), "{{method}} {{route}} · {{kind}}")
        .unit(Unit::PerSecond)
}

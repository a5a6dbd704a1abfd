//! What do requests cost the pool, by route? Of services that have the middleware.

use super::super::drawing::{Drawing, Says};
use super::super::frame::Row;
use super::super::panels::Panel;
use super::super::query::{metric, sum_by, unless_zero};
use super::super::unit::Unit;

/// By what requests are told apart.
const ROUTE: [&str; 2] = ["method", "route"];
const LEGEND: &str = "{{method}} {{route}}";

pub(super) fn row() -> Row {
    let panels = vec![requests(), request_time(), holds(), waits(), checkouts_each(), failed(), warnings()];
    Row { title: "Which requests?", panels }
}

fn requests() -> Drawing {
    let says = Says {
        means: "Requests that are under way, by route, at each scrape. Empty without the middleware.",
        bad: "A route that climbs: its requests come faster than they are served.",
        cure: "See whether they wait for the pool, or for something else.",
    };
    Drawing::lines(Panel::Requests, "Requests under way: by route", says)
        .size(12, 8)
        .asks(unless_zero(sum_by(&ROUTE, metric!("poolscope_request_in_flight"))), LEGEND)
        .stacked()
        .listed()
}

fn request_time() -> Drawing {
    let says = Says {
        means: "Ninety-nine of a hundred requests of the route took no longer, until the last byte of the answer. Points are \
                examples: a click leads to the trace.",
        bad: "A route far above what its queries need.",
        cure: "Compare with what it waits, and with what it holds connections for.",
    };
    Drawing::lines(Panel::RequestTime, "Requests, p99: by route", says)
        .size(12, 8)
        .asks(metric!("poolscope_request_duration_seconds").quantile(0.99, &ROUTE), LEGEND)
        .unit(Unit::Seconds)
        .listed()
}

fn holds() -> Drawing {
    let says = Says {
        means: "How many connections each route holds on average, and what they do, stacked. Counted when a connection is \
                returned.",
        bad: "One route with most of the pool; idle bands, where it does something else meanwhile.",
        cure: "Give it a share of its own (max_route_percent), or return the connection before the other work.",
    };
    let held = sum_by(&["method", "route", "activity"], metric!("poolscope_request_use_seconds_total").rate());
    Drawing::lines(Panel::RouteHolds, "Who holds connections: by route", says)
        .size(12, 8)
        .asks(unless_zero(held), "{{method}} {{route}} · {{activity}}")
        .stacked()
        .listed()
}

fn waits() -> Drawing {
    let says = Says {
        means: "How many requests of each route wait in a checkout on average, stacked. Counted when a checkout ends.",
        bad: "Anything that stays. Who waits is seldom who is to blame.",
        cure: "Compare with who holds, beside.",
    };
    let waiting = sum_by(&ROUTE, metric!("poolscope_request_wait_seconds_total").rate());
    Drawing::lines(Panel::RouteWaits, "Who waits: by route", says)
        .size(12, 8)
        .asks(unless_zero(waiting), LEGEND)
        .stacked()
        .listed()
}

fn checkouts_each() -> Drawing {
    let says = Says {
        means: "How many checkouts a request of the route makes on average, and how many times its work is tried again.",
        bad: "More than a few checkouts: a query in a loop, or a connection for each step. Any retries that stay.",
        cure: "Take one connection for all that a request does, or do it in one query.",
    };
    let requests = sum_by(&ROUTE, metric!("poolscope_request_duration_seconds").count().rate());
    let each = |of: String| format!("{} / ({requests} > 0)", sum_by(&ROUTE, of));
    Drawing::lines(Panel::CheckoutsEach, "Checkouts and retries of a request: by route", says)
        .size(24, 8)
        .listed()
        .asks(each(metric!("poolscope_request_checkouts_total").rate()), "checkouts · {{method}} {{route}}")
        .asks(unless_zero(each(metric!("poolscope_request_retries_total").rate())), "retries · {{method}} {{route}}")
}

fn failed() -> Drawing {
    let says = Says {
        means: "Requests without success, by route and outcome: error (a status of 500 or more), shed (refused at once, as the \
                pool was overloaded), cancelled (the client went away).",
        bad: "shed: the pool cannot serve them. error on all routes: the pool or the server.",
        cure: "shed: see who holds the pool. error: see what fails, above.",
    };
    let ended = metric!("poolscope_request_duration_seconds").count().only(r#"outcome!="ok""#);
    Drawing::lines(Panel::FailedRequests, "Requests without success: by route", says)
        .size(12, 8)
        .asks(unless_zero(sum_by(&["method", "route", "outcome"], ended.rate())), "{{method}} {{route}} · {{outcome}}")
        .unit(Unit::PerSecond)
        .stacked()
}

fn warnings() -> Drawing {
    let says = Says {
        means: "What requests do with the pool that they had better not: many_checkouts in one request, held_elsewhere (a \
                connection that is held while the request does something else).",
        bad: "Any that stays.",
        cure: "The log names the places in the code.",
    };
    let warnings = sum_by(&["method", "route", "kind"], metric!("poolscope_request_warnings_total").rate());
    Drawing::lines(Panel::RequestWarnings, "Warnings: by route", says)
        .size(12, 8)
        .asks(unless_zero(warnings), "{{method}} {{route}} · {{kind}}")
        .unit(Unit::PerSecond)
}

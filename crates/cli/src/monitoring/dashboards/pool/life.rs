//! In which state connections come back, who forgets them, and how they live and end.

use super::super::drawing::{Drawing, Says, WARNING};
use super::super::frame::Row;
use super::super::panels::Panel;
use super::super::query::{max, metric, sum, sum_by, unless_zero};
use super::super::unit::Unit;
use crate::monitoring::Thresholds;

pub(super) fn dirt(thresholds: &Thresholds) -> Row {
    Row { title: "Who leaves it dirty, who forgets it?", panels: vec![dirty_returns(), suspected_leaks(thresholds)] }
}

pub(super) fn cycle(thresholds: &Thresholds) -> Row {
    Row {
        title: "How do connections live?",
        panels: vec![churn(), why_closed(), churn_share(thresholds), create_time(), connecting()],
    }
}

fn dirty_returns() -> Drawing {
    let says = Says {
        means: "Connections that came back in a transaction, busy with a query that nobody waits for, or with something \
                left in the session. Each was cleaned before anyone else got it.",
        bad: "in_transaction from one operation: it forgets to commit. busy: callers go away in mid-query.",
        cure: "Commit or roll back on every path. busy: give queries a statement_timeout below the callers' patience.",
    };
    let returns = sum_by(&["operation", "kind"], metric!("poolscope_dirty_returns_total").rate());
    Drawing::lines(Panel::DirtyReturns, "Dirty returns: by operation and kind", says)
        .size(14, 8)
        .asks(unless_zero(returns), "{{operation}} · {{kind}}")
        .unit(Unit::PerSecond)
        .listed()
}

fn suspected_leaks(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "Connections held past leak_threshold, silent for as long, and not executing, at each scrape.",
        bad: "A stair that only climbs: each step is a connection that nobody gives back.",
        cure: "`/api/v1/pools` on the instance names the operation and the line of code, and the trace it was taken in.",
    };
    Drawing::lines(Panel::SuspectedLeaks, "Suspected leaks", says)
        .size(10, 8)
        .at_least(2.0)
        .asks(sum(metric!("poolscope_suspected_leaks")), "suspected leaks")
        .colours(&[("suspected leaks", "orange")])
        .above(WARNING, &thresholds.suspected_leaks)
}

fn churn() -> Drawing {
    let says = Says {
        means: "Connections begun and closed.",
        bad: "Both high all the time: connections are made and thrown away.",
        cure: "See beside why they are closed, and below whether it matters.",
    };
    Drawing::lines(Panel::Churn, "Opened and closed", says)
        .size(12, 8)
        .asks(sum(metric!("poolscope_connections_created_total").rate()), "opened")
        .asks(sum(metric!("poolscope_connections_closed_total").rate()), "closed")
        .unit(Unit::PerSecond)
        .colours(&[("opened", "blue"), ("closed", "purple")])
}

fn churn_share(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "For which share of checkouts a connection was made. The dashed line is where that is an alert, unless it is \
                hardly any in all.",
        bad: "Above the line: to connect costs as much as some fifty queries, so it is most of the work.",
        cure: "overflow closed all the time: raise pool_size, so that they are kept. Otherwise mend why they end.",
    };
    let made = sum(metric!("db_client_connection_create_time_seconds").count().rate());
    let checkouts = sum(metric!("db_client_connection_wait_time_seconds").count().rate());
    Drawing::lines(Panel::ChurnShare, "Made for a checkout", says)
        .asks(format!("{made} / ({checkouts} > 0)"), "share of checkouts")
        .unit(Unit::Share)
        .colours(&[("share of checkouts", "blue")])
        .above(WARNING, &thresholds.churn_share)
}

fn why_closed() -> Drawing {
    let says = Says {
        means: "Why connections ended, stacked. connect_failed and connect_abandoned were never established.",
        bad: "overflow that stays: pool_size is too small for the load. ping_failed, broken: the network or the server cuts \
              connections. dirty, discarded: callers leave them beyond cleaning.",
        cure: "overflow: raise pool_size. recycled alone is as it should be.",
    };
    Drawing::lines(Panel::WhyClosed, "Why they are closed", says)
        .size(12, 8)
        .asks(unless_zero(sum_by(&["reason"], metric!("poolscope_connections_closed_total").rate())), "{{reason}}")
        .unit(Unit::PerSecond)
        .stacked()
        .colours(&[
            ("overflow", "blue"),
            ("recycled", "#6e7079"),
            ("shutdown", "light-blue"),
            ("connect_failed", "red"),
            ("connect_abandoned", "light-red"),
            ("ping_failed", "orange"),
            ("ping_abandoned", "light-orange"),
            ("broken", "dark-red"),
            ("invalidated", "yellow"),
            ("read_only", "light-yellow"),
            ("dirty", "purple"),
            ("discarded", "light-purple"),
        ])
}

fn create_time() -> Drawing {
    let says = Says {
        means: "How long it takes to establish a connection, from the first socket until the server is ready; successes \
                only. Points are examples: a click leads to the trace.",
        bad: "More than some round trips: the server forks slowly, TLS or a name lookup drags.",
        cure: "Compare with a connect from another machine; keep more connections idle, so that fewer are made.",
    };
    let time = || metric!("db_client_connection_create_time_seconds");
    Drawing::lines(Panel::CreateTime, "How long connecting takes", says)
        .asks(time().quantile(0.5, &[]), "p50")
        .asks(time().quantile(0.9, &[]), "p90")
        .asks(time().quantile(0.99, &[]), "p99")
        .unit(Unit::Seconds)
        .colours(&super::QUANTILES)
}

fn connecting() -> Drawing {
    let says = Says {
        means: "For how long connecting has failed, so that it is left to one checkout at a time; of several instances, the \
                worst.",
        bad: "A line that climbs: the server is away, refuses, or has no slots left.",
        cure: "See the SQLSTATE among the errors of connections.",
    };
    Drawing::lines(Panel::Connecting, "Connecting fails for", says)
        .at_least(10.0)
        .asks(max(metric!("poolscope_connecting_suspended_seconds")), "suspended")
        .unit(Unit::Seconds)
        .colours(&[("suspended", "red")])
}

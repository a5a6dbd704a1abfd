//! Who waits, for what, and how long?

use super::super::drawing::{Drawing, Says, WARNING};
use super::super::frame::Row;
use super::super::panels::Panel;
use super::super::query::{Series, max, metric, sum, sum_by, unless_zero};
use super::super::unit::Unit;
use crate::monitoring::Thresholds;
use crate::monitoring::rules::recording::bucket;

pub(super) fn who(thresholds: &Thresholds) -> Row {
    Row { title: "Who waits?", panels: vec![who_waits(thresholds), wait_phases(), waiting_now(), checkouts()] }
}

pub(super) fn how_long(thresholds: &Thresholds) -> Row {
    let panels = vec![wait_time_panel(thresholds), objective(thresholds), oldest_wait(), operation_time()];
    Row { title: "How long?", panels }
}

/// How long a checkout takes at this quantile.
pub(super) fn wait_time(quantile: f64) -> String {
    metric!("db_client_connection_wait_time_seconds").quantile(quantile, &[])
}

fn who_waits(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "How many checkouts of each operation wait on average, whatever for; stacked. The dashed line is where \
                somebody always waits.",
        bad: "Anything that stays. Who waits is seldom who is to blame.",
        cure: "Compare with who holds, above: they hold what these wait for.",
    };
    let waiting = sum_by(&["operation"], metric!("poolscope_operation_wait_seconds_total").rate());
    Drawing::lines(Panel::WhoWaits, "Who waits: by operation", says)
        .size(12, 8)
        .asks(unless_zero(waiting), "{{operation}}")
        .stacked()
        .listed()
        .above(WARNING, &thresholds.waiters)
}

fn wait_phases() -> Drawing {
    let says = Says {
        means: "What checkouts wait for, stacked: queue (a connection to come back), connect, ping, clean (what the last \
                holder left), suspended (their turn to connect, while that fails), share (their route's share).",
        bad: "queue: the pool is exhausted. connect or ping: the server or the network is slow. clean: callers leave \
              transactions open. suspended: the server is away.",
        cure: "queue: see who holds it. The others: see errors and life cycle below.",
    };
    Drawing::lines(Panel::WaitPhases, "What they wait for", says)
        .size(6, 8)
        .asks(sum_by(&["phase"], metric!("poolscope_checkout_phase_seconds_total").rate()), "{{phase}}")
        .stacked()
        .colours(&[
            ("queue", "blue"),
            ("connect", "purple"),
            ("ping", "light-blue"),
            ("clean", "orange"),
            ("suspended", "red"),
            ("share", "yellow"),
        ])
}

fn waiting_now() -> Drawing {
    let says = Says {
        means: "Checkouts at the moment of each scrape: those that wait for capacity, and all that are under way.",
        bad: "Waiting that climbs: more come than are served. Under way without waiting: connecting or pinging is slow.",
        cure: "See what they wait for. A queue that climbs without end needs load to be turned away.",
    };
    Drawing::lines(Panel::WaitingNow, "Queue at each scrape", says)
        .size(6, 8)
        .asks(sum(metric!("poolscope_checkouts_in_flight")), "under way")
        .asks(sum(metric!("db_client_connection_pending_requests")), "waiting")
        .colours(&[("under way", "light-blue"), ("waiting", "blue")])
}

fn checkouts() -> Drawing {
    let says = Says {
        means: "Checkouts begun, by operation.",
        bad: "An operation that grows without its requests growing: a query in a loop, or retries by hand.",
        cure: "Take one connection for all that a request does, or do it in one query.",
    };
    Drawing::lines(Panel::Checkouts, "Checkouts: by operation", says)
        .size(24, 8)
        .asks(unless_zero(sum_by(&["operation"], metric!("poolscope_checkouts_started_total").rate())), "{{operation}}")
        .unit(Unit::PerSecond)
        .listed()
}

fn wait_time_panel(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "How long a checkout takes as a whole, failed and cancelled ones included. Points are examples: a click \
                leads to the trace of one that waited. The dashed line is where the p99 is too much.",
        bad: "p99 above the line. A median above zero: every other request waits.",
        cure: "Follow an example: its checkout span names who held the pool meanwhile.",
    };
    Drawing::lines(Panel::WaitTime, "How long checkouts take", says)
        .size(12, 8)
        .asks(wait_time(0.5), "p50")
        .asks(wait_time(0.9), "p90")
        .asks(wait_time(0.99), "p99")
        .unit(Unit::Seconds)
        .colours(&super::QUANTILES)
        .above(WARNING, &thresholds.wait_p99_seconds)
}

fn objective(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "The share of checkouts that time out, and of those that take longer than the objective allows (failed ones \
                included). Those that are shed count for neither. The dashed line is what the objective leaves: a month at the line spends its budget.",
        bad: "Far above the line for minutes, or a little above it for hours: that is what the burn-rate alerts look at.",
        cure: "See who waits and who holds; for timeouts, whether the queue or connecting cost them.",
    };
    let checkouts = || metric!("db_client_connection_wait_time_seconds");
    let all = sum(checkouts().count().rate());
    // As the recording rules of the objectives have it. Nothing is there of what is shed until the first is.
    let shed = sum(metric!("poolscope_checkouts_total").only(r#"outcome="shed""#).rate());
    let admitted = format!("(({all} - {shed} or {all}) > 0)");
    let within = sum(checkouts().bucket().only(bucket(&thresholds.wait_objective_seconds)).rate());
    let timeouts = sum(metric!("db_client_connection_timeouts_total").rate());
    Drawing::lines(Panel::Objective, "Objective: slow and timed out", says)
        .size(6, 8)
        .asks(format!("({all} - {within}) / {admitted}"), "too slow")
        .asks(format!("{timeouts} / {admitted}"), "timed out")
        .unit(Unit::Share)
        .colours(&[("too slow", "blue"), ("timed out", "purple")])
        .above(WARNING, &thresholds.wait_objective.allowance())
}

fn oldest_wait() -> Drawing {
    let says = Says {
        means: "How long the checkout that has been under way for longest has waited, at each scrape.",
        bad: "A line that climbs steadily: somebody waits and is not served. It ends at checkout_timeout.",
        cure: "`/api/v1/pools` on the instance names who waits and who holds, with their traces.",
    };
    Drawing::lines(Panel::OldestWait, "Oldest checkout under way", says)
        .size(6, 8)
        .asks(max(metric!("poolscope_checkout_wait_oldest_seconds")), "oldest")
        .unit(Unit::Seconds)
        .colours(&[("oldest", "blue")])
}

fn operation_time() -> Drawing {
    let says = Says {
        means: "Ninety-nine of a hundred operations given to `run` took no longer, checkout and work together, retries \
                included. Points are examples: a click leads to the trace.",
        bad: "An operation far above what its queries need: it waits, or holds its connection for something else.",
        cure: "Compare with how long its checkouts wait and what it holds connections for.",
    };
    let time: Series = metric!("poolscope_operation_duration_seconds");
    Drawing::lines(Panel::OperationTime, "Whole operations, p99: by operation", says)
        .size(24, 8)
        .asks(time.quantile(0.99, &["operation"]), "{{operation}}")
        .unit(Unit::Seconds)
        .listed()
}

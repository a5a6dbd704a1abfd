//! The rows with waiting checkouts and latency.

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{Description, PanelBuilder, WARNING};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{Series, max, metric, sum, sum_by, unless_zero};
use crate::monitoring::dashboards::shared::QUANTILE_COLORS;
use crate::monitoring::dashboards::unit::Unit;
use crate::monitoring::recording::bucket;
use crate::monitoring::thresholds::Thresholds;

pub(super) fn waiters_row(thresholds: &Thresholds) -> Row {
    Row::open("Waiters", vec![waiters(thresholds), wait_phases(), queue_length(), checkouts()])
}

pub(super) fn latency_row(thresholds: &Thresholds) -> Row {
    let panels = vec![wait_time(thresholds), objectives(thresholds), oldest_wait(), operation_time()];
    Row::open("Latency", panels)
}

/// Returns a quantile of the checkout time.
pub(super) fn wait_quantile(quantile: f64) -> String {
    metric!("db_client_connection_wait_time_seconds").quantile(quantile, &[])
}

fn waiters(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Average number of waiting checkouts by operation, in any phase; stacked. At the dashed line, one \
                checkout waits on average.",
        normal: "Near 0. The operations that wait are rarely the cause.",
        action: "Compare with the holders above, which hold the connections that these wait for.",
    };
    let waiting = sum_by(&["operation"], metric!("poolscope_operation_wait_seconds_total").rate());
    PanelBuilder::lines(PanelId::Waiters, "Waiting checkouts by operation", description)
        .size(12, 8)
        .query(unless_zero(waiting), "{{operation}}")
        .stacked()
        .legend_table()
        .threshold(WARNING, &thresholds.waiters)
}

fn wait_phases() -> PanelBuilder {
    let description = Description {
        shows: "Average number of checkouts in each phase, stacked: queue (until a connection is returned), connect, \
                ping, clean (resetting a dirty connection), hook (before_checkout), suspended (for a turn to connect while connecting fails), \
                share (for the route's limit).",
        normal: "Near 0. queue: the pool is exhausted. connect or ping: the server or the network is slow. clean: \
                 callers leave transactions open. suspended: the server is down.",
        action: "queue: check the holders. Others: check the failures and the connection lifecycle.",
    };
    PanelBuilder::lines(PanelId::WaitPhases, "Waiting checkouts by phase", description)
        .size(6, 8)
        .query(sum_by(&["phase"], metric!("poolscope_checkout_phase_seconds_total").rate()), "{{phase}}")
        .stacked()
        .colors(&[
            ("queue", "blue"),
            ("connect", "purple"),
            ("ping", "light-blue"),
            ("clean", "orange"),
            ("hook", "light-purple"),
            ("suspended", "red"),
            ("share", "yellow"),
        ])
}

fn queue_length() -> PanelBuilder {
    let description = Description {
        shows: "Checkouts in flight, and those waiting for capacity, at each scrape.",
        normal: "Few waiting. A growing queue means that more checkouts arrive than are served; many in flight without \
                 waiting mean slow connecting or pinging.",
        action: "Check the phases. If the queue grows without limit, shed load.",
    };
    PanelBuilder::lines(PanelId::QueueLength, "Queue length at each scrape", description)
        .size(6, 8)
        .query(sum(metric!("poolscope_checkouts_in_flight")), "in flight")
        .query(sum(metric!("db_client_connection_pending_requests")), "waiting")
        .colors(&[("in flight", "light-blue"), ("waiting", "blue")])
}

fn checkouts() -> PanelBuilder {
    let description = Description {
        shows: "Checkouts started per second, by operation.",
        normal: "Proportional to the operation's requests. Otherwise suspect a query in a loop, or hand-written retries.",
        action: "Use one connection for all queries of a request, or one query.",
    };
    PanelBuilder::lines(PanelId::Checkouts, "Checkouts by operation", description)
        .size(24, 8)
        .query(
            unless_zero(sum_by(&["operation"], metric!("poolscope_checkouts_started_total").rate())),
            "{{operation}}",
        )
        .unit(Unit::PerSecond)
        .legend_table()
}

fn wait_time(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Quantiles of the checkout time, including failed and cancelled checkouts. Points are exemplars with a \
                link to their trace. The dashed line is the alert threshold of the p99.",
        normal: "p99 below the line, and a median near 0. A higher median means that every second request waits.",
        action: "Open an exemplar's trace: its checkout span names the holders at that time.",
    };
    PanelBuilder::lines(PanelId::WaitTime, "Checkout time", description)
        .size(12, 8)
        .query(wait_quantile(0.5), "p50")
        .query(wait_quantile(0.9), "p90")
        .query(wait_quantile(0.99), "p99")
        .unit(Unit::Seconds)
        .colors(&QUANTILE_COLORS)
        .threshold(WARNING, &thresholds.wait_p99_seconds)
}

fn objectives(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Share of checkouts that exceed the time limit of the wait objective, including failed ones, and share \
                that time out. Shed checkouts do not count. The dashed line is the error budget: a month at the line \
                spends it.",
        normal: "Below the line. The burn-rate alerts fire if it is far exceeded for minutes, or slightly exceeded for \
                 hours.",
        action: "Check waiters and holders; for timeouts, check whether the queue or connecting took the time.",
    };
    let checkouts = || metric!("db_client_connection_wait_time_seconds");
    let all = sum(checkouts().count().rate());
    // As in the recording rules: the series of shed checkouts does not exist until the first is shed.
    let shed = sum(metric!("poolscope_checkouts_total").only(r#"outcome="shed""#).rate());
    let admitted = format!("(({all} - {shed} or {all}) > 0)");
    let within = sum(checkouts().bucket().only(bucket(&thresholds.wait_objective_seconds)).rate());
    let timeouts = sum(metric!("db_client_connection_timeouts_total").rate());
    PanelBuilder::lines(PanelId::Objectives, "Objectives: slow and timed-out checkouts", description)
        .size(6, 8)
        .query(format!("({all} - {within}) / {admitted}"), "slow")
        .query(format!("{timeouts} / {admitted}"), "timed out")
        .unit(Unit::Share)
        .colors(&[("slow", "blue"), ("timed out", "purple")])
        .threshold(WARNING, &thresholds.wait_objective.complement())
}

fn oldest_wait() -> PanelBuilder {
    let description = Description {
        shows: "Age of the oldest checkout in flight, at each scrape.",
        normal: "Near 0 s. A steady climb is a checkout that is not served; it ends at checkout_timeout.",
        action: "`/api/v1/pools` on the instance lists waiters and holders with their traces.",
    };
    PanelBuilder::lines(PanelId::OldestWait, "Oldest checkout in flight", description)
        .size(6, 8)
        .query(max(metric!("poolscope_checkout_wait_oldest_seconds")), "oldest")
        .unit(Unit::Seconds)
        .colors(&[("oldest", "blue")])
}

fn operation_time() -> PanelBuilder {
    let description = Description {
        shows: "99th percentile of the duration of operations started with `run`: checkout, work and retries. Points \
                are exemplars with a link to their trace.",
        normal: "Close to the time of the operation's queries. Otherwise it waits, or holds its connection during \
                 other work.",
        action: "Compare with its checkout time, and with what it holds connections for.",
    };
    let time: Series = metric!("poolscope_operation_duration_seconds");
    PanelBuilder::lines(PanelId::OperationTime, "Operation time, p99, by operation", description)
        .size(24, 8)
        .query(time.quantile(0.99, &["operation"]), "{{operation}}")
        .unit(Unit::Seconds)
        .legend_table()
}

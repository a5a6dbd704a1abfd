//! The rows with dirty returns, leaks and the connection lifecycle.

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{Description, PanelBuilder, WARNING};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{max, metric, sum, sum_by, unless_zero};
use crate::monitoring::dashboards::shared::QUANTILE_COLORS;
use crate::monitoring::dashboards::unit::Unit;
use crate::monitoring::thresholds::Thresholds;

pub(super) fn dirty_returns_row(thresholds: &Thresholds) -> Row {
    Row::open("Dirty returns and leaks", vec![dirty_returns(), suspected_leaks(thresholds)])
}

pub(super) fn lifecycle_row(thresholds: &Thresholds) -> Row {
    Row::open(
        "Connection lifecycle",
        vec![opened_and_closed(), close_reasons(), churn_share(thresholds), connect_time(), connect_suspended_time()],
    )
}

fn dirty_returns() -> PanelBuilder {
    let description = Description {
        shows: "Connections per second returned in a transaction, with a running query or with session state left \
                behind. Each is reset before the next checkout, or closed.",
        normal: "0. in_transaction from one operation: it does not commit. busy: callers give up during a query.",
        action: "Commit or roll back on every path. busy: set a statement_timeout below the callers' timeout.",
    };
    let returns = sum_by(&["operation", "kind"], metric!("poolscope_dirty_returns_total").rate());
    PanelBuilder::lines(PanelId::DirtyReturns, "Dirty returns by operation and kind", description)
        .size(14, 8)
        .query(unless_zero(returns), "{{operation}} · {{kind}}")
        .unit(Unit::PerSecond)
        .legend_table()
}

fn suspected_leaks(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Connections held past leak_threshold without traffic and without executing a query, at each scrape.",
        normal: "0. A rising staircase is a leak: each step is a connection that is never returned.",
        action: "`/api/v1/pools` on the instance has the operation, the call site and the trace of each.",
    };
    PanelBuilder::lines(PanelId::SuspectedLeaks, "Suspected leaks", description)
        .size(10, 8)
        .soft_max(2.0)
        .query(sum(metric!("poolscope_suspected_leaks")), "suspected leaks")
        .colors(&[("suspected leaks", "orange")])
        .threshold(WARNING, &thresholds.suspected_leaks)
}

fn opened_and_closed() -> PanelBuilder {
    let description = Description {
        shows: "Connections opened and closed per second.",
        normal: "Near 0 after start-up. Both high: connections are not reused.",
        action: "Check the close reasons beside, and the share of checkouts below.",
    };
    PanelBuilder::lines(PanelId::OpenedAndClosed, "Connections opened and closed", description)
        .size(12, 8)
        .query(sum(metric!("poolscope_connections_created_total").rate()), "opened")
        .query(sum(metric!("poolscope_connections_closed_total").rate()), "closed")
        .unit(Unit::PerSecond)
        .colors(&[("opened", "blue"), ("closed", "purple")])
}

fn churn_share(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Connections opened, as a share of checkouts. The dashed line is the alert threshold; the alert also \
                requires a minimum rate.",
        normal: "Below the line: connecting costs as much as about fifty queries.",
        action: "Mostly overflow closes: raise pool_size, so that connections are kept. Otherwise fix the close reason.",
    };
    let made = sum(metric!("db_client_connection_create_time_seconds").count().rate());
    let checkouts = sum(metric!("db_client_connection_wait_time_seconds").count().rate());
    PanelBuilder::lines(PanelId::ChurnShare, "Checkouts that opened a connection", description)
        .query(format!("{made} / ({checkouts} > 0)"), "share of checkouts")
        .unit(Unit::Share)
        .colors(&[("share of checkouts", "blue")])
        .threshold(WARNING, &thresholds.churn_share)
}

fn close_reasons() -> PanelBuilder {
    let description = Description {
        shows: "Connections closed per second by reason, stacked. connect_failed and connect_abandoned were never \
                established.",
        normal: "Recycled and idle_timeout only. Steady overflow: pool_size is too small for the load. ping_failed, broken: the network \
                 or the server closes connections. dirty, discarded: callers leave them in a state that is not reset.",
        action: "overflow: raise pool_size. Others: fix the cause.",
    };
    PanelBuilder::lines(PanelId::CloseReasons, "Connections closed by reason", description)
        .size(12, 8)
        .query(unless_zero(sum_by(&["reason"], metric!("poolscope_connections_closed_total").rate())), "{{reason}}")
        .unit(Unit::PerSecond)
        .stacked()
        .colors(&[
            ("overflow", "blue"),
            ("recycled", "#6e7079"),
            ("idle_timeout", "dark-blue"),
            ("resized", "super-light-blue"),
            ("shutdown", "light-blue"),
            ("connect_failed", "red"),
            ("connect_abandoned", "light-red"),
            ("ping_failed", "orange"),
            ("ping_abandoned", "light-orange"),
            ("hook_failed", "dark-orange"),
            ("hook_abandoned", "dark-yellow"),
            ("broken", "dark-red"),
            ("invalidated", "yellow"),
            ("read_only", "light-yellow"),
            ("dirty", "purple"),
            ("discarded", "light-purple"),
        ])
}

fn connect_time() -> PanelBuilder {
    let description = Description {
        shows: "Time to establish a connection, from the first socket until the server is ready; successful attempts \
                only. Points are exemplars with a link to their trace.",
        normal: "A few network round trips. Otherwise the server starts processes slowly, or TLS or DNS is slow.",
        action: "Compare with psql from another machine; keep more connections idle, so that fewer are opened.",
    };
    let time = || metric!("db_client_connection_create_time_seconds");
    PanelBuilder::lines(PanelId::ConnectTime, "Connect time", description)
        .query(time().quantile(0.5, &[]), "p50")
        .query(time().quantile(0.9, &[]), "p90")
        .query(time().quantile(0.99, &[]), "p99")
        .unit(Unit::Seconds)
        .colors(&QUANTILE_COLORS)
}

fn connect_suspended_time() -> PanelBuilder {
    let description = Description {
        shows: "How long connecting has failed, of the highest instance. Meanwhile, one checkout at a time tries to \
                connect.",
        normal: "0 s. A climbing line: the server is down, rejects connections or has no free slots.",
        action: "Check the type of the connection errors.",
    };
    PanelBuilder::lines(PanelId::ConnectSuspendedTime, "Connecting fails for", description)
        .soft_max(10.0)
        .query(max(metric!("poolscope_connecting_suspended_seconds")), "suspended")
        .unit(Unit::Seconds)
        .colors(&[("suspended", "red")])
}

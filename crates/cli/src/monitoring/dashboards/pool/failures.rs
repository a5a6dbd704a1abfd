//! The row with failed checkouts and errors.

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{Description, PanelBuilder, WARNING};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{Series, metric, sum_by, unless_zero};
use crate::monitoring::dashboards::unit::Unit;
use crate::monitoring::thresholds::Thresholds;

pub(super) fn row(thresholds: &Thresholds) -> Row {
    let panels = vec![
        failures_by_outcome(),
        failures_by_operation(),
        self_deadlocks(),
        connection_errors(thresholds),
        query_errors(),
    ];
    Row::open("Failures", panels)
}

/// Returns the checkouts that failed, without cancelled ones.
pub(super) fn failed_checkouts_series() -> Series {
    metric!("poolscope_checkouts_total").only(r#"outcome!~"ok|cancelled""#)
}

fn failures_by_outcome() -> PanelBuilder {
    let description = Description {
        shows: "Checkouts per second that returned no connection: timeout (checkout_timeout), error (connecting \
                failed), shed (load shedding), closed (the pool is closed), cancelled (the caller gave up).",
        normal: "0. timeout: the pool is exhausted, or connecting hangs. Many cancelled: callers give up before they \
                 are served.",
        action: "timeout: check the holders. error: check the type of the connection errors.",
    };
    let ended = metric!("poolscope_checkouts_total").only(r#"outcome!="ok""#);
    PanelBuilder::lines(PanelId::FailuresByOutcome, "Failed checkouts by outcome", description)
        .query(sum_by(&["outcome"], ended.rate()), "{{outcome}}")
        .unit(Unit::PerSecond)
        .stacked()
        .colors(&[
            ("timeout", "red"),
            ("error", "orange"),
            ("shed", "purple"),
            ("closed", "#6e7079"),
            ("cancelled", "light-blue"),
        ])
}

fn failures_by_operation() -> PanelBuilder {
    let description = Description {
        shows: "Failed checkouts per second by operation, without cancelled ones.",
        normal: "0. If all operations fail, the pool or the server is the cause; if one does, it needs too many \
                 connections at once.",
        action: "Limit the concurrency of bursty operations, or give them a pool of their own.",
    };
    PanelBuilder::lines(PanelId::FailuresByOperation, "Failed checkouts by operation", description)
        .size(10, 8)
        .query(unless_zero(sum_by(&["operation"], failed_checkouts_series().rate())), "{{operation}}")
        .unit(Unit::PerSecond)
        .stacked()
        .legend_table()
}

fn connection_errors(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Connection errors per second by phase (connect, ping, reset, or checkout: one that ended without the \
                connection it needed) and SQLSTATE, or io, timeout, tls or auth if the server sent none. Query errors \
                have their own panel. The dashed line is the alert threshold of failed connects.",
        normal: "0. connect with 53300: no free slots; 28P01 or auth: wrong credentials; 57P03 or io: the server is \
                 down or starting. ping: idle connections are lost. checkout with too_slow: connecting takes longer than \
                 checkout_timeout; with another error: connecting is suspended after it.",
        action: "53300: check the sum of all pools on the fleet dashboard. ping: a firewall or proxy drops idle \
                 connections; lower tcp_keepalive or recycle_after.",
    };
    let errors = metric!("poolscope_connection_errors_total").only(r#"phase!="query""#);
    PanelBuilder::lines(PanelId::ConnectionErrors, "Connection errors by type", description)
        .size(12, 8)
        .query(unless_zero(sum_by(&["phase", "error_type"], errors.rate())), "{{phase}} · {{error_type}}")
        .unit(Unit::PerSecond)
        .legend_table()
        .threshold(WARNING, &thresholds.connect_failures)
}

fn query_errors() -> PanelBuilder {
    let description = Description {
        shows: "Errors per second that the server reported for queries, by operation and SQLSTATE.",
        normal: "Few. 40001 and 40P01: conflicting transactions. 57014: cancelled by a timeout. 23505: a duplicate \
                 key. 42…: an invalid query, possibly since the last release.",
        action: "40001 and 40P01: retry, and lock rows in the same order. 42…: compare with the version annotations.",
    };
    let errors = metric!("poolscope_query_errors_total").rate();
    PanelBuilder::lines(PanelId::QueryErrors, "Query errors by operation and SQLSTATE", description)
        .size(12, 8)
        .query(unless_zero(sum_by(&["operation", "error_type"], errors)), "{{operation}} · {{error_type}}")
        .unit(Unit::PerSecond)
        .legend_table()
}

fn self_deadlocks() -> PanelBuilder {
    let description = Description {
        shows: "Checkouts per second that waited while their own task held a connection of this pool, by the operation that \
                waited.",
        normal: "0. When every connection is held by such a task, all of them wait until they time out.",
        action: "Pass the connection on instead of checking out a second one. The log has the call sites of both.",
    };
    PanelBuilder::lines(PanelId::SelfDeadlocks, "Possible self-deadlocks", description)
        .size(6, 8)
        .soft_max(1.0)
        .query(unless_zero(sum_by(&["operation"], metric!("poolscope_self_deadlocks_total").rate())), "{{operation}}")
        .unit(Unit::PerSecond)
}

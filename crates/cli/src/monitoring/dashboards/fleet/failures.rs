//! The rows with failures, retries, dirty returns and the connection lifecycle of all pools.

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{Description, PanelBuilder, WARNING};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{Series, max, metric, sum, sum_by, unless_zero};
use crate::monitoring::dashboards::unit::Unit;
use crate::monitoring::names::POOL_LABEL;
use crate::monitoring::recording::{CONNECT_FAILURES, CONNECTED, RETRY_SHARE};
use crate::monitoring::thresholds::Thresholds;

pub(super) fn failures_row() -> Row {
    Row::open("Failures", vec![timeouts(), connection_errors()])
}

pub(super) fn retries_row(thresholds: &Thresholds) -> Row {
    Row::open("Retries and dirty returns", vec![retries(thresholds), dirty_returns()])
}

pub(super) fn lifecycle_row() -> Row {
    Row::open("Connection lifecycle", vec![churn(), unpooled()])
}

fn timeouts() -> PanelBuilder {
    let description = Description {
        shows: "Checkouts per second that timed out, by pool name; the ten largest.",
        normal: "0. Many pools at once: the server is the cause.",
        action: "One pool: open it, and check its holders. All pools: check the connection errors beside.",
    };
    let timeouts = sum_by(&["job", POOL_LABEL], metric!("db_client_connection_timeouts_total").rate());
    PanelBuilder::lines(PanelId::FleetTimeouts, "Timeouts by pool", description)
        .size(12, 8)
        .query(format!("topk(10, {timeouts} > 0)"), &format!("{{{{{POOL_LABEL}}}}} · {{{{job}}}}"))
        .unit(Unit::PerSecond)
        .stacked()
        .legend_table()
}

fn connection_errors() -> PanelBuilder {
    let description = Description {
        shows: "Connection errors per second in all pools by phase (connect, ping, reset, checkout) and SQLSTATE, or \
                io, timeout, too_slow, tls or auth if the server sent none.",
        normal: "0. 53300: no free slots. 57P03, io: the server is down or starting. 28P01, auth: wrong credentials.",
        action: "53300: compare the sum of maxima with the server's slots. Others: check the server.",
    };
    let errors = metric!("poolscope_connection_errors_total").only(r#"phase!="query""#);
    PanelBuilder::lines(PanelId::FleetConnectionErrors, "Connection errors by type", description)
        .size(12, 8)
        .query(unless_zero(sum_by(&["phase", "error_type"], errors.rate())), "{{phase}} · {{error_type}}")
        .unit(Unit::PerSecond)
        .legend_table()
}

fn retries(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Retries per checkout: of the highest pool and the median pool. The dashed line is the alert threshold.",
        normal: "Below the line. Above it, retries are a considerable part of the load.",
        action: "Open the pool, which shows its retries by operation and error.",
    };
    let share = Series::recorded(RETRY_SHARE);
    PanelBuilder::lines(PanelId::FleetRetries, "Retries per checkout", description)
        .size(12, 8)
        .query(max(&share), "highest pool")
        .query(format!("quantile(0.5, {share})"), "median pool")
        .unit(Unit::Share)
        .colors(&[("highest pool", "purple"), ("median pool", "light-blue")])
        .threshold(WARNING, &thresholds.retry_share)
}

fn dirty_returns() -> PanelBuilder {
    let description = Description {
        shows: "Dirty returns per second by kind, and the number of suspected leaks.",
        normal: "0. A rising staircase of suspected leaks is a leak; dirty returns since a new version are its defect.",
        action: "The table above shows the pools with leaks; the pool dashboard shows the operations with dirty returns.",
    };
    PanelBuilder::lines(PanelId::FleetDirtyReturns, "Dirty returns and suspected leaks", description)
        .size(12, 8)
        .query(unless_zero(sum_by(&["kind"], metric!("poolscope_dirty_returns_total").rate())), "{{kind}} per second")
        .query(sum(metric!("poolscope_suspected_leaks")), "suspected leaks")
        .colors(&[("suspected leaks", "orange")])
}

fn churn() -> PanelBuilder {
    let description = Description {
        shows: "Connections established per second in all pools, and failed attempts.",
        normal: "Near 0 after start-up. Many established: connections are not reused. Failed: the server is down or \
                 full.",
        action: "Many overflow closes: raise pool_size. Failed: check the type of the connection errors.",
    };
    PanelBuilder::lines(PanelId::FleetChurn, "Connections opened", description)
        .size(12, 8)
        .query(sum(Series::recorded(CONNECTED)), "established")
        .query(sum(Series::recorded(CONNECT_FAILURES)), "failed")
        .unit(Unit::PerSecond)
        .colors(&[("established", "blue"), ("failed", "red")])
}

fn unpooled() -> PanelBuilder {
    let description = Description {
        shows: "Connections open outside the pools (`connect_unpooled`) by call site; the ten largest.",
        normal: "0 after the migration. They take slots of the server that are not part of a pool's maximum.",
        action: "Migrate the call sites to the pool; docs/migration.md has both forms side by side.",
    };
    let open = sum_by(&["operation"], metric!("poolscope_unpooled_connections_active"));
    PanelBuilder::lines(PanelId::FleetUnpooled, "Unpooled connections by call site", description)
        .size(12, 8)
        .query(format!("topk(10, {open} > 0)"), "{{operation}}")
        .stacked()
        .legend_table()
}

//! The row with the saturation of the pool.

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{CRITICAL, Description, NEUTRAL, PanelBuilder, WARNING};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{max, metric, sum};
use crate::monitoring::dashboards::shared::connections_by_state;
use crate::monitoring::dashboards::unit::Unit;
use crate::monitoring::thresholds::Thresholds;

pub(super) fn row(thresholds: &Thresholds) -> Row {
    Row::open("Saturation", vec![connections(), saturation(thresholds), recommended_size()])
}

fn connections() -> PanelBuilder {
    let description = Description {
        shows: "Connections in use, idle and being established, stacked. The dashed line is the maximum.",
        normal: "In use below the maximum except in bursts, and few being established.",
        action: "At the maximum: check the holders. Many being established: check the connection lifecycle.",
    };
    connections_by_state(PanelId::ConnectionsByState, description).size(12, 8)
}

fn saturation(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Share of time with every connection in use and at least one checkout waiting: the highest instance and \
                the mean. The dashed lines are the alert thresholds.",
        normal: "Below the lower line. Above it, the pool cannot absorb bursts; above the upper line, it is exhausted.",
        action: "Check the holders. If all of them execute queries that cannot be made faster, the pool is too small \
                 or the load too high.",
    };
    let saturated = metric!("poolscope_saturated_seconds_total");
    PanelBuilder::lines(PanelId::Saturation, "Time exhausted", description)
        .size(6, 8)
        .query(max(saturated.rate()), "highest")
        .query(format!("avg({})", saturated.rate()), "mean")
        .unit(Unit::Share)
        .full_scale()
        .colors(&[("highest", "blue"), ("mean", "light-blue")])
        .threshold(WARNING, &thresholds.saturated_share)
        .threshold(CRITICAL, &thresholds.exhausted_share)
}

fn recommended_size() -> PanelBuilder {
    let description = Description {
        shows: "Number of connections with which 99 % of checkouts wait for less than wait_target, by a replay of the \
                load of the last half hour, beside the maximum and the number kept idle. Empty while there is too \
                little traffic, and while a diagnosed fault inflates the demand.",
        normal: "Recommended between kept idle and maximum. Above the maximum, checkouts will wait; far below it, the \
                 server keeps unneeded connections.",
        action: "`poolscope diagnose --sizing` prints the waits with fewer and more connections. Change pool_size and \
                 max_overflow. If the line is missing, remove the fault that the diagnosis names first.",
    };
    PanelBuilder::lines(PanelId::RecommendedSize, "Actual and recommended size", description)
        .size(6, 8)
        .query(sum(metric!("poolscope_recommended_size")), "recommended")
        .query(sum(metric!("db_client_connection_max")), "maximum")
        .query(sum(metric!("db_client_connection_idle_max")), "kept idle")
        .colors(&[("recommended", "blue")])
        .limit("maximum", NEUTRAL)
        .limit("kept idle", "#6e7079")
}

//! The rows with saturation, holders and waiters of all pools.

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{CRITICAL, Description, NEUTRAL, PanelBuilder, WARNING};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{Series, max, metric, sum, sum_by};
use crate::monitoring::dashboards::shared::connections_by_state;
use crate::monitoring::dashboards::unit::Unit;
use crate::monitoring::names::{POOL_LABEL, SERVER_SLOTS};
use crate::monitoring::recording::{
    HELD_BY_ACTIVITY, HELD_BY_OPERATION, SATURATED_SHARE, WAIT_P99, WAITING_BY_OPERATION,
};
use crate::monitoring::thresholds::Thresholds;

/// Series shown in panels that rank pools or operations.
const TOP_SERIES: usize = 10;

pub(super) fn saturation_row(thresholds: &Thresholds) -> Row {
    Row::open("Saturation and server slots", vec![slots(thresholds), unowned(), connections(), saturation(thresholds)])
}

pub(super) fn holders_row() -> Row {
    Row::open("Holders", vec![holders(), held_by_activity()])
}

pub(super) fn waiters_row(thresholds: &Thresholds) -> Row {
    Row::open("Waiters and latency", vec![waiters(), wait_time(thresholds)])
}

fn slots(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Sum of the maxima of the selected pools, and their open connections, against the server's connection \
                slots: those that a process reports which polls it, or else the variable of this dashboard. Available are \
                those that these pools use and those left, if a process polls the server. Select the pools of one server.",
        normal: "Sum of maxima below the orange line and the available slots. Above them, the server rejects \
                 connections of any client (53300) when all pools fill up.",
        action: "Lower max_overflow where it is not used, put a proxy such as PgBouncer in front of the server, or \
                 raise max_connections if its memory allows.",
    };
    let open = sum(metric!("db_client_connection_count"));
    // As in the alert: reported by the selected instances, or else by another job, as that of `poolscope serve`.
    let reported = max(metric!("poolscope_server_slots"));
    let by_others = max(format!(r#"{SERVER_SLOTS}{{{POOL_LABEL}=~"$pool"}}"#));
    let slots = format!("({reported} or {by_others} or vector($slots))");
    let available = format!("{} + {open}", max(metric!("poolscope_server_slots_left")));
    PanelBuilder::lines(PanelId::FleetSlots, "Sum of maxima against server slots", description)
        .size(12, 8)
        .query(sum(metric!("db_client_connection_max")), "sum of maxima")
        .query(open, "open")
        .query(available, "available")
        .query(&slots, "server slots")
        .query(format!("{slots} * {}", thresholds.server_share), "alert threshold")
        .colors(&[("sum of maxima", "blue"), ("open", "light-blue"), ("available", "purple")])
        .limit("server slots", NEUTRAL)
        .limit("alert threshold", WARNING)
}

/// The server's count of a job's connections is that of one instance: those that it owns, and those that it does not. A job
/// whose pools use several servers has the count of one of them, so that the difference is never too large.
fn unowned() -> PanelBuilder {
    let description = Description {
        shows: "Connections on the server with the application_name of a job's pools that no pool of its scraped \
                instances owns: the server's count less the count of the pools. Empty if no process polls the server \
                (Pool::watch_server), or read_wire is off. Select all instances and pools of the job.",
        normal: "0, except for a second while connections are opened or closed.",
        action: "An instance is not scraped, a process has crashed and the server has not noticed (tcp_keepalives_idle), \
                 a proxy keeps connections, or another service has the same name. pg_stat_activity has their addresses \
                 and ages; pg_terminate_backend ends them.",
    };
    let count = metric!("db_client_connection_count");
    let by_pool = sum_by(&["job", "instance", POOL_LABEL], metric!("poolscope_server_unowned_connections"));
    let by_instance = format!("max by (job, instance) ({by_pool}) + {}", sum_by(&["job", "instance"], &count));
    let unowned = format!("clamp_min(max by (job) ({by_instance}) - {}, 0)", sum_by(&["job"], &count));
    PanelBuilder::lines(PanelId::FleetUnowned, "Connections that no pool owns", description)
        .size(12, 8)
        .query(unowned, "{{job}}")
        .soft_max(1.0)
        .stacked()
        .legend_table()
}

fn connections() -> PanelBuilder {
    let description = Description {
        shows: "Connections of all pools in use, idle and being established, stacked. The dashed line is the sum of \
                the maxima.",
        normal: "In use below the line, and few being established.",
        action: "Check which pools are exhausted.",
    };
    connections_by_state(PanelId::FleetConnections, description).size(12, 8)
}

fn saturation(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "The ten pools that were exhausted for the largest share of the last five minutes.",
        normal: "Near 0 %. Orange: the pool cannot absorb bursts. Red: it is exhausted.",
        action: "Open the pool from the table above, and check its holders.",
    };
    let saturated = format!("max by (job, instance, {POOL_LABEL}) ({})", Series::recorded(SATURATED_SHARE));
    PanelBuilder::bars(PanelId::FleetSaturation, "Time exhausted: top ten pools", description)
        .size(12, 8)
        .instant_query(format!("topk({TOP_SERIES}, {saturated})"), &format!("{{{{{POOL_LABEL}}}}} · {{{{instance}}}}"))
        .unit(Unit::Share)
        .full_scale()
        .threshold(WARNING, &thresholds.saturated_share)
        .threshold(CRITICAL, &thresholds.exhausted_share)
}

fn holders() -> PanelBuilder {
    let description = Description {
        shows: "Average number of connections held by the ten largest operations, over all pools.",
        normal: "No operation far above the others, and no rise at a version annotation.",
        action: "Select its pool above and open the pool dashboard, which shows the operation's activity.",
    };
    let held = sum_by(&["operation"], Series::recorded(HELD_BY_OPERATION));
    PanelBuilder::lines(PanelId::FleetHolders, "Connection holders: top ten operations", description)
        .size(16, 9)
        .query(format!("topk({TOP_SERIES}, {held} > 0)"), "{{operation}}")
        .stacked()
        .legend_table()
}

fn held_by_activity() -> PanelBuilder {
    let description = Description {
        shows: "Average number of held connections of all pools by activity, stacked.",
        normal: "Mostly executing. Idle: connections are held without a query.",
        action: "Open the top pools, which show the operations.",
    };
    PanelBuilder::lines(PanelId::FleetHeldByActivity, "Held connections by activity", description)
        .size(8, 9)
        .query(sum_by(&["activity"], Series::recorded(HELD_BY_ACTIVITY)), "{{activity}}")
        .stacked()
        .colors(&[("executing", "blue"), ("idle", "yellow"), ("idle_in_transaction", "orange")])
}

fn waiters() -> PanelBuilder {
    let description = Description {
        shows: "The ten pools with most waiting checkouts on average, in any phase.",
        normal: "Near 0, and no pool that stays in the list.",
        action: "Open the pool from the table above.",
    };
    let waiting = sum_by(&[POOL_LABEL, "instance"], Series::recorded(WAITING_BY_OPERATION));
    PanelBuilder::lines(PanelId::FleetWaiters, "Waiting checkouts: top ten pools", description)
        .size(12, 8)
        .query(format!("topk({TOP_SERIES}, {waiting} > 0)"), &format!("{{{{{POOL_LABEL}}}}} · {{{{instance}}}}"))
        .stacked()
        .legend_table()
}

fn wait_time(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "99th percentile of the checkout time of each pool: of the slowest pool, the 90th percentile of pools \
                and the median pool. The dashed line is the alert threshold.",
        normal: "Below the line. If the median pool is above it, the server or the network is the cause rather than \
                 one pool.",
        action: "One slow pool: open it. All pools: check whether connecting or pinging is slow.",
    };
    let p99 = Series::recorded(WAIT_P99);
    PanelBuilder::lines(PanelId::FleetWaitTime, "Checkout time, p99, over all pools", description)
        .size(12, 8)
        .query(max(&p99), "slowest pool")
        .query(format!("quantile(0.9, {p99})"), "90 % of pools")
        .query(format!("quantile(0.5, {p99})"), "median pool")
        .unit(Unit::Seconds)
        .colors(&[("slowest pool", "purple"), ("90 % of pools", "blue"), ("median pool", "light-blue")])
        .threshold(WARNING, &thresholds.wait_p99_seconds)
}

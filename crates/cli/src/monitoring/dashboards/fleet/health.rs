//! The row with the health of all pools.

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{CRITICAL, Description, PanelBuilder, WARNING};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{Series, UP, metric, sum};
use crate::monitoring::dashboards::shared;
use crate::monitoring::dashboards::unit::Unit;
use crate::monitoring::recording::{BurnWindow, CHECKOUTS, timeout_share};
use crate::monitoring::thresholds::{Threshold, Thresholds};

pub(super) fn row(thresholds: &Thresholds) -> Row {
    let panels = [
        alerts(),
        instances_down(),
        servers_down(),
        pools(),
        utilization(),
        slots_taken(thresholds),
        waiting(),
        timeouts(&thresholds.timeout_objective),
    ];
    Row::open("Health", panels.map(|panel| panel.size(3, 4)).into())
}

fn alerts() -> PanelBuilder {
    let description = Description {
        shows: "Number of firing alerts.",
        normal: "None.",
        action: "Read the alert: its runbook has the diagnosis, and it links to the panel that shows the condition.",
    };
    PanelBuilder::stat(PanelId::FleetAlerts, "Firing alerts", description)
        .query(format!("count({})", Series::firing_alerts()), "firing")
        .default("noValue", "none".into())
        .nonzero(CRITICAL)
}

fn instances_down() -> PanelBuilder {
    let description = Description {
        shows: "Instances that cannot be scraped, of jobs that reported pool metrics within the last hour.",
        normal: "None. The state of their pools is unknown.",
        action: "Read the scrape error on Prometheus' targets page.",
    };
    let known = format!("count by (job) (last_over_time({}[1h]))", metric!("poolscope_build_info"));
    PanelBuilder::stat(PanelId::FleetInstancesDown, "Instances down", description)
        .instant_query(format!("count({} == 0 and on (job) {known})", Series::from(UP)), "down")
        .default("noValue", "none".into())
        .nonzero(CRITICAL)
        .link_to(PanelId::Instances, "Exporter")
}

fn servers_down() -> PanelBuilder {
    let description = Description {
        shows: "Pools whose server does not answer polls. Empty if no process polls a server (Pool::watch_server).",
        normal: "0. Otherwise everything that uses that server fails.",
        action: "Check the connection errors below, then the server.",
    };
    PanelBuilder::stat(PanelId::FleetServersDown, "Servers down", description)
        .query(shared::servers_down(), "down")
        .nonzero(CRITICAL)
        .link_to(PanelId::FleetConnectionErrors, "Connection errors")
}

fn slots_taken(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Share of connection slots taken on the fullest server, as the servers report it. Empty if no process \
                polls a server (Pool::watch_server).",
        normal: "Below the orange alert threshold. Above it, the next deployment or burst may be rejected (53300).",
        action: "The pool dashboard shows which applications use the slots.",
    };
    PanelBuilder::stat(PanelId::FleetSlotsTaken, "Slots taken", description)
        .query(shared::slots_taken_share(), "fullest server")
        .unit(Unit::Share)
        .full_scale()
        .threshold(WARNING, &thresholds.slots_left_share.complement())
        .link_to(PanelId::ServerSlots, "Over time")
}

fn pools() -> PanelBuilder {
    let description = Description {
        shows: "Number of reporting pools, counted per instance.",
        normal: "As many as configured. Fewer: instances are down, or did not create their pools.",
        action: "Compare with the instances down and the restart annotations.",
    };
    PanelBuilder::stat(PanelId::FleetPools, "Pools", description)
        .query(format!("count({})", metric!("db_client_connection_max")), "pools")
}

fn utilization() -> PanelBuilder {
    let description = Description {
        shows: "Connections in use, as a share of all pools' maxima.",
        normal: "Any value while no checkout waits. High with waiters: too little capacity. Low with waiters: capacity \
                 is badly distributed.",
        action: "Check the top pools below.",
    };
    let used = metric!("db_client_connection_count").only(r#"db_client_connection_state="used""#);
    PanelBuilder::stat(PanelId::FleetUtilization, "Used", description)
        .query(format!("{} / {}", sum(used), sum(metric!("db_client_connection_max"))), "used")
        .unit(Unit::Share)
        .full_scale()
        .link_to(PanelId::FleetConnections, "Over time")
}

fn waiting() -> PanelBuilder {
    let description = Description {
        shows: "Checkouts waiting for capacity in all pools, at each scrape.",
        normal: "0, except in short bursts.",
        action: "Check which pools and operations wait.",
    };
    PanelBuilder::stat(PanelId::FleetWaiting, "Waiting", description)
        .query(sum(metric!("db_client_connection_pending_requests")), "waiting")
        .link_to(PanelId::FleetWaiters, "Waiting checkouts")
}

fn timeouts(objective: &Threshold) -> PanelBuilder {
    let description = Description {
        shows: "Share of all checkouts that timed out in the last five minutes.",
        normal: "0 %. Red: more than the objective allows; each one is a failed request.",
        action: "Check the top pools below.",
    };
    let checkouts = Series::recorded(CHECKOUTS);
    let timeouts = Series::recorded(&timeout_share(BurnWindow::M5));
    PanelBuilder::stat(PanelId::FleetTimeoutShare, "Timed out", description)
        .query(format!("{} / ({} > 0)", sum(format!("{timeouts} * {checkouts}")), sum(&checkouts)), "timed out")
        .unit(Unit::Share)
        .threshold(CRITICAL, &objective.complement())
        .link_to(PanelId::FleetTimeouts, "Over time")
}

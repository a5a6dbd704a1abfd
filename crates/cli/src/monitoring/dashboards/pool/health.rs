//! The row with the health of the pool: one number per problem, with a link to the detailed panel.

use super::failures::failed_checkouts_series;
use super::waiters::wait_quantile;
use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{CRITICAL, Description, PanelBuilder, WARNING};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{Series, max, metric, sum};
use crate::monitoring::dashboards::unit::Unit;
use crate::monitoring::names::POOL_LABEL;
use crate::monitoring::thresholds::Thresholds;

pub(super) fn row(thresholds: &Thresholds) -> Row {
    let panels = [
        alerts(),
        exhausted_share(thresholds),
        utilization(),
        waiting(thresholds),
        wait_p99(thresholds),
        failed_share(thresholds),
        connect_suspended(),
        leaks(thresholds),
    ];
    Row::open("Health", panels.map(|panel| panel.size(3, 4)).into())
}

fn alerts() -> PanelBuilder {
    let description = Description {
        shows: "Number of firing alerts of this pool.",
        normal: "None.",
        action: "Read the alert: its runbook has the diagnosis, and it links to the panel that shows the condition.",
    };
    let pool = format!(r#"{POOL_LABEL}=~"$pool""#);
    let firing = Series::firing_alerts().only(pool);
    // Without firing alerts there is no series, which is drawn as `none` and not as a verdict.
    PanelBuilder::stat(PanelId::Alerts, "Firing alerts", description)
        .query(format!("count({firing})"), "firing")
        .default("noValue", "none".into())
        .nonzero(CRITICAL)
}

fn exhausted_share(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Share of time with every connection in use and at least one checkout waiting.",
        normal: "Near 0 %. Orange: the pool cannot absorb bursts. Red: it is exhausted.",
        action: "Check the holders before enlarging the pool: a pool held without queries fills at any size.",
    };
    PanelBuilder::stat(PanelId::ExhaustedShare, "Time exhausted", description)
        .query(max(metric!("poolscope_saturated_seconds_total").rate()), "share of time")
        .unit(Unit::Share)
        .threshold(WARNING, &thresholds.saturated_share)
        .threshold(CRITICAL, &thresholds.exhausted_share)
        .link_to(PanelId::Saturation, "Over time")
}

fn utilization() -> PanelBuilder {
    let description = Description {
        shows: "Connections in use, as a share of the maximum.",
        normal: "Any value while no checkout waits; a full pool without waiters is well used.",
        action: "If it stays near 100 % with waiting checkouts, check the holders.",
    };
    let used = metric!("db_client_connection_count").only(r#"db_client_connection_state="used""#);
    PanelBuilder::stat(PanelId::Utilization, "Used", description)
        .query(format!("{} / {}", sum(used), sum(metric!("db_client_connection_max"))), "used")
        .unit(Unit::Share)
        .full_scale()
        .link_to(PanelId::ConnectionsByState, "Connections by state")
}

fn waiting(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Average number of checkouts that wait for capacity.",
        normal: "Near 0. Orange: there is practically always one.",
        action: "Check which operations wait, and which hold the connections.",
    };
    let queued = metric!("poolscope_checkout_phase_seconds_total").only(r#"phase="queue""#);
    PanelBuilder::stat(PanelId::Waiting, "Waiting", description)
        .query(sum(queued.rate()), "waiting")
        .threshold(WARNING, &thresholds.waiters)
        .link_to(PanelId::Waiters, "Waiting checkouts")
}

fn wait_p99(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "99th percentile of the checkout time, including failed checkouts.",
        normal: "Below the orange threshold; above it, some requests wait longer for a connection than most take in \
                 total.",
        action: "Check the phases: waiting for capacity, connecting or pinging.",
    };
    PanelBuilder::stat(PanelId::WaitP99, "Checkout, p99", description)
        .query(wait_quantile(0.99), "p99")
        .unit(Unit::Seconds)
        .threshold(WARNING, &thresholds.wait_p99_seconds)
        .link_to(PanelId::WaitTime, "Checkout time")
}

fn failed_share(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Share of checkouts that returned no connection: timeouts, connection errors, a closed pool, shed load. \
                Cancelled checkouts do not count.",
        normal: "0 %. Red: more than the timeout objective allows; each one is a failed request.",
        action: "Check the outcomes and the operations.",
    };
    let ended = metric!("poolscope_checkouts_total");
    PanelBuilder::stat(PanelId::FailedShare, "Failed checkouts", description)
        .query(format!("{} / ({} > 0)", sum(failed_checkouts_series().rate()), sum(ended.rate())), "failed")
        .unit(Unit::Share)
        .threshold(CRITICAL, &thresholds.timeout_objective.complement())
        .link_to(PanelId::FailuresByOutcome, "By outcome")
}

fn connect_suspended() -> PanelBuilder {
    let description = Description {
        shows: "How long connecting has failed. Meanwhile, one checkout at a time tries to connect.",
        normal: "0 s. Otherwise the server is down, rejects connections or has no free slots.",
        action: "Check the type of the connection errors: 53300 means no free slots, io an unreachable server.",
    };
    PanelBuilder::stat(PanelId::ConnectSuspended, "Connecting fails", description)
        .query(max(metric!("poolscope_connecting_suspended_seconds")), "for")
        .unit(Unit::Seconds)
        .link_to(PanelId::ConnectSuspendedTime, "Over time")
}

fn leaks(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Connections held past leak_threshold without traffic and without executing a query.",
        normal: "0. Each one is missing from the pool until its holder drops it.",
        action: "`/api/v1/pools` on the instance has the operation and the call site of each.",
    };
    PanelBuilder::stat(PanelId::Leaks, "Suspected leaks", description)
        .query(sum(metric!("poolscope_suspected_leaks")), "leaks")
        .threshold(WARNING, &thresholds.suspected_leaks)
        .link_to(PanelId::SuspectedLeaks, "Over time")
}

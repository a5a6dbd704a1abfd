//! Are the pools healthy?

use super::super::drawing::{CRITICAL, Drawing, Says, WARNING};
use super::super::frame::Row;
use super::super::panels::Panel;
use super::super::query::{ALERTS, Series, UP, metric, sum};
use super::super::shared::{servers_that_do_not_answer, share_of_slots_taken};
use super::super::unit::Unit;
use crate::monitoring::rules::recording::{BurnWindow, CHECKOUTS, timeout_share};
use crate::monitoring::{Threshold, Thresholds};

pub(super) fn row(thresholds: &Thresholds) -> Row {
    let pools = vec![alerts(), down(), servers_down(), pools(), fullness()];
    let worst = vec![slots_taken(thresholds), waiting(), failing(&thresholds.timeout_objective)];
    let panels = pools.into_iter().chain(worst).map(|panel| panel.size(3, 4)).collect();
    Row { title: "Are the pools healthy?", panels }
}

fn alerts() -> Drawing {
    let says = Says {
        means: "How many alerts fire now.",
        bad: "Any. Each has a runbook.",
        cure: "Read the alert: its runbook says what it means, and its link leads to the panel that shows it.",
    };
    let firing = Series::from(ALERTS).only(r#"alertname=~"Poolscope.+",alertstate="firing""#);
    Drawing::stat(Panel::FleetAlerts, "Alerts", says)
        .asks(format!("count({firing})"), "firing")
        .default("noValue", "none".into())
        .any(CRITICAL)
}

fn down() -> Drawing {
    let says = Says {
        means: "Instances that cannot be scraped, of the jobs that had a poolscope within the last hour.",
        bad: "Any: nothing is known of their pools.",
        cure: "See in Prometheus' page of targets what it meets there.",
    };
    let known = format!("count by (job) (last_over_time({}[1h]))", metric!("poolscope_build_info"));
    Drawing::stat(Panel::FleetUp, "Instances down", says)
        .asks_now(format!("count({} == 0 and on (job) {known})", Series::from(UP)), "down")
        .default("noValue", "none".into())
        .any(CRITICAL)
        .leads_to(Panel::Up, "The exporter")
}

fn servers_down() -> Drawing {
    let says = Says {
        means: "Pools whose server does not answer whoever asks it how it is. No data: nobody asks (Pool::watch_server).",
        bad: "Any: nothing that needs that server works.",
        cure: "See with what connecting fails, below; then look at the server.",
    };
    Drawing::stat(Panel::FleetServersDown, "Servers down", says)
        .asks(servers_that_do_not_answer(), "do not answer")
        .any(CRITICAL)
        .leads_to(Panel::FleetConnectionErrors, "With what connecting fails")
}

fn slots_taken(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "The share of its slots that are taken, of the server that is fullest, by what the servers say of \
                themselves. No data: nobody asks them (Pool::watch_server).",
        bad: "Orange: the next deployment, or the next rush, may be refused (53300).",
        cure: "The pool's dashboard shows which applications took them.",
    };
    Drawing::stat(Panel::FleetSlotsTaken, "Slots taken", says)
        .asks(share_of_slots_taken(), "fullest server")
        .unit(Unit::Share)
        .up_to_one()
        .above(WARNING, &thresholds.slots_left_share.allowance())
        .leads_to(Panel::ServerSlots, "Over time")
}

fn pools() -> Drawing {
    let says = Says {
        means: "Pools that report, each of one instance.",
        bad: "Fewer than there should be: instances are down, or their pools were never made.",
        cure: "Compare with the instances that are down, and with the marks of restarts.",
    };
    Drawing::stat(Panel::FleetPools, "Pools", says)
        .asks(format!("count({})", metric!("db_client_connection_max")), "pools")
}

fn fullness() -> Drawing {
    let says = Says {
        means: "Connections in use now, of all that the pools may have together.",
        bad: "Nothing by itself; with waiting, there is too little for the load. Far below 100 % while some pools wait: it \
              is shared out badly.",
        cure: "See the pools that are worst off, below.",
    };
    let used = metric!("db_client_connection_count").only(r#"db_client_connection_state="used""#);
    Drawing::stat(Panel::FleetFullness, "Used", says)
        .asks(format!("{} / {}", sum(used), sum(metric!("db_client_connection_max"))), "used")
        .unit(Unit::Share)
        .up_to_one()
        .leads_to(Panel::FleetConnections, "Over time")
}

fn waiting() -> Drawing {
    let says = Says {
        means: "Checkouts that wait for capacity now, in all pools.",
        bad: "More than a moment's burst.",
        cure: "See in which pools, and for which operations.",
    };
    Drawing::stat(Panel::FleetWaiting, "Waiting", says)
        .asks(sum(metric!("db_client_connection_pending_requests")), "waiting")
        .leads_to(Panel::FleetWaiters, "Who waits")
}

fn failing(objective: &Threshold) -> Drawing {
    let says = Says {
        means: "The share of all checkouts that timed out in the last five minutes.",
        bad: "Red: more than the objective allows. Each is a request that failed.",
        cure: "See which pools are worst off.",
    };
    let checkouts = Series::recorded(CHECKOUTS);
    let timeouts = Series::recorded(&timeout_share(BurnWindow::M5));
    Drawing::stat(Panel::FleetFailing, "Timed out", says)
        .asks(format!("{} / ({} > 0)", sum(format!("{timeouts} * {checkouts}")), sum(&checkouts)), "timed out")
        .unit(Unit::Share)
        .above(CRITICAL, &objective.allowance())
        .leads_to(Panel::FleetFailures, "Over time")
}

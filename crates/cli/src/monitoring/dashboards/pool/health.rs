//! Is it healthy? One number for each thing that can be wrong, and a way to where it is told at length.

use super::super::drawing::{CRITICAL, Drawing, Says, WARNING};
use super::super::frame::Row;
use super::super::panels::Panel;
use super::super::query::{ALERTS, Series, max, metric, sum};
use super::super::unit::Unit;
use super::failures::failed;
use super::waiters;
use crate::monitoring::Thresholds;
use crate::monitoring::names::POOL_LABEL;

pub(super) fn row(thresholds: &Thresholds) -> Row {
    let panels = vec![alerts(), exhausted(thresholds), fullness(), waiting(thresholds), slowest_waits(thresholds)];
    let failing = vec![failing(thresholds), suspended(), leaks(thresholds)];
    let panels = panels.into_iter().chain(failing).map(|panel| panel.size(3, 4)).collect();
    Row { title: "Is it healthy?", panels }
}

fn alerts() -> Drawing {
    let says = Says {
        means: "How many alerts of this pool fire now.",
        bad: "Any. Each has a runbook.",
        cure: "Read the alert: its runbook says what it means, and its link leads to the panel that shows it.",
    };
    let pool = format!(r#"{POOL_LABEL}=~"$pool""#);
    let firing = Series::from(ALERTS).only(r#"alertname=~"Poolscope.+",alertstate="firing""#).only(pool);
    // Where none fires there is no series, and that is drawn as nothing rather than as well.
    Drawing::stat(Panel::Alerts, "Alerts", says)
        .asks(format!("count({firing})"), "firing")
        .default("noValue", "none".into())
        .any(CRITICAL)
}

fn exhausted(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "The share of time with every connection taken and somebody waiting for one.",
        bad: "Orange: bursts no longer fit. Red: as good as always.",
        cure: "Look at who holds the pool before making it larger: a pool that is held for nothing fills at any size.",
    };
    Drawing::stat(Panel::Exhausted, "Time exhausted", says)
        .asks(max(metric!("poolscope_saturated_seconds_total").rate()), "share of time")
        .unit(Unit::Share)
        .above(WARNING, &thresholds.saturated_share)
        .above(CRITICAL, &thresholds.exhausted_share)
        .leads_to(Panel::Saturated, "Over time")
}

fn fullness() -> Drawing {
    let says = Says {
        means: "Connections in use now, of all that there may be.",
        bad: "Nothing by itself: a full pool for which nobody waits is well used. It is bad together with waiting.",
        cure: "If it stays near 100 % and somebody waits, see who holds it.",
    };
    let used = metric!("db_client_connection_count").only(r#"db_client_connection_state="used""#);
    Drawing::stat(Panel::Fullness, "Used", says)
        .asks(format!("{} / {}", sum(used), sum(metric!("db_client_connection_max"))), "used")
        .unit(Unit::Share)
        .up_to_one()
        .leads_to(Panel::HowFull, "Connections by state")
}

fn waiting(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "How many checkouts waited for capacity, on average.",
        bad: "Orange: there is always somebody who waits.",
        cure: "See who waits, and who holds what they wait for.",
    };
    let queued = metric!("poolscope_checkout_phase_seconds_total").only(r#"phase="queue""#);
    Drawing::stat(Panel::Waiting, "Waiting", says)
        .asks(sum(queued.rate()), "waiting")
        .above(WARNING, &thresholds.waiters)
        .leads_to(Panel::WhoWaits, "Who waits")
}

fn slowest_waits(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "Ninety-nine of a hundred checkouts took no longer, those that failed included.",
        bad: "Orange: some requests wait for a connection for longer than most take as a whole.",
        cure: "See what they wait for: for capacity, for connecting, or for pings.",
    };
    Drawing::stat(Panel::SlowestWaits, "Wait, p99", says)
        .asks(waiters::wait_time(0.99), "p99")
        .unit(Unit::Seconds)
        .above(WARNING, &thresholds.wait_p99_seconds)
        .leads_to(Panel::WaitTime, "How long checkouts take")
}

fn failing(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "The share of checkouts that gave no connection: timeouts, failures to connect, a closed pool, shed load. \
                Those that their caller gave up are not counted.",
        bad: "Red: more than the objective for timeouts allows. Each is a request that failed.",
        cure: "See with which outcome, and for which operations.",
    };
    let ended = metric!("poolscope_checkouts_total");
    Drawing::stat(Panel::Failing, "Failing", says)
        .asks(format!("{} / ({} > 0)", sum(failed().rate()), sum(ended.rate())), "failing")
        .unit(Unit::Share)
        .above(CRITICAL, &thresholds.timeout_objective.allowance())
        .leads_to(Panel::FailedCheckouts, "By outcome")
}

fn suspended() -> Drawing {
    let says = Says {
        means: "For how long connecting has failed, so that it is left to one checkout at a time.",
        bad: "Anything above 0: the server is away, refuses, or has no slots left.",
        cure: "See the SQLSTATE among the errors of connections: 53300 is a server without slots, io a server that is away.",
    };
    Drawing::stat(Panel::Suspended, "Connecting fails", says)
        .asks(max(metric!("poolscope_connecting_suspended_seconds")), "for")
        .unit(Unit::Seconds)
        .leads_to(Panel::Connecting, "Over time")
}

fn leaks(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "Connections that are held past leak_threshold, silent for as long, and not executing.",
        bad: "Orange: each is missing from the pool, and nobody may ever give it back.",
        cure: "`/api/v1/pools` on the instance names the operation and the line of code that holds each.",
    };
    Drawing::stat(Panel::Leaks, "Suspected leaks", says)
        .asks(sum(metric!("poolscope_suspected_leaks")), "leaks")
        .above(WARNING, &thresholds.suspected_leaks)
        .leads_to(Panel::SuspectedLeaks, "Over time")
}

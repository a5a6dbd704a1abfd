//! How full are they, do they fit the server together, who holds and who waits?

use super::super::drawing::{CRITICAL, Drawing, NEUTRAL, Says, WARNING};
use super::super::frame::Row;
use super::super::panels::Panel;
use super::super::query::{Series, max, metric, sum, sum_by};
use super::super::shared::connections_by_state;
use super::super::unit::Unit;
use crate::monitoring::Thresholds;
use crate::monitoring::names::POOL_LABEL;
use crate::monitoring::rules::recording::{
    HELD_BY_ACTIVITY, HELD_BY_OPERATION, SATURATED_SHARE, WAIT_P99, WAITING_BY_OPERATION,
};

/// How many of the worst a panel shows. More lines than that nobody reads.
const WORST: usize = 10;

pub(super) fn slots(thresholds: &Thresholds) -> Row {
    Row {
        title: "How full are they, and do they fit the server?",
        panels: vec![against_the_server(thresholds), connections(), most_saturated(thresholds)],
    }
}

pub(super) fn holders() -> Row {
    Row { title: "Who holds them?", panels: vec![who_holds(), activities()] }
}

pub(super) fn waiters(thresholds: &Thresholds) -> Row {
    Row { title: "Who waits, and how long?", panels: vec![who_waits(), wait_time(thresholds)] }
}

fn against_the_server(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "How many connections all chosen pools may have together, and have, against the slots of their server, which \
                are a setting of this dashboard (above). Choose the pools of one server.",
        bad: "The sum of maxima above the orange line: when all pools fill up at once, the server turns some away (53300), \
              and those may be anybody's.",
        cure: "Lower max_overflow where it is never used, put a proxy such as PgBouncer before the server, or raise \
               max_connections if its memory allows.",
    };
    let open = sum(metric!("db_client_connection_count"));
    Drawing::lines(Panel::Slots, "Sum of maxima against the server's slots", says)
        .size(8, 10)
        .asks(sum(metric!("db_client_connection_max")), "all maxima")
        .asks(open, "open")
        .asks("vector($slots)", "slots of the server")
        .asks(format!("vector($slots * {})", thresholds.server_share), "alert")
        .colours(&[("all maxima", "blue"), ("open", "light-blue")])
        .limit("slots of the server", NEUTRAL)
        .limit("alert", WARNING)
}

fn connections() -> Drawing {
    let says = Says {
        means: "Connections of all pools by what they are, stacked, under the dashed line of all their maxima.",
        bad: "Used near the line; creating that stays high.",
        cure: "See which pools are exhausted.",
    };
    connections_by_state(Panel::FleetConnections, says).size(8, 10)
}

fn most_saturated(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "The ten pools that were exhausted for the largest share of the last five minutes.",
        bad: "Orange: bursts no longer fit. Red: as good as always.",
        cure: "Open the pool from the table above, and see who holds it.",
    };
    let saturated = format!("max by (job, instance, {POOL_LABEL}) ({})", Series::recorded(SATURATED_SHARE));
    Drawing::bars(Panel::MostSaturated, "Time exhausted, the worst ten", says)
        .size(8, 10)
        .asks_now(format!("topk({WORST}, {saturated})"), &format!("{{{{{POOL_LABEL}}}}} · {{{{instance}}}}"))
        .unit(Unit::Share)
        .up_to_one()
        .above(WARNING, &thresholds.saturated_share)
        .above(CRITICAL, &thresholds.exhausted_share)
}

fn who_holds() -> Drawing {
    let says = Says {
        means: "The ten operations that hold most connections, in all pools together.",
        bad: "One that towers above the others, or began to with a mark of a new version.",
        cure: "Choose its pool above, and open the pool's dashboard: it says what the operation does with them.",
    };
    let held = sum_by(&["operation"], Series::recorded(HELD_BY_OPERATION));
    Drawing::lines(Panel::FleetHolders, "Who holds connections: ten operations", says)
        .size(16, 9)
        .asks(format!("topk({WORST}, {held} > 0)"), "{{operation}}")
        .stacked()
        .listed()
}

fn activities() -> Drawing {
    let says = Says {
        means: "What is done with all held connections, stacked.",
        bad: "Much yellow or orange: connections are held while nothing is asked of the server.",
        cure: "Open the worst pools: each says which operations do that.",
    };
    Drawing::lines(Panel::FleetActivities, "Held connections: by activity", says)
        .size(8, 9)
        .asks(sum_by(&["activity"], Series::recorded(HELD_BY_ACTIVITY)), "{{activity}}")
        .stacked()
        .colours(&[("executing", "blue"), ("idle", "yellow"), ("idle_in_transaction", "orange")])
}

fn who_waits() -> Drawing {
    let says = Says {
        means: "The ten pools in which most checkouts wait on average, whatever for.",
        bad: "A pool that stays here.",
        cure: "Open it from the table above.",
    };
    let waiting = sum_by(&[POOL_LABEL, "instance"], Series::recorded(WAITING_BY_OPERATION));
    Drawing::lines(Panel::FleetWaiters, "Who waits: ten pools", says)
        .size(12, 8)
        .asks(format!("topk({WORST}, {waiting} > 0)"), &format!("{{{{{POOL_LABEL}}}}} · {{{{instance}}}}"))
        .stacked()
        .listed()
}

fn wait_time(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "The p99 of checkouts, pool by pool: of the worst pool, of the one that is worse than nine in ten, and of the \
                one in the middle. The dashed line is where it is too much.",
        bad: "The one in the middle above the line: it is not a pool's matter, but the server's or the network's.",
        cure: "The worst alone: open it. All: see whether connecting or pinging has become slow.",
    };
    let p99 = Series::recorded(WAIT_P99);
    Drawing::lines(Panel::FleetWaitTime, "Wait, p99: worst pool, 9 in 10, middle", says)
        .size(12, 8)
        .asks(max(&p99), "worst")
        .asks(format!("quantile(0.9, {p99})"), "9 in 10")
        .asks(format!("quantile(0.5, {p99})"), "middle")
        .unit(Unit::Seconds)
        .colours(&[("worst", "purple"), ("9 in 10", "blue"), ("middle", "light-blue")])
        .above(WARNING, &thresholds.wait_p99_seconds)
}

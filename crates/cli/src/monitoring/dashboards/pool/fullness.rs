//! How full is it?

use super::super::drawing::{CRITICAL, Drawing, NEUTRAL, Says, WARNING};
use super::super::frame::Row;
use super::super::panels::Panel;
use super::super::query::{max, metric, sum};
use super::super::shared::connections_by_state;
use super::super::unit::Unit;
use crate::monitoring::Thresholds;

pub(super) fn row(thresholds: &Thresholds) -> Row {
    Row { title: "How full is it?", panels: vec![how_full(), saturated(thresholds), size()] }
}

fn how_full() -> Drawing {
    let says = Says {
        means: "Connections by what they are, stacked: in use, idle in the pool, being established. The dashed line is \
                how many there may be at once.",
        bad: "Used at the dashed line for longer than a burst lasts; creating that stays high.",
        cure: "At the line: see who holds it. Creating that stays high: see the life cycle below.",
    };
    connections_by_state(Panel::HowFull, says).size(12, 8)
}

fn saturated(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "The share of time with every connection taken and somebody waiting for one; of several instances, the \
                worst and the mean. The dashed lines are where alerts begin.",
        bad: "Above the lower line bursts no longer fit; above the upper one it is as good as always.",
        cure: "See who holds the pool. If all of it is executing and the queries are as fast as they can be, the pool is \
               too small, or the load too large.",
    };
    let saturated = metric!("poolscope_saturated_seconds_total");
    Drawing::lines(Panel::Saturated, "Time exhausted", says)
        .size(6, 8)
        .asks(max(saturated.rate()), "worst")
        .asks(format!("avg({})", saturated.rate()), "mean")
        .unit(Unit::Share)
        .up_to_one()
        .colours(&[("worst", "blue"), ("mean", "light-blue")])
        .above(WARNING, &thresholds.saturated_share)
        .above(CRITICAL, &thresholds.exhausted_share)
}

fn size() -> Drawing {
    let says = Says {
        means: "What the last five minutes' load asks for (Erlang's formula, so that the mean wait stays within \
                wait_target), beside what the pool may have and what it keeps when idle. Missing until there is enough \
                to tell.",
        bad: "Recommended above the maximum: checkouts will wait. Far below it: connections that the server keeps for \
              nothing.",
        cure: "Change pool_size and max_overflow, after those who hold connections for nothing were mended: the \
               recommendation takes what they do for granted.",
    };
    Drawing::lines(Panel::Size, "Size: what is, and what would do", says)
        .size(6, 8)
        .asks(sum(metric!("poolscope_recommended_size")), "recommended")
        .asks(sum(metric!("db_client_connection_max")), "maximum")
        .asks(sum(metric!("db_client_connection_idle_max")), "kept when idle")
        .colours(&[("recommended", "blue")])
        .limit("maximum", NEUTRAL)
        .limit("kept when idle", "#6e7079")
}

//! What more than one dashboard draws.

use super::drawing::{Drawing, NEUTRAL, Says};
use super::panels::Panel;
use super::query::{max, metric, sum, sum_by};
use crate::monitoring::names::POOL_LABEL;

/// How many pools have a server that does not answer; nothing where no server is asked. Of the instances that ask one of them
/// may be cut off from it, so any counts.
pub(super) fn servers_that_do_not_answer() -> String {
    sum(format!("max by (job, {POOL_LABEL}) ({} == bool 0)", metric!("poolscope_server_up")))
}

/// Which share of its slots the fullest server has taken.
pub(super) fn share_of_slots_taken() -> String {
    let (left, slots) = (metric!("poolscope_server_slots_left"), metric!("poolscope_server_slots"));
    max(format!("1 - {left} / ({slots} > 0)"))
}

/// Connections by what they are, stacked under the dashed line of the maximum.
pub(super) fn connections_by_state(panel: Panel, says: Says) -> Drawing {
    Drawing::lines(panel, "Connections by state", says)
        .asks(
            sum_by(&["db_client_connection_state"], metric!("db_client_connection_count")),
            "{{db_client_connection_state}}",
        )
        .asks(sum(metric!("poolscope_connections_creating")), "creating")
        .asks(sum(metric!("db_client_connection_max")), "maximum")
        .stacked()
        .colours(&[("used", "blue"), ("idle", "#6e7079"), ("creating", "purple")])
        .limit("maximum", NEUTRAL)
}

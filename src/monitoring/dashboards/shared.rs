//! What more than one dashboard draws.

use super::drawing::{Drawing, NEUTRAL, Says};
use super::panels::Panel;
use super::query::{metric, sum, sum_by};

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

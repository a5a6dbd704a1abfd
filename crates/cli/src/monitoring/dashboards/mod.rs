//! Three dashboards for Grafana: the fleet, one pool, and the exporter.
//!
//! They are generated, so that an unknown metric is a compile error instead of an empty panel, and so that threshold lines
//! equal the alerts' thresholds. The committed files under `dashboards/` are compared with the output by a test.

mod dashboard;
mod exporter;
mod fleet;
mod layout;
mod panel;
mod panel_id;
mod pool;
mod query;
mod shared;
mod unit;

use serde_json::Value;

use super::thresholds::Thresholds;

pub use self::dashboard::Dashboard;
pub use self::panel_id::PanelId;
pub use self::query::{EXTERNAL_METRICS, ExternalMetric};

/// Returns a dashboard as Grafana imports it.
#[must_use]
pub fn json(dashboard: Dashboard, thresholds: &Thresholds) -> Value {
    match dashboard {
        Dashboard::Fleet => fleet::dashboard(thresholds),
        Dashboard::Pool => pool::dashboard(thresholds),
        Dashboard::Exporter => exporter::dashboard(thresholds),
    }
}

/// Returns the content of a dashboard's file, with sorted keys and indented for review.
#[must_use]
pub fn text(dashboard: Dashboard, thresholds: &Thresholds) -> String {
    format!("{:#}\n", json(dashboard, thresholds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::generated::assert_current;
    use super::*;

    #[test]
    fn dashboards_are_current() {
        let thresholds = Thresholds::committed().unwrap();
        for dashboard in Dashboard::ALL {
            assert_current(&format!("dashboards/{}", dashboard.file()), &text(dashboard, &thresholds));
        }
    }
}

//! Three dashboards for Grafana: many pools, one pool, and the exporter itself.
//!
//! They are made by code, so that a metric which is renamed is an error here rather than a panel that is empty when it
//! is needed, and so that a line in a panel and the alert that it explains are one number. What is committed under
//! `dashboards/` is what this writes; a test holds it current.

mod drawing;
mod exporter;
mod fleet;
mod frame;
mod panels;
mod pool;
mod query;
mod shared;
mod unit;

use std::path::PathBuf;

use serde_json::Value;

pub use self::panels::{Panel, panel_id};
pub use self::query::{FOREIGN, Foreign};
use super::Thresholds;

/// A dashboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dashboard {
    /// All pools, the worst first.
    Fleet,
    /// One pool: its story in order.
    Pool,
    /// The exporter itself.
    Exporter,
}

impl Dashboard {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fleet, Self::Pool, Self::Exporter];

    /// By what links find it. Never changed.
    #[must_use]
    pub const fn uid(self) -> &'static str {
        match self {
            Self::Fleet => "poolscope-fleet",
            Self::Pool => "poolscope-pool",
            Self::Exporter => "poolscope-exporter",
        }
    }

    /// The file's name, below `dashboards/`.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::Fleet => "fleet.json",
            Self::Pool => "pool.json",
            Self::Exporter => "exporter.json",
        }
    }

    /// Where it is committed.
    #[must_use]
    pub fn path(self) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "../../dashboards", self.file()].iter().collect()
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Fleet => "poolscope / Fleet",
            Self::Pool => "poolscope / Pool",
            Self::Exporter => "poolscope / Exporter",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Fleet => "All connection pools, the worst first, and whether they fit the server together.",
            Self::Pool => {
                "One connection pool: is it healthy, how full, who holds it, who waits, how long, and what fails."
            }
            Self::Exporter => "What watches the pools: scrapes, spans, the process, versions.",
        }
    }

    /// What Grafana imports.
    #[must_use]
    pub fn json(self, thresholds: &Thresholds) -> Value {
        match self {
            Self::Fleet => fleet::dashboard(thresholds),
            Self::Pool => pool::dashboard(thresholds),
            Self::Exporter => exporter::dashboard(thresholds),
        }
    }

    /// The file's content.
    #[must_use]
    pub fn text(self, thresholds: &Thresholds) -> String {
        // Of a `Value` the keys come sorted. Pretty is what a person can review.
        format!("{:#}\n", self.json(thresholds))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_dashboards_are_current() {
        let thresholds = Thresholds::committed().unwrap();
        for dashboard in Dashboard::ALL {
            let path = dashboard.path();
            if std::env::var_os("POOLSCOPE_BLESS").is_some() {
                std::fs::write(&path, dashboard.text(&thresholds)).unwrap();
            }
            let written = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                written == dashboard.text(&thresholds),
                "{} is not what is generated: POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --lib monitoring writes it anew",
                path.display()
            );
        }
    }
}

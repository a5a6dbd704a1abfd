//! The identity of each dashboard.

use std::path::PathBuf;

use crate::monitoring::generated;

/// A dashboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dashboard {
    /// All pools, the most saturated first.
    Fleet,
    /// One pool.
    Pool,
    /// The exporter.
    Exporter,
}

impl Dashboard {
    /// All dashboards.
    pub const ALL: [Self; 3] = [Self::Fleet, Self::Pool, Self::Exporter];

    /// Returns the `uid` in links. It is never changed.
    #[must_use]
    pub const fn uid(self) -> &'static str {
        match self {
            Self::Fleet => "poolscope-fleet",
            Self::Pool => "poolscope-pool",
            Self::Exporter => "poolscope-exporter",
        }
    }

    /// Returns the file name under `dashboards/`.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::Fleet => "fleet.json",
            Self::Pool => "pool.json",
            Self::Exporter => "exporter.json",
        }
    }

    /// Returns the path of the committed file.
    #[must_use]
    pub fn path(self) -> PathBuf {
        generated::path("dashboards").join(self.file())
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Fleet => "poolscope / Fleet",
            Self::Pool => "poolscope / Pool",
            Self::Exporter => "poolscope / Exporter",
        }
    }

    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::Fleet => {
                "All connection pools, the most saturated first, and their total against the server's connection slots."
            }
            Self::Pool => {
                "One connection pool: health, saturation, holders, waiters, latency, failures, retries, life cycle and \
                 server."
            }
            Self::Exporter => "The exporter: scrapes, spans, cardinality, process resources and versions.",
        }
    }
}

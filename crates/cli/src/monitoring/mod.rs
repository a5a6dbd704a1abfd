//! Generates dashboards, alerts and recording rules, with their reference pages.
//!
//! Metric names come from the catalogue ([`names`]), limits from `alerts/thresholds.toml` ([`thresholds`]). The files under
//! `alerts/` and `dashboards/` are generated, and tests compare them with the generator's output. This module is not part of
//! the library's API.

pub mod alertmanager;
pub mod dashboards;
mod generated;
pub mod names;
pub mod page;
pub mod recording;
pub mod rules;
pub mod runbooks;
mod threshold_file;
pub mod thresholds;

pub use self::threshold_file::ThresholdFileError;
pub use self::thresholds::{Threshold, Thresholds, ThresholdsError};

//! What a person watches pools with, made from one source: dashboards, alerts and the recording rules beneath them.
//!
//! Names of metrics come from the catalogue ([`names`]), limits from `alerts/thresholds.toml` ([`thresholds`]). What
//! is committed under `alerts/` and `dashboards/` is generated, and a test holds it current. Nothing here is part of the library's API.

pub mod dashboards;
pub mod names;
pub mod page;
pub mod rules;
pub mod runbooks;
pub mod thresholds;

pub use self::thresholds::{Threshold, Thresholds, ThresholdsError};

//! Rule groups as data.

use super::alert::Alert;
use crate::monitoring::recording::Recording;
use crate::monitoring::thresholds::Threshold;

/// Rules that Prometheus evaluates one after the other.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Group {
    /// The unique name.
    pub name: &'static str,
    /// The evaluation interval, or `None` for Prometheus' default.
    pub interval: Option<Threshold>,
    /// The rules, in order: a recorded series is available to later rules.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Rule {
    /// A recording rule.
    Recording(Recording),
    /// An alerting rule.
    Alert(Box<Alert>),
}

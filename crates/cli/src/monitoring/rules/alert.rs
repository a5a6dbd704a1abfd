//! An alert as data.

use poolscope::labels::Cause;

use super::contributor::Contributor;
use crate::monitoring::dashboards::PanelId;
use crate::monitoring::thresholds::Threshold;

/// The urgency of an alert, and the value of its label `severity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Severity {
    /// Pages: requests fail, or soon will.
    Critical,
    /// Opens a ticket, to be handled within a working day.
    Warning,
}

impl Severity {
    /// Returns the value of the label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// The subject of an alert, which fires once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// A pool of one instance.
    Pool,
    /// The pools of one name and job, over all instances.
    Fleet,
    /// An instance.
    Instance,
    /// An instance that does not answer scrapes.
    Target,
    /// A job.
    Job,
}

/// An alerting rule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Alert {
    /// The name of the alert and of its runbook.
    pub name: &'static str,
    /// The urgency.
    pub severity: Severity,
    /// The subject.
    pub scope: Scope,
    /// The condition in PromQL.
    pub expr: String,
    /// How long the condition must hold before the alert fires.
    pub for_duration: Threshold,
    /// How long the alert fires after its condition held last, so that it inhibits other alerts as long as they fire.
    pub keep_firing_for: Option<Threshold>,
    /// The state, in a constant text.
    pub summary: &'static str,
    /// The state with the measured value, as a template. The subject is prepended.
    pub description: String,
    /// Queries for the top contributors, which the description names.
    pub contributors: Vec<Contributor>,
    /// The condition in words.
    pub condition: String,
    /// The thresholds in the expression.
    pub thresholds: Vec<Threshold>,
    /// The panel that shows the condition.
    pub panel: PanelId,
    /// The cause of which this is the alert, unless it is one on a symptom.
    pub diagnosed: Option<Diagnosed>,
    /// Lists of alerts that the same fault may cause.
    pub(super) related: &'static [&'static [&'static str]],
}

impl Alert {
    /// Returns the names of alerts that the same fault may cause.
    #[must_use]
    pub fn related(&self) -> Vec<&'static str> {
        let inhibited = self.diagnosed.iter().flat_map(|diagnosed| diagnosed.inhibits.iter().copied());
        self.related.concat().into_iter().chain(inhibited).collect()
    }
}

/// What only the alert of a diagnosed cause has.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Diagnosed {
    /// The cause.
    pub cause: Cause,
    /// The alerts on symptoms that the cause explains, which are not more severe. The alerts on other causes are not among
    /// them: while an alert is kept firing, its cause has ended, and another one may be the next.
    pub inhibits: Vec<&'static str>,
    /// The causes that explain it: it is not alerted while one of them lasts, and shortly after.
    pub explained_by: Vec<Cause>,
}

/// Alerts that an exhausted pool causes beside `PoolscopePoolExhausted`.
pub const EXHAUSTION_SYMPTOMS: &[&str] = &[
    "PoolscopePoolSaturated",
    "PoolscopeWaitersSustained",
    "PoolscopeCheckoutWaitHigh",
    "PoolscopeTimeoutBudgetBurnsFast",
    "PoolscopeTimeoutBudgetBurns",
    "PoolscopeWaitBudgetBurnsFast",
    "PoolscopeWaitBudgetBurns",
];

/// Clones the thresholds of an alert.
pub(super) fn cloned<const N: usize>(thresholds: [&Threshold; N]) -> Vec<Threshold> {
    thresholds.into_iter().cloned().collect()
}

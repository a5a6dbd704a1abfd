//! The alerts, as data: one file a question that they answer.
//!
//! Each is about one thing, so that one fault is one notification: a pool of an instance, an instance, the pools of one
//! name, a job. Who is to blame is no label. It would change while the fault lasts, and each change would be a new alert
//! that waits anew; so it is asked for when the description is written, at each evaluation.

mod holders;
mod objectives;
mod requests;
mod retries;
mod saturation;
mod server;
mod watching;

use super::blame::Blame;
use crate::monitoring::thresholds::{Threshold, Thresholds};

/// How urgent an alert is. It is the label `severity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Severity {
    /// Somebody is woken: requests fail now, or soon will.
    Critical,
    /// Somebody looks at it within the day.
    Warning,
}

impl Severity {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// What an alert is about: there is one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// A pool of one instance.
    Pool,
    /// The pools of one name and job, of all instances.
    Fleet,
    /// An instance.
    Instance,
    /// An instance that does not answer.
    Target,
    /// A job.
    Job,
}

/// An alerting rule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Alert {
    /// Its name, which is its runbook's.
    pub name: &'static str,
    /// How urgent it is.
    pub severity: Severity,
    /// What it is about.
    pub scope: Scope,
    /// When it is so, in PromQL.
    pub expr: String,
    /// For how long it must be so before it fires.
    pub pending: Threshold,
    /// What is wrong, always in the same words.
    pub summary: &'static str,
    /// How wrong it is: what follows the name of what it is about.
    pub says: String,
    /// Who is to blame.
    pub blame: Vec<Blame>,
    /// When it is so, in words.
    pub meaning: String,
    /// The thresholds that its expression has.
    pub thresholds: Vec<Threshold>,
    /// Alerts that the same fault may bring as well, by what they have in common.
    comes_with: &'static [&'static [&'static str]],
}

impl Alert {
    /// Alerts that the same fault may bring as well.
    #[must_use]
    pub fn comes_with(&self) -> Vec<&'static str> {
        self.comes_with.concat()
    }
}

/// What a pool brings that has run out, beside that it is exhausted.
pub const SHORT: &[&str] = &[
    "PoolscopePoolSaturated",
    "PoolscopeWaitersSustained",
    "PoolscopeCheckoutWaitHigh",
    "PoolscopeTimeoutBudgetBurnsFast",
    "PoolscopeTimeoutBudgetBurns",
    "PoolscopeWaitBudgetBurnsFast",
    "PoolscopeWaitBudgetBurns",
];

/// Every alert, in the order of the reference.
#[must_use]
pub fn alerts(thresholds: &Thresholds) -> Vec<Alert> {
    let parts = [
        saturation::alerts(thresholds),
        objectives::alerts(thresholds),
        holders::alerts(thresholds),
        requests::alerts(thresholds),
        server::alerts(thresholds),
        retries::alerts(thresholds),
        watching::alerts(thresholds),
    ];
    parts.into_iter().flatten().collect()
}

/// Copies of the thresholds that an alert uses.
fn uses<const N: usize>(thresholds: [&Threshold; N]) -> Vec<Threshold> {
    thresholds.into_iter().cloned().collect()
}

/// By how much a counter grew, also if it was not there before.
///
/// Some series begin with their first event, of which `increase` sees nothing. One that was not there a window ago,
/// although its target reported then, has come since, with all that it counts.
fn grew(series: &str, window: &Threshold) -> String {
    format!(
        "  increase({series}[{window}]) > 0\n\
         or\n\
         \x20 ({series} and on (job, instance) (up offset {window} == 1))\n\
         \x20 unless\n\
         \x20 {series} offset {window}"
    )
}

/// The lines, two columns further in.
fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_alert_waits_as_its_severity_says() {
        let thresholds = Thresholds::committed().unwrap();
        for alert in alerts(&thresholds) {
            let waits = match alert.severity {
                Severity::Critical => ["for_page", "for_event"],
                Severity::Warning => ["for_ticket", "for_event"],
            };
            assert!(waits.contains(&alert.pending.name), "{}", alert.name);
        }
    }

    #[test]
    fn every_threshold_is_used_and_every_alert_says_which() {
        let thresholds = Thresholds::committed().unwrap();
        let alerts = alerts(&thresholds);
        let mut used: BTreeSet<_> =
            alerts.iter().flat_map(|alert| alert.thresholds.iter().map(|threshold| threshold.name)).collect();
        used.extend(alerts.iter().map(|alert| alert.pending.name));
        // What is assumed of Prometheus, and how often recording rules are evaluated.
        used.extend(["scrape_interval", "slow_evaluation"]);
        let all: BTreeSet<_> = thresholds.all().iter().map(|threshold| threshold.name).collect();
        assert_eq!(used, all);
        for alert in &alerts {
            for threshold in &alert.thresholds {
                let recorded =
                    alert.expr.contains("5m") || alert.expr.contains(":ratio") || alert.expr.contains(":rate");
                let written = alert.expr.contains(&threshold.to_string());
                assert!(written || recorded, "{} does not use {}", alert.name, threshold.name);
            }
        }
    }

    #[test]
    fn what_an_alert_comes_with_is_an_alert() {
        let alerts = alerts(&Thresholds::committed().unwrap());
        let names: BTreeSet<_> = alerts.iter().map(|alert| alert.name).collect();
        assert_eq!(names.len(), alerts.len());
        for alert in &alerts {
            for other in &alert.comes_with() {
                assert!(names.contains(other) && *other != alert.name, "{}: {other}", alert.name);
            }
        }
    }
}

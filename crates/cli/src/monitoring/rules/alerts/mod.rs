//! The alerts, one file per area.
//!
//! Each alert has one subject, so that one fault leads to one notification: a pool of an instance, an instance, the pools of
//! one name, a job. The top contributor is not a label: it may change while the fault lasts, and each change would be a new
//! alert with a new `for`. The description queries it at each evaluation instead.

mod caches;
pub mod diagnosed;
pub(super) mod growth;
mod holders;
mod objectives;
mod requests;
mod retries;
mod saturation;
mod server;
mod telemetry;

use crate::monitoring::thresholds::Thresholds;

pub use super::alert::{Alert, Diagnosed, EXHAUSTION_SYMPTOMS, Scope, Severity};

/// Returns all alerts, in the order of the reference page.
#[must_use]
pub fn alerts(thresholds: &Thresholds) -> Vec<Alert> {
    let parts = [
        diagnosed::alerts(thresholds),
        saturation::alerts(thresholds),
        objectives::alerts(thresholds),
        holders::alerts(thresholds),
        requests::alerts(thresholds),
        caches::alerts(thresholds),
        server::alerts(thresholds),
        retries::alerts(thresholds),
        telemetry::alerts(thresholds),
    ];
    let mut alerts: Vec<_> = parts.into_iter().flatten().collect();
    // A ticket must not suppress a page.
    let pages: Vec<_> =
        alerts.iter().filter(|alert| alert.severity == Severity::Critical).map(|alert| alert.name).collect();
    for alert in alerts.iter_mut().filter(|alert| alert.severity == Severity::Warning) {
        if let Some(diagnosed) = &mut alert.diagnosed {
            diagnosed.inhibits.retain(|name| !pages.contains(name));
        }
    }
    alerts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn for_duration_follows_from_severity() {
        let thresholds = Thresholds::committed().unwrap();
        for alert in alerts(&thresholds) {
            let allowed = match alert.severity {
                _ if alert.diagnosed.is_some() => ["for_diagnosis"; 2],
                Severity::Critical => ["for_page", "for_event"],
                Severity::Warning => ["for_ticket", "for_event"],
            };
            assert!(allowed.contains(&alert.for_duration.name), "{}", alert.name);
        }
    }

    #[test]
    fn every_threshold_is_used_and_listed() {
        let thresholds = Thresholds::committed().unwrap();
        let alerts = alerts(&thresholds);
        let mut used: BTreeSet<_> =
            alerts.iter().flat_map(|alert| alert.thresholds.iter().map(|threshold| threshold.name)).collect();
        used.extend(alerts.iter().map(|alert| alert.for_duration.name));
        // The assumed scrape interval, and the evaluation interval of recording rules.
        used.extend(["scrape_interval", "slow_evaluation", "keep_diagnosis"]);
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
    fn related_alerts_exist() {
        let alerts = alerts(&Thresholds::committed().unwrap());
        let names: BTreeSet<_> = alerts.iter().map(|alert| alert.name).collect();
        assert_eq!(names.len(), alerts.len());
        for alert in &alerts {
            for other in &alert.related() {
                assert!(names.contains(other) && *other != alert.name, "{}: {other}", alert.name);
            }
        }
    }
}

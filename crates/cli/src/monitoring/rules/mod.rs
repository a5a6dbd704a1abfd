//! The rules for Prometheus, as data, and as the files under `alerts/`.

pub mod alerts;
mod annotations;
mod blame;
pub mod recording;
mod yaml;

use self::alerts::Alert;
use self::recording::Recording;
use super::thresholds::{Threshold, Thresholds};

pub use self::annotations::{Links, annotations, panel};
pub use self::blame::Blame;

/// Rules that are evaluated together, one after the other.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Group {
    /// Its name, which no other group has.
    pub name: &'static str,
    /// How often it is evaluated; as often as Prometheus does by default if it does not say.
    pub interval: Option<Threshold>,
    /// Its rules, in order: one that is recorded is there for those after it.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Rule {
    /// One that records a series.
    Recording(Recording),
    /// One that may fire.
    Alert(Alert),
}

/// The groups of recording rules.
#[must_use]
pub fn recording_groups(thresholds: &Thresholds) -> Vec<Group> {
    let group = |name, interval, rules: Vec<Recording>| Group {
        name,
        interval,
        rules: rules.into_iter().map(Rule::Recording).collect(),
    };
    let slow = Some(thresholds.slow_evaluation.clone());
    vec![
        group("poolscope.recording", None, recording::recordings(thresholds)),
        group("poolscope.recording.slow", slow, recording::slow_recordings(thresholds)),
    ]
}

/// The group of alerts.
#[must_use]
pub fn alert_groups(thresholds: &Thresholds) -> Vec<Group> {
    let rules = alerts::alerts(thresholds).into_iter().map(Rule::Alert).collect();
    vec![Group { name: "poolscope.alerts", interval: None, rules }]
}

/// `alerts/recording.rules.yml`.
#[must_use]
pub fn recording_file(thresholds: &Thresholds) -> String {
    yaml::write(&generated("recording.rs"), &recording_groups(thresholds), &Links::default())
}

/// `alerts/alerts.rules.yml`.
#[must_use]
pub fn alerts_file(thresholds: &Thresholds) -> String {
    yaml::write(&generated("alerts/"), &alert_groups(thresholds), &Links::default())
}

/// All rules as one file, for a Prometheus of one's own.
#[must_use]
pub fn all(thresholds: &Thresholds, links: &Links) -> String {
    let comment = format!("The rules of poolscope {}.", env!("CARGO_PKG_VERSION"));
    let groups = [recording_groups(thresholds), alert_groups(thresholds)].concat();
    yaml::write(&comment, &groups, links)
}

fn generated(from: &str) -> String {
    format!(
        "Generated from crates/cli/src/monitoring/rules/{from} and alerts/thresholds.toml.\n\
         `POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --lib monitoring` writes it anew."
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Holds a committed file to what is generated, or writes it.
    fn current(path: &str, generated: &str) {
        let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("POOLSCOPE_BLESS").is_some() {
            std::fs::write(&path, generated).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == generated,
            "{path} is not what is generated: POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --lib monitoring writes it anew"
        );
    }

    #[test]
    fn the_recording_rules_are_current() {
        current("alerts/recording.rules.yml", &recording_file(&Thresholds::committed().unwrap()));
    }

    #[test]
    fn the_alerts_are_current() {
        current("alerts/alerts.rules.yml", &alerts_file(&Thresholds::committed().unwrap()));
    }

    #[test]
    fn no_two_groups_have_one_name() {
        let thresholds = Thresholds::committed().unwrap();
        let groups = [recording_groups(&thresholds), alert_groups(&thresholds)].concat();
        let names: std::collections::BTreeSet<_> = groups.iter().map(|group| group.name).collect();
        assert_eq!(names.len(), groups.len());
    }
}

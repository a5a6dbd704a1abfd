//! The rules for Prometheus, as data and as the files under `alerts/`.

mod alert;
pub mod alerts;
mod annotations;
mod contributor;
mod group;
mod links;
mod verdict;
mod yaml;

use super::generated::COMMAND;
use super::recording::{Recording, recordings, slow_recordings};
use super::thresholds::Thresholds;

pub use self::annotations::annotations;
pub use self::contributor::Contributor;
pub use self::group::{Group, Rule};
pub use self::links::{Links, Runbooks};

/// Returns the groups of recording rules.
#[must_use]
pub fn recording_groups(thresholds: &Thresholds) -> Vec<Group> {
    let group = |name, interval, rules: Vec<Recording>| Group {
        name,
        interval,
        rules: rules.into_iter().map(Rule::Recording).collect(),
    };
    let slow = Some(thresholds.slow_evaluation.clone());
    vec![
        group("poolscope.recording", None, recordings(thresholds)),
        group("poolscope.recording.slow", slow, slow_recordings(thresholds)),
    ]
}

/// Returns the group of alerts.
#[must_use]
pub fn alert_groups(thresholds: &Thresholds) -> Vec<Group> {
    let rules = alerts::alerts(thresholds).into_iter().map(|alert| Rule::Alert(Box::new(alert))).collect();
    vec![Group { name: "poolscope.alerts", interval: None, rules }]
}

/// Returns the content of `alerts/recording.rules.yml`.
#[must_use]
pub fn recording_file(thresholds: &Thresholds) -> String {
    yaml::write(&header("crates/cli/src/monitoring/recording.rs"), &recording_groups(thresholds), &Links::default())
}

/// Returns the content of `alerts/alerts.rules.yml`.
#[must_use]
pub fn alerts_file(thresholds: &Thresholds) -> String {
    let header = header("crates/cli/src/monitoring/rules/alerts/");
    let comment = format!(
        "{header}\n\nThe links to dashboards are those of deploy/compose. `poolscope rules` prints the rules for your installation."
    );
    yaml::write(&comment, &alert_groups(thresholds), &Links::of_compose())
}

/// Returns all rules as one file, with the given links.
#[must_use]
pub fn all(thresholds: &Thresholds, links: &Links) -> String {
    let mut comment = format!("The rules of poolscope {}.", env!("CARGO_PKG_VERSION"));
    for line in links.comments() {
        comment += &format!("\n{line}");
    }
    let groups = [recording_groups(thresholds), alert_groups(thresholds)].concat();
    yaml::write(&comment, &groups, links)
}

/// Returns the comment at the top of a generated file.
fn header(source: &str) -> String {
    format!("Generated from {source} and alerts/thresholds.toml. Regenerate with\n`{COMMAND}`.")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::super::generated::assert_current;
    use super::*;

    #[test]
    fn recording_rules_are_current() {
        assert_current("alerts/recording.rules.yml", &recording_file(&Thresholds::committed().unwrap()));
    }

    #[test]
    fn alerts_are_current() {
        assert_current("alerts/alerts.rules.yml", &alerts_file(&Thresholds::committed().unwrap()));
    }

    #[test]
    fn group_names_are_unique() {
        let thresholds = Thresholds::committed().unwrap();
        let groups = [recording_groups(&thresholds), alert_groups(&thresholds)].concat();
        let names: BTreeSet<_> = groups.iter().map(|group| group.name).collect();
        assert_eq!(names.len(), groups.len());
    }
}

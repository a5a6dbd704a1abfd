//! What is generated of the runbooks in `docs/runbooks/`: of each, what its alert is. The rest is written by hand.

use std::fmt::Write as _;

use super::rules::alerts::{Alert, Severity};

/// Begin and end what is generated.
const BEGIN: &str = "<!-- generated -->\n";
const END: &str = "<!-- /generated -->\n";

/// What a runbook says of its alert: what is wrong, when it fires, by which thresholds, and what may fire with it.
#[must_use]
pub fn head(alert: &Alert) -> String {
    let mut head = format!("{}\n\n", alert.summary);
    let severity = match alert.severity {
        Severity::Critical => "critical: somebody is paged",
        Severity::Warning => "warning: a ticket",
    };
    let _ = writeln!(head, "- Severity: {severity}.");
    let _ = writeln!(head, "- Fires after {}: {}", alert.pending, alert.meaning);
    for threshold in &alert.thresholds {
        let _ = writeln!(head, "- Threshold `{}`, {}: {}", threshold.name, threshold.human(), threshold.reason);
    }
    let comes_with = alert.comes_with();
    if !comes_with.is_empty() {
        let names: Vec<_> = comes_with.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(head, "- The same fault may bring: {}.", names.join(", "));
    }
    let _ = write!(head, "\n```promql\n{}\n```\n", alert.expr);
    head
}

/// The runbook with what is generated put in anew; none if it has no place for that.
#[must_use]
pub fn renewed(runbook: &str, alert: &Alert) -> Option<String> {
    let (before, rest) = runbook.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{}{END}{after}", head(alert)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::super::rules::alerts::alerts;
    use super::super::thresholds::Thresholds;
    use super::*;

    #[test]
    fn the_runbooks_are_current_and_there_is_one_for_each_alert() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/runbooks");
        let alerts = alerts(&Thresholds::committed().unwrap());
        for alert in &alerts {
            let path = format!("{directory}/{}.md", alert.name);
            let runbook = fs::read_to_string(&path).expect(&path);
            let renewed = renewed(&runbook, alert).expect(&path);
            if std::env::var_os("POOLSCOPE_BLESS").is_some() {
                fs::write(&path, &renewed).unwrap();
            } else {
                assert!(
                    runbook == renewed,
                    "{path} is not what is generated: POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --lib monitoring writes it anew"
                );
            }
        }
        let files = fs::read_dir(directory).unwrap().count();
        assert_eq!(files, alerts.len(), "a runbook is of no alert");
    }
}

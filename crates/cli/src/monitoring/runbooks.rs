//! The generated section of each runbook in `docs/runbooks/`: the condition and thresholds of its alert.

use std::fmt::Write as _;

use super::rules::alerts::{Alert, Severity};

/// Markers around the generated section.
const BEGIN: &str = "<!-- generated -->\n";
const END: &str = "<!-- /generated -->\n";

/// Returns the generated section: summary, condition, thresholds, related alerts and expression.
#[must_use]
pub fn header(alert: &Alert) -> String {
    let mut header = format!("{}\n\n", alert.summary);
    let severity = match alert.severity {
        Severity::Critical => "critical (page)",
        Severity::Warning => "warning (ticket)",
    };
    // Writing to a string does not fail.
    let _ = writeln!(header, "- Severity: {severity}");
    let _ = writeln!(header, "- Condition: {}", alert.condition);
    let _ = writeln!(header, "- For: {}", alert.for_duration);
    for threshold in &alert.thresholds {
        let _ = writeln!(header, "- Threshold `{}`, {}: {}", threshold.name, threshold.human(), threshold.reason);
    }
    let related = alert.related();
    if let Some(diagnosed) = &alert.diagnosed {
        header.push_str("- Inhibits, on the same pool and instance:");
        for name in &diagnosed.inhibits {
            let _ = write!(header, "\n  - `{name}`");
        }
        header.push('\n');
    } else if !related.is_empty() {
        let names: Vec<_> = related.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(header, "- Alerts with the same possible cause: {}", names.join(", "));
    }
    let _ = write!(header, "\n```promql\n{}\n```\n", alert.expr);
    header
}

/// Returns the runbook with its generated section replaced, or `None` if it has no markers.
#[must_use]
pub fn regenerate(runbook: &str, alert: &Alert) -> Option<String> {
    let (before, rest) = runbook.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{}{END}{after}", header(alert)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::super::generated::{assert_current, path};
    use super::super::rules::alerts::alerts;
    use super::super::thresholds::Thresholds;
    use super::*;

    #[test]
    fn each_alert_has_a_current_runbook() {
        let alerts = alerts(&Thresholds::committed().unwrap());
        for alert in &alerts {
            let file = format!("docs/runbooks/{}.md", alert.name);
            let runbook = fs::read_to_string(path(&file)).expect(&file);
            assert_current(&file, &regenerate(&runbook, alert).expect(&file));
        }
        let files = fs::read_dir(path("docs/runbooks")).unwrap().count();
        assert_eq!(files, alerts.len(), "a runbook has no alert");
    }
}

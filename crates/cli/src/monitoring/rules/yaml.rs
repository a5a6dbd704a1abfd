//! Writes rule files as YAML.

use std::fmt::Write as _;

use super::alert::Alert;
use super::annotations::annotations;
use super::group::{Group, Rule};
use super::links::Links;
use crate::monitoring::recording::Recording;

/// Returns a rule file of the groups, with `comment` at the top.
pub(super) fn write(comment: &str, groups: &[Group], links: &Links) -> String {
    let mut file = String::new();
    for line in comment.lines() {
        let _ = writeln!(file, "{}", format!("# {line}").trim_end());
    }
    file.push_str("groups:\n");
    for group in groups {
        let _ = writeln!(file, "  - name: {}", group.name);
        if let Some(interval) = &group.interval {
            let _ = writeln!(file, "    interval: {interval}");
        }
        file.push_str("    rules:\n");
        for rule in &group.rules {
            match rule {
                Rule::Recording(rule) => recording(&mut file, rule),
                Rule::Alert(rule) => alert(&mut file, rule, links),
            }
        }
    }
    file
}

fn recording(file: &mut String, rule: &Recording) {
    let _ = writeln!(file, "      # {}", rule.help);
    let _ = writeln!(file, "      - record: {}", rule.name);
    expression(file, &rule.expr);
}

fn alert(file: &mut String, rule: &Alert, links: &Links) {
    let _ = writeln!(file, "      # {}", rule.condition);
    let _ = writeln!(file, "      - alert: {}", rule.name);
    expression(file, &rule.expr);
    let _ = writeln!(file, "        for: {}", rule.for_duration);
    if let Some(keep_firing_for) = &rule.keep_firing_for {
        let _ = writeln!(file, "        keep_firing_for: {keep_firing_for}");
    }
    let _ = writeln!(file, "        labels:\n          severity: {}", rule.severity.as_str());
    file.push_str("        annotations:\n");
    for (name, text) in annotations(rule, links) {
        let _ = writeln!(file, "          {name}: {}", quoted(&text));
    }
}

fn expression(file: &mut String, expr: &str) {
    if expr.contains('\n') {
        file.push_str("        expr: |-\n");
        for line in expr.lines() {
            let _ = writeln!(file, "          {line}");
        }
    } else {
        let _ = writeln!(file, "        expr: {}", quoted(expr));
    }
}

/// Returns the text in single quotes, the only character to escape.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

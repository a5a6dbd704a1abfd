//! Generates the promtool tests of the alerts on diagnosed causes, which differ in their texts only.

use std::env;
use std::fs;

use poolscope::causes::{OPERATION_PLACEHOLDER, descriptions};
use poolscope_cli::monitoring::Thresholds;
use poolscope_cli::monitoring::rules::alerts::{Alert, Severity, alerts};

use crate::tools::at;

const TARGET: &str =
    "job=\"shop\",instance=\"10.0.0.1:9719\",env=\"prod\",db_client_connection_pool_name=\"db:5432/shop\"";

/// The operation responsible and its call site, with characters that templates and URLs escape.
const OPERATION: &str = "GET /orders/{id}";
const CALL_SITE: &str = "src/orders.rs:88";

/// Returns a test case: values of `poolscope_diagnosis_seconds` every 15 s, and the alert expected at a time.
fn case_of(alert: &Alert, name: &str, series: &[(&str, &str)], when: &str, expected: Option<String>) -> String {
    let lines = series.iter().map(|(labels, values)| {
        format!("\n      - series: 'poolscope_diagnosis_seconds{{{TARGET},{labels}}}'\n        values: '{values}'")
    });
    let lines: String = lines.collect();
    let series = format!("    input_series:{}\n", if lines.is_empty() { " []" } else { &lines });
    let expected = expected.map_or_else(|| " []".to_owned(), |expected| format!("\n{expected}"));
    format!(
        "  - name: {name}\n    interval: 15s\n{series}    alert_rule_test:\n      - eval_time: {when}\n        alertname: \
         {}\n        exp_alerts:{expected}",
        alert.name
    )
    .trim_end()
    .to_owned()
        + "\n"
}

/// Returns the notification that is expected after a cause has lasted for `lasting`.
fn notification(alert: &Alert, lasting: &str, operation: &str, call_site: &str) -> String {
    let cause = alert.diagnosed.as_ref().expect("a cause").cause;
    let description = descriptions().find(|description| description.cause == cause).expect("a description");
    let fill = |text: &str| text.replace(OPERATION_PLACEHOLDER, operation);
    let finding = fill(description.finding);
    let (first, rest) = finding.split_at(1);
    let has_site = description.finding.contains(OPERATION_PLACEHOLDER) && !call_site.is_empty();
    let site = if has_site { format!("{call_site}, ") } else { String::new() };
    let text = format!(
        "{}{rest} ({site}for {lasting}). {} Pool db:5432/shop of 10.0.0.1:9719.",
        first.to_uppercase(),
        fill(description.advice)
    );
    let severity = if alert.severity == Severity::Critical { "critical" } else { "warning" };
    format!(
        "          - exp_labels:
              job: 'shop'
              instance: '10.0.0.1:9719'
              env: 'prod'
              db_client_connection_pool_name: 'db:5432/shop'
              cause: '{cause}'
              severity: '{severity}'
            exp_annotations:
              summary: '{summary}'
              description: '{text}'
              runbook_url: 'https://docs.rs/poolscope/latest/poolscope/runbooks/{name}/index.html'
              dashboard_url: 'http://localhost:3000/d/poolscope-pool?var-job=shop&var-instance=10.0.0.1%3A9719&var-pool=db%3A5432%2Fshop&viewPanel={panel}'
",
        cause = cause.as_str(),
        summary = alert.summary,
        text = text.replace('\'', "''"),
        name = alert.name,
        panel = alert.panel.number(),
    )
}

/// Returns the content of `alerts/tests/NAME.yml`.
fn file(alert: &Alert) -> String {
    let cause = alert.diagnosed.as_ref().expect("a cause").cause.as_str();
    let labels = |cause: &str| format!("cause=\"{cause}\",operation=\"{OPERATION}\",call_site=\"{CALL_SITE}\"");
    let (own, other) = (labels(cause), labels("healthy"));
    let anonymous = format!("cause=\"{cause}\",operation=\"\",call_site=\"\"");
    let case = |name: &str, labels: &str, values: &str, when: &str, expected: Option<String>| {
        let series = [(labels, values)];
        case_of(alert, name, if values.is_empty() { &[] } else { &series }, when, expected)
    };
    let named = |lasting: &str| Some(notification(alert, lasting, OPERATION, CALL_SITE));
    let mut cases = vec![
        case("below the threshold", &other, "0+15x80", "3m", None),
        case("above the threshold, not long enough", &own, "_x4 0+15x80", "1m45s", None),
        case("firing", &own, "_x4 0+15x80", "2m15s", named("1m 15s")),
        case(
            "without an operation",
            &anonymous,
            "_x4 0+15x80",
            "2m15s",
            Some(notification(alert, "1m 15s", "an operation", "")),
        ),
        // Thirty minutes after the last sample, with the last values.
        case("recently over", &own, "_x4 0+15x8 _x400", "20m", named("2m 0s")),
        case("resolved", &own, "_x4 0+15x8 _x400", "40m", None),
        case("missing series", "", "", "3m", None),
        // A restarted process begins to count again.
        case("counter reset", &own, "0+15x3 0+15x3 0+15x3", "2m", named("0s")),
    ];
    if let Some(explanation) = alert.diagnosed.as_ref().and_then(|diagnosed| diagnosed.explained_by.last()) {
        let explanation = labels(explanation.as_str());
        let after = |name: &str, explained: &str, values: &str, when: &str, expected: Option<String>| {
            case_of(alert, name, &[(&explanation, explained), (&own, values)], when, expected)
        };
        // The cause that explains it lasts for two minutes, or for half a minute.
        cases.extend([
            after("explained by a recent cause", "0+15x8 _x400", "_x9 0+15x80", "6m", None),
            after("not explained any more", "0+15x8 _x400", "_x9 0+15x80", "9m", named("6m 45s")),
            after("explained by no lasting cause", "0+15x2 _x400", "_x4 0+15x80", "2m15s", named("1m 15s")),
        ]);
    }
    format!(
        "# {}: test cases, with the exact annotations of a notification. Generated; regenerate with\n# \
         `POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --test monitoring diagnosed`.\nrule_files:\n  - \
         ../alerts.rules.yml\nevaluation_interval: 15s\ntests:\n{}",
        alert.name,
        cases.concat()
    )
}

#[test]
fn tests_of_diagnosed_causes_are_current() {
    let alerts = alerts(&Thresholds::committed().unwrap());
    for alert in alerts.iter().filter(|alert| alert.diagnosed.is_some()) {
        let path = at(&format!("alerts/tests/{}.yml", alert.name));
        if env::var_os("POOLSCOPE_BLESS").is_some() {
            fs::write(&path, file(alert)).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), file(alert), "{}", alert.name);
    }
}

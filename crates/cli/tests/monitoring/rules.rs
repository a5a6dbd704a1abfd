//! The rules as data: known series, consistent labels, complete annotations.

use std::collections::BTreeSet;

use poolscope::telemetry::catalogue::POOL_LABEL;
use poolscope_cli::monitoring::Thresholds;
use poolscope_cli::monitoring::recording::{recordings, slow_recordings};
use poolscope_cli::monitoring::rules::alerts::{Alert, Scope, alerts};
use poolscope_cli::monitoring::rules::{Links, Runbooks, annotations};

use crate::promql::{KnownSeries, Labels, labels};

fn thresholds() -> Thresholds {
    Thresholds::committed().expect("thresholds")
}

/// Returns the metrics of the catalogue and the recorded series.
pub(crate) fn known_series() -> KnownSeries {
    let thresholds = thresholds();
    let mut known = KnownSeries::new(4 * 15);
    assert_eq!(thresholds.scrape_interval.value, 15.0);
    for rule in recordings(&thresholds).iter().chain(&slow_recordings(&thresholds)) {
        known.record(&rule.name, &rule.expr);
    }
    known
}

fn annotation(alert: &Alert, name: &str) -> String {
    let all = annotations(alert, &Links::of_compose());
    all.into_iter().find(|(known, _)| *known == name).expect(name).1
}

/// Returns the texts between each `from` and the next `to`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> Vec<&'a str> {
    text.split(from).skip(1).filter_map(|rest| rest.split_once(to)).map(|(inner, _)| inner).collect()
}

#[test]
fn recording_rules_follow_the_naming_scheme() {
    let thresholds = thresholds();
    let known = known_series();
    for rule in recordings(&thresholds).iter().chain(&slow_recordings(&thresholds)) {
        let parts: Vec<_> = rule.name.split(':').collect();
        let [level, metric, operation] = parts[..] else { panic!("{}", rule.name) };
        assert!(!metric.is_empty() && !operation.is_empty(), "{}", rule.name);
        let actual = known.labels(&rule.name).expect("recorded");
        let expected: &[&str] = match level {
            "pool" => &["job", "instance", POOL_LABEL],
            "operation" => &["job", "instance", POOL_LABEL, "operation"],
            "activity" => &["job", "instance", POOL_LABEL, "activity"],
            "fleet" => &["job", POOL_LABEL],
            "cause" => &["job", POOL_LABEL, "cause"],
            other => panic!("{}: unknown level {other}", rule.name),
        };
        assert_eq!(actual, labels(expected), "{}", rule.name);
        assert!(rule.help.ends_with('.'), "{}", rule.name);
    }
}

#[test]
fn alerts_have_the_labels_of_their_scope() {
    let known = known_series();
    for alert in alerts(&thresholds()) {
        let actual = known.labels(&alert.expr).unwrap_or_else(|problem| panic!("{}: {problem}", alert.name));
        let mut expected: Labels = match alert.scope {
            Scope::Pool => labels(&["job", "instance", POOL_LABEL]),
            Scope::Fleet => labels(&["job", POOL_LABEL]),
            Scope::Instance | Scope::Target => labels(&["job", "instance"]),
            Scope::Job => labels(&["job"]),
            other => panic!("{}: unknown scope {other:?}", alert.name),
        };
        if alert.name == "PoolscopeSpanExportFailing" {
            expected.insert("destination".to_owned());
        }
        if alert.diagnosed.is_some() {
            expected.insert("cause".to_owned());
        }
        assert_eq!(actual, expected, "{}", alert.name);
        for name in ["description", "runbook_url", "dashboard_url"] {
            let text = annotation(&alert, name);
            for label in between(&text, "$labels.", " ") {
                let label = label.trim_end_matches(|c: char| !c.is_alphanumeric());
                assert!(actual.contains(label), "{} has no label {label}", alert.name);
            }
        }
    }
}

#[test]
fn template_queries_use_known_series_and_labels() {
    let known = known_series();
    let mut queries = 0;
    for alert in alerts(&thresholds()) {
        for name in ["description", "runbook_url"] {
            let text = [Links::of_compose(), Links { runbooks: Runbooks::Exporter, grafana: None }]
                .map(|links| annotations(&alert, &links).into_iter().find(|(known, _)| *known == name).expect(name).1)
                .concat();
            for with in text.split("{{ with ").skip(1).filter(|with| with.starts_with(['p', 'q'])) {
                let query = with.split('`').nth(1).expect("a query").to_owned();
                let query = (1..=3).fold(query, |query, at| query.replace(&format!("%[{at}]q"), "\"a\""));
                queries += 1;
                if !with.split("{{ end }}").next().is_some_and(|with| with.contains("first | label")) {
                    // A number without labels, of the alert's pool.
                    known.check_selectors(&query).unwrap_or_else(|problem| panic!("{}: {problem}", alert.name));
                    assert_eq!(query.matches('{').count(), query.matches(&format!("{POOL_LABEL}=\"a\"")).count());
                    continue;
                }
                let actual = known.labels(&query).unwrap_or_else(|problem| panic!("{}: {problem}", alert.name));
                let label = between(with, "first | label \"", "\"")[0];
                assert!(actual.contains(label), "{}: {query} has no {label}", alert.name);
                if with.starts_with("printf") {
                    assert!(
                        query.starts_with("sort_desc(") && [" > 0)", " >= 0)"].iter().any(|end| query.ends_with(end)),
                        "{query}"
                    );
                    // Each selector is limited to the alert's pool.
                    assert_eq!(
                        query.matches('{').count(),
                        query.matches("job=\"a\",instance=\"a\"").count(),
                        "{query}"
                    );
                }
            }
        }
    }
    assert!(queries > 30, "{queries}");
}

#[test]
fn pool_alerts_name_the_top_contributor() {
    // An unknown message has no contributor.
    let exempt = BTreeSet::from(["PoolscopeWiresLost"]);
    for alert in alerts(&thresholds()) {
        // A diagnosis names the operation itself, if one is responsible.
        let expected = alert.scope == Scope::Pool && !exempt.contains(alert.name) && alert.diagnosed.is_none();
        assert_eq!(!alert.contributors.is_empty(), expected, "{}", alert.name);
        if expected {
            assert!(annotation(&alert, "description").contains("first | label \""), "{}", alert.name);
        }
    }
}

#[test]
fn annotations_are_complete() {
    for alert in alerts(&thresholds()) {
        let name = alert.name;
        assert!(name.starts_with("Poolscope") && name.chars().all(char::is_alphanumeric), "{name}");
        assert!(!annotation(&alert, "summary").contains("{{"), "{name}: the summary is not constant");
        let description = annotation(&alert, "description");
        for subject in match alert.scope {
            Scope::Pool => &["$labels.instance", POOL_LABEL][..],
            Scope::Fleet => &["$labels.job", POOL_LABEL],
            Scope::Instance | Scope::Target => &["$labels.instance", "$labels.job"],
            _ => &["$labels.job"],
        } {
            assert!(description.contains(subject), "{name}: {description}");
        }
        let has_value = description.contains("$value | humanize") || description.contains("$value | printf");
        // An absent subject has no value.
        let absent = matches!(alert.scope, Scope::Target | Scope::Job) || name == "PoolscopeServerDown";
        assert_eq!(has_value, !absent, "{name}: {description}");
        assert!(annotation(&alert, "runbook_url").contains(&format!("/runbooks/{name}")), "{name}");
        assert!(annotation(&alert, "dashboard_url").starts_with("http://localhost:3000/d/poolscope-"), "{name}");
        assert!(alert.for_duration.value >= 2.0 * thresholds().scrape_interval.value, "{name} fires too soon");
    }
}

#[test]
fn base_urls_of_links_are_configurable() {
    let links = Links {
        runbooks: Runbooks::At("https://wiki.example/pools/".to_owned()),
        grafana: Some("https://grafana.example/g/".to_owned()),
    };
    for alert in alerts(&thresholds()) {
        let all = annotations(&alert, &links);
        let [_, _, (_, runbook), (_, dashboard)] = &all[..] else { panic!("{all:?}") };
        assert_eq!(*runbook, format!("https://wiki.example/pools/{}", alert.name));
        assert!(dashboard.starts_with("https://grafana.example/g/d/poolscope-"), "{dashboard}");
    }
}

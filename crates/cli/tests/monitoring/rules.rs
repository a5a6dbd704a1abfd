//! The rules, as data: what they select exists, and they keep to what makes a good alert.

use std::collections::BTreeSet;

use poolscope::telemetry::catalogue::POOL_LABEL;
use poolscope_cli::monitoring::Thresholds;
use poolscope_cli::monitoring::rules::alerts::{Alert, Scope, alerts};
use poolscope_cli::monitoring::rules::recording::{recordings, slow_recordings};
use poolscope_cli::monitoring::rules::{Links, annotations};

use crate::promql::{Labels, World, labels};

fn thresholds() -> Thresholds {
    Thresholds::committed().expect("thresholds")
}

/// The catalogue and what is recorded.
pub(crate) fn world() -> World {
    let thresholds = thresholds();
    let mut world = World::new(4 * 15);
    assert_eq!(thresholds.scrape_interval.value, 15.0);
    for rule in recordings(&thresholds).iter().chain(&slow_recordings(&thresholds)) {
        world.record(&rule.name, &rule.expr);
    }
    world
}

fn annotation(alert: &Alert, name: &str) -> String {
    let all = annotations(alert, &Links::default());
    all.into_iter().find(|(known, _)| *known == name).expect(name).1
}

/// What stands between each `from` and the next `to`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> Vec<&'a str> {
    text.split(from).skip(1).filter_map(|rest| rest.split_once(to)).map(|(inner, _)| inner).collect()
}

#[test]
fn recording_rules_are_named_by_level_metric_and_operation() {
    let thresholds = thresholds();
    let world = world();
    for rule in recordings(&thresholds).iter().chain(&slow_recordings(&thresholds)) {
        let parts: Vec<_> = rule.name.split(':').collect();
        let [level, metric, operation] = parts[..] else { panic!("{}", rule.name) };
        assert!(!metric.is_empty() && !operation.is_empty(), "{}", rule.name);
        let found = world.labels(&rule.name).expect("recorded");
        let expected: &[&str] = match level {
            "pool" => &["job", "instance", POOL_LABEL],
            "operation" => &["job", "instance", POOL_LABEL, "operation"],
            "activity" => &["job", "instance", POOL_LABEL, "activity"],
            "fleet" => &["job", POOL_LABEL],
            other => panic!("{}: what is {other}?", rule.name),
        };
        assert_eq!(found, labels(expected), "{}", rule.name);
        assert!(rule.help.ends_with('.'), "{}", rule.name);
    }
}

#[test]
fn there_is_one_alert_for_each_thing_that_it_is_about() {
    let world = world();
    for alert in alerts(&thresholds()) {
        let found = world.labels(&alert.expr).unwrap_or_else(|problem| panic!("{}: {problem}", alert.name));
        let mut expected: Labels = match alert.scope {
            Scope::Pool => labels(&["job", "instance", POOL_LABEL]),
            Scope::Fleet => labels(&["job", POOL_LABEL]),
            Scope::Instance | Scope::Target => labels(&["job", "instance"]),
            Scope::Job => labels(&["job"]),
            other => panic!("{}: what is {other:?}?", alert.name),
        };
        if alert.name == "PoolscopeSpanExportFailing" {
            expected.insert("destination".to_owned());
        }
        assert_eq!(found, expected, "{}", alert.name);
        for name in ["description", "runbook_url", "dashboard_url"] {
            let text = annotation(&alert, name);
            for label in between(&text, "$labels.", " ") {
                let label = label.trim_end_matches(|c: char| !c.is_alphanumeric());
                assert!(found.contains(label), "{} has no label {label}", alert.name);
            }
        }
    }
}

#[test]
fn what_templates_ask_exists_and_is_read_from_a_label_that_is_there() {
    let world = world();
    let mut asked = 0;
    for alert in alerts(&thresholds()) {
        for name in ["description", "runbook_url"] {
            let text = annotation(&alert, name);
            for with in text.split("{{ with ").skip(1).filter(|with| with.starts_with(['p', 'q'])) {
                let query = with.split('`').nth(1).expect("a query").to_owned();
                let query = (1..=3).fold(query, |query, at| query.replace(&format!("%[{at}]q"), "\"a\""));
                let found = world.labels(&query).unwrap_or_else(|problem| panic!("{}: {problem}", alert.name));
                let label = between(with, "first | label \"", "\"")[0];
                assert!(found.contains(label), "{}: {query} has no {label}", alert.name);
                if with.starts_with("printf") {
                    assert!(query.starts_with("sort_desc(") && query.ends_with(" > 0)"), "{query}");
                    // Each selector is about the alert's own pool.
                    assert_eq!(
                        query.matches('{').count(),
                        query.matches("job=\"a\",instance=\"a\"").count(),
                        "{query}"
                    );
                }
                asked += 1;
            }
        }
    }
    assert!(asked > 30, "{asked}");
}

#[test]
fn each_alert_of_a_pool_names_who_is_to_blame() {
    // Nobody is: a protocol that is not understood.
    let exempt = BTreeSet::from(["PoolscopeWiresLost"]);
    for alert in alerts(&thresholds()) {
        let blames = alert.scope == Scope::Pool && !exempt.contains(alert.name);
        assert_eq!(!alert.blame.is_empty(), blames, "{}", alert.name);
        if blames {
            assert!(annotation(&alert, "description").contains("first | label \""), "{}", alert.name);
        }
    }
}

#[test]
fn each_alert_says_what_is_wrong_how_much_and_where_to_read_on() {
    for alert in alerts(&thresholds()) {
        let name = alert.name;
        assert!(name.starts_with("Poolscope") && name.chars().all(char::is_alphanumeric), "{name}");
        assert!(!annotation(&alert, "summary").contains("{{"), "{name}: a summary is always the same");
        let description = annotation(&alert, "description");
        for of in match alert.scope {
            Scope::Pool => &["$labels.instance", POOL_LABEL][..],
            Scope::Fleet => &["$labels.job", POOL_LABEL],
            Scope::Instance | Scope::Target => &["$labels.instance", "$labels.job"],
            _ => &["$labels.job"],
        } {
            assert!(description.contains(of), "{name}: {description}");
        }
        let valued = description.contains("$value | humanize") || description.contains("$value | printf");
        // What is simply not there has no value.
        let gone = matches!(alert.scope, Scope::Target | Scope::Job) || name == "PoolscopeServerDown";
        assert_eq!(valued, !gone, "{name}: {description}");
        assert!(annotation(&alert, "runbook_url").contains(&format!("/runbooks/{name}")), "{name}");
        assert!(annotation(&alert, "dashboard_url").starts_with("http://localhost:3000/d/poolscope-"), "{name}");
        assert!(alert.pending.value >= 2.0 * thresholds().scrape_interval.value, "{name} fires too soon");
    }
}

#[test]
fn links_may_lead_elsewhere() {
    let links = Links {
        runbooks: Some("https://wiki.example/pools/".to_owned()),
        grafana: Some("https://grafana.example/g/".to_owned()),
    };
    for alert in alerts(&thresholds()) {
        let all = annotations(&alert, &links);
        let [_, _, (_, runbook), (_, dashboard)] = &all;
        assert_eq!(*runbook, format!("https://wiki.example/pools/{}", alert.name));
        assert!(dashboard.starts_with("https://grafana.example/g/d/poolscope-"), "{dashboard}");
    }
}

//! The example configuration for Alertmanager, checked with amtool.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use poolscope_cli::monitoring::Thresholds;
use poolscope_cli::monitoring::rules::alerts::{Severity, alerts};

use serde_json::{Value, json};

use crate::notifications::{Webhook, add_alerts, alertmanager, configuration};
use crate::tools::{at, run};

const EXAMPLE: &str = "alerts/alertmanager.yml";

#[test]
fn amtool_accepts_the_example() {
    let (success, output) = run(Command::new("amtool").arg("check-config").arg(at(EXAMPLE)));
    assert!(success && output.contains("SUCCESS"), "{output}");
}

#[test]
fn severities_route_to_their_receivers() {
    for (severity, receiver) in [(Severity::Critical, "page"), (Severity::Warning, "ticket")] {
        let mut command = Command::new("amtool");
        command.args(["config", "routes", "test", "--verify.receivers", receiver, "--config.file"]).arg(at(EXAMPLE));
        command.args(["alertname=PoolscopePoolExhausted", &format!("severity={}", severity.as_str())]);
        let (success, output) = run(&mut command);
        assert!(success, "{severity:?}: {output}");
    }
}

#[test]
fn inhibited_alerts_are_related_to_their_source() {
    let alerts = alerts(&Thresholds::committed().expect("thresholds"));
    let example = fs::read_to_string(at(EXAMPLE)).expect(EXAMPLE);
    let named = |line: &str| -> BTreeSet<String> {
        let words = line.split(|c: char| !c.is_alphanumeric());
        words.filter(|word| word.starts_with("Poolscope") && *word != "Poolscope").map(str::to_owned).collect()
    };
    let mut sources = BTreeSet::new();
    for line in example.lines().map(str::trim) {
        if line.starts_with("- source_matchers") {
            sources = named(line);
        } else if line.starts_with("target_matchers") && !line.contains("Poolscope.+") {
            for target in named(line) {
                let [source] = &sources.iter().collect::<Vec<_>>()[..] else { panic!("{line}") };
                let source = alerts.iter().find(|alert| alert.name == **source).expect("an alert");
                assert!(source.related().contains(&&*target), "{} does not list {target} as related", source.name);
            }
        }
        // The route of budgets matches a prefix.
        for name in named(line).into_iter().filter(|_| !line.contains("Poolscope(")) {
            assert!(alerts.iter().any(|alert| alert.name == name), "unknown alert {name}");
        }
    }
}

/// A fault of all instances of a job is one notification, about its cause.
#[tokio::test]
async fn cause_on_all_instances_is_one_notification() {
    let webhook = Webhook::start();
    let alertmanager = alertmanager(&configuration(&webhook)).await;
    let alert = |name: &str, instance: usize, severity: &str| {
        json!({"labels": {
            "alertname": name, "severity": severity, "job": "shop", "instance": format!("shop-{instance}:9719"),
            "db_client_connection_pool_name": "db:5432/shop",
        }})
    };
    let alerts: Vec<_> = (1..=20)
        .flat_map(|instance| {
            [
                alert("PoolscopeDiagnosedServerDown", instance, "critical"),
                alert("PoolscopeServerDown", instance, "critical"),
                alert("PoolscopeConnectingFails", instance, "critical"),
                alert("PoolscopePoolExhausted", instance, "critical"),
                alert("PoolscopeCheckoutWaitHigh", instance, "warning"),
            ]
        })
        // Nothing explains this one, which is the last to be notified about.
        .chain([alert("PoolscopeDirtyReturns", 1, "warning")])
        .collect();
    add_alerts(&alertmanager, &json!(alerts));
    let names = || -> Vec<_> {
        let name = |notification: &Value| notification["groupLabels"]["alertname"].as_str().map(str::to_owned);
        webhook.firing("shop").iter().filter_map(name).collect()
    };
    let begun = Instant::now();
    while !names().contains(&"PoolscopeDirtyReturns".to_owned()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", names());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(names(), ["PoolscopeDiagnosedServerDown", "PoolscopeDirtyReturns"]);
    assert_eq!(webhook.firing("shop")[0]["alerts"].as_array().map(Vec::len), Some(20));
}

/// The alert of a cause that has ended is kept firing. It inhibits symptoms, and no other cause; an alert on a leak, which is a
/// ticket, inhibits no page.
#[tokio::test]
async fn next_cause_and_budgets_of_a_leaking_pool_page() {
    let webhook = Webhook::start();
    let alertmanager = alertmanager(&configuration(&webhook)).await;
    let alert = |name: &str, pool: &str, severity: &str| {
        json!({"labels": {
            "alertname": name, "severity": severity, "job": "shop", "instance": "shop-1:9719",
            "db_client_connection_pool_name": pool,
        }})
    };
    let expected = BTreeSet::from([
        "PoolscopeDiagnosedServerDown",
        "PoolscopeDiagnosedSlowQueries",
        "PoolscopeDiagnosedLeak",
        "PoolscopeTimeoutBudgetBurnsFast",
    ]);
    let alerts = json!([
        alert("PoolscopeDiagnosedServerDown", "a", "critical"),
        alert("PoolscopeDiagnosedSlowQueries", "a", "critical"),
        alert("PoolscopeSlowQueries", "a", "warning"),
        alert("PoolscopeDiagnosedLeak", "b", "warning"),
        alert("PoolscopeSuspectedLeak", "b", "warning"),
        alert("PoolscopeTimeoutBudgetBurnsFast", "b", "critical"),
        // The alert on an exhausted pool is a page, and inhibits those on budgets.
        alert("PoolscopeDiagnosedLeak", "c", "warning"),
        alert("PoolscopePoolExhausted", "c", "critical"),
        alert("PoolscopeTimeoutBudgetBurnsFast", "c", "critical"),
    ]);
    add_alerts(&alertmanager, &alerts);
    let pools_of = |alert: &str| -> BTreeSet<String> {
        let of_alert = webhook.firing("shop").into_iter().filter(|it| it["groupLabels"]["alertname"] == alert);
        of_alert
            .map(|it| it["groupLabels"]["db_client_connection_pool_name"].as_str().unwrap_or("").to_owned())
            .collect()
    };
    let begun = Instant::now();
    // The alerts on budgets are the last to be notified about.
    while pools_of("PoolscopeTimeoutBudgetBurnsFast").is_empty() || expected.iter().any(|it| pools_of(it).is_empty()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", webhook.firing("shop"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(pools_of("PoolscopeTimeoutBudgetBurnsFast"), BTreeSet::from(["b".to_owned()]));
    for inhibited in ["PoolscopeSlowQueries", "PoolscopeSuspectedLeak"] {
        assert!(pools_of(inhibited).is_empty(), "{inhibited}");
    }
}

//! The example configuration for Alertmanager, `alerts/alertmanager.yml`: routing by severity, and inhibition of alerts that
//! another alert explains.

use std::fmt::Write as _;

use super::generated::COMMAND;
use super::names::POOL_LABEL;
use super::rules::alerts::{Alert, alerts};
use super::thresholds::Thresholds;

const ROUTES: &str = r#"
route:
  receiver: ticket
  # One notification per pool and job, regardless of the number of instances.
  group_by: [alertname, job, db_client_connection_pool_name]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 12h
  routes:
    # What spends a budget usually has an alert of its own, which inhibits these if it fires meanwhile.
    - receiver: page
      matchers: ['alertname =~ "Poolscope(Timeout|Wait)BudgetBurnsFast"', 'severity = "critical"']
      group_wait: 2m
      repeat_interval: 1h
    - receiver: page
      matchers: ['alertname =~ "Poolscope.+"', 'severity = "critical"']
      group_wait: 10s
      repeat_interval: 1h
    - receiver: ticket
      matchers: ['alertname =~ "Poolscope.+"', 'severity = "warning"']

receivers:
  - name: page
    webhook_configs:
      - url: http://127.0.0.1:9095/page
        send_resolved: true
  - name: ticket
    webhook_configs:
      - url: http://127.0.0.1:9095/ticket
        send_resolved: true

inhibit_rules:
  # A target that cannot be scraped: its other alerts are outdated.
  - source_matchers: ['alertname = "PoolscopeTargetDown"']
    target_matchers: ['alertname =~ "Poolscope.+"', 'alertname != "PoolscopeTargetDown"']
    equal: [job, instance]

  # A job without metrics: its single targets add nothing.
  - source_matchers: ['alertname = "PoolscopeMetricsAbsent"']
    target_matchers: ['alertname = "PoolscopeTargetDown"']
    equal: [job]
"#;

/// An alert on a pool that explains others, with or without a diagnosis.
struct Explanation {
    reason: &'static str,
    source: &'static str,
    targets: &'static [&'static str],
}

const EXPLANATIONS: &[Explanation] = &[
    Explanation {
        reason: "An exhausted pool is saturated, and has waiters, slow checkouts and timeouts.",
        source: "PoolscopePoolExhausted",
        targets: &[
            "PoolscopePoolSaturated",
            "PoolscopeWaitersSustained",
            "PoolscopeCheckoutWaitHigh",
            "PoolscopeTimeoutBudgetBurns",
            "PoolscopeTimeoutBudgetBurnsFast",
            "PoolscopeWaitBudgetBurns",
            "PoolscopeWaitBudgetBurnsFast",
        ],
    },
    Explanation {
        reason: "A saturated pool has waiters and slow checkouts.",
        source: "PoolscopePoolSaturated",
        targets: &["PoolscopeWaitersSustained", "PoolscopeCheckoutWaitHigh"],
    },
    Explanation {
        reason: "A fast burn rate implies the slow one, and checkouts that time out are slow.",
        source: "PoolscopeTimeoutBudgetBurnsFast",
        targets: &["PoolscopeTimeoutBudgetBurns", "PoolscopeWaitBudgetBurns", "PoolscopeWaitBudgetBurnsFast"],
    },
    Explanation {
        reason: "Checkouts that time out are slow.",
        source: "PoolscopeTimeoutBudgetBurns",
        targets: &["PoolscopeWaitBudgetBurns"],
    },
    Explanation {
        reason: "A fast burn rate implies the slow one.",
        source: "PoolscopeWaitBudgetBurnsFast",
        targets: &["PoolscopeWaitBudgetBurns"],
    },
    Explanation {
        reason: "A server that does not answer explains failed connection attempts, retries, and slow or failed checkouts.",
        source: "PoolscopeServerDown",
        targets: &[
            "PoolscopeConnectingFails",
            "PoolscopeCheckoutErrors",
            "PoolscopeManyCheckouts",
            "PoolscopeRetryBudgetSpent",
            "PoolscopeRetryStorm",
            "PoolscopeCheckoutWaitHigh",
            "PoolscopeTimeoutBudgetBurns",
            "PoolscopeTimeoutBudgetBurnsFast",
            "PoolscopeWaitBudgetBurns",
            "PoolscopeWaitBudgetBurnsFast",
        ],
    },
    Explanation {
        reason: "A full server explains failed connection attempts and checkouts, and low free slots.",
        source: "PoolscopeServerFull",
        targets: &["PoolscopeConnectingFails", "PoolscopeCheckoutErrors", "PoolscopeServerSlotsLow"],
    },
    Explanation {
        reason: "Failed connection attempts explain failed checkouts.",
        source: "PoolscopeConnectingFails",
        targets: &["PoolscopeCheckoutErrors"],
    },
    Explanation {
        reason: "A spent retry budget implies a retry storm.",
        source: "PoolscopeRetryBudgetSpent",
        targets: &["PoolscopeRetryStorm"],
    },
];

/// Returns the content of `alerts/alertmanager.yml`.
#[must_use]
pub fn file(thresholds: &Thresholds) -> String {
    let mut file = format!(
        "# Example configuration for Alertmanager: routing by severity, and inhibition of alerts that another alert \
         explains.\n# `amtool check-config alerts/alertmanager.yml` checks it. Replace the two webhook addresses with \
         your receivers.\n#\n# Generated from crates/cli/src/monitoring/alertmanager.rs and the rules of the diagnosis. \
         Regenerate with\n# `{COMMAND}`.\n{ROUTES}"
    );
    file.push_str("\n  # A diagnosed cause explains its symptoms.\n");
    for Alert { name, diagnosed, .. } in &alerts(thresholds) {
        if let Some(diagnosed) = diagnosed.as_ref().filter(|diagnosed| !diagnosed.inhibits.is_empty()) {
            rule(&mut file, name, &diagnosed.inhibits);
        }
    }
    for Explanation { reason, source, targets } in EXPLANATIONS {
        // Writing to a string does not fail.
        let _ = writeln!(file, "\n  # {reason}");
        rule(&mut file, source, targets);
    }
    file
}

/// Adds a rule: an alert inhibits others on the same pool of the same instance.
fn rule(file: &mut String, source: &str, targets: &[&str]) {
    let operator = if targets.len() == 1 { "=" } else { "=~" };
    let _ = writeln!(
        file,
        "  - source_matchers: ['alertname = \"{source}\"']\n    target_matchers: ['alertname {operator} \"{}\"']\n    \
         equal: [job, instance, {POOL_LABEL}]",
        targets.join("|")
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::generated::assert_current;
    use super::super::rules::alerts::Severity;
    use super::*;

    #[test]
    fn example_is_current() {
        assert_current("alerts/alertmanager.yml", &file(&Thresholds::committed().unwrap()));
    }

    #[test]
    fn no_ticket_inhibits_a_page() {
        let alerts = alerts(&Thresholds::committed().unwrap());
        let severity = |name: &str| alerts.iter().find(|alert| alert.name == name).expect(name).severity;
        let diagnosed = alerts.iter().filter_map(|alert| Some((alert.name, &*alert.diagnosed.as_ref()?.inhibits)));
        let explained = EXPLANATIONS.iter().map(|explanation| (explanation.source, explanation.targets));
        let mut inhibited = 0;
        for (source, targets) in diagnosed.chain(explained) {
            for target in targets {
                let suppresses_page = severity(source) == Severity::Warning && severity(target) == Severity::Critical;
                assert!(!suppresses_page, "{source} inhibits {target}");
                inhibited += 1;
            }
        }
        assert!(inhibited > 100, "{inhibited}");
    }
}

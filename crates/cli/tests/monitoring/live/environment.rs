//! Prometheus and Alertmanager, and their state.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use poolscope_cli::monitoring::Thresholds;
use poolscope_cli::monitoring::rules::{self, Links};
use tokio::runtime::Runtime;

use crate::notifications::{Webhook, alertmanager, configuration};
use poolscope_testing::prometheus::{Prometheus, TimeSeries};
use poolscope_testing::server_process::ServerProcess;

/// The scrape and evaluation interval.
const PACE: Duration = Duration::from_secs(1);

/// The interval at which awaited conditions are checked.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// Targets are read from files, so that each is scraped as soon as it exists.
const PROMETHEUS_CONFIG: &str = "
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
scrape_configs:
- {job_name: demos, file_sd_configs: [{files: ['targets-*.json']}]}
";

/// A firing alert in Alertmanager.
#[derive(Debug, Default)]
pub(super) struct FiringAlert {
    pub(super) descriptions: BTreeSet<String>,
    /// Whether another alert inhibits it.
    pub(super) inhibited: bool,
}

/// Firing alerts by name.
pub(super) type FiringAlerts = BTreeMap<String, FiringAlert>;

/// A running Prometheus with an Alertmanager.
pub(super) struct Environment {
    runtime: Runtime,
    prometheus: Prometheus,
    alertmanager: ServerProcess,
    webhook: Webhook,
}

impl Environment {
    pub(super) fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let webhook = Webhook::start();
        let (prometheus, alertmanager) = runtime.block_on(async {
            let alertmanager = alertmanager(&configuration(&webhook)).await;
            let rules = rules::all(&thresholds(), &Links::of_compose());
            let alerting = format!(
                "alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}",
                alertmanager.address()
            );
            let config = format!("{PROMETHEUS_CONFIG}{alerting}\n");
            let files = [("prometheus.yml", &*config), ("rules.yml", &rules)];
            (Prometheus::configured(&files).await, alertmanager)
        });
        Self { runtime, prometheus, alertmanager, webhook }
    }

    /// Adds a target to scrape.
    pub(super) fn scrape(&self, job: &str, address: SocketAddr) {
        let target = serde_json::json!([{ "targets": [address.to_string()], "labels": { "job": job } }]);
        let directory = self.prometheus.directory();
        let (new, name) = (directory.join(format!("new-{job}")), directory.join(format!("targets-{job}.json")));
        // Renaming keeps Prometheus from reading a partial file.
        fs::write(&new, target.to_string()).and_then(|()| fs::rename(new, name)).expect("a target");
    }

    /// Returns the alerts of a job that fire now, including inhibited ones.
    pub(super) fn firing(&self, job: &str) -> FiringAlerts {
        let alerts = self.runtime.block_on(self.alertmanager.json("/api/v2/alerts"));
        let mut firing = FiringAlerts::new();
        for alert in alerts.as_array().expect("alerts") {
            if alert["labels"]["job"] == job {
                let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
                let entry = firing.entry(text(&alert["labels"]["alertname"])).or_default();
                entry.descriptions.insert(text(&alert["annotations"]["description"]));
                entry.inhibited |= alert["status"]["inhibitedBy"].as_array().is_some_and(|by| !by.is_empty());
            }
        }
        firing
    }

    /// Returns the names of the alerts of a job that Alertmanager has notified about, in their order.
    ///
    /// Each is listed once: Alertmanager repeats a notification that was not acknowledged in time.
    pub(super) fn notified(&self, job: &str) -> Vec<String> {
        let mut names = Vec::new();
        for notification in self.webhook.firing(job) {
            let name = notification["groupLabels"]["alertname"].as_str().unwrap_or_default().to_owned();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Returns the values of an expression for each second.
    pub(super) fn query_range(&self, expression: &str, from: SystemTime, to: SystemTime) -> TimeSeries {
        self.runtime.block_on(self.prometheus.query_range(expression, from, to))
    }

    /// Returns the names of the alerts of a job that fired in a period.
    pub(super) fn fired(&self, job: &str, from: SystemTime, to: SystemTime) -> BTreeSet<String> {
        let firing = format!("ALERTS{{alertstate=\"firing\",job=\"{job}\"}}");
        let series = self.query_range(&firing, from, to).into_iter();
        series.map(|(labels, _)| labels["alertname"].as_str().expect("a name").to_owned()).collect()
    }

    /// Returns the sum of the current values of an expression.
    pub(super) fn query(&self, expression: &str) -> f64 {
        self.runtime.block_on(self.prometheus.query(expression)).iter().map(|(_, value)| value).sum()
    }
}

/// Waits until `condition` is true. Returns whether that was within `timeout`.
pub(super) fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > timeout {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Returns the committed thresholds, scaled to the tests' pace.
///
/// The diagnosis itself is not faster than in production. It takes up to 30 s, as much as a page waits for at least, so that
/// the alert that names the cause comes first.
pub(super) fn thresholds() -> Thresholds {
    let mut thresholds = Thresholds::committed().expect("thresholds").paced(PACE);
    thresholds.for_page.value = 30.0;
    thresholds
}

//! Prometheus and Alertmanager, and what the latter was told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use poolscope_cli::monitoring::Thresholds;
use poolscope_cli::monitoring::rules::{self, Links};
use tokio::runtime::Runtime;

use crate::tools::at;
use poolscope_testing::prometheus::{Prometheus, TimeSeries};
use poolscope_testing::server_process::ServerProcess;

/// How often Prometheus scrapes and evaluates.
const PACE: Duration = Duration::from_secs(1);

/// How often somebody looks whether what is awaited has come.
const LOOK: Duration = Duration::from_millis(300);

/// Targets are found in files, so that each is scraped as soon as it is there.
const CONFIGURATION: &str = "
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
scrape_configs:
- {job_name: demos, file_sd_configs: [{files: ['targets-*.json']}]}
";

/// What Alertmanager was told of an alert.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) descriptions: BTreeSet<String>,
    /// Whether nobody is told of it, since another alert says it already.
    pub(super) muted: bool,
}

/// Alerts that fire, as Alertmanager was told, by their names.
pub(super) type Told = BTreeMap<String, Said>;

/// Who watches.
pub(super) struct Stage {
    runtime: Runtime,
    prometheus: Prometheus,
    alertmanager: ServerProcess,
}

impl Stage {
    pub(super) fn set() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (prometheus, alertmanager) = runtime.block_on(async {
            let example = fs::read_to_string(at("alerts/alertmanager.yml")).expect("the example");
            let alertmanager = ServerProcess::start("alertmanager", &[("alertmanager.yml", &example)], arguments).await;
            let rules = rules::all(&thresholds(), &Links::default());
            let told = format!(
                "alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}",
                alertmanager.address()
            );
            let configuration = format!("{CONFIGURATION}{told}\n");
            let files = [("prometheus.yml", &*configuration), ("rules.yml", &rules)];
            (Prometheus::configured(&files).await, alertmanager)
        });
        Self { runtime, prometheus, alertmanager }
    }

    /// Has an address scraped from now on, as the target of a job.
    pub(super) fn scrape(&self, job: &str, address: SocketAddr) {
        let target = serde_json::json!([{ "targets": [address.to_string()], "labels": { "job": job } }]);
        let directory = self.prometheus.directory();
        let (new, name) = (directory.join(format!("new-{job}")), directory.join(format!("targets-{job}.json")));
        // It is never read in halves.
        fs::write(&new, target.to_string()).and_then(|()| fs::rename(new, name)).expect("a target");
    }

    /// What Alertmanager says fires of a job now, muted or not.
    pub(super) fn told(&self, job: &str) -> Told {
        let alerts = self.runtime.block_on(self.alertmanager.json("/api/v2/alerts"));
        let mut told = Told::new();
        for alert in alerts.as_array().expect("alerts") {
            if alert["labels"]["job"] == job {
                let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
                let said = told.entry(text(&alert["labels"]["alertname"])).or_default();
                said.descriptions.insert(text(&alert["annotations"]["description"]));
                said.muted |= alert["status"]["inhibitedBy"].as_array().is_some_and(|by| !by.is_empty());
            }
        }
        told
    }

    /// What an expression has been each second.
    pub(super) fn course(&self, expression: &str, from: SystemTime, to: SystemTime) -> TimeSeries {
        self.runtime.block_on(self.prometheus.query_range(expression, from, to))
    }

    /// The names of the alerts of a job that fired in between, as Prometheus knows it.
    pub(super) fn fired(&self, job: &str, from: SystemTime, to: SystemTime) -> BTreeSet<String> {
        let firing = format!("ALERTS{{alertstate=\"firing\",job=\"{job}\"}}");
        let course = self.course(&firing, from, to).into_iter();
        course.map(|(labels, _)| labels["alertname"].as_str().expect("a name").to_owned()).collect()
    }

    /// The sum of what an expression is now.
    pub(super) fn now(&self, expression: &str) -> f64 {
        self.runtime.block_on(self.prometheus.query(expression)).iter().map(|(_, value)| value).sum()
    }
}

/// Waits until it holds; whether it did in time.
pub(super) fn comes(within: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if begun.elapsed() > within {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// Those that are committed, at the pace of the tests.
pub(super) fn thresholds() -> Thresholds {
    Thresholds::committed().expect("thresholds").paced(PACE)
}

fn arguments(directory: &Path, address: SocketAddr) -> Vec<String> {
    vec![
        format!("--config.file={}", directory.join("alertmanager.yml").display()),
        format!("--storage.path={}", directory.join("data").display()),
        format!("--web.listen-address={address}"),
        "--cluster.listen-address=".to_owned(),
    ]
}

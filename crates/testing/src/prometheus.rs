//! A Prometheus server that ends with the test that started it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::server_process::ServerProcess;

/// A Prometheus server. Dropping it kills it and removes its files.
#[derive(Debug)]
pub struct Prometheus(ServerProcess);

/// The result of a range query: labels, and samples as pairs of time and value.
pub type TimeSeries = Vec<(Value, Vec<(f64, f64)>)>;

impl Prometheus {
    /// Starts a server that scrapes one target per job, five times a second.
    pub async fn start(jobs: &[(&str, SocketAddr)]) -> Self {
        let mut config = "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\nscrape_configs:\n".to_owned();
        for (job, target) in jobs {
            config += &format!("- {{job_name: {job}, static_configs: [{{targets: ['{target}']}}]}}\n");
        }
        Self::configured(&[("prometheus.yml", &config)]).await
    }

    /// Starts a server with these files, one of which is `prometheus.yml`.
    pub async fn configured(files: &[(&str, &str)]) -> Self {
        let arguments = |directory: &Path, address: SocketAddr| {
            let path = |name| directory.join(name).display().to_string();
            vec![
                format!("--config.file={}", path("prometheus.yml")),
                format!("--storage.tsdb.path={}", path("data")),
                format!("--web.listen-address={address}"),
                "--enable-feature=exemplar-storage".to_owned(),
                // Tests wait for changed annotations of alerts.
                "--rules.alert.resend-delay=2s".to_owned(),
            ]
        };
        Self(ServerProcess::start("prometheus", files, arguments).await)
    }

    /// Returns the directory of its files.
    pub fn directory(&self) -> &Path {
        self.0.directory()
    }

    /// Returns the data of an API response.
    pub async fn api(&self, path: &str) -> Value {
        let answer = self.0.json(path).await;
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// Returns the current values of an expression, by job.
    pub async fn query(&self, expression: &str) -> Vec<(String, f64)> {
        let data = self.api(&format!("/api/v1/query?query={}", encoded(expression))).await;
        let series = data["result"].as_array().expect("a vector").iter();
        let mut values: Vec<_> = series
            .map(|series| (series["metric"]["job"].as_str().unwrap_or_default().to_owned(), sample(&series["value"]).1))
            .collect();
        values.sort_by(|(one, _), (other, _)| one.cmp(other));
        values
    }

    /// Returns the values of an expression for each second between two times.
    pub async fn query_range(&self, expression: &str, from: SystemTime, to: SystemTime) -> TimeSeries {
        let (from, to) = (seconds(from), seconds(to));
        let path = format!("/api/v1/query_range?query={}&start={from}&end={to}&step=1", encoded(expression));
        let data = self.api(&path).await;
        let series = data["result"].as_array().expect("a matrix").iter();
        let samples = |series: &Value| series["values"].as_array().expect("samples").iter().map(sample).collect();
        series.map(|series| (series["metric"].clone(), samples(series))).collect()
    }

    /// Returns the labels of a series' exemplars in the last ten minutes.
    pub async fn exemplars(&self, series: &str) -> Vec<Value> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs();
        let (start, end) = (now - 600, now + 60);
        let data = self.api(&format!("/api/v1/query_exemplars?query={series}&start={start}&end={end}")).await;
        let series = data.as_array().expect("a list").iter();
        let exemplars = series.flat_map(|series| series["exemplars"].as_array().expect("a list"));
        exemplars.map(|exemplar| exemplar["labels"].clone()).collect()
    }
}

fn encoded(expression: &str) -> String {
    utf8_percent_encode(expression, NON_ALPHANUMERIC).to_string()
}

/// Returns a time in seconds since 1970, as Prometheus expects it.
pub fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs_f64()
}

fn sample(pair: &Value) -> (f64, f64) {
    let value = pair[1].as_str().expect("a value").parse().expect("a number");
    (pair[0].as_f64().expect("a time"), value)
}

//! A Prometheus of one test's own, which ends with it.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Long enough for a busy machine: only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps the server, and outlives whoever started it only to clean up: a destructor does not run when a process is
/// killed, but the other end of this script's standard input is closed then.
const KEEPER: &str = r#"
trap '' HUP INT TERM
prometheus --config.file="$1/prometheus.yml" --storage.tsdb.path="$1/data" --web.listen-address="$2" \
    --enable-feature=exemplar-storage >"$1/log" 2>&1 </dev/null &
server=$!
cat >/dev/null
kill -s KILL "$server"
wait "$server"
rm -rf -- "$1"
"#;

/// A Prometheus that scrapes. Dropping it ends it and removes what it has written.
pub(crate) struct Prometheus {
    keeper: Child,
    directory: PathBuf,
    address: SocketAddr,
}

impl Prometheus {
    /// One that scrapes these jobs, each at an address of its own, five times a second.
    pub(crate) async fn start(jobs: &[(&str, SocketAddr)]) -> Self {
        // Another process may take the port that was free a moment ago.
        for _ in 0..5 {
            let mut prometheus = Self::spawn(jobs);
            if prometheus.is_ready().await {
                return prometheus;
            }
        }
        panic!("five ports in a row were taken by others");
    }

    fn spawn(jobs: &[(&str, SocketAddr)]) -> Self {
        let directory = tempfile::Builder::new().prefix("poolscope-prometheus-").tempdir().expect("a directory").keep();
        let mut config = "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\nscrape_configs:\n".to_owned();
        for (job, target) in jobs {
            config += &format!("- {{job_name: {job}, static_configs: [{{targets: ['{target}']}}]}}\n");
        }
        fs::write(directory.join("prometheus.yml"), config).expect("a configuration");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let keeper = Command::new("/bin/sh")
            .args(["-c", KEEPER, "poolscope-prometheus"])
            .arg(&directory)
            .arg(address.to_string())
            // What ends the test in a terminal is not to end the one that cleans up after it.
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        Self { keeper, directory, address }
    }

    /// Whether it came to answer, rather than find its port taken.
    async fn is_ready(&mut self) -> bool {
        let begun = Instant::now();
        loop {
            if self.get("/-/ready").await.is_ok_and(|answer| answer.contains("Ready")) {
                return true;
            }
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            if log.contains("address already in use") {
                return false;
            }
            assert!(
                !log.contains("not found") && begun.elapsed() < PATIENCE,
                "Prometheus does not start (`scripts/setup test` installs it): {log}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What its API has to say.
    pub(crate) async fn api(&self, path: &str) -> serde_json::Value {
        let answer = self.get(path).await.expect("an answer");
        let answer: serde_json::Value = serde_json::from_str(&answer).expect(&answer);
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// The values that an expression has now, by the job of each.
    pub(crate) async fn query(&self, expression: &str) -> Vec<(String, f64)> {
        let encoded = percent_encoding::utf8_percent_encode(expression, percent_encoding::NON_ALPHANUMERIC);
        let data = self.api(&format!("/api/v1/query?query={encoded}")).await;
        let series = data["result"].as_array().expect("a vector").iter();
        let mut values: Vec<_> = series
            .map(|series| {
                let value = series["value"][1].as_str().expect("a value").parse().expect("a number");
                (series["metric"]["job"].as_str().unwrap_or_default().to_owned(), value)
            })
            .collect();
        values.sort_by(|(one, _), (other, _)| one.cmp(other));
        values
    }

    /// The labels of the exemplars that a series has had in the last minutes.
    pub(crate) async fn exemplars(&self, series: &str) -> Vec<serde_json::Value> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs();
        let (start, end) = (now - 600, now + 60);
        let data = self.api(&format!("/api/v1/query_exemplars?query={series}&start={start}&end={end}")).await;
        let series = data.as_array().expect("a list").iter();
        let exemplars = series.flat_map(|series| series["exemplars"].as_array().expect("a list"));
        exemplars.map(|exemplar| exemplar["labels"].clone()).collect()
    }

    async fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address).await?;
        // By HTTP/1.0 an answer comes in one piece.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

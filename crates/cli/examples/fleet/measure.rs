//! Measures the resource use of Prometheus and VictoriaMetrics with a simulated fleet.

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::time::sleep;

use crate::page::{self, Model, fetch, get};
use crate::serve::serve;

const DEMO: &str = "127.0.0.1:19719";
const PROMETHEUS: &str = "127.0.0.1:19090";
const VICTORIA: &str = "127.0.0.1:18428";

/// How long the demo runs before it is scraped, so that every operation has been used.
const WARM_UP: Duration = Duration::from_secs(45);

/// How long each program may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The parameters of a measurement.
#[derive(Debug)]
pub(crate) struct Measurement {
    pub(crate) demo: PathBuf,
    pub(crate) instances: usize,
    pub(crate) listen: SocketAddr,
    pub(crate) scrape_gap: Duration,
    pub(crate) minutes: u64,
    pub(crate) interval: u64,
}

impl Measurement {
    /// Runs the measurement and prints a table of the results.
    pub(crate) async fn run(self) -> Result<(), Box<dyn Error>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fleet");
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;

        let (first, second, open_metrics) = self.scrape_demo(&directory).await?;
        let model = Model::new(&first, &second, self.scrape_gap)?;
        let samples = model.samples();
        let sizes = [second.len(), gzip_len(second.as_bytes())?, open_metrics.len(), gzip_len(&open_metrics)?];
        tokio::spawn(async move {
            if let Err(error) = serve(self.listen, self.instances, model).await {
                println!("the fleet server failed: {error}");
            }
        });

        let victoria = Program::start(
            Command::new("victoria-metrics")
                .arg(format!("-storageDataPath={}", directory.join("victoria").display()))
                .args([&format!("-httpListenAddr={VICTORIA}"), "-retentionPeriod=1d"])
                // The last query counts all series.
                .arg("-search.maxUniqueTimeseries=100000000"),
            &directory.join("victoria.log"),
        )?;
        await_response(&format!("http://{VICTORIA}/health")).await?;
        fs::write(directory.join("prometheus.yml"), self.configuration())?;
        let prometheus = Program::start(
            Command::new("prometheus")
                .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
                .arg(format!("--storage.tsdb.path={}", directory.join("prometheus").display()))
                .args([&format!("--web.listen-address={PROMETHEUS}"), "--enable-feature=exemplar-storage"]),
            &directory.join("prometheus.log"),
        )?;
        await_response(&format!("http://{PROMETHEUS}/-/ready")).await?;

        // The first half is start-up, and is not measured.
        let time = Duration::from_secs(60 * self.minutes);
        let start_up = time / 2;
        sleep(start_up).await;
        let (before, since) = ([prometheus.cpu()?, victoria.cpu()?], Instant::now());
        sleep(time - start_up).await;
        let elapsed = since.elapsed().as_secs_f64();
        let cpu = [(prometheus.cpu()? - before[0]) / elapsed, (victoria.cpu()? - before[1]) / elapsed];

        row("metrics: samples", samples);
        row("metrics as text: bytes (with gzip)", format!("{} ({})", sizes[0], sizes[1]));
        row("metrics as OpenMetrics with exemplars: bytes (with gzip)", format!("{} ({})", sizes[2], sizes[3]));
        let prometheus_value = |expression| query(PROMETHEUS, expression);
        row(
            "instances up, of",
            format!("{} of {}", prometheus_value(r#"sum(up{job="fleet"})"#).await?, self.instances),
        );
        row("samples scraped, all instances", prometheus_value(r#"sum(scrape_samples_scraped{job="fleet"})"#).await?);
        let [mean, p99, max] = [
            prometheus_value(r#"avg(scrape_duration_seconds{job="fleet"})"#).await?,
            prometheus_value(r#"quantile(0.99, scrape_duration_seconds{job="fleet"})"#).await?,
            prometheus_value(r#"max(scrape_duration_seconds{job="fleet"})"#).await?,
        ];
        row("scrape duration: mean, p99, max, in ms", format!("{}, {}, {}", ms(mean), ms(p99), ms(max)));
        row("Prometheus: series in memory", prometheus_value("prometheus_tsdb_head_series").await?);
        let appended = prometheus_value("rate(prometheus_tsdb_head_samples_appended_total[2m])").await?;
        row("Prometheus: samples ingested a second", appended.round());
        row("Prometheus: memory at the end, peak, in MiB", prometheus.memory()?);
        row("Prometheus: mean CPU use, in cores", format!("{:.2}", cpu[0]));
        row("Prometheus: on disk, in MiB", mebibytes(size(&directory.join("prometheus"))?));
        for (group, seconds) in query_all(PROMETHEUS, "prometheus_rule_group_last_duration_seconds").await? {
            row(&format!("rules `{group}`, in ms"), ms(seconds));
        }
        row("rules: evaluations missed", prometheus_value("sum(prometheus_rule_group_iterations_missed_total)").await?);
        row("rules: failures", prometheus_value("sum(prometheus_rule_evaluation_failures_total)").await?);
        row(
            "rules: series recorded",
            prometheus_value(r#"count({__name__=~"(activity|cause|fleet|operation|pool):.+"})"#).await?,
        );
        let sent = prometheus_value("sum(rate(prometheus_remote_storage_samples_total[2m]))").await?;
        let bytes = prometheus_value("sum(rate(prometheus_remote_storage_bytes_total[2m]))").await?;
        row("remote write: samples a second", sent.round());
        row("remote write: bytes a sample", format!("{:.1}", bytes / sent));
        row("remote write: pending samples", prometheus_value("sum(prometheus_remote_storage_samples_pending)").await?);
        let failed = prometheus_value(
            "sum(prometheus_remote_storage_samples_failed_total + prometheus_remote_storage_samples_dropped_total)",
        );
        row("remote write: failed or dropped", failed.await?);
        row("VictoriaMetrics: memory at the end, peak, in MiB", victoria.memory()?);
        row("VictoriaMetrics: mean CPU use, in cores", format!("{:.2}", cpu[1]));
        // VictoriaMetrics flushes to disk within seconds.
        sleep(Duration::from_secs(10)).await;
        row("VictoriaMetrics: on disk, in MiB", mebibytes(size(&directory.join("victoria"))?));
        let (in_prometheus, in_victoria) =
            (prometheus_value(r#"count({job="fleet"})"#).await?, query(VICTORIA, r#"count({job="fleet"})"#).await?);
        row("series of the fleet: Prometheus, VictoriaMetrics", format!("{in_prometheus}, {in_victoria}"));
        Ok(())
    }

    /// Returns two scrapes of a demo, and one as OpenMetrics.
    async fn scrape_demo(&self, directory: &Path) -> Result<(String, String, Vec<u8>), Box<dyn Error>> {
        let demo = Program::start(
            Command::new(&self.demo).args(["demo", "--web.listen-address", DEMO]),
            &directory.join("demo.log"),
        )?;
        await_response(&format!("http://{DEMO}/-/ready")).await?;
        sleep(WARM_UP).await;
        let url = format!("http://{DEMO}/metrics");
        let (first, second) = page::scrape_twice(&url, self.scrape_gap).await?;
        let open_metrics = fetch(&url, "Accept: application/openmetrics-text; version=1.0.0\r\n").await?;
        drop(demo);
        Ok((first, second, open_metrics))
    }

    fn configuration(&self) -> String {
        let (rules, interval) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("../../alerts"), self.interval);
        format!(
            "global: {{scrape_interval: {interval}s, evaluation_interval: {interval}s}}\n\
             rule_files: ['{rules}/*.rules.yml']\n\
             scrape_configs:\n\
             - job_name: fleet\n  http_sd_configs: [{{url: 'http://{listen}/targets'}}]\n\
             - job_name: prometheus\n  scrape_interval: 5s\n  static_configs: [{{targets: ['{PROMETHEUS}']}}]\n\
             remote_write:\n\
             - url: http://{VICTORIA}/api/v1/write\n\
            \x20 queue_config: {{capacity: 20000, max_samples_per_send: 5000, max_shards: 20}}\n",
            rules = rules.display(),
            listen = self.listen,
        )
    }
}

/// A running program, which is terminated on drop.
struct Program(Child);

impl Program {
    fn start(command: &mut Command, log: &Path) -> std::io::Result<Self> {
        let log = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let program = command.get_program().to_string_lossy().into_owned();
        command.spawn().map(Self).map_err(|error| {
            std::io::Error::new(error.kind(), format!("{program} (`scripts/setup fleet` installs it): {error}"))
        })
    }

    /// Returns a field of `/proc/PID/status`, in kB.
    fn status(&self, field: &str) -> Result<u64, Box<dyn Error>> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field")?;
        Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
    }

    /// Returns the resident memory and its peak, in MiB.
    fn memory(&self) -> Result<String, Box<dyn Error>> {
        Ok(format!("{}, {}", self.status("VmRSS")? / 1024, self.status("VmHWM")? / 1024))
    }

    /// Returns the CPU time used, in seconds.
    fn cpu(&self) -> Result<f64, Box<dyn Error>> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // Fields 14 and 15, in hundredths of a second, counted after the name, which may contain spaces.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).ok_or("no such field");
        Ok((ticks(11)? + ticks(12)?) / 100.0)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).unwrap_or_default();
        // SIGTERM lets the demo clean up.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Prints a row of the table.
fn row(name: &str, value: impl std::fmt::Display) {
    println!("| {name} | {value} |");
}

/// Waits until a server responds.
async fn await_response(url: &str) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    loop {
        match get(url).await {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > START_TIMEOUT => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Returns the value of an expression, or 0 if there is none.
async fn query(server: &str, expression: &str) -> Result<f64, Box<dyn Error>> {
    Ok(query_all(server, expression).await?.first().map_or(0.0, |(_, value)| *value))
}

/// Returns the values of an expression by rule group.
async fn query_all(server: &str, expression: &str) -> Result<Vec<(String, f64)>, Box<dyn Error>> {
    let expression = percent_encoding::utf8_percent_encode(expression, percent_encoding::NON_ALPHANUMERIC);
    let response: Value =
        serde_json::from_str(&get(&format!("http://{server}/api/v1/query?query={expression}")).await?)?;
    let series = response["data"]["result"].as_array().ok_or("no result")?;
    let values = series.iter().map(|series| {
        let group = series["metric"]["rule_group"].as_str().unwrap_or_default();
        let value = series["value"][1].as_str().unwrap_or_default().parse()?;
        Ok((group.rsplit(';').next().unwrap_or_default().to_owned(), value))
    });
    values.collect()
}

/// Returns the compressed size.
fn gzip_len(page: &[u8]) -> std::io::Result<usize> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(page)?;
    Ok(gzip.finish()?.len())
}

/// Returns the size of a directory in bytes.
fn size(directory: &Path) -> std::io::Result<u64> {
    fs::read_dir(directory)?.try_fold(0, |sum, entry| {
        let entry = entry?;
        Ok(sum + if entry.file_type()?.is_dir() { size(&entry.path())? } else { entry.metadata()?.len() })
    })
}

fn mebibytes(bytes: u64) -> u64 {
    bytes / 1024 / 1024
}

fn ms(seconds: f64) -> String {
    format!("{:.1}", seconds * 1000.0)
}

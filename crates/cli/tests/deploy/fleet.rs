//! The configurations for a fleet: checked with the real tools, and one run with a real agent.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use poolscope::telemetry::catalogue::METRICS;
use poolscope_testing::ports::ReservedPort;
use serde_json::Value;
use tempfile::TempDir;

use crate::tools::{at, document, files, run, run_successfully, text};

/// The limit for samples to arrive; only a failing test reaches it.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(90);

fn configurations() -> Vec<String> {
    files("deploy/fleet").into_iter().filter(|file| file.ends_with(".yml")).collect()
}

#[test]
fn promtool_accepts_configurations() {
    let all = configurations();
    assert_eq!(all.len(), 6, "{all:?}");
    for file in all {
        let mut command = Command::new("promtool");
        command.args(["check", "config"]);
        if file.contains("/agent-") {
            command.arg("--agent");
        }
        let output = run_successfully(command.arg(at(&file)));
        assert_eq!(output.matches("rules found").count(), if file.contains("/agent-") { 0 } else { 2 }, "{output}");
    }
}

#[test]
fn vmalert_accepts_rules() {
    let scratch = TempDir::new().unwrap();
    for file in ["alerts.rules.yml", "recording.rules.yml"] {
        // Older versions, as that of Debian 12, do not know this field; docs/alerts.md says so.
        let rules = text(&format!("alerts/{file}"));
        let kept = rules.split_inclusive('\n').filter(|line| !line.trim_start().starts_with("keep_firing_for: "));
        fs::write(scratch.path().join(file), kept.collect::<String>()).unwrap();
    }
    let rules = format!("-rule={}", scratch.path().join("*.rules.yml").display());
    run_successfully(Command::new("vmalert").args(["-dryRun", &rules]));
    let file = scratch.path().join("wrong.yml");
    fs::write(&file, "groups: [{name: a, rules: [{record: b, expr: 'rate('}]}]\n").unwrap();
    assert!(!run(Command::new("vmalert").arg("-dryRun").arg(format!("-rule={}", file.display()))).0);
}

#[test]
fn each_instance_belongs_to_one_shard() {
    const INSTANCES: usize = 200;
    let shard = text("deploy/fleet/shard.yml");
    let shards =
        document("deploy/fleet/shard.yml")["scrape_configs"][0]["relabel_configs"][0]["modulus"].as_u64().unwrap();
    let scratch = TempDir::new().unwrap();
    fs::create_dir(scratch.path().join("targets")).unwrap();
    let targets: Vec<_> = (0..INSTANCES).map(|number| format!("10.0.{}.{}:9719", number / 250, number % 250)).collect();
    let list = serde_json::json!([{ "targets": targets }]);
    fs::write(scratch.path().join("targets/shop.json"), list.to_string()).unwrap();
    let mut kept = Vec::new();
    for number in 0..shards {
        // The two numbers in which the files of the shards differ.
        let own = shard.replace("regex: '0'", &format!("regex: '{number}'"));
        let own = own.replace("{shard: '0'}", &format!("{{shard: '{number}'}}"));
        assert_eq!(own == shard, number == 0);
        let rules = format!("rule_files: [{}/*.rules.yml]", at("alerts").display());
        let file = scratch.path().join(format!("shard-{number}.yml"));
        fs::write(&file, own.replace("rule_files: [../../alerts/*.rules.yml]", &rules)).unwrap();
        let mut command = Command::new("promtool");
        command.args(["check", "service-discovery", "--timeout=3s"]).arg(&file).arg("shop");
        let found: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        let own = found.as_array().unwrap().iter().filter(|target| target["labels"] != serde_json::json!({}));
        let own: Vec<_> = own.map(|target| target["labels"]["__address__"].as_str().unwrap().to_owned()).collect();
        // A shard has at most twice its share.
        assert!(own.len() * shards as usize <= 2 * INSTANCES, "{number}: {}", own.len());
        kept.extend(own);
    }
    assert_eq!(kept.len(), INSTANCES, "scraped once each");
    assert_eq!(kept.iter().collect::<BTreeSet<_>>().len(), INSTANCES);
}

#[test]
fn edge_forwards_only_recorded_series() {
    let edge = document("deploy/fleet/edge.yml");
    let kept = edge["remote_write"][0]["write_relabel_configs"][0]["regex"].as_str().unwrap();
    let (levels, others) = kept.strip_prefix('(').unwrap().split_once("):.+|").unwrap();
    let levels: Vec<_> = levels.split('|').collect();
    let others: Vec<_> = others.split('|').collect();
    let mut recorded = 0;
    for group in document("alerts/recording.rules.yml")["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let name = rule["record"].as_str().unwrap();
            assert!(levels.contains(&name.split(':').next().unwrap()), "the edge does not forward {name}");
            recorded += 1;
        }
    }
    assert!(recorded > 20);
    for metric in METRICS {
        assert!(
            !metric.name.contains(':') && (!others.contains(&metric.name) || metric.name == "poolscope_build_info")
        );
    }
}

/// A process that is killed when this is dropped.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{program} (`scripts/setup test` installs it): {error}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the body of a response; `None` if there is none.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// Starts an exporter that serves a fixed page.
fn start_exporter(page: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close";
            let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{page}", page.len());
        }
    });
    address
}

fn start_agent(directory: &Path, port: &ReservedPort, target: SocketAddr, store: SocketAddr) -> Process {
    let list = serde_json::json!([{ "targets": [target.to_string()] }]);
    fs::create_dir(directory.join("targets")).unwrap();
    fs::write(directory.join("targets/shop.json"), list.to_string()).unwrap();
    let configuration = text("deploy/fleet/agent-victoriametrics.yml");
    let fast = configuration.replace("scrape_interval: 15s", "scrape_interval: 1s");
    let local = fast.replace("http://victoria-metrics:8428/", &format!("http://{store}/"));
    assert!(fast != configuration && local != fast);
    fs::write(directory.join("agent.yml"), local).unwrap();
    Process::start(
        Command::new("prometheus")
            .args(["--enable-feature=agent", "--config.file"])
            .arg(directory.join("agent.yml"))
            .arg("--storage.agent.path")
            .arg(directory.join("agent"))
            .arg(format!("--web.listen-address={}", port.address())),
    )
}

#[test]
fn agent_writes_samples_to_victoriametrics() {
    let scratch = TempDir::new().unwrap();
    let ports = [(); 2].map(|()| ReservedPort::new().unwrap());
    let store = ports[0].address();
    let _victoria = Process::start(
        Command::new("victoria-metrics")
            .arg(format!("-storageDataPath={}", scratch.path().join("victoria").display()))
            .arg(format!("-httpListenAddr={store}")),
    );
    let page =
        "# TYPE db_client_connection_max gauge\ndb_client_connection_max{db_client_connection_pool_name=\"shop\"} 7\n";
    let target = start_exporter(page);
    let _agent = start_agent(scratch.path(), &ports[1], target, store);
    let started = Instant::now();
    // VictoriaMetrics shows a sample only some seconds after it arrived.
    let series = loop {
        let answer = get(store, "/api/v1/export?match%5B%5D=db_client_connection_max").unwrap_or_default();
        if let Some(line) = answer.lines().next() {
            break serde_json::from_str::<Value>(line).unwrap();
        }
        assert!(started.elapsed() < ARRIVAL_TIMEOUT, "no sample arrived");
        thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(series["values"][0], 7);
    let metric = &series["metric"];
    assert_eq!(metric["db_client_connection_pool_name"], "shop");
    assert_eq!((metric["job"].as_str(), metric["cluster"].as_str()), (Some("shop"), Some("eu-1")));
    assert_eq!(metric["instance"].as_str(), Some(&*target.to_string()));
}

//! What a fleet is watched by: each configuration as the real tools see it, and one that runs.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use poolscope::telemetry::catalogue::METRICS;
use serde_json::Value;
use tempfile::TempDir;

use crate::tools::{at, content, document, files, run, text};

/// Only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_secs(90);

fn configurations() -> Vec<String> {
    files("deploy/fleet").into_iter().filter(|file| file.ends_with(".yml")).collect()
}

#[test]
fn promtool_takes_every_configuration() {
    let all = configurations();
    assert_eq!(all.len(), 6, "{all:?}");
    for file in all {
        let mut command = Command::new("promtool");
        command.args(["check", "config"]);
        if file.contains("/agent-") {
            command.arg("--agent");
        }
        let said = content(command.arg(at(&file)));
        assert_eq!(said.matches("rules found").count(), if file.contains("/agent-") { 0 } else { 2 }, "{said}");
    }
}

#[test]
fn vmalert_takes_the_rules() {
    let rules = format!("-rule={}", at("alerts/*.rules.yml").display());
    content(Command::new("vmalert").args(["-dryRun", &rules]));
    let scratch = TempDir::new().unwrap();
    let file = scratch.path().join("wrong.yml");
    fs::write(&file, "groups: [{name: a, rules: [{record: b, expr: 'rate('}]}]\n").unwrap();
    assert!(!run(Command::new("vmalert").arg("-dryRun").arg(format!("-rule={}", file.display()))).0);
}

#[test]
fn of_the_shards_each_instance_has_one() {
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
        // The two places that its comment speaks of.
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
        // No shard has more than twice its share.
        assert!(own.len() * shards as usize <= 2 * INSTANCES, "{number}: {}", own.len());
        kept.extend(own);
    }
    assert_eq!(kept.len(), INSTANCES, "scraped once each");
    assert_eq!(kept.iter().collect::<BTreeSet<_>>().len(), INSTANCES);
}

#[test]
fn the_edge_sends_on_what_is_recorded_and_nothing_raw() {
    let edge = document("deploy/fleet/edge.yml");
    let kept = edge["remote_write"][0]["write_relabel_configs"][0]["regex"].as_str().unwrap();
    let (levels, others) = kept.strip_prefix('(').unwrap().split_once("):.+|").unwrap();
    let levels: Vec<_> = levels.split('|').collect();
    let others: Vec<_> = others.split('|').collect();
    let mut recorded = 0;
    for group in document("alerts/recording.rules.yml")["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let name = rule["record"].as_str().unwrap();
            assert!(levels.contains(&name.split(':').next().unwrap()), "{name} stays at the edge");
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

/// A program that ends with the test.
struct Part(Child);

impl Part {
    fn start(command: &mut Command) -> Self {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{program} (`scripts/setup test` installs it): {error}")))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The body of an answer, if there is one.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// An exporter of one page.
fn exporter(page: &'static str) -> SocketAddr {
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

fn agent(directory: &Path, target: SocketAddr, store: SocketAddr) -> Part {
    let list = serde_json::json!([{ "targets": [target.to_string()] }]);
    fs::create_dir(directory.join("targets")).unwrap();
    fs::write(directory.join("targets/shop.json"), list.to_string()).unwrap();
    let configuration = text("deploy/fleet/agent-victoriametrics.yml");
    let quick = configuration.replace("scrape_interval: 15s", "scrape_interval: 1s");
    let here = quick.replace("http://victoria-metrics:8428/", &format!("http://{store}/"));
    assert!(quick != configuration && here != quick);
    fs::write(directory.join("agent.yml"), here).unwrap();
    Part::start(
        Command::new("prometheus")
            .args(["--enable-feature=agent", "--config.file"])
            .arg(directory.join("agent.yml"))
            .arg("--storage.agent.path")
            .arg(directory.join("agent"))
            .arg(format!("--web.listen-address={}", free())),
    )
}

#[test]
fn a_real_agent_sends_a_real_victoriametrics_what_it_scrapes() {
    let scratch = TempDir::new().unwrap();
    let store = free();
    let _victoria = Part::start(
        Command::new("victoria-metrics")
            .arg(format!("-storageDataPath={}", scratch.path().join("victoria").display()))
            .arg(format!("-httpListenAddr={store}")),
    );
    let page =
        "# TYPE db_client_connection_max gauge\ndb_client_connection_max{db_client_connection_pool_name=\"shop\"} 7\n";
    let target = exporter(page);
    let _agent = agent(scratch.path(), target, store);
    let begun = Instant::now();
    // It shows what came some seconds ago, and until then nothing.
    let series = loop {
        let answer = get(store, "/api/v1/export?match%5B%5D=db_client_connection_max").unwrap_or_default();
        if let Some(line) = answer.lines().next() {
            break serde_json::from_str::<Value>(line).unwrap();
        }
        assert!(begun.elapsed() < PATIENCE, "nothing arrives");
        thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(series["values"][0], 7);
    let metric = &series["metric"];
    assert_eq!(metric["db_client_connection_pool_name"], "shop");
    assert_eq!((metric["job"].as_str(), metric["cluster"].as_str()), (Some("shop"), Some("eu-1")));
    assert_eq!(metric["instance"].as_str(), Some(&*target.to_string()));
}

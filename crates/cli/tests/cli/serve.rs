//! The standalone exporter.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use poolscope_testing::http;
use poolscope_testing::otlp::Receiver;
use poolscope_testing::proxy::Proxy;
use poolscope_testing::scrape::Scrape;
use poolscope_testing::server::{Server, Shutdown};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::run::{Output, Run, poolscope, run_to_end, wait_until};

/// A server, and a directory for configurations.
struct Environment {
    runtime: Runtime,
    server: Server,
    directory: TempDir,
}

impl Environment {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(Server::builder().start()).expect("a server");
        Self { runtime, server, directory: tempfile::tempdir().expect("a directory") }
    }

    /// Returns its URL, with a password that the server does not require.
    fn url(&self) -> String {
        self.server.url().replace("postgres@", "postgres:hunter2@")
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).expect("to write");
        path
    }

    /// Writes a configuration with the server, the same server by a URL file, and an unreachable one.
    fn config(&self) -> String {
        self.file("url", &format!("{}\n", self.url()));
        let path = self.file(
            "poolscope.toml",
            &format!(
                "probe_interval = '1s'\n[defaults]\nconnect_timeout = '2s'\n\
                 [databases.gone]\ndatabase_url = 'postgres://app:hunter2@{UNUSED_ADDRESS}/shop'\n\
                 [databases.shop]\ndatabase_url = '{}'\n\
                 [databases.filed]\ndatabase_url_file = 'url'\nserver_view = false\n",
                self.url()
            ),
        );
        path.to_str().expect("a path").to_owned()
    }
}

/// An address without a listener.
const UNUSED_ADDRESS: &str = "127.0.0.1:1";

/// A running standalone exporter.
struct RunningExporter {
    run: Run,
    address: SocketAddr,
    /// The first line of its output.
    first_line: String,
}

impl RunningExporter {
    fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = poolscope(&["serve", "--web.listen-address", "127.0.0.1:0"]);
        command.args(arguments).envs(variables.iter().copied());
        let run = Run::start(&mut command);
        let first_line = run.line();
        let url = first_line.split(' ').find_map(|word| word.strip_prefix("http://")?.strip_suffix("/metrics"));
        let address = url.unwrap_or_else(|| panic!("no URL in {first_line}")).parse().expect("an address");
        Self { run, address, first_line }
    }

    fn scrape(&self) -> Scrape {
        let (status, page) = http::get(self.address, "/metrics").expect("an answer");
        assert_eq!(status, 200, "{page}");
        Scrape::parse(&page)
    }

    /// Scrapes the value of a series of a pool.
    fn value(&self, pool: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<_> = [("db_client_connection_pool_name", pool)].iter().chain(labels).copied().collect();
        self.scrape().sum(name, &labels)
    }

    fn probes(&self, pool: &str, outcome: &str) -> f64 {
        self.value(pool, "poolscope_checkouts_total", &[("operation", "probe"), ("outcome", outcome)])
    }

    fn stop(mut self) -> Output {
        self.run.signal(Signal::SIGTERM);
        let code = self.run.wait().code();
        let (out, err) = (self.first_line.clone() + "\n" + &self.run.remaining_output(), self.run.stderr());
        Output { code, out, err }
    }
}

#[test]
fn databases_are_probed_and_servers_queried() {
    let environment = Environment::new();
    let exporter = RunningExporter::start(&["--config", &environment.config()], &[("RUST_LOG", "trace")]);
    wait_until("probes", || {
        exporter.probes("shop", "ok") > 1.0
            && exporter.probes("filed", "ok") > 1.0
            && exporter.probes("gone", "error") > 0.0
    });
    wait_until("the view of each server", || {
        exporter.scrape().values("poolscope_server_up", "db_client_connection_pool_name").len() == 2
    });
    let server_up = |pool| exporter.value(pool, "poolscope_server_up", &[]);
    assert_eq!((server_up("shop"), server_up("gone")), (1.0, 0.0));
    // Two pools have a connection each, and the server's view has one.
    wait_until("the pools' connections", || {
        exporter.value("shop", "poolscope_server_backends", &[("application_name", "poolscope")]) > 2.5
    });
    assert!(exporter.value("shop", "poolscope_server_slots_left", &[]) > 0.0);
    assert!(
        exporter.value("shop", "db_client_operation_duration_seconds_count", &[("db_query_summary", "SELECT")]) > 1.0
    );
    assert_eq!(exporter.value("shop", "db_client_connection_max", &[]), 1.0);
    // Without a directory for incident files, this must not end the process.
    exporter.run.signal(Signal::SIGUSR1);
    for (path, part) in [("/-/ready", "poolscope is ready"), ("/api/v1/pools", "\"filed\""), ("/", "/metrics")] {
        let (status, body) = http::get(exporter.address, path).expect("an answer");
        assert!(status == 200 && body.contains(part), "{path}: {body}");
    }

    let Output { code, out, err } = exporter.stop();
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("shop: postgres://postgres:***@") && out.contains(" every 1s, with the server's view"),
        "{out}"
    );
    assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{out}{err}");
}

#[test]
fn server_restart_is_reported() {
    let environment = Environment::new();
    let exporter = RunningExporter::start(&["--config", &environment.config()], &[]);
    let is_up = || exporter.value("shop", "poolscope_server_up", &[]);
    wait_until("the server", || is_up() > 0.5);
    environment.runtime.block_on(environment.server.stop(Shutdown::Immediate)).expect("to stop");
    wait_until("the failure", || is_up() < 0.5 && exporter.probes("shop", "error") > 0.0);
    environment.runtime.block_on(environment.server.start()).expect("to start");
    let before = exporter.probes("shop", "ok");
    wait_until("the recovery", || is_up() > 0.5 && exporter.probes("shop", "ok") > before);
    let Output { code, err, .. } = exporter.stop();
    assert_eq!(code, Some(0));
    assert_eq!(err.matches("querying the server's state failed pool=\"shop\"").count(), 1, "{err}");
    assert!(err.contains("querying the server's state succeeded again pool=\"shop\""), "{err}");
}

#[test]
fn service_manager_is_notified() {
    let environment = Environment::new();
    let path = environment.directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let receive = || {
        let mut message = [0; 64];
        let length = socket.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let exporter = RunningExporter::start(
        &["--config", &environment.config()],
        &[("NOTIFY_SOCKET", path.to_str().expect("a path"))],
    );
    assert_eq!(receive(), "READY=1");
    assert_eq!(exporter.stop().code, Some(0));
    assert_eq!(receive(), "STOPPING=1");
}

#[test]
fn environment_configures_one_database() {
    let environment = Environment::new();
    let url = environment.url();
    let variables = [("POOLSCOPE_DATABASE_URL", &*url), ("POOLSCOPE_NAME", "from the environment")];
    let exporter = RunningExporter::start(&[], &variables);
    wait_until("a probe", || exporter.probes("from the environment", "ok") > 0.5);
    assert_eq!(exporter.stop().code, Some(0));
}

#[test]
fn probes_are_traced_only_with_a_collector() {
    let environment = Environment::new();
    let receiver = Receiver::http();
    let config = environment.config();
    let exporter = RunningExporter::start(
        &["--config", &config, "--otlp.endpoint", &receiver.endpoint()],
        &[("OTEL_BSP_SCHEDULE_DELAY", "100")],
    );
    wait_until("a probe's query", || receiver.spans().iter().any(|span| span.name.starts_with("SELECT")));
    assert_eq!(exporter.stop().code, Some(0));
    let spans = receiver.spans();
    let query = spans.iter().find(|span| span.name.starts_with("SELECT")).expect("seen");
    let root = spans.iter().find(|span| span.trace_id == query.trace_id && span.parent.is_none()).expect("a root");
    assert_eq!((&*root.name, &*root.resource["service.name"]), ("probe", "poolscope"));

    let exporter = RunningExporter::start(&["--config", &config], &[]);
    wait_until("a failure", || exporter.probes("gone", "error") > 0.5);
    let err = exporter.stop().err;
    assert!(err.contains("could not connect") && !err.contains("trace_id="), "{err}");
}

#[test]
fn check_prints_settings_and_tests_connections() {
    let environment = Environment::new();
    let config = environment.config();
    let plain = run_to_end(poolscope(&["check", "--config", &config]));
    assert_eq!((plain.code, &*plain.err), (Some(0), ""));
    let lines: Vec<_> = plain.out.lines().collect();
    assert_eq!(lines.len(), 6, "{}", plain.out);
    assert!(lines[2].starts_with("shop: postgres://postgres:***@") && lines[4].ends_with("without the server's view"));
    assert_eq!(
        lines[3],
        "  pool_size 1, max_overflow 0, checkout_timeout 5s, connect_timeout 2s, application_name poolscope, \
         max_answer_kib 64"
    );

    let connected = run_to_end(poolscope(&["check", "--config", &config, "--connect"]));
    assert_eq!((connected.code, &*connected.err), (Some(1), "error: at least one database is unreachable\n"));
    assert_eq!(connected.out.matches("  connects: PostgreSQL ").count(), 2, "{}", connected.out);
    assert!(
        connected.out.contains("  unreachable: could not connect to PostgreSQL at 127.0.0.1:"),
        "{}",
        connected.out
    );
    assert!(connected.out.contains(", primary, ") && !connected.out.contains("hunter2"), "{}", connected.out);
}

#[test]
fn invalid_configuration_is_refused() {
    let environment = Environment::new();
    let wrong =
        environment.file("wrong.toml", "[databases.shop]\ndatabase_url = 'postgres://app:hunter2@h/d'\npool_siz = 3\n");
    let wrong = wrong.to_str().expect("a path");
    let good = environment.config();
    for (arguments, variables, part) in [
        (vec![], vec![], "error: no database is configured: give --config a file"),
        (vec![], vec![("POOLSCOPE_CONFIG_FILE", "")], "error: no database is configured: give --config a file"),
        (
            vec!["--config", "postgres://app:hunter2@h/d"],
            vec![],
            "error: --config expects the path of a file, not a URL",
        ),
        (vec!["--config", "/not/there.toml"], vec![], "error: cannot read --config /not/there.toml: No such file"),
        (
            vec!["--config", wrong],
            vec![],
            "wrong.toml: line 3, column 1: unknown setting `pool_siz`: did you mean `pool_size`?",
        ),
        (vec!["--config", &good], vec![("POOLSCOPE_POOL_SIZE", "3")], "environment variable POOLSCOPE_POOL_SIZE: "),
        (
            vec![],
            vec![("POOLSCOPE_DATABASE_URL", "postgres://app:hunter2@h/d?x=y")],
            "environment variable POOLSCOPE_DATABASE_URL",
        ),
    ] {
        for command in ["serve", "check"] {
            let mut run = poolscope(&[command]);
            run.args(&arguments).envs(variables.iter().copied());
            let ended = run_to_end(run);
            let context = format!("{command} {arguments:?}: {}", ended.err);
            assert_eq!((ended.code, ended.err.lines().count(), &*ended.out), (Some(2), 1, ""), "{context}");
            assert!(ended.err.contains(part) && !ended.err.contains("hunter2"), "{context}");
        }
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let taken = taken.local_addr().expect("an address").to_string();
    for (address, code, part) in [(&*taken, 1, "in use"), ("nonsense", 2, "error: invalid --web.listen-address: ")] {
        let ended = run_to_end(poolscope(&["serve", "--config", &good, "--web.listen-address", address]));
        let errors: Vec<_> = ended.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(ended.code == Some(code) && errors.len() == 1 && errors[0].contains(part), "{}", ended.err);
    }
}

/// Starts a server that answers each client's startup with an error of this text, and returns its address.
fn refusing_server(text: &str) -> SocketAddr {
    let fields = format!("SFATAL\0VFATAL\0C28P01\0M{text}\0\0");
    let length = u32::try_from(fields.len() + 4).expect("a message");
    let message = [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let message = message.clone();
            thread::spawn(move || {
                // A client that does not ask for TLS sends its startup message first.
                let _ = client.read(&mut [0; 1024]);
                let _ = client.write_all(&message);
            });
        }
    });
    address
}

#[test]
fn foreign_errors_are_escaped_and_cut() {
    let environment = Environment::new();
    let forged = "x\n2026-12-01T12:00:00Z ERROR poolscope: forged\r\u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}m\u{202e}";
    let (forging, flooding) = (refusing_server(forged), refusing_server(&"A".repeat(60_000)));
    let config = environment.file(
        "foreign.toml",
        &format!(
            "probe_interval = '1s'\n\
             [databases.forging]\ndatabase_url = 'postgres://app@{forging}/shop?sslmode=disable'\n\
             [databases.flooding]\ndatabase_url = 'postgres://app@{flooding}/shop?sslmode=disable'\n",
        ),
    );
    let config = config.to_str().expect("a path");
    let check = run_to_end(poolscope(&["check", "--config", config, "--connect"]));
    assert_eq!((check.code, check.out.lines().count()), (Some(1), 6), "{}", check.out);
    let mut outputs = vec![check.out, check.err];
    for format in ["text", "json"] {
        let exporter = RunningExporter::start(&["--config", config, "--log.format", format], &[("RUST_LOG", "debug")]);
        let failed = |pool| exporter.probes(pool, "error") > 0.5;
        wait_until("failures", || failed("forging") && failed("flooding"));
        let Output { out, err, .. } = exporter.stop();
        assert!(err.contains("connection error") && err.contains("AAAA") && err.contains(r"]0;title"), "{err}");
        outputs.extend([out, err]);
    }
    for line in outputs.iter().flat_map(|output| output.split('\n')) {
        assert_eq!(line.find(|c: char| c.is_control() || c == '\u{202e}'), None, "{line:?}");
        assert!(!line.trim_start().starts_with("2026-12-01T12:00:00Z"), "{line}");
        assert!(line.len() < 1500, "{line}");
    }
}

#[test]
fn repeated_failures_are_counted_together() {
    let environment = Environment::new();
    let config = environment.file(
        "gone.toml",
        &format!("probe_interval = '1s'\n[databases.gone]\ndatabase_url = 'postgres://app@{UNUSED_ADDRESS}/shop'\n"),
    );
    let exporter = RunningExporter::start(&["--config", config.to_str().expect("a path")], &[]);
    wait_until("six failed probes", || exporter.probes("gone", "error") > 5.5);
    let Output { err, .. } = exporter.stop();
    // After 0, 1 and 3 s, or later on a busy machine.
    let count = |message: &str| err.lines().filter(|line| line.contains(message)).count();
    let counts = (count("connecting failed;"), count("querying the server's state failed"));
    assert!((2..=4).contains(&count("connection error")) && counts == (1, 1), "{err}");
    assert!(err.lines().any(|line| line.contains("connection error") && !line.contains("suppressed=0")), "{err}");
}

/// A server that is reachable in every other probe.
#[test]
fn flapping_server_is_logged_in_few_lines() {
    let environment = Environment::new();
    let server = environment.runtime.block_on(Server::builder().tcp(true).start()).expect("a server");
    let url = server.tcp_url().expect("a TCP URL");
    let proxy = environment.runtime.block_on(Proxy::to(([127, 0, 0, 1], server.port()).into()));
    let config = environment.file(
        "flapping.toml",
        &format!("probe_interval = '1s'\n[databases.flapping]\ndatabase_url = '{}'\n", proxy.url(&url)),
    );
    let exporter = RunningExporter::start(&["--config", config.to_str().expect("a path")], &[]);
    let begun = Instant::now();
    for _ in 0..5 {
        let next = |outcome| {
            let before = exporter.probes("flapping", outcome);
            wait_until(outcome, || exporter.probes("flapping", outcome) > before);
        };
        next("ok");
        proxy.refuse();
        proxy.cut();
        next("error");
        proxy.accept();
    }
    let elapsed = begun.elapsed().as_secs() + 1;
    let Output { code, err, .. } = exporter.stop();
    assert_eq!(code, Some(0));
    // Each kind of line passes after 0, 1, 3, 7, … seconds; there are few kinds.
    let most = (elapsed + 1).ilog2() as usize + 1;
    let mut counts = BTreeMap::<String, usize>::new();
    for line in err.lines().filter(|line| line.contains("pool=\"flapping\"")) {
        let message = line.split(" pool=").next().unwrap_or_default();
        // Without the time.
        *counts.entry(message.split_once(' ').map_or(message, |(_, rest)| rest).trim().to_owned()).or_default() += 1;
    }
    assert!(counts.len() <= 12 && counts.values().all(|count| *count <= most + 1), "{elapsed} s: {counts:#?}");
    assert!(counts.keys().any(|message| message.contains("connection")), "{err}");
}

//! The standalone exporter on real servers: what it watches, what it is told, and how it ends.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use poolscope_testing::server::{Server, Shutdown};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::run::{Ended, Run, poolscope, run_to_end, wait_until};
use poolscope_testing::http;
use poolscope_testing::otlp::Receiver;
use poolscope_testing::scrape::Scrape;

/// A server, and a directory for configurations that name it.
struct World {
    runtime: Runtime,
    server: Server,
    directory: TempDir,
}

impl World {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(Server::builder().start()).expect("a server");
        Self { runtime, server, directory: tempfile::tempdir().expect("a directory") }
    }

    /// Its URL with a password that it does not ask for.
    fn url(&self) -> String {
        self.server.url().replace("postgres@", "postgres:hunter2@")
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).expect("to write");
        path
    }

    /// A configuration with the server, the same by a file, and one where nobody is.
    fn config(&self) -> String {
        self.file("url", &format!("{}\n", self.url()));
        let path = self.file(
            "poolscope.toml",
            &format!(
                "probe_interval = '1s'\n[defaults]\nconnect_timeout = '2s'\n\
                 [databases.gone]\ndatabase_url = 'postgres://app:hunter2@{NOBODY}/shop'\n\
                 [databases.shop]\ndatabase_url = '{}'\n\
                 [databases.filed]\ndatabase_url_file = 'url'\nserver_view = false\n",
                self.url()
            ),
        );
        path.to_str().expect("a path").to_owned()
    }
}

/// An address where nobody listens.
const NOBODY: &str = "127.0.0.1:1";

/// A standalone exporter that is up, and what it said.
struct Up {
    run: Run,
    address: SocketAddr,
    said: String,
}

impl Up {
    fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = poolscope(&["serve", "--web.listen-address", "127.0.0.1:0"]);
        command.args(arguments).envs(variables.iter().copied());
        let run = Run::start(&mut command);
        let said = run.line();
        let url = said.split(' ').find_map(|word| word.strip_prefix("http://")?.strip_suffix("/metrics"));
        let address = url.unwrap_or_else(|| panic!("no URL in {said}")).parse().expect("an address");
        Self { run, address, said }
    }

    fn scrape(&self) -> Scrape {
        let (status, page) = http::get(self.address, "/metrics").expect("an answer");
        assert_eq!(status, 200, "{page}");
        Scrape::parse(&page)
    }

    /// The value for a pool.
    fn of(&self, pool: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<_> = [("db_client_connection_pool_name", pool)].iter().chain(labels).copied().collect();
        self.scrape().sum(name, &labels)
    }

    fn probes(&self, pool: &str, outcome: &str) -> f64 {
        self.of(pool, "poolscope_checkouts_total", &[("operation", "probe"), ("outcome", outcome)])
    }

    fn end(mut self) -> Ended {
        self.run.signal(Signal::SIGTERM);
        let code = self.run.wait().code();
        let (out, err) = (self.said.clone() + "\n" + &self.run.remaining_output(), self.run.stderr());
        Ended { code, out, err }
    }
}

#[test]
fn each_database_is_probed_and_its_server_asked_and_no_password_is_shown() {
    let world = World::new();
    let up = Up::start(&["--config", &world.config()], &[("RUST_LOG", "trace")]);
    wait_until("probes", || {
        up.probes("shop", "ok") > 1.0 && up.probes("filed", "ok") > 1.0 && up.probes("gone", "error") > 0.0
    });
    wait_until("a look at each server", || {
        up.scrape().values("poolscope_server_up", "db_client_connection_pool_name").len() == 2
    });
    let up_of = |pool| up.of(pool, "poolscope_server_up", &[]);
    assert_eq!((up_of("shop"), up_of("gone")), (1.0, 0.0));
    // The pools' connections and the one that asks.
    wait_until("the pools' connections", || {
        up.of("shop", "poolscope_server_backends", &[("application_name", "poolscope")]) > 2.5
    });
    assert!(up.of("shop", "poolscope_server_slots_left", &[]) > 0.0);
    assert!(up.of("shop", "db_client_operation_duration_seconds_count", &[("db_query_summary", "SELECT")]) > 1.0);
    assert_eq!(up.of("shop", "db_client_connection_max", &[]), 1.0);
    for (path, part) in [("/-/ready", "poolscope is ready"), ("/api/v1/pools", "\"filed\""), ("/", "/metrics")] {
        let (status, body) = http::get(up.address, path).expect("an answer");
        assert!(status == 200 && body.contains(part), "{path}: {body}");
    }

    let Ended { code, out, err } = up.end();
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("shop: postgres://postgres:***@") && out.contains(" every 1s, with the server's view"),
        "{out}"
    );
    assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{out}{err}");
}

#[test]
fn a_server_that_goes_and_comes_back_is_told_of() {
    let world = World::new();
    let up = Up::start(&["--config", &world.config()], &[]);
    let is_up = || up.of("shop", "poolscope_server_up", &[]);
    wait_until("the server", || is_up() > 0.5);
    world.runtime.block_on(world.server.stop(Shutdown::Immediate)).expect("to stop");
    wait_until("its absence", || is_up() < 0.5 && up.probes("shop", "error") > 0.0);
    world.runtime.block_on(world.server.start()).expect("to start");
    let before = up.probes("shop", "ok");
    wait_until("the server again", || is_up() > 0.5 && up.probes("shop", "ok") > before);
    let Ended { code, err, .. } = up.end();
    assert_eq!(code, Some(0));
    assert_eq!(err.matches("querying the server's state failed pool=\"shop\"").count(), 1, "{err}");
    assert!(err.contains("querying the server's state succeeded again pool=\"shop\""), "{err}");
}

#[test]
fn a_service_manager_is_told_when_it_serves_and_when_it_ends() {
    let world = World::new();
    let path = world.directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
    let hear = || {
        let mut message = [0; 64];
        let length = socket.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let up = Up::start(&["--config", &world.config()], &[("NOTIFY_SOCKET", path.to_str().expect("a path"))]);
    assert_eq!(hear(), "READY=1");
    assert_eq!(up.end().code, Some(0));
    assert_eq!(hear(), "STOPPING=1");
}

#[test]
fn without_a_file_the_environment_names_the_database() {
    let world = World::new();
    let url = world.url();
    let variables = [("POOLSCOPE_DATABASE_URL", &*url), ("POOLSCOPE_NAME", "from the environment")];
    let up = Up::start(&[], &variables);
    wait_until("a probe", || up.probes("from the environment", "ok") > 0.5);
    assert_eq!(up.end().code, Some(0));
}

#[test]
fn probes_are_traced_where_there_is_a_collector_and_only_there() {
    let world = World::new();
    let receiver = Receiver::http();
    let config = world.config();
    let up = Up::start(
        &["--config", &config, "--otlp.endpoint", &receiver.endpoint()],
        &[("OTEL_BSP_SCHEDULE_DELAY", "100")],
    );
    wait_until("a probe's query", || receiver.spans().iter().any(|span| span.name.starts_with("SELECT")));
    assert_eq!(up.end().code, Some(0));
    let spans = receiver.spans();
    let query = spans.iter().find(|span| span.name.starts_with("SELECT")).expect("seen");
    let root = spans.iter().find(|span| span.trace_id == query.trace_id && span.parent.is_none()).expect("a root");
    assert_eq!((&*root.name, &*root.resource["service.name"]), ("probe", "poolscope"));

    let up = Up::start(&["--config", &config], &[]);
    wait_until("a failure", || up.probes("gone", "error") > 0.5);
    let err = up.end().err;
    assert!(err.contains("could not connect") && !err.contains("trace_id="), "{err}");
}

#[test]
fn check_says_what_a_configuration_comes_to_and_whether_its_databases_can_be_had() {
    let world = World::new();
    let config = world.config();
    let plain = run_to_end(poolscope(&["check", "--config", &config]));
    assert_eq!((plain.code, &*plain.err), (Some(0), ""));
    let lines: Vec<_> = plain.out.lines().collect();
    assert_eq!(lines.len(), 6, "{}", plain.out);
    assert!(lines[2].starts_with("shop: postgres://postgres:***@") && lines[4].ends_with("without the server's view"));
    assert_eq!(
        lines[3],
        "  pool_size 1, max_overflow 0, checkout_timeout 5s, connect_timeout 2s, application_name poolscope"
    );

    let connected = run_to_end(poolscope(&["check", "--config", &config, "--connect"]));
    assert_eq!((connected.code, &*connected.err), (Some(1), "error: not every database can be had\n"));
    assert_eq!(connected.out.matches("  connects: PostgreSQL ").count(), 2, "{}", connected.out);
    assert!(
        connected.out.contains("  cannot be had: could not connect to PostgreSQL at 127.0.0.1:"),
        "{}",
        connected.out
    );
    assert!(connected.out.contains(", primary, ") && !connected.out.contains("hunter2"), "{}", connected.out);
}

#[test]
fn what_cannot_be_ends_it_with_one_line_before_it_begins() {
    let world = World::new();
    let wrong =
        world.file("wrong.toml", "[databases.shop]\ndatabase_url = 'postgres://app:hunter2@h/d'\npool_siz = 3\n");
    let wrong = wrong.to_str().expect("a path");
    let good = world.config();
    for (arguments, variables, part) in [
        (vec![], vec![], "error: no database is named: give --config a file"),
        (vec![], vec![("POOLSCOPE_CONFIG_FILE", "")], "error: no database is named: give --config a file"),
        (
            vec!["--config", "postgres://app:hunter2@h/d"],
            vec![],
            "error: --config takes the path of a file, and was given a URL",
        ),
        (vec!["--config", "/not/there.toml"], vec![], "error: /not/there.toml cannot be read: No such file"),
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
            let said = format!("{command} {arguments:?}: {}", ended.err);
            assert_eq!((ended.code, ended.err.lines().count(), &*ended.out), (Some(2), 1, ""), "{said}");
            assert!(ended.err.contains(part) && !ended.err.contains("hunter2"), "{said}");
        }
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let taken = taken.local_addr().expect("an address").to_string();
    for (address, code, part) in
        [(&*taken, 1, "in use"), ("nonsense", 2, "error: --web.listen-address cannot be used: ")]
    {
        let ended = run_to_end(poolscope(&["serve", "--config", &good, "--web.listen-address", address]));
        let errors: Vec<_> = ended.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(ended.code == Some(code) && errors.len() == 1 && errors[0].contains(part), "{}", ended.err);
    }
}

//! `poolscope proxy` with real clients, each run directly and through the proxy.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use poolscope_testing::http;
use poolscope_testing::scrape::Scrape;
use poolscope_testing::server::Server;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::run::{Output, Run, poolscope, run_to_end, wait_until};

/// A server, and a proxy in front of it.
struct Environment {
    _runtime: Runtime,
    server: Server,
    run: Run,
    /// Where clients connect.
    proxy: SocketAddr,
    exporter: SocketAddr,
    directory: TempDir,
}

/// Starts a proxy to the server at a port. Returns its addresses for clients and for scrapes.
pub(super) fn start(command: &mut Command, port: u16) -> (Run, SocketAddr, SocketAddr) {
    let upstream = format!("postgres://127.0.0.1:{port}?sslmode=disable");
    let arguments = ["--listen", "127.0.0.1:0", "--web.listen-address", "127.0.0.1:0", "--upstream", &upstream];
    let run = Run::start(command.args(arguments));
    let line = run.line();
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!((words[0], words[2]), ("poolscope", "forwards"), "{line}");
    let exporter = words.iter().find_map(|word| word.strip_prefix("http://")?.strip_suffix("/metrics"));
    let exporter = exporter.expect("a URL").parse().expect("an address");
    (run, words[3].parse().expect("an address"), exporter)
}

impl Environment {
    fn new(configuration: &str) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(Server::builder().tcp(true).start()).expect("a server");
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("proxy.toml");
        fs::write(&file, configuration).expect("to write");
        let mut command = poolscope(&["proxy", "--config"]);
        let (run, proxy, exporter) = start(command.arg(&file), server.port());
        Self { _runtime: runtime, server, run, proxy, exporter, directory }
    }

    /// Runs a program of PostgreSQL against this port.
    fn program(&self, name: &str, port: u16, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command.args(["--host=127.0.0.1", &format!("--port={port}"), "--username=postgres"]).args(arguments);
        command.env("PGAPPNAME", name).env("PGDATABASE", "postgres").stdin(Stdio::null());
        command
    }

    fn direct(&self, name: &str, arguments: &[&str]) -> Output {
        run_to_end(self.program(name, self.server.port(), arguments))
    }

    fn through(&self, name: &str, arguments: &[&str]) -> Output {
        run_to_end(self.program(name, self.proxy.port(), arguments))
    }

    fn scrape(&self) -> Scrape {
        let (status, page) = http::get(self.exporter, "/metrics").expect("an answer");
        assert_eq!(status, 200, "{page}");
        Scrape::parse(&page)
    }

    /// Scrapes the sum of the series of an application's pool.
    fn value(&self, application: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
        let pool = format!("{application} postgres@postgres");
        let labels: Vec<_> = [("db_client_connection_pool_name", &*pool)].iter().chain(labels).copied().collect();
        self.scrape().sum(name, &labels)
    }

    /// Waits until the application's sessions have ended, and checks that each has one reason.
    fn await_end(&self, application: &str) -> f64 {
        let closed = || self.value(application, "poolscope_connections_closed_total", &[]);
        let created = || self.value(application, "poolscope_connections_created_total", &[]);
        wait_until("the sessions' end", || created() > 0.5 && (created() - closed()).abs() < 0.5);
        assert_eq!(self.value(application, "poolscope_wires_lost_total", &[]), 0.0);
        created()
    }
}

/// Returns the path of a program beside the server's.
fn program(name: &str) -> PathBuf {
    let configured = std::env::var_os("POOLSCOPE_PG_BIN").map(PathBuf::from);
    let installed =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let found =
        configured.into_iter().chain(installed).map(|directory| directory.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| name.into())
}

const SCRIPT: &str = r"
CREATE TEMP TABLE t (id serial, name text, at timestamptz DEFAULT '2020-01-01');
INSERT INTO t (name) SELECT 'n' || n FROM generate_series(1, 1000) AS n;
BEGIN; DELETE FROM t WHERE id > 500; SAVEPOINT s; SELECT broken; ROLLBACK TO s; COMMIT;
SELECT count(*), sum(id) FROM t;
PREPARE p AS SELECT * FROM t WHERE id = $1; EXECUTE p(7); EXECUTE p(8); DEALLOCATE p;
COPY t (id, name) TO STDOUT WITH CSV;
COPY t (name) FROM STDIN;
from stdin
\.
\copy (SELECT name FROM t ORDER BY id) TO STDOUT
LISTEN channel; NOTIFY channel, 'payload'; SELECT 1;
SELECT lo_from_bytea(4711, repeat('x', 100000)::bytea), length(lo_get(4711)); SELECT lo_unlink(4711);
DECLARE c CURSOR WITH HOLD FOR SELECT * FROM t; FETCH 3 FROM c; CLOSE c;
DO $$ BEGIN RAISE NOTICE 'noticed'; END $$;
SELECT 1 AS a, 2 AS b \gx
SET statement_timeout = 50; SELECT pg_sleep(10); RESET statement_timeout;
SELECT repeat('long', 200000);
";

#[test]
fn psql_prints_the_same() {
    let environment = Environment::new("");
    let script = environment.directory.path().join("script.sql");
    fs::write(&script, SCRIPT).expect("to write");
    let arguments = ["--no-psqlrc", "--echo-all", "--file", script.to_str().expect("a path")];
    // The notification's process differs.
    let text = |output: Output| {
        let process = |line: &&str| !line.contains("server process with PID");
        let lines = |text: String| text.lines().filter(process).collect::<Vec<_>>().join("\n");
        (output.code, lines(output.out), lines(output.err))
    };
    let direct = text(environment.direct("psql", &arguments));
    assert!(direct.1.contains("n499") && direct.2.contains("statement timeout"), "{direct:?}");
    assert!(text(environment.through("psql", &arguments)) == direct, "the output differs");
    assert_eq!(environment.await_end("psql"), 1.0);
    let errors = |state| environment.value("psql", "poolscope_query_errors_total", &[("sqlstate", state)]);
    assert_eq!((errors("42703"), errors("57014")), (1.0, 1.0));
    let closed = environment.value("psql", "poolscope_connections_closed_total", &[("reason", "client_closed")]);
    assert_eq!(closed, 1.0);
}

#[test]
fn dump_and_restore_are_identical() {
    let environment = Environment::new("");
    let sql = "CREATE TABLE big AS SELECT n, md5(n::text) AS hash FROM generate_series(1, 200000) AS n; \
               CREATE INDEX ON big (hash); CREATE DATABASE copy";
    for statement in sql.split("; ") {
        let output = environment.direct("psql", &["--command", statement]);
        assert_eq!(output.code, Some(0), "{}", output.err);
    }
    let files = ["direct", "through"].map(|name| environment.directory.path().join(name));
    let dump = |port: u16, file: &PathBuf| {
        let file = format!("--file={}", file.display());
        let output = run_to_end(environment.program("pg_dump", port, &["--format=plain", &file]));
        assert_eq!(output.code, Some(0), "{}", output.err);
    };
    dump(environment.server.port(), &files[0]);
    dump(environment.proxy.port(), &files[1]);
    // Since the minor releases of 2025, a dump has a random key against injected commands.
    let read = |file: &PathBuf| {
        let text = fs::read_to_string(file).expect("a dump");
        text.lines()
            .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let dumped = read(&files[0]);
    assert!(dumped.len() > 7_000_000 && dumped == read(&files[1]), "{} bytes", dumped.len());
    let archive = environment.directory.path().join("archive");
    let archive = archive.to_str().expect("a path");
    let output = environment.through("pg_dump", &["--format=custom", "--file", archive]);
    assert_eq!(output.code, Some(0), "{}", output.err);
    let output = environment.through("pg_restore", &["--dbname=copy", archive]);
    assert_eq!(output.code, Some(0), "{}", output.err);
    let restored = environment
        .through("psql", &["--no-align", "--tuples-only", "--dbname=copy", "--command", "SELECT count(*) FROM big"]);
    assert_eq!(restored.out.trim(), "200000", "{}", restored.err);
}

#[test]
fn pgbench_is_counted_by_statement() {
    let environment = Environment::new("pool_size = 8");
    let initialized = environment.through("pgbench", &["--initialize", "--quiet"]);
    assert_eq!(initialized.code, Some(0), "{}", initialized.err);
    environment.await_end("pgbench");
    let finished = || {
        environment.value("pgbench", "poolscope_queries_finished_total", &[("operation", "UPDATE pgbench_accounts")])
    };
    let before = finished();
    for mode in ["simple", "extended", "prepared"] {
        let protocol = format!("--protocol={mode}");
        let arguments = ["--client=4", "--jobs=2", "--transactions=25", "--no-vacuum", &protocol];
        let output = environment.through("pgbench", &arguments);
        assert!(output.code == Some(0) && output.out.contains("100/100"), "{} {}", output.out, output.err);
    }
    environment.await_end("pgbench");
    // The transaction is named after its first statement; COMMIT and the others belong to it.
    assert!(finished() - before > 1499.0, "{}", finished() - before);
    let durations = environment.value(
        "pgbench",
        "db_client_operation_duration_seconds_count",
        &[("db_query_summary", "UPDATE pgbench_accounts"), ("error_type", "")],
    );
    assert_eq!(durations, 300.0);
    assert_eq!(environment.value("pgbench", "db_client_connection_max", &[]), 8.0);
    let connect = || {
        let arguments = ["--connect", "--client=4", "--transactions=50", "--no-vacuum", "--select-only"];
        let output = environment.through("pgbench", &arguments);
        assert_eq!(output.code, Some(0), "{}", output.err);
        environment.await_end("pgbench");
    };
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", environment.run.pid())).expect("descriptors").count();
    connect();
    let before = descriptors();
    connect();
    // But for those of a scrape.
    wait_until("the descriptors' end", || descriptors() <= before + 5);
}

#[test]
fn shutdown_ends_open_transactions_first() {
    let mut environment = Environment::new("drain_timeout = '20s'");
    assert!(matches!(http::get(environment.exporter, "/-/ready"), Ok((200, _))));
    let mut psql = environment.program("psql", environment.proxy.port(), &["--no-psqlrc", "--quiet"]);
    let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("psql");
    let mut input = psql.stdin.take().expect("an input");
    input.write_all(b"BEGIN;\nSELECT 1;\n").expect("to write");
    wait_until("the transaction", || {
        environment.value("psql", "db_client_connection_count", &[("db_client_connection_state", "used")]) > 0.5
    });
    environment.run.signal(Signal::SIGTERM);
    wait_until("the shutdown", || matches!(http::get(environment.exporter, "/-/ready"), Ok((503, _))));
    assert!(matches!(http::get(environment.exporter, "/-/healthy"), Ok((200, _))));
    input.write_all(b"SELECT 'within';\nCOMMIT;\n").expect("to write");
    assert_eq!(environment.run.wait().code(), Some(0));
    drop(input);
    let output = psql.wait_with_output().expect("psql's output");
    assert!(String::from_utf8_lossy(&output.stdout).contains("within"), "{output:?}");
    let errors = environment.run.stderr();
    assert!(errors.contains("shutting down"), "{errors}");
}

#[test]
fn invalid_configuration_is_a_usage_error() {
    let run = |arguments: &[&str]| {
        let mut command = poolscope(&["proxy", "--web.listen-address", "127.0.0.1:0"]);
        command.args(arguments);
        let Output { code, err, .. } = run_to_end(command);
        assert_eq!(code, Some(2), "{err}");
        err
    };
    assert!(run(&[]).contains("no server is configured: give --upstream"));
    let error = run(&["--upstream", "postgres://app:hunter2@db"]);
    assert!(error.contains("has a password") && !error.contains("hunter2"), "{error}");
    assert!(run(&["--upstream", "postgres://db", "--listen", "nowhere"]).contains("--listen: expected host:port"));
}

#[test]
fn copy_of_100_megabytes_is_identical() {
    let environment = Environment::new("");
    let file = environment.directory.path().join("lines");
    let copy = |direction: &str| format!("\\copy big {direction} '{}'", file.display());
    let create = "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 31) AS text FROM generate_series(1, 105000) AS n";
    let digest = [
        "--no-align",
        "--tuples-only",
        "--command",
        "SELECT count(*), md5(string_agg(md5(text), '' ORDER BY n)) FROM big",
    ];
    let run = |output: Output| {
        assert_eq!(output.code, Some(0), "{}", output.err);
        output.out
    };
    run(environment.direct("psql", &["--command", create]));
    let before = run(environment.direct("psql", &digest));
    run(environment.through("psql", &["--command", &copy("TO")]));
    assert!(fs::metadata(&file).expect("the data").len() > 100_000_000);
    run(environment.direct("psql", &["--command", "TRUNCATE big"]));
    run(environment.through("psql", &["--command", &copy("FROM")]));
    assert_eq!(run(environment.direct("psql", &digest)), before);
    environment.await_end("psql");
    for direction in ["sent", "received"] {
        let bytes = environment.value("psql", "poolscope_wire_bytes_total", &[("direction", direction)]);
        assert!(bytes > 100_000_000.0, "{direction}: {bytes}");
    }
}

/// Returns a program in Python; `None` without the clients, which `scripts/setup test` installs.
fn python(script: &str, port: u16) -> Option<Command> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let python = PathBuf::from(format!("{root}/target/clients/bin/python"));
    python.exists().then(|| {
        let mut command = Command::new(python);
        command.arg(format!("{root}/crates/cli/tests/clients/{script}")).args(["127.0.0.1", &port.to_string()]);
        command
    })
}

#[test]
fn python_clients_print_the_same() {
    let environment = Environment::new("");
    let run = |port| {
        let Output { code, out, err } = run_to_end(python("session.py", port)?);
        assert_eq!(code, Some(0), "{err}");
        Some(out)
    };
    let Some(direct) = run(environment.server.port()) else { return };
    assert!(direct.contains("4950") && direct.contains("57014"), "{direct}");
    assert_eq!(run(environment.proxy.port()), Some(direct));
    for application in ["psycopg", "asyncpg", "sqlalchemy"] {
        assert!(environment.await_end(application) > 0.5, "{application}");
    }
}

#[test]
fn node_postgres_prints_the_same() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let modules = format!("{root}/target/clients-node/node_modules");
    if !fs::exists(format!("{modules}/pg")).is_ok_and(|exists| exists) {
        return;
    }
    let environment = Environment::new("");
    let run = |port: u16| {
        let mut command = Command::new("node");
        command.arg(format!("{root}/crates/cli/tests/clients/session.js")).args(["127.0.0.1", &port.to_string()]);
        let Output { code, out, err } = run_to_end({
            command.env("NODE_PATH", &modules);
            command
        });
        assert_eq!(code, Some(0), "{err}");
        out
    };
    let direct = run(environment.server.port());
    assert!(direct.contains("node_postgres payload") && direct.contains("42703"), "{direct}");
    assert_eq!(run(environment.proxy.port()), direct);
    assert!(environment.await_end("node-postgres") > 2.5);
}

/// A client that exhausts its pool until this is dropped.
struct Exhausting(std::process::Child);

impl Drop for Exhausting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something holds, for minutes in all.
fn wait_longer(what: &str, began: Instant, mut holds: impl FnMut() -> bool) {
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(300), "still waiting for: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn exhausted_pools_of_sqlalchemy_are_diagnosed() {
    let environment = Environment::new("leak_threshold = '8s'");
    let ways =
        [("leak", "leak"), ("idle", "idle_in_transaction"), ("held", "idle_in_transaction"), ("slow", "slow_queries")];
    let mut clients = Vec::new();
    for (way, _) in ways {
        let Some(mut command) = python("exhaust.py", environment.proxy.port()) else { return };
        let client = command.arg(way).stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
        clients.push(Exhausting(client.expect("a client")));
    }
    let began = Instant::now();
    for (way, cause) in ways {
        let mut seen = String::new();
        // Python takes long to start on a busy machine, and a cause has to hold for some seconds.
        let is_diagnosed = || {
            let Ok((200, body)) = http::get(environment.exporter, "/api/v1/pools") else { return false };
            let pools: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            let pools = pools["pools"].as_array().expect("pools");
            let Some(pool) = pools.iter().find(|pool| pool["name"] == format!("{way} postgres@postgres")) else {
                return false;
            };
            let diagnosis = &pool["diagnosis"];
            seen = diagnosis.to_string();
            assert_eq!(pool["kind"], "proxy");
            diagnosis["cause"] == cause && diagnosis["operation"] == format!("/{way}")
        };
        wait_longer(&format!("{cause} of {way}"), began, is_diagnosed);
        assert!(!seen.contains("wait"), "a proxy does not see waits: {seen}");
    }
}

//! `poolscope proxy` with real clients, each run directly and through the proxy.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use poolscope_testing::http;
use poolscope_testing::otlp::Receiver;
use poolscope_testing::process;
use poolscope_testing::scrape::Scrape;
use poolscope_testing::server::{Builder, Server};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::run::{Output, Run, poolscope, run_to_end, wait_until};

/// A server, and a proxy in front of it.
pub(super) struct Environment {
    _runtime: Runtime,
    pub(super) server: Server,
    run: Run,
    /// Where clients connect.
    pub(super) proxy: SocketAddr,
    pub(super) exporter: SocketAddr,
    pub(super) directory: TempDir,
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
    pub(super) fn new(configuration: &str) -> Self {
        Self::with(configuration, Server::builder(), |command| command)
    }

    /// Starts a server, and a proxy whose command is completed by a function.
    pub(super) fn with(
        configuration: &str,
        server: Builder,
        complete: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(server.tcp(true).start()).expect("a server");
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("proxy.toml");
        fs::write(&file, configuration).expect("to write");
        let mut command = poolscope(&["proxy", "--config"]);
        let (run, proxy, exporter) = start(complete(command.arg(&file)), server.port());
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

    pub(super) fn scrape(&self) -> Scrape {
        let (status, page) = http::get(self.exporter, "/metrics").expect("an answer");
        assert_eq!(status, 200, "{page}");
        Scrape::parse(&page)
    }

    /// Scrapes the sum of the series of an application's pool.
    fn value(&self, application: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.value_of(&format!("{application} postgres@postgres"), name, labels)
    }

    fn value_of(&self, pool: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<_> = [("db_client_connection_pool_name", pool)].iter().chain(labels).copied().collect();
        self.scrape().sum(name, &labels)
    }

    /// Waits until the application's sessions have ended, and checks that each has one reason.
    pub(super) fn await_end(&self, application: &str) -> f64 {
        self.await_end_of(&format!("{application} postgres@postgres"))
    }

    fn await_end_of(&self, pool: &str) -> f64 {
        let closed = || self.value_of(pool, "poolscope_connections_closed_total", &[]);
        let created = || self.value_of(pool, "poolscope_connections_created_total", &[]);
        wait_until("the sessions' end", || created() > 0.5 && (created() - closed()).abs() < 0.5);
        assert_eq!(self.value_of(pool, "poolscope_wires_lost_total", &[]), 0.0);
        created()
    }
}

/// Returns the path of a program beside the server's.
pub(super) fn program(name: &str) -> PathBuf {
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
fn replication_is_identical() {
    let settings = [("wal_level", "replica"), ("max_wal_senders", "4")];
    let environment = Environment::with("", Server::builder().settings(settings), |command| command);
    let create = "CREATE TABLE big AS SELECT n, md5(n::text) FROM generate_series(1, 20000) AS n";
    assert_eq!(environment.direct("psql", &["--command", create]).code, Some(0));
    let path = |name: &str| environment.directory.path().join(name).to_str().expect("a path").to_owned();

    // The server's own checksum of each file, and the log that is streamed meanwhile.
    let base = format!("--pgdata={}", path("base"));
    let arguments = [&*base, "--checkpoint=fast", "--wal-method=stream", "--manifest-checksums=SHA256"];
    let Output { code, err, .. } = environment.through("pg_basebackup", &arguments);
    assert_eq!(code, Some(0), "{err}");
    let mut verify = Command::new(program("pg_verifybackup"));
    let Output { code, out, err } = run_to_end({
        verify.arg(path("base"));
        verify
    });
    assert_eq!(code, Some(0), "{out}{err}");

    // The backup has begun another segment.
    let update = ["--command", "UPDATE big SET n = n + 1"];
    assert_eq!(environment.direct("psql", &update).code, Some(0));
    let query = "SELECT lsn, pg_walfile_name(lsn) FROM pg_current_wal_lsn() AS lsn";
    let end = environment.direct("psql", &["--no-align", "--tuples-only", "--command", query]).out;
    let (position, segment) = end.trim().split_once('|').expect("a position");
    let low = position.split_once('/').and_then(|(_, low)| usize::from_str_radix(low, 16).ok()).expect("an offset");
    let (directory, until) =
        (format!("--directory={}", environment.directory.path().display()), format!("--endpos={position}"));
    let Output { code, err, .. } = environment.through("pg_receivewal", &[&directory, "--no-loop", &until]);
    assert_eq!(code, Some(0), "{err}");
    let received = fs::read(path(&format!("{segment}.partial"))).expect("a segment");
    let written = fs::read(environment.server.dir().join("data/pg_wal").join(segment)).expect("a segment");
    let length = low % (16 << 20);
    assert!(length > 0 && received[..length] == written[..length], "{length} bytes of {segment} differ");
    // The name of the database in replication mode.
    assert_eq!(environment.await_end_of("pg_basebackup postgres@replication"), 2.0);
    assert_eq!(environment.await_end_of("pg_receivewal postgres@replication"), 1.0);
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
    let descriptors = || process::descriptors(environment.run.pid());
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
fn refused_clients_are_counted() {
    let environment = Environment::new("max_connections = 1");
    let command = ["--no-psqlrc", "--command", "SELECT 1"];
    assert_eq!(environment.through("psql", &command).code, Some(0));
    environment.await_end("psql");
    let connect = || TcpStream::connect(environment.proxy).expect("to connect");
    // As many as may be open, which have not sent anything yet.
    let mut waiting: Vec<_> = (0..101).map(|_| connect()).collect();
    let refused = |pool| {
        let labels = [("db_client_connection_pool_name", pool), ("error_type", "limit")];
        environment.scrape().sum("poolscope_connection_errors_total", &labels)
    };
    let mut unread = connect();
    assert_eq!(unread.read(&mut [0]).unwrap_or(0), 0, "closed at once");
    assert_eq!(refused("other"), 1.0);
    let closed = [("db_client_connection_pool_name", "other"), ("reason", "connect_failed")];
    assert_eq!(environment.scrape().sum("poolscope_connections_closed_total", &closed), 1.0);
    // Within these hundred, a client beyond the limit receives PostgreSQL's error.
    waiting.clear();
    let mut held = environment.program("psql", environment.proxy.port(), &["--no-psqlrc", "--quiet"]);
    let mut held = held.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("psql");
    let used = [("db_client_connection_state", "idle")];
    wait_until("a session", || environment.value("psql", "db_client_connection_count", &used) > 0.5);
    let output = environment.through("psql", &command);
    assert!(output.code == Some(2) && output.err.contains("sorry, too many clients already"), "{}", output.err);
    assert_eq!(refused("psql postgres@postgres"), 1.0);
    let _ = held.kill();
    let _ = held.wait();
}

#[test]
fn queries_are_spans_of_the_clients_traces() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";
    let receiver = Receiver::http();
    let environment = Environment::with("", Server::builder(), |command| {
        command.args(["--otlp.endpoint", &receiver.endpoint()]).args(["--otlp.protocol", "http/protobuf"]);
        command.env("OTEL_BSP_SCHEDULE_DELAY", "100")
    });
    let run = |sql: &str, flags: &str| {
        let comment = format!("/*route='%2Forders',traceparent='00-{TRACE}-{PARENT}-{flags}'*/");
        environment.through("psql", &["--no-psqlrc", "--command", &format!("{sql} {comment}")])
    };
    // Not sampled, and of no trace.
    assert_eq!(run("SELECT 'hunter2' AS unsampled FROM pg_class", "00").code, Some(0));
    assert_eq!(environment.through("psql", &["--command", "SELECT 'hunter2' FROM pg_class"]).code, Some(0));
    assert_eq!(run("SELECT 'hunter2' AS secret FROM pg_proc LIMIT 3", "01").code, Some(0));
    assert_eq!(run("SELECT broken, 'hunter2' FROM pg_type", "01").code, Some(1));
    wait_until("the spans", || receiver.spans().len() >= 2);
    let mut spans = receiver.spans();
    spans.sort_by(|one, other| one.name.cmp(&other.name));
    let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["SELECT pg_proc", "SELECT pg_type"]);
    for span in &spans {
        assert_eq!((&*span.trace_id, span.parent.as_deref(), span.kind), (TRACE, Some(PARENT), "client"));
        assert_eq!(span.resource["service.name"], "poolscope-proxy");
        assert_eq!(span.attributes["db.query.summary"], span.name);
        assert!(!format!("{span:?}").contains("hunter2") && !span.attributes.contains_key("db.query.text"), "{span:?}");
    }
    assert_eq!((spans[0].status.0, spans[1].status.0), ("unset", "error"));
    assert_eq!(spans[1].attributes["db.response.status_code"], "42703");
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

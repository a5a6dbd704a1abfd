//! Nothing that leaves a process contains a literal, a parameter or a row's value.
//!
//! One run, with real statements, failures and a collector, in which every such text contains a word. The subscriber is that
//! of a service: the pipeline's public layer, and a log at the lowest level.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unused_crate_dependencies, reason = "the package's other tests use them")]

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use poolscope::exporter::Exporter;
use poolscope::middleware::{Head, PoolLayer};
use poolscope::otlp::{MetricsExport, Pipeline, Protocol, Settings};
use poolscope::text::ErrorChain;
use poolscope::{Collector, Connection, Pool, RetryPolicy};
use poolscope_testing::http::get as http_get;
use poolscope_testing::otlp::Receiver;
use poolscope_testing::server::Server;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tracing::Instrument as _;
use tracing_subscriber::prelude::*;

/// Part of every text that must not leave.
const CANARY: &str = "canary";

/// The longest wait for a server, a collector or a condition, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The lines of a log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn all(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().map(str::to_owned).collect()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Statements with the word in every position where SQL allows a value, of which some fail.
const STATEMENTS: [&str; 24] = [
    "SELECT 'canary', 1 AS n",
    "SELECT $tag$canary$tag$, E'\\'canary', U&'canary', b'101'",
    "SELECT 1 /* canary */ -- canary",
    "SELECT * FROM people WHERE name = 'canary' OR name LIKE '%canary%'",
    "SELECT name FROM people WHERE id IN (1, 2) AND name IN ('canary', 'canary 2')",
    "INSERT INTO people VALUES (1, 'canary')",
    // 23505, with the value in DETAIL.
    "INSERT INTO people VALUES (2, 'canary')",
    // 23502 and 23514, with the row in DETAIL.
    "INSERT INTO people VALUES (NULL, 'canary row')",
    "INSERT INTO people VALUES (-1, 'canary check')",
    "UPDATE people SET name = 'canary two' WHERE id = 1",
    "DELETE FROM people WHERE name = 'canary none'",
    // 22P02, 22007 and 22003, with the value in the message.
    "SELECT 'canary'::int",
    "SELECT 'canary'::date",
    // 42601, with the token in the message, and 42703.
    "SELECT 'a' 'canary'",
    "SELECT missing FROM people WHERE name = 'canary'",
    "CREATE TEMPORARY TABLE copies AS SELECT 'canary' AS name",
    "DO $$ BEGIN RAISE NOTICE 'canary notice'; END $$",
    "DO $$ BEGIN RAISE EXCEPTION 'canary exception' USING DETAIL = 'canary detail', HINT = 'canary hint'; END $$",
    "DO $$ BEGIN RAISE EXCEPTION 'canary retry' USING ERRCODE = '40001'; END $$",
    "NOTIFY news, 'canary'",
    "SET app.customer = 'canary'",
    "SELECT set_config('search_path', 'canary, public', false)",
    "CREATE ROLE someone PASSWORD 'canary'",
    "PREPARE named AS SELECT 'canary', $1::text; EXECUTE named('canary')",
];

async fn use_connection(connection: &mut Connection) {
    for statement in STATEMENTS {
        let _ = connection.batch_execute(statement).await;
        let _ = connection.query(statement, &[]).await;
    }
    let select = connection.prepare_cached("SELECT id FROM people WHERE name = $1").await.unwrap();
    connection.query(&select, &[&"canary parameter"]).await.unwrap();
    let insert = "INSERT INTO people VALUES ($1, $2)";
    connection.execute(insert, &[&3, &"canary parameter"]).await.unwrap();
    connection.execute(insert, &[&4, &"canary parameter"]).await.unwrap_err();
    let transaction = connection.transaction().await.unwrap();
    transaction.execute("SELECT set_config('a.b', $1, true)", &[&"canary"]).await.unwrap();
    transaction.batch_execute("SAVEPOINT one; SELECT 'canary'; ROLLBACK TO one").await.unwrap();
    transaction.commit().await.unwrap();
    let sink = connection.copy_in("COPY people FROM STDIN WITH (DELIMITER ',')").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from_static(b"10,canary copied\ncanary,22P02\n")).await.unwrap();
    sink.finish().await.unwrap_err();
    // Returned dirty, with an error that the reset meets.
    let _ = connection.batch_execute("BEGIN; SELECT 'canary'; SELECT 'canary dirty'::int").await;
}

/// Uses a pool in every way that reports something. Returns the errors as they are displayed.
async fn use_pool(pool: &Pool) -> Vec<String> {
    let mut errors = Vec::new();
    let mut connection = pool.get().await.unwrap();
    use_connection(&mut connection).await;
    drop(connection);
    let fails = async |connection: &mut Connection| {
        connection.execute("INSERT INTO people VALUES ($1, $2)", &[&5, &"canary parameter"]).await.map(drop)
    };
    let error = pool.run(fails).await.unwrap_err();
    errors.extend([error.to_string(), ErrorChain(&error).to_string()]);
    let policy = RetryPolicy::default().attempts(3).backoff(Duration::ZERO, Duration::ZERO);
    for statement in ["SELECT 'canary'::int", "DO $$ BEGIN RAISE EXCEPTION 'canary' USING ERRCODE = '40001'; END $$"] {
        let work = async move |connection: &mut Connection| connection.batch_execute(statement).await;
        let error = pool.operation("retried").retry(policy).run(work).await.unwrap_err();
        errors.extend([error.to_string(), ErrorChain(&error).to_string()]);
    }
    // A server that ends the session.
    let ends = async |connection: &mut Connection| {
        connection.batch_execute("SELECT 'canary', pg_terminate_backend(pg_backend_pid())").await
    };
    let error = pool.run(ends).await.unwrap_err();
    errors.extend([error.to_string(), ErrorChain(&error).to_string()]);
    errors
}

async fn serve_request(pool: &Pool) -> String {
    fn route<'a>(_: Head<'a>) -> Option<Cow<'a, str>> {
        Some("/people/{name}".into())
    }
    let handler = service_fn(async |request: Request<Full<Bytes>>| {
        let pool = request.extensions().get::<Pool>().unwrap();
        let found = pool.get().await.unwrap().query("SELECT 'canary' FROM people WHERE name = $1", &[&"canary"]).await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(format!("{} canary", found.unwrap().len()))))
    });
    let service = PoolLayer::new(pool).route_by(route).server_timing(true).warn_checkouts_over(0).layer(handler);
    let request = Request::get("/people/canary?name=canary")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .header("cookie", "canary")
        .body(Full::default())
        .unwrap();
    let (head, body) = service.oneshot(request).await.unwrap().into_parts();
    body.collect().await.unwrap();
    format!("{head:?}")
}

async fn page(address: SocketAddr, path: &str) -> String {
    let path = path.to_owned();
    let (status, page) = tokio::task::spawn_blocking(move || http_get(address, &path)).await.unwrap().unwrap();
    assert_eq!(status, 200, "{page}");
    page
}

#[track_caller]
fn assert_private(output: &str, text: &str) {
    if let Some((before, after)) = text.split_once(CANARY) {
        let before: Vec<_> = before.chars().rev().take(300).collect();
        let before: String = before.into_iter().rev().collect();
        panic!("{output}: …{before}{CANARY}{}…", after.chars().take(200).collect::<String>());
    }
}

#[tokio::test]
async fn no_output_contains_a_literal_or_a_value() {
    let receiver = Receiver::grpc();
    let mut settings = Settings::new("shop");
    settings.endpoint = Some(receiver.endpoint());
    settings.protocol = Protocol::Grpc;
    let pipeline = Pipeline::start(&settings).unwrap();
    let log = Lines::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    tracing_log::LogTracer::init().unwrap();
    // Not `init()`: it sets a logger of its own where `tracing-subscriber` has the feature `tracing-log`.
    let subscriber = tracing_subscriber::registry().with(pipeline.layer()).with(lines);
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let server = tokio::time::timeout(TIMEOUT, Server::builder().start()).await.unwrap().unwrap();
    let collector = Collector::new();
    let mut outputs = Vec::new();
    for (name, text) in [("without_text", false), ("with_text", true)] {
        let builder = Pool::builder().url(&server.url()).name(name).collector(collector.clone());
        let pool = builder.pool_size(1).max_overflow(0).reset_session(true).trace_query_text(text);
        let pool = pool.slow_query_threshold(Some(Duration::from_millis(1))).build().unwrap();
        let setup =
            "DROP TABLE IF EXISTS people; CREATE TABLE people (id int NOT NULL CHECK (id > 0), name text UNIQUE)";
        pool.get().await.unwrap().batch_execute(setup).await.unwrap();
        let watch = tokio::spawn(pool.watch_server(Duration::from_millis(100)));
        let work = async {
            tracing::info!("an event of the service");
            let errors = use_pool(&pool).await;
            let held = pool.get().await.unwrap();
            let snapshot = format!("{:?} {:?} {:?} {pool:?} {held:?}", pool.snapshot(), pool.holders(), pool.waiters());
            (errors.join("\n"), snapshot)
        };
        let (errors, snapshot) = work.instrument(tracing::info_span!("request")).await;
        outputs.extend([("errors", errors), ("snapshot", snapshot), ("response", serve_request(&pool).await)]);

        let bound = Exporter::new(collector.clone()).bind("127.0.0.1:0").await.unwrap();
        let address = bound.local_addr();
        let exporter = tokio::spawn(bound.serve(std::future::pending()));
        for path in ["/", "/metrics", "/api/v1/pools"] {
            outputs.push((path, page(address, path).await));
        }
        exporter.abort();
        watch.abort();
        settings.delay = Duration::from_secs(3600);
        MetricsExport::start(&settings, collector.clone()).unwrap().shutdown(TIMEOUT).await;
        pool.close().await;
    }
    pipeline.shutdown(TIMEOUT).await;

    for (output, text) in &outputs {
        assert_private(output, text);
    }
    assert_eq!(receiver.metrics_requests(), 2);
    for request in 0..2 {
        let metrics = format!("{:#?}", receiver.metrics_after(request));
        assert!(metrics.contains("SELECT people"), "the metrics of queries are there: {metrics}");
        assert_private("metrics push", &metrics);
    }
    let spans = receiver.spans();
    let queries = spans.iter().filter(|span| span.kind == "client").count();
    assert!(queries > 2 * STATEMENTS.len(), "{queries} queries");
    assert!(spans.iter().any(|span| span.events.iter().any(|(event, _)| event == "an event of the service")));
    assert!(
        spans.iter().any(|span| span.attributes.get("db.query.text").is_some_and(|text| text.contains("FROM people")))
    );
    for span in &spans {
        assert_private("span", &format!("{span:#?}"));
    }
    let (own, others): (Vec<_>, Vec<_>) = log.all().into_iter().partition(|line| line.contains(" poolscope::"));
    for line in &own {
        assert_private("log", line);
    }
    // The events were there for every layer, and left by none of ours.
    assert!(own.iter().any(|line| line.contains("slow query") && line.contains("CREATE TABLE people")), "{own:#?}");
    assert!(others.iter().any(|line| line.contains("preparing query") && line.contains(CANARY)), "{others:?}");
}

//! The exposition, as Prometheus and the `prometheus` crate read it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, Response};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use poolscope::exporter::Exporter;
use poolscope::middleware::PoolLayer;
use poolscope::telemetry::TraceContext;
use poolscope::telemetry::catalogue::{METRICS, Metric};
use poolscope::{Collector, Connection, Pool, RetryPolicy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::server;
use crate::support::expositions::equal_expositions;
use crate::support::{Admin, Prometheus, TestPool, eventually, poll_until, shared, traced, with_deadline};

/// Forwards scrapes to `exporter`, as from a client that knows only the text format.
async fn text_only(exporter: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                // The head of a scrape is in its first packet.
                let read = client.read(&mut [0; 4096]).await?;
                assert!(read > 0);
                let mut server = TcpStream::connect(exporter).await?;
                server.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await?;
                tokio::io::copy(&mut server, &mut client).await
            });
        }
    });
    address
}

/// A real Prometheus reads both formats alike, and its exemplars lead to the exported trace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_reads_both_formats_and_exemplars() {
    let hostile = "a \"quote\", a \\ and\na line; é🦀";
    let test = TestPool::shared("read by Prometheus", |builder| builder.pool_size(1).max_overflow(0)).await;
    let exporter = Exporter::new(test.collector()).bind("127.0.0.1:0").await.unwrap();
    let address = exporter.local_addr();
    tokio::spawn(exporter.serve(std::future::pending()));

    let operation = test.pool.operation(hostile);
    let (trace, ()) = traced("GET /scraped", async {
        for _ in 0..3 {
            operation.clone().run(async |connection| connection.execute("SELECT 1", &[]).await).await.unwrap();
        }
        serve(&test.pool).await;
    })
    .await;

    let prometheus = Prometheus::start(&[("open_metrics", address), ("text", text_only(address).await)]).await;
    poll_until("both jobs to be scraped", async || {
        (prometheus.query("poolscope_checkouts_total{outcome=\"ok\"} > 0").await.len() == 2).then_some(())
    })
    .await;
    for target in prometheus.api("/api/v1/targets").await["activeTargets"].as_array().unwrap() {
        assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()), "{target}");
    }
    // Control characters are escaped in the name itself, so that its line feed arrives as two characters.
    let name = "a \"quote\", a \\ and\\na line; é🦀";
    let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
    let both = |value: f64| vec![("open_metrics".to_owned(), value), ("text".to_owned(), value)];
    for (expression, value) in [
        (format!("poolscope_checkouts_total{{operation=\"{escaped}\",outcome=\"ok\"}}"), 3.0),
        (format!("poolscope_operation_duration_seconds_count{{operation=\"{escaped}\",outcome=\"ok\"}}"), 3.0),
        ("db_client_connection_max".to_owned(), 1.0),
        ("db_client_connection_use_time_seconds_bucket{le=\"+Inf\"}".to_owned(), 3.0),
        ("db_client_connection_use_time_seconds_bucket{le=~\"1|1.0\"}".to_owned(), 3.0),
        ("poolscope_build_info".to_owned(), 1.0),
    ] {
        assert_eq!(prometheus.query(&expression).await, both(value), "{expression}");
    }
    // Equally many series in both formats.
    let ours = "{__name__=~\"(poolscope|db_client|process)_.*\"}";
    let series = prometheus.query(&format!("count by (job) ({ours})")).await;
    assert_eq!(series.len(), 2, "{series:?}");
    assert!(series[0].1 == series[1].1 && series[0].1 > 100.0, "{series:?}");

    // From each histogram to the trace, as a collector received it.
    for histogram in [
        "db_client_connection_create_time_seconds",
        "db_client_connection_wait_time_seconds",
        "db_client_connection_use_time_seconds",
        "db_client_operation_duration_seconds",
        "poolscope_operation_duration_seconds",
        "poolscope_request_duration_seconds",
    ] {
        poll_until(&format!("an exemplar of {histogram}"), async || {
            let exemplars = prometheus.exemplars(&format!("{histogram}_bucket")).await;
            let spans = trace.received();
            let is_of_trace = |labels: &serde_json::Value| {
                labels["trace_id"] == trace.id() && spans.iter().any(|span| labels["span_id"] == *span.span_id)
            };
            (!exemplars.is_empty() && exemplars.iter().all(is_of_trace)).then_some(())
        })
        .await;
    }
}

/// Serves a request without a checkout.
async fn serve(pool: &Pool) {
    let served = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
    PoolLayer::new(pool).layer(served).oneshot(Request::new(())).await.unwrap();
}

/// Returns a pool with every outcome that a server can cause, and nothing in use, so that its numbers are stable.
async fn used_pool() -> TestPool {
    Admin::new(shared().await).await.execute("CREATE TABLE experienced (id int PRIMARY KEY)").await;
    let test = TestPool::shared("experienced \"in\" all", |builder| builder.pool_size(1).max_overflow(0)).await;
    let mut connection = test.get().await;
    connection.execute("INSERT INTO experienced VALUES ($1)", &[&1]).await.unwrap();
    connection.execute("INSERT INTO experienced VALUES ($1)", &[&1]).await.unwrap_err();
    // The transaction is left open.
    std::mem::forget(connection.transaction().await.unwrap());
    drop(connection);
    let failed = std::sync::atomic::AtomicBool::new(false);
    let policy = RetryPolicy::new().backoff(Duration::ZERO, Duration::ZERO);
    let work = async |connection: &mut Connection| {
        let first = !failed.swap(true, Ordering::Relaxed);
        let statement = if first { "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$" } else { "SELECT 1" };
        connection.batch_execute(statement).await
    };
    test.pool.operation("tried \\again").idempotent(true).retry(policy).run(work).await.unwrap();
    let hopeless = async |connection: &mut Connection| connection.batch_execute("SELECT no_such_column").await;
    test.pool.operation("tried in vain").retry(policy).run(hopeless).await.unwrap_err();
    serve(&test.pool).await;
    drop(test.pool.connect_unpooled().await.unwrap());
    wait_for_own_pool(&test.pool).await;
    // Queried once, so that these numbers are stable too.
    tokio::spawn(test.pool.watch_server(Duration::from_secs(3600)));
    eventually("everything is returned, and the server was queried", async || {
        let snapshot = test.pool.snapshot();
        snapshot.connections.used + snapshot.unpooled[0].active == 0 && snapshot.server.is_some()
    })
    .await;
    test
}

/// Waits for the only connection in a task that holds it, until that is noticed.
async fn wait_for_own_pool(pool: &Pool) {
    let task = tokio::spawn({
        let pool = pool.clone();
        async move {
            let _held = pool.get().await.unwrap();
            pool.operation("waits for its own").get().await.map(drop)
        }
    });
    eventually("a self-deadlock", async || pool.snapshot().self_deadlocks.len() == 1).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn exposition_matches_the_prometheus_crate() {
    let test = used_pool().await;
    let (text, open_metrics) = equal_expositions(test.collector(), test.registry(), |_| true).await;
    let of_redis = ["poolscope_cache_", "poolscope_redis_"];
    let of_redis = |metric: &Metric| of_redis.iter().any(|begin| metric.name.starts_with(begin));
    let has_series = |metric: &&Metric| metric.has_pool_label() && !of_redis(metric);
    let pools = METRICS.iter().filter(has_series);
    let missing: Vec<_> =
        pools.map(|metric| metric.name).filter(|name| !text.iter().any(|family| family.name == *name)).collect();
    assert_eq!(missing, ["poolscope_diagnosis_evidence_usual", "poolscope_recommended_size"], "too little data");
    assert_eq!(text.len(), open_metrics.len());
}

#[tokio::test]
async fn holders_and_waiters_carry_sampled_traces() {
    let test = TestPool::shared("holders and their traces", |builder| builder.pool_size(1).max_overflow(0)).await;
    let span = |trace: u8, flags| {
        let span = SpanContext::new(
            TraceId::from_bytes([trace; 16]),
            SpanId::from_bytes([trace; 8]),
            flags,
            false,
            TraceState::NONE,
        );
        opentelemetry::Context::new().with_remote_span_context(span)
    };
    let get = async |trace, flags| {
        let mut checkout = std::pin::pin!(test.pool.get());
        let polled = std::future::poll_fn(|cx| {
            let _entered = span(trace, flags).attach();
            checkout.as_mut().poll(cx)
        });
        with_deadline("a connection", polled).await.unwrap()
    };
    let trace_of = |trace: u8| Some(TraceContext::new([trace; 16], [trace; 8]));
    let holder = || test.pool.holders()[0].trace;

    drop(get(1, TraceFlags::NOT_SAMPLED).await);
    let held = get(2, TraceFlags::SAMPLED).await;
    assert_eq!(holder(), trace_of(2));
    let waiting = get(3, TraceFlags::SAMPLED);
    let mut waiting = std::pin::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut waiting).await.is_err());
    assert_eq!(test.pool.waiters()[0].trace, trace_of(3));
    drop(held);
    let held = waiting.await;
    assert_eq!(holder(), trace_of(3));
    drop(held);
    let held = get(4, TraceFlags::NOT_SAMPLED).await;
    assert_eq!(holder(), None, "the last holder's is not this one's");
    drop(held);

    let snapshot = test.pool.snapshot();
    let traces = |histogram: &poolscope::telemetry::Histogram| {
        let mut traces: Vec<_> = histogram.exemplars().iter().map(|exemplar| exemplar.trace.span_id[0]).collect();
        traces.sort_unstable();
        traces
    };
    // The second may have waited a moment for the reset.
    for histogram in [&snapshot.wait_time, &snapshot.use_time] {
        assert!(traces(histogram).contains(&3));
        assert!(traces(histogram).iter().all(|trace| [2, 3].contains(trace)));
    }
    assert!(traces(&snapshot.create_time).is_empty(), "created by an unsampled checkout");
}

#[tokio::test]
async fn traced_queries_are_exemplars() {
    let test = TestPool::shared("examples of queries", |builder| builder.pool_size(1).max_overflow(0)).await;
    let (trace, ()) = traced("GET /examples", async {
        let connection = test.get().await;
        connection.batch_execute("SELECT 1").await.unwrap();
        connection.batch_execute("SELECT 1 / 0").await.unwrap_err();
    })
    .await;
    test.get().await.batch_execute("SHOW work_mem").await.unwrap();
    let snapshot = test.pool.snapshot();
    let examples: Vec<_> = snapshot
        .queries
        .iter()
        .map(|query| {
            let examples = query.durations.exemplars().iter().map(|exemplar| exemplar.trace.trace().to_string());
            (query.error.as_ref().map_or("", |code| code.as_str()), examples.collect::<Vec<_>>())
        })
        .collect();
    let of_trace = || vec![trace.id().to_owned()];
    assert_eq!(examples, [("", of_trace()), ("", vec![]), ("22012", of_trace())]);
}

#[tokio::test]
async fn collector_works_in_the_default_registry() {
    let server = server().await;
    let pool = Pool::builder().url(&server.url()).name("in the default registry").build().unwrap();
    drop(pool.get().await.unwrap());
    prometheus::register(Box::new(Collector::global())).unwrap();
    let text = prometheus::TextEncoder::new().encode_to_string(&prometheus::gather()).unwrap();
    assert!(text.contains("db_client_connection_max{db_client_connection_pool_name=\"in the default registry\"} 30"));
    drop(pool);
    let text = prometheus::TextEncoder::new().encode_to_string(&prometheus::gather()).unwrap();
    assert!(!text.contains("in the default registry"), "the series of a dropped pool vanish: {text}");
}

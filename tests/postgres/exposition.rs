//! What Prometheus is shown.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, Response};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use poolscope::exporter::{Exporter, Exposition, Format, Page};
use poolscope::middleware::PoolLayer;
use poolscope::telemetry::TraceContext;
use poolscope::telemetry::catalogue::METRICS;
use poolscope::{Collector, Connection, Pool, RetryPolicy};
use prometheus::TextEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::server;
use crate::support::pages::{self, samples};
use crate::support::{Admin, Counted, Prometheus, eventually, patiently, shared, traced, until};

/// Hands scrapes on to `exporter` as one that knows the text format only would make them.
async fn text_only(exporter: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                // The head of a scrape is in its first packet.
                let asked = client.read(&mut [0; 4096]).await?;
                assert!(asked > 0);
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
    let counted = Counted::shared("read by Prometheus", |builder| builder.pool_size(1).max_overflow(0)).await;
    let exporter = Exporter::new(counted.registry().clone()).bind("127.0.0.1:0").await.unwrap();
    let address = exporter.local_addr();
    tokio::spawn(exporter.serve(std::future::pending()));

    let operation = counted.pool.operation(hostile);
    let (trace, ()) = traced("GET /scraped", async {
        for _ in 0..3 {
            operation.clone().run(async |connection| connection.execute("SELECT 1", &[]).await).await.unwrap();
        }
        serve(&counted.pool).await;
    })
    .await;

    let prometheus = Prometheus::start(&[("open_metrics", address), ("text", text_only(address).await)]).await;
    until("both jobs to be scraped", async || {
        (prometheus.query("poolscope_checkouts_total{outcome=\"ok\"} > 0").await.len() == 2).then_some(())
    })
    .await;
    for target in prometheus.api("/api/v1/targets").await["activeTargets"].as_array().unwrap() {
        assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()), "{target}");
    }
    let escaped = hostile.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
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
    // As many series by either way.
    let ours = "{__name__=~\"(poolscope|db_client|process)_.*\"}";
    let series = prometheus.query(&format!("count by (job) ({ours})")).await;
    assert_eq!(series.len(), 2, "{series:?}");
    assert!(series[0].1 == series[1].1 && series[0].1 > 100.0, "{series:?}");

    // And from each histogram to the trace, which a collector has.
    for histogram in [
        "db_client_connection_create_time_seconds",
        "db_client_connection_wait_time_seconds",
        "db_client_connection_use_time_seconds",
        "db_client_operation_duration_seconds",
        "poolscope_operation_duration_seconds",
        "poolscope_request_duration_seconds",
    ] {
        until(&format!("an exemplar of {histogram}"), async || {
            let exemplars = prometheus.exemplars(&format!("{histogram}_bucket")).await;
            let spans = trace.so_far();
            let is_of_trace = |labels: &serde_json::Value| {
                labels["trace_id"] == trace.id() && spans.iter().any(|span| labels["span_id"] == *span.span_id)
            };
            (!exemplars.is_empty() && exemplars.iter().all(is_of_trace)).then_some(())
        })
        .await;
    }
}

/// Serves a request that takes no connection.
async fn serve(pool: &Pool) {
    let served = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
    PoolLayer::new(pool).layer(served).oneshot(Request::new(())).await.unwrap();
}

/// A pool that a server has answered in every way there is. Nothing of it is held any more, so that its numbers stand.
async fn experienced() -> Counted {
    Admin::new(shared().await).await.execute("CREATE TABLE experienced (id int PRIMARY KEY)").await;
    let counted = Counted::shared("experienced \"in\" all", |builder| builder.pool_size(1).max_overflow(0)).await;
    let mut connection = counted.get().await;
    connection.execute("INSERT INTO experienced VALUES ($1)", &[&1]).await.unwrap();
    connection.execute("INSERT INTO experienced VALUES ($1)", &[&1]).await.unwrap_err();
    // Left open.
    std::mem::forget(connection.transaction().await.unwrap());
    drop(connection);
    let failed = std::sync::atomic::AtomicBool::new(false);
    let policy = RetryPolicy::new().backoff(Duration::ZERO, Duration::ZERO);
    let work = async |connection: &mut Connection| {
        let first = !failed.swap(true, Ordering::Relaxed);
        let statement = if first { "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$" } else { "SELECT 1" };
        connection.batch_execute(statement).await
    };
    counted.pool.operation("tried \\again").idempotent(true).retry(policy).run(work).await.unwrap();
    let hopeless = async |connection: &mut Connection| connection.batch_execute("SELECT no_such_column").await;
    counted.pool.operation("tried in vain").retry(policy).run(hopeless).await.unwrap_err();
    serve(&counted.pool).await;
    drop(counted.pool.connect_unpooled().await.unwrap());
    // Once: what the server says is to stand, too.
    tokio::spawn(counted.pool.watch_server(Duration::from_secs(3600)));
    eventually("all has come back, and the server was seen", async || {
        let snapshot = counted.pool.snapshot();
        snapshot.connections.used + snapshot.unpooled[0].active == 0 && snapshot.server.is_some()
    })
    .await;
    counted
}

#[tokio::test]
async fn exposition_matches_the_prometheus_crate() {
    let counted = experienced().await;
    let mut exposition = Exposition::new(counted.registry().clone());
    let mut page = Page::new();
    let mut ours = |format| {
        exposition.write(format, &mut page).unwrap();
        pages::read(format, &page.to_text())
    };
    // What may still be retried is the one number that time alone changes.
    let (text, open_metrics) = until("all three to say the same", async || {
        let (text, open_metrics) = (ours(Format::Text), ours(Format::OpenMetrics));
        let theirs = TextEncoder::new().encode_to_string(&counted.registry().gather()).unwrap();
        let same = samples(&text) == samples(&pages::read(Format::Text, &theirs));
        (same && samples(&text) == samples(&open_metrics)).then_some((text, open_metrics))
    })
    .await;
    let pools = METRICS.iter().filter(|metric| metric.is_of_a_pool());
    let missing: Vec<_> =
        pools.map(|metric| metric.name).filter(|name| !text.iter().any(|family| family.name == *name)).collect();
    assert_eq!(missing, ["poolscope_recommended_size"], "of too little to tell");
    assert_eq!(text.len(), open_metrics.len());
}

#[tokio::test]
async fn holders_and_waiters_carry_sampled_traces() {
    let counted = Counted::shared("holders and their traces", |builder| builder.pool_size(1).max_overflow(0)).await;
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
        let mut checkout = std::pin::pin!(counted.pool.get());
        let polled = std::future::poll_fn(|cx| {
            let _entered = span(trace, flags).attach();
            checkout.as_mut().poll(cx)
        });
        patiently("a connection", polled).await.unwrap()
    };
    let trace_of = |trace: u8| Some(TraceContext::new([trace; 16], [trace; 8]));
    let holder = || counted.pool.holders()[0].trace;

    drop(get(1, TraceFlags::NOT_SAMPLED).await);
    let held = get(2, TraceFlags::SAMPLED).await;
    assert_eq!(holder(), trace_of(2));
    let waits = get(3, TraceFlags::SAMPLED);
    let mut waits = std::pin::pin!(waits);
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut waits).await.is_err());
    assert_eq!(counted.pool.waiters()[0].trace, trace_of(3));
    drop(held);
    let held = waits.await;
    assert_eq!(holder(), trace_of(3));
    drop(held);
    let held = get(4, TraceFlags::NOT_SAMPLED).await;
    assert_eq!(holder(), None, "the last holder's is not this one's");
    drop(held);

    let snapshot = counted.pool.snapshot();
    let traces = |histogram: &poolscope::telemetry::Histogram| {
        let mut traces: Vec<_> = histogram.exemplars().iter().map(|exemplar| exemplar.trace.span_id[0]).collect();
        traces.sort_unstable();
        traces
    };
    // The second may have waited for a moment until the connection had settled.
    for histogram in [&snapshot.wait_time, &snapshot.use_time] {
        assert!(traces(histogram).contains(&3));
        assert!(traces(histogram).iter().all(|trace| [2, 3].contains(trace)));
    }
    assert!(traces(&snapshot.create_time).is_empty(), "it was made by one that was not sampled");
}

#[tokio::test]
async fn traced_queries_are_exemplars() {
    let counted = Counted::shared("examples of queries", |builder| builder.pool_size(1).max_overflow(0)).await;
    let (trace, ()) = traced("GET /examples", async {
        let connection = counted.get().await;
        connection.batch_execute("SELECT 1").await.unwrap();
        connection.batch_execute("SELECT 1 / 0").await.unwrap_err();
    })
    .await;
    counted.get().await.batch_execute("SHOW work_mem").await.unwrap();
    let snapshot = counted.pool.snapshot();
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
    assert!(!text.contains("in the default registry"), "a pool's series go with it: {text}");
}

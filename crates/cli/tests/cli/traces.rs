//! The demo's traces: their export, and the Jaeger UI.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use poolscope_testing::otlp::{Receiver, Span};
use poolscope_testing::ports::ReservedPort;
use poolscope_testing::scrape::Scrape;
use serde_json::Value;

use crate::run::{Run, RunningDemo, demo, start, wait_until};

/// Scrapes the span counters: ended, queued, exported, dropped and failed. Checks that ended is the sum of the others.
fn spans(demo: &RunningDemo) -> Option<[f64; 5]> {
    let (status, text) = demo.get("/metrics")?;
    assert_eq!(status, 200, "{text}");
    let scrape = Scrape::parse(&text);
    let names = ["ended_total", "queued", "exported_total", "dropped_total", "failed_total"];
    let spans = names.map(|name| scrape.sum(&format!("poolscope_spans_{name}"), &[("destination", "otlp")]));
    let [ended, queued, exported, dropped, failed] = spans;
    assert!((ended - queued - exported - dropped - failed).abs() < 0.5, "{spans:?}");
    Some(spans)
}

#[test]
fn requests_are_exported_by_either_protocol() {
    for (receiver, protocol) in [(Receiver::grpc(), "grpc"), (Receiver::http(), "http/protobuf")] {
        let endpoint = receiver.endpoint();
        let mut command = demo(&["--duration", "3s", "--otlp.endpoint", &endpoint, "--otlp.protocol", protocol]);
        command.env("OTEL_EXPORTER_OTLP_HEADERS", "x-token=hunter2").env("RUST_LOG", "trace");
        command.env("OTEL_RESOURCE_ATTRIBUTES", "team=shop").env("OTEL_BSP_SCHEDULE_DELAY", "200");
        let mut demo = start(&mut command);
        assert!(demo.banner.contains(&format!("\n  traces   {endpoint}, {protocol}\n")), "{}", demo.banner);
        let mut before = [0.0; 5];
        while let Some(now) = spans(&demo) {
            assert!(now[0] >= before[0] && now[2] >= before[2], "{before:?} {now:?}");
            before = now;
        }
        assert!(before[2] > 0.0, "{before:?}");
        assert_eq!(demo.run.wait().code(), Some(0));
        let (out, err) = (demo.run.remaining_output(), demo.run.stderr());
        for text in [&demo.banner, &out, &err] {
            assert!(!text.contains("hunter2"), "{text}");
        }

        let spans = receiver.spans();
        let roots: Vec<&Span> = spans.iter().filter(|span| span.parent.is_none()).collect();
        let names: BTreeSet<_> = roots.iter().map(|span| &*span.name).collect();
        for name in ["GET /products/{id}", "GET /orders", "POST /orders", "PUT /products/{id}/stock"] {
            assert!(names.contains(name), "{names:?}");
        }
        for span in &spans {
            assert_eq!((&*span.resource["service.name"], &*span.resource["team"]), ("poolscope-demo", "shop"));
            if let Some(parent) = &span.parent {
                let parent = spans.iter().find(|other| other.span_id == *parent);
                assert!(parent.is_some_and(|parent| parent.trace_id == span.trace_id), "{before:?} {span:?}");
            }
        }
        let orders = roots.iter().find(|span| span.name == "GET /orders").expect("a request");
        assert_eq!(orders.kind, "server");
        // Down to the span of a query.
        let path = [("list_orders", "internal"), ("SELECT poolscope_demo.orders", "client")];
        let below = |parent: &Span, (name, kind): (&str, &str)| {
            let is_below = |span: &&Span| span.parent.as_ref() == Some(&parent.span_id);
            spans.iter().filter(is_below).find(|span| span.name == name && span.kind == kind)
        };
        let leads_down = |root: &Span| path.iter().try_fold(root, |parent, next| below(parent, *next)).is_some();
        assert!(roots.iter().any(|root| leads_down(root)), "{roots:?}");
        assert!(receiver.requests().iter().all(|headers| headers["x-token"] == "hunter2"));
    }
}

#[test]
fn unreachable_collector_fails_no_request() {
    let closed = ReservedPort::new().expect("a port");
    let endpoint = format!("http://{}", closed.address());
    let mut command = demo(&["--duration", "4s", "--otlp.endpoint", &endpoint, "--otlp.protocol", "grpc"]);
    command.env("OTEL_BSP_SCHEDULE_DELAY", "100").env("OTEL_BSP_MAX_QUEUE_SIZE", "32");
    let started = Instant::now();
    let mut demo = start(&mut command);
    let mut last = [0.0; 5];
    wait_until("the end of the demo", || {
        let Some((_, text)) = demo.get("/metrics") else {
            return true;
        };
        let scrape = Scrape::parse(&text);
        scrape.assert_adds_up("shop");
        let errors = scrape.sum("poolscope_checkouts_total", &[("outcome", "error")]);
        assert!(errors < 0.5, "{errors} errors");
        last = spans(&demo).unwrap_or(last);
        false
    });
    let [ended, _, exported, _, failed] = last;
    assert!(ended > 0.0 && exported < 0.5 && failed > 0.0, "{last:?}");
    assert_eq!(demo.run.wait().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
    let (out, err) = (demo.run.remaining_output(), demo.run.stderr());
    assert!(out.contains("checkouts from pool shop"), "{out}");
    let lines: Vec<_> = err.lines().filter(|line| line.contains("could not export spans")).collect();
    assert!((1..=6).contains(&lines.len()), "{err}");
}

#[test]
fn spans_are_not_exported_by_default() {
    let receiver = Receiver::http();
    let mut command = demo(&["--duration", "1s"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint()).env("OTEL_TRACES_EXPORTER", "none");
    let mut demo = start(&mut command);
    assert!(!demo.banner.contains(&receiver.endpoint()), "{}", demo.banner);
    assert_eq!(demo.run.wait().code(), Some(0));
    assert!(receiver.requests().is_empty());
}

#[test]
fn json_log_has_the_ids_of_the_request() {
    let mut command = demo(&["--duration", "2s", "--log.format", "json"]);
    let mut run = Run::start(command.env("RUST_LOG", "poolscope=debug"));
    assert_eq!(run.wait().code(), Some(0));
    let err = run.stderr();
    let lines: Vec<Value> = err.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.iter().any(|line| line["message"] == "pool opened" && line.get("trace_id").is_none()), "{err}");
    let created = |line: &&Value| line["message"] == "connection created" && line.get("trace_id").is_some();
    let created = lines.iter().find(created).expect("a connection created in a request");
    assert_eq!(created["trace_id"].as_str().map(str::len), Some(32), "{created}");
    assert_eq!(created["fields"]["pool"], "shop");
}

#[cfg(feature = "jaeger")]
#[test]
fn jaeger_ui_shows_the_traces() {
    let mut demo = start(&mut demo(&[]));
    let url = demo.banner.lines().find_map(|line| line.strip_prefix("  traces   http://")).expect("a URL");
    let address = url.parse().expect("an address");
    let get = |path: &str| poolscope_testing::http::get(address, path).expect("a response");

    let (_, page) = get("/search");
    assert!(page.contains("<title>Jaeger UI</title>"), "{page}");
    let script = page.split("src=\"./").nth(1).and_then(|rest| rest.split('"').next()).expect("a script");
    let (status, script) = get(&format!("/{script}"));
    assert!(status == 200 && script.len() > 100_000, "{status}, {} bytes", script.len());

    let json = |path: &str| serde_json::from_str::<Value>(&get(path).1).expect("JSON");
    wait_until("an order in a trace", || {
        let traces = json("/api/traces?service=poolscope-demo&operation=POST%20/orders&limit=20");
        let tags = traces["data"].as_array().into_iter().flatten().flat_map(|trace| {
            let spans = trace["spans"].as_array().expect("spans");
            let root = spans.iter().find(|span| span["references"].is_null()).expect("a root");
            assert_eq!(root["operationName"], "POST /orders");
            root["tags"].as_array().expect("tags").clone()
        });
        tags.into_iter().any(|tag| tag["key"] == "span.kind" && tag["value"] == "server")
    });
    assert_eq!(json("/api/services")["data"][0], "poolscope-demo");
    demo.run.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(demo.run.wait().code(), Some(0));
    assert!(poolscope_testing::http::get(address, "/").is_err());
}

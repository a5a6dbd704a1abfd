//! The demo's traces: what a collector gets, and what becomes of the demo if there is none.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run::{Run, Up, demo, up, wait_until};
use poolscope_testing::otlp::{Receiver, Span, unused_endpoint};
use poolscope_testing::scrape::Scrape;

/// What became of the spans, by a scrape: ended, and the four that it is the sum of.
fn spans(up: &Up) -> Option<[f64; 5]> {
    let (status, text) = up.get("/metrics")?;
    assert_eq!(status, 200, "{text}");
    let scrape = Scrape::parse(&text);
    let names = ["ended_total", "queued", "exported_total", "dropped_total", "failed_total"];
    let spans = names.map(|name| scrape.sum(&format!("poolscope_spans_{name}"), &[("destination", "otlp")]));
    let [ended, queued, exported, dropped, failed] = spans;
    assert!((ended - queued - exported - dropped - failed).abs() < 0.5, "{spans:?}");
    Some(spans)
}

#[test]
fn a_collector_gets_the_demos_requests_by_either_protocol_and_no_secret_is_printed() {
    for (receiver, protocol) in [(Receiver::grpc(), "grpc"), (Receiver::http(), "http/protobuf")] {
        let endpoint = receiver.endpoint();
        let mut command = demo(&["--duration", "3s", "--otlp.endpoint", &endpoint, "--otlp.protocol", protocol]);
        command.env("OTEL_EXPORTER_OTLP_HEADERS", "x-token=hunter2").env("RUST_LOG", "trace");
        command.env("OTEL_RESOURCE_ATTRIBUTES", "team=shop").env("OTEL_BSP_SCHEDULE_DELAY", "200");
        let mut up = up(&mut command);
        assert!(up.seen.contains(&format!("\n  traces   {endpoint}, {protocol}\n")), "{}", up.seen);
        let mut before = [0.0; 5];
        while let Some(now) = spans(&up) {
            assert!(now[0] >= before[0] && now[2] >= before[2], "{before:?} {now:?}");
            before = now;
        }
        assert!(before[2] > 0.0, "{before:?}");
        assert_eq!(up.run.wait().code(), Some(0));
        let (out, err) = (up.run.remaining_output(), up.run.stderr());
        for text in [&up.seen, &out, &err] {
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
        // Down to what passed on the wire.
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
fn a_collector_that_is_down_for_the_whole_run_costs_no_request() {
    let mut command = demo(&["--duration", "4s", "--otlp.endpoint", &unused_endpoint(), "--otlp.protocol", "grpc"]);
    command.env("OTEL_BSP_SCHEDULE_DELAY", "100").env("OTEL_BSP_MAX_QUEUE_SIZE", "32");
    let begun = Instant::now();
    let mut up = up(&mut command);
    let mut last = [0.0; 5];
    wait_until("spans that were sent in vain, and no request that failed", || {
        let Some((_, text)) = up.get("/metrics") else {
            return true;
        };
        let scrape = Scrape::parse(&text);
        scrape.assert_adds_up("shop");
        let errors = scrape.sum("poolscope_checkouts_total", &[("outcome", "error")]);
        assert!(errors < 0.5, "{errors} errors");
        last = spans(&up).unwrap_or(last);
        false
    });
    let [ended, _, exported, _, failed] = last;
    assert!(ended > 0.0 && exported < 0.5 && failed > 0.0, "{last:?}");
    assert_eq!(up.run.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    let (out, err) = (up.run.remaining_output(), up.run.stderr());
    assert!(out.contains("checkouts from pool shop"), "{out}");
    let lines: Vec<_> = err.lines().filter(|line| line.contains("could not export spans")).collect();
    assert!((1..=6).contains(&lines.len()), "{err}");
}

#[test]
fn nothing_is_sent_anywhere_by_default() {
    let receiver = Receiver::http();
    let mut command = demo(&["--duration", "1s"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint()).env("OTEL_TRACES_EXPORTER", "none");
    let mut up = up(&mut command);
    assert!(!up.seen.contains(&receiver.endpoint()), "{}", up.seen);
    assert_eq!(up.run.wait().code(), Some(0));
    assert!(receiver.requests().is_empty());
}

#[test]
fn lines_of_json_have_the_ids_of_their_request() {
    let mut command = demo(&["--duration", "2s", "--log.format", "json"]);
    let mut run = Run::start(command.env("RUST_LOG", "poolscope=debug"));
    assert_eq!(run.wait().code(), Some(0));
    let err = run.stderr();
    let lines: Vec<Value> = err.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.iter().any(|line| line["message"] == "pool opened" && line.get("trace_id").is_none()), "{err}");
    let created = |line: &&Value| line["message"] == "connection created" && line.get("trace_id").is_some();
    let created = lines.iter().find(created).expect("a connection that a request had created");
    assert_eq!(created["trace_id"].as_str().map(str::len), Some(32), "{created}");
    assert_eq!(created["fields"]["pool"], "shop");
}

#[cfg(feature = "jaeger")]
#[test]
fn a_demo_shows_its_traces_in_jaegers_page_with_nothing_set_up() {
    let mut up = up(&mut demo(&[]));
    let url = up.seen.lines().find_map(|line| line.strip_prefix("  traces   http://")).expect("a URL");
    let address = url.parse().expect("an address");
    let get = |path: &str| poolscope_testing::http::get(address, path).expect("an answer");

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
    up.run.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(up.run.wait().code(), Some(0));
    assert!(poolscope_testing::http::get(address, "/").is_err());
}

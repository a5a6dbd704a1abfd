//! Content negotiation and compression.

use std::io::Read as _;

use poolscope::Collector;
use poolscope::exporter::{Exposition, Format, Page};
use prometheus::Registry;

use super::harness::{Response, Running, exporter, scripted};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The headers of Prometheus 2.42.
const PROMETHEUS: &str = "Accept: application/openmetrics-text;version=1.0.0,\
    application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n\
    Accept-Encoding: gzip\r\n";

/// A registry of one gauge, with a label that needs escaping.
fn registry() -> Registry {
    let registry = Registry::new();
    let gauge = prometheus::GaugeVec::new(prometheus::Opts::new("answer", "To everything."), &["to"]).unwrap();
    gauge.with_label_values(&["a \"b\" \\ é\n"]).set(42.0);
    registry.register(Box::new(gauge)).unwrap();
    registry
}

const SAMPLE: &str = "answer{to=\"a \\\"b\\\" \\\\ é\\n\"} 42\n";

async fn scrape(running: &Running, headers: &str) -> Response {
    running.connect().await.get_with("/metrics", headers).await
}

fn decompressed(response: &Response) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*response.bytes).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn format_is_negotiated() {
    let running = Running::start(&exporter().registry(registry())).await;
    for (headers, content_type) in [
        ("", TEXT),
        ("Accept: */*\r\n", TEXT),
        ("Accept: application/openmetrics-text\r\n", OPEN_METRICS),
        ("Accept: text/plain;q=0.5\r\nAccept: application/openmetrics-text\r\n", OPEN_METRICS),
        ("Accept: application/openmetrics-text;q=0.5, text/plain\r\n", TEXT),
    ] {
        let response = scrape(&running, headers).await;
        assert_eq!((response.status, response.headers["content-type"].as_str()), (200, content_type), "{headers}");
        assert_eq!(response.headers["vary"], "Accept, Accept-Encoding");
        assert!(!response.headers.contains_key("content-encoding"));
        assert!(response.body.contains(SAMPLE), "{}", response.body);
        assert_eq!(response.body.ends_with("# EOF\n"), content_type == OPEN_METRICS);
    }
}

#[tokio::test]
async fn gzip_is_negotiated() {
    let running = Running::start(&exporter().registry(registry())).await;
    // Repeatedly, because the compressor is reused.
    for _ in 0..3 {
        let response = scrape(&running, PROMETHEUS).await;
        assert_eq!((response.status, response.headers["content-type"].as_str()), (200, OPEN_METRICS));
        assert_eq!(response.headers["content-encoding"], "gzip");
        assert_eq!(response.headers["vary"], "Accept, Accept-Encoding");
        let text = decompressed(&response);
        assert!(text.contains(SAMPLE) && text.ends_with("# EOF\n"), "{text}");
        assert!(response.bytes.len() < text.len() / 2, "{} of {}", response.bytes.len(), text.len());
    }
    for refused in ["gzip;q=0", "identity, gzip;q=0.5", "br", "gzip-not"] {
        let response = scrape(&running, &format!("Accept-Encoding: {refused}\r\n")).await;
        assert!(!response.headers.contains_key("content-encoding"), "{refused}");
        assert!(response.body.contains(SAMPLE), "{refused}");
    }
}

#[tokio::test]
async fn head_has_the_headers_of_get() {
    let running = Running::start(&exporter().registry(registry())).await;
    let mut client = running.connect().await;
    client.send(format!("HEAD /metrics HTTP/1.1\r\nHost: test\r\n{PROMETHEUS}\r\n").as_bytes()).await;
    let response = client.response(false).await;
    assert_eq!((response.status, response.headers["content-type"].as_str()), (200, OPEN_METRICS));
    assert_eq!(response.headers["content-encoding"], "gzip");
    assert_eq!(response.headers["vary"], "Accept, Accept-Encoding");
    assert!(response.headers["content-length"].parse::<usize>().unwrap() > 0);
    // The next response is parsed correctly.
    assert_eq!(client.request("GET", "/-/healthy").await.status, 200);
}

#[tokio::test]
async fn error_is_plain_text() {
    let running = Running::start(&exporter().registry(scripted(|| panic!("scripted")))).await;
    let response = scrape(&running, PROMETHEUS).await;
    assert_eq!((response.status, response.headers["content-type"].as_str()), (500, "text/plain; charset=utf-8"));
    assert!(!response.headers.contains_key("content-encoding"));
    assert!(response.body.starts_with("A collector panicked"));
}

/// A page that a socket does not take at once.
#[tokio::test]
async fn large_page_arrives_whole_and_in_order() {
    let registry = registry();
    let large = prometheus::IntGaugeVec::new(prometheus::Opts::new("large", "Many."), &["number"]).unwrap();
    for number in 0..50_000 {
        large.with_label_values(&[&format!("{number:05}")]).set(number);
    }
    registry.register(Box::new(large)).unwrap();
    let running = Running::start(&exporter().registry(registry.clone())).await;
    let mut page = Page::new();
    Exposition::new(Collector::new()).registry(registry).write(Format::Text, &mut page).unwrap();
    let expected: Vec<String> =
        page.to_text().lines().filter(|line| line.starts_with("large")).map(Into::into).collect();
    assert_eq!(expected.len(), 50_000);
    for headers in ["", "Accept-Encoding: gzip\r\n"] {
        let response = scrape(&running, headers).await;
        let text = if headers.is_empty() { response.body } else { decompressed(&response) };
        let found: Vec<&str> = text.lines().filter(|line| line.starts_with("large")).collect();
        assert!(found == expected);
    }
}

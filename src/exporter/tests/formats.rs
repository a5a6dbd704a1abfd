use std::io::Read as _;

use super::*;
use crate::exporter::{Exposition, Format, Page};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What Prometheus 2.42 sends.
const PROMETHEUS: &str = "Accept: application/openmetrics-text;version=1.0.0,\
    application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n\
    Accept-Encoding: gzip\r\n";

/// A registry of one gauge, whose label is hard to write.
fn registry() -> Registry {
    let registry = Registry::new();
    let gauge = prometheus::GaugeVec::new(prometheus::Opts::new("answer", "To everything."), &["to"]).unwrap();
    gauge.with_label_values(&["a \"b\" \\ é\n"]).set(42.0);
    registry.register(Box::new(gauge)).unwrap();
    registry
}

const SAMPLE: &str = "answer{to=\"a \\\"b\\\" \\\\ é\\n\"} 42\n";

async fn scrape(running: &Running, headers: &str) -> Answer {
    let mut client = running.connect().await;
    client.send(format!("GET /metrics HTTP/1.1\r\nHost: test\r\n{headers}\r\n").as_bytes()).await;
    client.answer(true).await
}

fn unpressed(answer: &Answer) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*answer.bytes).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn the_format_is_the_one_that_was_asked_for() {
    let running = Running::start(&Exporter::new(registry())).await;
    for (headers, content_type) in [
        ("", TEXT),
        ("Accept: */*\r\n", TEXT),
        ("Accept: application/openmetrics-text\r\n", OPEN_METRICS),
        ("Accept: text/plain;q=0.5\r\nAccept: application/openmetrics-text\r\n", OPEN_METRICS),
        ("Accept: application/openmetrics-text;q=0.5, text/plain\r\n", TEXT),
    ] {
        let answer = scrape(&running, headers).await;
        assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, content_type), "{headers}");
        assert_eq!(answer.headers["vary"], "Accept, Accept-Encoding");
        assert!(!answer.headers.contains_key("content-encoding"));
        assert!(answer.body.contains(SAMPLE), "{}", answer.body);
        assert_eq!(answer.body.ends_with("# EOF\n"), content_type == OPEN_METRICS);
    }
}

#[tokio::test]
async fn gzip_is_used_where_it_was_asked_for() {
    let running = Running::start(&Exporter::new(registry())).await;
    // Again and again: what pressed the first one presses the others.
    for _ in 0..3 {
        let answer = scrape(&running, PROMETHEUS).await;
        assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, OPEN_METRICS));
        assert_eq!(answer.headers["content-encoding"], "gzip");
        assert_eq!(answer.headers["vary"], "Accept, Accept-Encoding");
        let text = unpressed(&answer);
        assert!(text.contains(SAMPLE) && text.ends_with("# EOF\n"), "{text}");
        assert!(answer.bytes.len() < text.len() / 2, "{} of {}", answer.bytes.len(), text.len());
    }
    for refused in ["gzip;q=0", "identity, gzip;q=0.5", "br", "gzip-not"] {
        let answer = scrape(&running, &format!("Accept-Encoding: {refused}\r\n")).await;
        assert!(!answer.headers.contains_key("content-encoding"), "{refused}");
        assert!(answer.body.contains(SAMPLE), "{refused}");
    }
}

#[tokio::test]
async fn head_says_what_get_would_and_shows_nothing() {
    let running = Running::start(&Exporter::new(registry())).await;
    let mut client = running.connect().await;
    client.send(format!("HEAD /metrics HTTP/1.1\r\nHost: test\r\n{PROMETHEUS}\r\n").as_bytes()).await;
    let answer = client.answer(false).await;
    assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, OPEN_METRICS));
    assert_eq!(answer.headers["content-encoding"], "gzip");
    assert_eq!(answer.headers["vary"], "Accept, Accept-Encoding");
    assert!(answer.headers["content-length"].parse::<usize>().unwrap() > 0);
    // The next answer begins where that one ended.
    assert_eq!(client.request("GET", "/-/healthy").await.status, 200);
}

#[tokio::test]
async fn a_complaint_is_text_whatever_was_asked_for() {
    let running = Running::start(&Exporter::new(scripted(|| panic!("scripted")))).await;
    let answer = scrape(&running, PROMETHEUS).await;
    assert_eq!((answer.status, answer.headers["content-type"].as_str()), (500, "text/plain; charset=utf-8"));
    assert!(!answer.headers.contains_key("content-encoding"));
    assert!(answer.body.starts_with("A collector panicked"));
}

/// A page of more than a socket takes at once.
#[tokio::test]
async fn a_large_page_arrives_whole_and_in_order() {
    let registry = registry();
    let large = prometheus::IntGaugeVec::new(prometheus::Opts::new("large", "Many."), &["number"]).unwrap();
    for number in 0..50_000 {
        large.with_label_values(&[&format!("{number:05}")]).set(number);
    }
    registry.register(Box::new(large)).unwrap();
    let running = Running::start(&Exporter::new(registry.clone())).await;
    let mut page = Page::new();
    Exposition::new(registry).write(Format::Text, &mut page).unwrap();
    let expected: Vec<String> =
        page.to_text().lines().filter(|line| line.starts_with("large")).map(Into::into).collect();
    assert_eq!(expected.len(), 50_000);
    for headers in ["", "Accept-Encoding: gzip\r\n"] {
        let answer = scrape(&running, headers).await;
        let text = if headers.is_empty() { answer.body } else { unpressed(&answer) };
        let found: Vec<&str> = text.lines().filter(|line| line.starts_with("large")).collect();
        assert!(found == expected);
    }
}

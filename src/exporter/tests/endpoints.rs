use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use prometheus::{IntGauge, Registry};

use super::*;
use crate::exporter::Readiness;
use crate::exporter::runbooks::RUNBOOKS;

async fn started() -> Running {
    Running::start(&Exporter::new(Registry::new())).await
}

#[tokio::test]
async fn metrics_are_served_in_the_text_format() {
    let registry = Registry::new();
    let gauge = IntGauge::new("answer", "To everything.").unwrap();
    gauge.set(42);
    registry.register(Box::new(gauge)).unwrap();
    let running = Running::start(&Exporter::new(registry)).await;

    let answer = running.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(answer.body.contains("# HELP answer To everything.\n"));
    assert_eq!(answer.sample("answer"), Some(42.0));
    assert_eq!(answer.sample("process_threads").is_some(), cfg!(target_os = "linux"));
}

#[tokio::test]
async fn a_query_is_ignored() {
    assert_eq!(started().await.get("/metrics?from=test").await.status, 200);
}

#[tokio::test]
async fn the_process_says_that_it_is_healthy() {
    let answer = started().await.get("/-/healthy").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, "poolscope is healthy.\n");
}

#[tokio::test]
async fn readiness_follows_the_latch() {
    let readiness = Readiness::new();
    let exporter = Exporter::new(Registry::new()).readiness(readiness.clone());
    let running = Running::start(&exporter).await;
    let mut client = running.connect().await;

    let answer = client.request("GET", "/-/ready").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body, "poolscope is not ready: starting.\n");

    readiness.ready();
    let answer = client.request("GET", "/-/ready").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, "poolscope is ready.\n");

    readiness.not_ready("the database cannot be reached");
    let answer = client.request("GET", "/-/ready").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body, "poolscope is not ready: the database cannot be reached.\n");
    let page = client.request("GET", "/").await.body;
    assert!(page.contains("Not ready: the database cannot be reached"));
}

#[tokio::test]
async fn readiness_follows_what_it_is_told_to_ask() {
    let readiness = Readiness::new();
    let running = Running::start(&Exporter::new(Registry::new()).readiness(readiness.clone())).await;
    let overloaded = Arc::new(AtomicBool::new(true));
    readiness.unless({
        let overloaded = Arc::clone(&overloaded);
        move || overloaded.load(Relaxed).then(|| "the pool is overloaded".to_owned())
    });
    let mut client = running.connect().await;
    assert_eq!(client.request("GET", "/-/ready").await.body, "poolscope is not ready: starting.\n");
    readiness.ready();
    let answer = client.request("GET", "/-/ready").await;
    assert_eq!((answer.status, &*answer.body), (503, "poolscope is not ready: the pool is overloaded.\n"));
    assert!(!readiness.is_ready());
    overloaded.store(false, Relaxed);
    assert_eq!(client.request("GET", "/-/ready").await.status, 200);
    assert!(readiness.is_ready());
}

#[tokio::test]
async fn without_a_latch_the_exporter_is_ready() {
    assert_eq!(started().await.get("/-/ready").await.status, 200);
}

#[tokio::test]
async fn the_landing_page_links_to_every_endpoint_and_to_what_was_added() {
    let exporter = Exporter::new(Registry::new()).link("/dashboard?a=1&b=2", "Dashboard", "of this pool");
    let answer = Running::start(&exporter).await.get("/").await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/html; charset=utf-8");
    assert!(answer.headers["content-security-policy"].starts_with("default-src 'none'"));
    for expected in [
        "<title>poolscope</title>",
        env!("CARGO_PKG_VERSION"),
        r#"<a href="/metrics">"#,
        r#"<a href="/api/v1/pools">"#,
        r#"<a href="/runbooks/">"#,
        r#"<a href="/-/healthy">"#,
        r#"<a href="/-/ready">"#,
        r#"<a href="/dashboard?a=1&amp;b=2">Dashboard</a><span>of this pool</span>"#,
    ] {
        assert!(answer.body.contains(expected), "{expected}");
    }
}

#[tokio::test]
async fn head_answers_like_get_without_a_body() {
    let running = started().await;
    // One connection, so that a stray body would be taken for the next answer.
    let mut client = running.connect().await;
    for path in ["/", "/metrics", "/api/v1/pools", "/runbooks/", "/-/healthy", "/-/ready", "/nothing"] {
        let head = client.request("HEAD", path).await;
        let get = client.request("GET", path).await;
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.headers["content-type"], get.headers["content-type"]);
        assert!(head.headers["content-length"].parse::<usize>().unwrap() > 0);
    }
}

#[tokio::test]
async fn other_methods_are_told_which_ones_work() {
    let running = started().await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        for path in ["/", "/metrics", "/api/v1/pools", "/runbooks/", "/runbooks/x", "/-/healthy", "/-/ready"] {
            let answer = running.connect().await.request(method, path).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.headers["allow"], "GET, HEAD");
        }
    }
}

#[tokio::test]
async fn an_unknown_path_is_told_which_ones_exist() {
    let running = started().await;
    for path in ["/metric", "/metrics/", "/api/v1", "/api/v1/pools/", "/-/", "/favicon.ico"] {
        let answer = running.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(
            answer.body,
            "There is nothing at this path; what exists is /, /metrics, /api/v1/pools, /runbooks/, /-/healthy and /-/ready.\n"
        );
    }
}

#[tokio::test]
async fn the_runbook_of_each_alert_is_served_as_text_that_a_browser_shows() {
    let running = started().await;
    let index = running.get("/runbooks/").await;
    assert_eq!(index.status, 200);
    assert_eq!(index.headers["content-type"], "text/html; charset=utf-8");
    assert!(index.headers["content-security-policy"].starts_with("default-src 'none'"));
    for runbook in RUNBOOKS {
        let path = format!("/runbooks/{}", runbook.name);
        assert!(index.body.contains(&format!("<a href=\"{path}\">{}</a><span>", runbook.name)), "{path}");
        let answer = running.get(&path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
        assert!(answer.body.starts_with(&format!("# {}\n", runbook.name)), "{path}");
    }
}

#[tokio::test]
async fn an_unknown_runbook_is_told_which_ones_exist() {
    let running = started().await;
    for name in
        ["PoolscopeNothing", "poolscopepoolexhausted", "PoolscopePoolExhausted.md", "../Cargo.toml", "/", "%2e%2e"]
    {
        let answer = running.get(&format!("/runbooks/{name}")).await;
        assert_eq!(answer.status, 404, "{name}");
        assert!(answer.body.starts_with("There is no runbook of this name; those that exist are:\n\n"), "{name}");
        assert!(answer.body.contains("\nPoolscopePoolExhausted\n"), "{name}");
    }
    assert_eq!(running.get("/runbooks").await.status, 404);
}

//! Each endpoint.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use poolscope::exporter::Readiness;
use prometheus::{IntGauge, Registry};

use super::harness::{Running, exporter};

async fn started() -> Running {
    Running::start(&exporter()).await
}

#[tokio::test]
async fn metrics_are_in_the_text_format() {
    let registry = Registry::new();
    let gauge = IntGauge::new("answer", "To everything.").unwrap();
    gauge.set(42);
    registry.register(Box::new(gauge)).unwrap();
    let running = Running::start(&exporter().registry(registry)).await;

    let response = running.get("/metrics").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(response.body.contains("# HELP answer To everything.\n"));
    assert_eq!(response.sample("answer"), Some(42.0));
    assert_eq!(response.sample("process_threads").is_some(), cfg!(target_os = "linux"));
}

#[tokio::test]
async fn query_of_metrics_is_ignored() {
    assert_eq!(started().await.get("/metrics?from=test").await.status, 200);
}

#[tokio::test]
async fn healthy_while_serving() {
    let response = started().await.get("/-/healthy").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.body, "poolscope is healthy.\n");
}

#[tokio::test]
async fn readiness_is_reported() {
    let readiness = Readiness::new();
    let exporter = exporter().readiness(readiness.clone());
    let running = Running::start(&exporter).await;
    let mut client = running.connect().await;

    let response = client.request("GET", "/-/ready").await;
    assert_eq!(response.status, 503);
    assert_eq!(response.body, "poolscope is not ready: starting.\n");

    readiness.ready();
    let response = client.request("GET", "/-/ready").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.body, "poolscope is ready.\n");

    readiness.not_ready("the database cannot be reached");
    let response = client.request("GET", "/-/ready").await;
    assert_eq!(response.status, 503);
    assert_eq!(response.body, "poolscope is not ready: the database cannot be reached.\n");
    let page = client.request("GET", "/").await.body;
    assert!(page.contains("Not ready: the database cannot be reached"));
}

#[tokio::test]
async fn readiness_follows_its_checks() {
    let readiness = Readiness::new();
    let running = Running::start(&exporter().readiness(readiness.clone())).await;
    let overloaded = Arc::new(AtomicBool::new(true));
    readiness.add_check({
        let overloaded = Arc::clone(&overloaded);
        move || overloaded.load(Relaxed).then(|| "the pool is overloaded".to_owned())
    });
    let mut client = running.connect().await;
    assert_eq!(client.request("GET", "/-/ready").await.body, "poolscope is not ready: starting.\n");
    readiness.ready();
    let response = client.request("GET", "/-/ready").await;
    assert_eq!((response.status, &*response.body), (503, "poolscope is not ready: the pool is overloaded.\n"));
    assert!(!readiness.is_ready());
    overloaded.store(false, Relaxed);
    assert_eq!(client.request("GET", "/-/ready").await.status, 200);
    assert!(readiness.is_ready());
}

#[tokio::test]
async fn ready_by_default() {
    assert_eq!(started().await.get("/-/ready").await.status, 200);
}

#[tokio::test]
async fn landing_page_has_all_links() {
    let exporter = exporter().link("/dashboard?a=1&b=2", "Dashboard", "of this pool");
    let response = Running::start(&exporter).await.get("/").await;

    assert_eq!(response.status, 200);
    assert_eq!(response.headers["content-type"], "text/html; charset=utf-8");
    assert!(response.headers["content-security-policy"].starts_with("default-src 'none'"));
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
        assert!(response.body.contains(expected), "{expected}");
    }
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let running = started().await;
    // On one connection, a stray body would be parsed as the next response.
    let mut client = running.connect().await;
    for path in [
        "/",
        "/metrics",
        "/api/v1/pools",
        "/api/v1/history",
        "/assets/main.js",
        "/runbooks/",
        "/-/healthy",
        "/-/ready",
        "/nothing",
    ] {
        let head = client.request("HEAD", path).await;
        let get = client.request("GET", path).await;
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.headers["content-type"], get.headers["content-type"]);
        assert!(head.headers["content-length"].parse::<usize>().unwrap() > 0);
    }
}

#[tokio::test]
async fn other_methods_are_not_allowed() {
    let running = started().await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        for path in [
            "/",
            "/metrics",
            "/api/v1/pools",
            "/api/v1/history",
            "/api/v1/stream",
            "/assets/main.js",
            "/runbooks/",
            "/runbooks/x",
            "/-/healthy",
            "/-/ready",
        ] {
            let response = running.connect().await.request(method, path).await;
            assert_eq!(response.status, 405, "{method} {path}");
            assert_eq!(response.headers["allow"], "GET, HEAD");
        }
    }
}

#[tokio::test]
async fn unknown_path_lists_the_known_ones() {
    let running = started().await;
    for path in ["/metric", "/metrics/", "/api/v1", "/api/v1/pools/", "/-/", "/favicon.ico"] {
        let response = running.get(path).await;
        assert_eq!(response.status, 404, "{path}");
        assert_eq!(
            response.body,
            "Not found. Available paths: /, /metrics, /api/v1/pools, /api/v1/history, /api/v1/stream, /assets/, /runbooks/, \
             /-/healthy, /-/ready.\n"
        );
    }
}

#[tokio::test]
async fn runbooks_are_plain_text() {
    let running = started().await;
    let index = running.get("/runbooks/").await;
    assert_eq!(index.status, 200);
    assert_eq!(index.headers["content-type"], "text/html; charset=utf-8");
    assert!(index.headers["content-security-policy"].starts_with("default-src 'none'"));
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks")).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_stem().unwrap().to_str().unwrap();
        let path = format!("/runbooks/{name}");
        assert!(index.body.contains(&format!("<a href=\"{path}\">{name}</a><span>")), "{path}");
        let response = running.get(&path).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.headers["content-type"], "text/plain; charset=utf-8");
        assert!(response.body.starts_with(&format!("# {name}\n")), "{path}");
        assert_eq!(response.body, fs::read_to_string(&file).unwrap());
    }
}

#[tokio::test]
async fn unknown_runbook_lists_the_known_ones() {
    let running = started().await;
    for name in
        ["PoolscopeNothing", "poolscopepoolexhausted", "PoolscopePoolExhausted.md", "../Cargo.toml", "/", "%2e%2e"]
    {
        let response = running.get(&format!("/runbooks/{name}")).await;
        assert_eq!(response.status, 404, "{name}");
        assert!(response.body.starts_with("Runbook not found. Available runbooks:\n\n"), "{name}");
        assert!(response.body.contains("\nPoolscopePoolExhausted\n"), "{name}");
    }
    assert_eq!(running.get("/runbooks").await.status, 404);
}

#[tokio::test]
async fn files_of_the_pages_are_compressed_if_accepted() {
    let running = started().await;
    let plain = running.get("/assets/main.js").await;
    assert_eq!((plain.status, &*plain.headers["content-type"]), (200, "text/javascript; charset=utf-8"));
    assert_eq!((&*plain.headers["vary"], &*plain.headers["x-content-type-options"]), ("Accept-Encoding", "nosniff"));
    let compressed = running.connect().await.get_with("/assets/main.js", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(compressed.headers["content-encoding"], "gzip");
    assert!(compressed.bytes.len() < plain.bytes.len() / 2);
    assert_eq!(running.get("/assets/page.css").await.headers["content-type"], "text/css; charset=utf-8");
    for missing in ["/assets/", "/assets/nothing.js", "/assets/../Cargo.toml"] {
        assert_eq!(running.get(missing).await.status, 404, "{missing}");
    }
}

#[tokio::test]
async fn pages_allow_only_files_of_this_server() {
    let running = started().await;
    for path in ["/", "/runbooks/"] {
        let response = running.get(path).await;
        let policy = &response.headers["content-security-policy"];
        assert!(policy.contains("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        for inline in ["<style", " style=", "javascript:", " onclick"] {
            assert!(!response.body.contains(inline), "{path} {inline}");
        }
    }
}

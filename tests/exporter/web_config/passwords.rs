//! Basic authentication, and headers.

use super::super::client_limits::{assert_answered_soon, hostile_clients, registry_for_many};
use super::super::harness::{MAX_CONNECTIONS, Running};
use super::{SESAME, Site, basic};

const USERS: &str = "basic_auth_users:\n  alice: ";

fn users() -> String {
    format!("{USERS}{}\n", *SESAME)
}

#[tokio::test]
async fn every_path_requires_a_password() {
    let site = Site::new();
    let running = site.serve(&users()).await;
    let valid = basic("alice", "sesame");
    for path in ["/", "/metrics", "/api/v1/pools", "/runbooks/", "/-/healthy", "/-/ready", "/nothing"] {
        let refused = running.get(path).await;
        assert_eq!(refused.status, 401, "{path}");
        assert_eq!(refused.headers["www-authenticate"], r#"Basic realm="poolscope", charset="UTF-8""#);
        assert_eq!(refused.body, "Authentication required: the user name or the password is missing or wrong.\n");
        let response = running.connect().await.get_with(path, &valid).await;
        assert_eq!(response.status, if path == "/nothing" { 404 } else { 200 }, "{path}");
    }
    assert_eq!(running.connect().await.request("DELETE", "/metrics").await.status, 401);
}

#[tokio::test]
async fn all_wrong_credentials_get_the_same_response() {
    let site = Site::new();
    let running = site.serve(&users()).await;
    let mut responses = Vec::new();
    for headers in [
        String::new(),
        basic("alice", "sesame "),
        basic("alice", ""),
        basic("Alice", "sesame"),
        basic("mallory", "sesame"),
        basic("", ""),
        "Authorization: Basic\r\n".to_owned(),
        "Authorization: Basic %%%\r\n".to_owned(),
        // No colon.
        "Authorization: Basic YWxpY2U=\r\n".to_owned(),
        "Authorization: Bearer sesame\r\n".to_owned(),
        basic("alice", "sesame").replace("Basic", "Digest"),
    ] {
        // Its connection is closed, so that others can connect.
        let mut client = running.connect().await;
        let response = client.get_with("/metrics", &headers).await;
        assert_eq!(response.headers["connection"], "close");
        responses.push((response.status, response.body, response.headers.get("www-authenticate").cloned()));
    }
    assert!(responses.iter().all(|response| *response == responses[0] && response.0 == 401), "{responses:?}");
    let mut client = running.connect().await;
    assert_eq!(client.get_with("/metrics", &basic("alice", "sesame").replace("Basic", "bAsIc")).await.status, 200);
}

#[tokio::test]
async fn unauthorized_scrapes_are_counted() {
    let site = Site::new();
    let running = site.serve(&users()).await;
    for path in ["/metrics", "/metrics", "/", "/-/healthy"] {
        assert_eq!(running.get(path).await.status, 401, "{path}");
    }
    let page = running.connect().await.get_with("/metrics", &basic("alice", "sesame")).await.body;
    for line in ["poolscope_scrapes_total{code=\"401\"} 2", "poolscope_scrape_duration_seconds_count 0"] {
        assert!(page.lines().any(|own| own == line), "{line} is not in {page}");
    }
}

#[tokio::test]
async fn headers_replace_those_of_every_response() {
    let site = Site::new();
    let headers = "http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: DENY\n    \
                   Content-Security-Policy: frame-ancestors 'none'\n    Strict-Transport-Security: max-age=60\n    \
                   X-XSS-Protection: ''\n";
    let running = site.serve(&format!("{headers}{}", users())).await;
    let valid = basic("alice", "sesame");
    for (path, credentials) in [("/", &*valid), ("/metrics", &valid), ("/nothing", &valid), ("/metrics", "")] {
        let response = running.connect().await.get_with(path, credentials).await;
        assert_eq!(response.headers["x-frame-options"], "DENY", "{path}");
        assert_eq!(response.headers["content-security-policy"], "frame-ancestors 'none'", "{path}");
        assert_eq!(response.headers["strict-transport-security"], "max-age=60", "{path}");
        assert_eq!(response.headers["x-content-type-options"], "nosniff", "{path}");
        assert!(!response.headers.contains_key("x-xss-protection"), "{path}");
    }
}

#[tokio::test]
async fn hosts_that_are_not_allowed_are_refused() {
    let site = Site::new();
    let running = site.serve("http_server_config:\n  allowed_hosts: [localhost]\n").await;
    for path in ["/metrics", "/api/v1/pools", "/", "/nothing"] {
        let response = running.get(path).await;
        assert_eq!((response.status, &*response.headers["connection"]), (421, "close"), "{path}");
    }
    // Probes address them by IP address.
    assert_eq!(running.get("/-/healthy").await.status, 200);
    let site = Site::new();
    let running = site.serve("http_server_config:\n  allowed_hosts: [localhost, Test]\n").await;
    assert_eq!(running.get("/metrics").await.status, 200);
}

#[tokio::test]
async fn empty_configuration_changes_nothing() {
    let site = Site::new();
    for nothing in ["", "# nothing\n", "tls_server_config:\nhttp_server_config: {}\nbasic_auth_users:\n"] {
        site.web_yml(nothing);
        let exporter = site.exporter();
        let bound = exporter.bind("127.0.0.1:0").await.unwrap();
        assert_eq!(bound.scheme(), "http");
        let running = Running::start(&exporter).await;
        assert_eq!(running.get("/metrics").await.status, 200);
    }
}

/// The clients that do not read their response know a password, since others have nothing to read. Those with a wrong
/// password occupy its verification.
#[tokio::test(flavor = "multi_thread")]
async fn scrape_is_answered_whatever_other_clients_do() {
    let site = Site::new();
    site.web_yml(&users());
    let running = Running::start(&site.exporter().registry(registry_for_many())).await;
    let valid = basic("alice", "sesame");
    let _hostile = hostile_clients(&running, &valid).await;
    assert_answered_soon(&running, &valid).await;
    let mut strangers = Vec::new();
    for number in 0..MAX_CONNECTIONS {
        let stranger = running.connect().await;
        let headers = basic("alice", &number.to_string());
        stranger.send(format!("GET /metrics HTTP/1.1\r\nHost: test\r\n{headers}\r\n").as_bytes()).await;
        strangers.push(stranger);
    }
    assert_answered_soon(&running, &valid).await;
}

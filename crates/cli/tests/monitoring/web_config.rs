//! The exporter's web configuration, checked with promtool and a scraping Prometheus.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use poolscope::Collector;
use poolscope::exporter::{Exporter, WebConfig};

use crate::certificates::certificates;
use crate::tools::run;
use poolscope_testing::prometheus::Prometheus;

async fn serve(web_yml: &Path) -> SocketAddr {
    let config = WebConfig::read(web_yml).unwrap();
    let bound = Exporter::new(Collector::new()).web_config(config).bind("127.0.0.1:0").await.unwrap();
    assert_eq!(bound.scheme(), "https");
    let address = bound.local_addr();
    tokio::spawn(bound.serve(std::future::pending()));
    address
}

#[test]
fn promtool_accepts_the_same_configuration() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path(), &["prometheus", "other"]);
    let hash = bcrypt::hash("sesame", 4).unwrap();
    let settings = format!(
        "tls_server_config:
  cert_file: localhost.crt
  key_file: localhost.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]
  prefer_server_cipher_suites: false
  curve_preferences: [X25519, CurveP256, CurveP384]
http_server_config:
  http2: false
  headers:
    Content-Security-Policy: frame-ancestors 'none'
    X-Frame-Options: sameorigin
    X-Content-Type-Options: nosniff
    X-XSS-Protection: 1; mode=block
    Strict-Transport-Security: max-age=31536000
basic_auth_users:
  alice: {hash}
"
    );
    let web_yml = directory.path().join("web.yml");
    fs::write(&web_yml, settings).unwrap();
    assert!(WebConfig::read(&web_yml).unwrap().is_tls());
    let (success, output) = run(Command::new("promtool").args(["check", "web-config"]).arg(&web_yml));
    assert!(success && output.contains("SUCCESS"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn scraping_requires_certificate_and_password() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path(), &["prometheus", "other"]);
    let hash = bcrypt::hash("sesame", 4).unwrap();
    let web_yml = directory.path().join("web.yml");
    let settings = format!(
        "tls_server_config:\n  cert_file: localhost.crt\n  key_file: localhost.key\n  \
         client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  client_allowed_sans: [prometheus]\n\
         basic_auth_users:\n  prometheus: {hash}\n"
    );
    fs::write(&web_yml, settings).unwrap();
    let target = serve(&web_yml).await;

    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut config = "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\nscrape_configs:\n".to_owned();
    for (job, scheme, client, password) in [
        ("valid", "https", "prometheus", "sesame"),
        ("password", "https", "prometheus", "wrong"),
        ("name", "https", "other", "sesame"),
        ("plain", "http", "prometheus", "sesame"),
    ] {
        let (ca, cert, key) = (path("ca.crt"), path(&format!("{client}.crt")), path(&format!("{client}.key")));
        config += &format!(
            "- job_name: {job}\n  scheme: {scheme}\n  tls_config: {{ca_file: {ca}, cert_file: {cert}, key_file: {key}, \
             server_name: localhost}}\n  basic_auth: {{username: prometheus, password: {password}}}\n  \
             static_configs: [{{targets: ['{target}']}}]\n"
        );
    }
    let prometheus = Prometheus::configured(&[("prometheus.yml", &config)]).await;
    let start = Instant::now();
    let expected = [("name", 0.0), ("password", 0.0), ("plain", 0.0), ("valid", 1.0)];
    let expected = expected.map(|(job, up)| (job.to_owned(), up));
    loop {
        let up = prometheus.query("up").await;
        let targets = prometheus.api("/api/v1/targets").await;
        let errors: Vec<_> =
            targets["activeTargets"].as_array().unwrap().iter().map(|target| target["lastError"].to_string()).collect();
        let reported = |part: &&str| errors.iter().any(|error| error.contains(*part));
        if up == expected && ["401 Unauthorized", "tls: ", "400 Bad Request"].iter().all(reported) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{up:?} {errors:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

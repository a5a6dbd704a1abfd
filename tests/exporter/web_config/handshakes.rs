//! TLS handshakes and client certificates.

use std::time::Duration;

use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::super::client_limits::{LARGE, SETTLE, WRITE_TIMEOUT, large_registry};
use super::super::harness::{FrozenClock, Running, assert_timed_out, exporter, in_time};
use super::{Authority, Signed, Site, TLS, encrypted, get_tls, status};

/// The exporter's timeout for handshakes.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn scrape_over_tls() {
    let site = Site::new();
    site.web_yml(TLS);
    let exporter = site.exporter();
    assert_eq!(exporter.bind("127.0.0.1:0").await.unwrap().scheme(), "https");
    let running = Running::start(&exporter).await;
    let response = get_tls(&running, &site.authority.client(None), "/metrics", "").await.unwrap();
    assert_eq!(status(&response), "HTTP/1.0 200 OK");
    assert!(response.contains("poolscope_scrape_duration_seconds"), "{response}");
    let error = encrypted(&running, &Authority::new().client(None)).await.expect_err("another authority");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

/// Returns whether a client with the certificate `own` is served, with this configuration of client certificates.
async fn is_accepted(site: &Site, clients: &str, own: Option<&Signed>) -> bool {
    let running = site.serve(&format!("{TLS}{clients}")).await;
    match get_tls(&running, &site.authority.client(own), "/-/healthy", "").await {
        Ok(response) => status(&response) == "HTTP/1.0 200 OK",
        Err(_) => false,
    }
}

#[tokio::test]
async fn invalid_client_certificate_is_rejected() {
    let site = Site::new();
    let (good, bad) = (site.authority.sign(&["prometheus"]), Authority::new().sign(&["prometheus"]));
    for (kind, without, others) in
        [("RequireAndVerifyClientCert", false, false), ("VerifyClientCertIfGiven", true, false)]
    {
        let clients = format!("  client_auth_type: {kind}\n  client_ca_file: ca.crt\n");
        assert!(is_accepted(&site, &clients, Some(&good)).await, "{kind}");
        assert_eq!(is_accepted(&site, &clients, None).await, without, "{kind}");
        assert_eq!(is_accepted(&site, &clients, Some(&bad)).await, others, "{kind}");
    }
    assert!(is_accepted(&site, "  client_auth_type: NoClientCert\n", None).await);
}

#[tokio::test]
async fn required_client_certificate_prevents_resumption() {
    let site = Site::new();
    let own = site.authority.sign(&["prometheus"]);
    for version in ["TLS12", "TLS13"] {
        let clients = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n";
        for (clients, again) in [("", HandshakeKind::Resumed), (clients, HandshakeKind::Full)] {
            let running =
                site.serve(&format!("{TLS}  min_version: {version}\n  max_version: {version}\n{clients}")).await;
            let client = site.authority.client(Some(&own));
            // Session tickets arrive with the response.
            get_tls(&running, &client, "/-/healthy", "").await.unwrap();
            let second = encrypted(&running, &client).await.unwrap();
            assert_eq!(second.get_ref().1.handshake_kind(), Some(again), "{version} {clients}");
        }
    }
}

#[tokio::test]
async fn client_certificate_with_another_name_is_rejected() {
    let site = Site::new();
    let clients = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  client_allowed_sans:\n  \
                   - prometheus\n  - 10.0.0.7\n  - spiffe://here/prometheus\n";
    for (names, good) in [
        (&["prometheus"][..], true),
        (&["other", "prometheus"], true),
        (&["10.0.0.7"], true),
        (&["spiffe://here/prometheus"], true),
        (&["other"], false),
        (&["prometheus.example"], false),
        (&["*.prometheus"], false),
        (&["10.0.0.8"], false),
        (&["spiffe://here/other"], false),
        (&[], false),
    ] {
        assert_eq!(is_accepted(&site, clients, Some(&site.authority.sign(names))).await, good, "{names:?}");
    }
    // The name alone is not sufficient.
    assert!(!is_accepted(&site, clients, Some(&Authority::new().sign(&["prometheus"]))).await);
}

#[tokio::test]
async fn versions_suites_and_curves_are_configurable() {
    let site = Site::new();
    let negotiated = async |more: &str| {
        let running = site.serve(&format!("{TLS}{more}")).await;
        let stream = encrypted(&running, &site.authority.client(None)).await.unwrap();
        let (_, session) = stream.get_ref();
        let suite = session.negotiated_cipher_suite().unwrap().suite().as_str().unwrap();
        let curve = session.negotiated_key_exchange_group().unwrap().name();
        (format!("{:?}", session.protocol_version().unwrap()), suite, curve)
    };
    use rustls::NamedGroup::{X25519, secp256r1, secp384r1};
    assert_eq!(negotiated("").await, ("TLSv1_3".to_owned(), "TLS13_AES_256_GCM_SHA384", X25519));
    let (version, suite, _) =
        negotiated("  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n").await;
    assert_eq!((&*version, suite), ("TLSv1_2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"));
    let ordered = "  cipher_suites: [TLS_CHACHA20_POLY1305_SHA256, TLS_AES_256_GCM_SHA384]\n";
    assert_eq!(negotiated(ordered).await.1, "TLS13_CHACHA20_POLY1305_SHA256");
    let client_order = format!("{ordered}  prefer_server_cipher_suites: false\n");
    assert_eq!(negotiated(&client_order).await.1, "TLS13_AES_256_GCM_SHA384");
    assert_eq!(negotiated("  curve_preferences: [CurveP384]\n").await.2, secp384r1);
    assert_eq!(negotiated("  curve_preferences: [CurveP256, CurveP384]\n").await.2, secp256r1);
    let (version, suite, _) = negotiated("  min_version: TLS13\n").await;
    assert_eq!((&*version, suite), ("TLSv1_3", "TLS13_AES_256_GCM_SHA384"));
}

#[tokio::test]
async fn http_client_of_tls_is_told_to_use_https() {
    let site = Site::new();
    let running =
        site.serve(&format!("{TLS}http_server_config:\n  headers:\n    Strict-Transport-Security: a\n")).await;
    let mut client = running.connect().await;
    let response = client.request("GET", "/metrics").await;
    assert_eq!((response.status, &*response.body), (400, "This port serves HTTPS; use https:// instead of http://.\n"));
    assert!(!response.headers.contains_key("strict-transport-security"), "clients ignore it without TLS");
    assert_eq!(client.rest().await, "");
    let noise = running.connect().await;
    noise.send(b"\x00\x01\x02").await;
    assert_eq!(noise.rest().await, "");
}

#[tokio::test]
async fn unfinished_handshakes_are_cut_off() {
    let clock = FrozenClock::new();
    let site = Site::new();
    let running = site.serve(TLS).await;
    let silent = running.connect().await;
    let slow = running.connect().await;
    // The header of a record whose 512 bytes never arrive.
    slow.send(b"\x16\x03\x01\x02\x00\x01").await;
    let (rests, elapsed) = clock.advance_until(async { (silent.rest().await, slow.rest().await) }).await;
    assert_timed_out(elapsed, HANDSHAKE_TIMEOUT);
    assert_eq!(rests, (String::new(), String::new()));
}

#[tokio::test]
async fn handshake_in_progress_does_not_delay_others() {
    let _clock = FrozenClock::new();
    let site = Site::new();
    let running = site.serve(TLS).await;
    let silent = running.connect().await;
    let response = get_tls(&running, &site.authority.client(None), "/-/healthy", "").await.unwrap();
    assert_eq!(status(&response), "HTTP/1.0 200 OK");
    drop(silent);
}

#[tokio::test]
async fn handshake_in_progress_does_not_delay_the_shutdown() {
    let _clock = FrozenClock::new();
    let site = Site::new();
    let running = site.serve(TLS).await;
    let silent = running.connect().await;
    let mut idle = encrypted(&running, &site.authority.client(None)).await.unwrap();
    idle.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    let mut response = [0; 8];
    in_time(idle.read_exact(&mut response)).await.unwrap();

    let begun = Instant::now();
    in_time(running.stop()).await.unwrap().unwrap();
    assert_eq!(silent.rest().await, "");
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn client_that_does_not_read_over_tls_is_cut_off() {
    let clock = FrozenClock::new();
    let site = Site::new();
    site.web_yml(TLS);
    let exporter = exporter().registry(large_registry()).web_config(site.read().unwrap());
    let running = Running::start(&exporter).await;
    let client = site.authority.client(None);
    let mut greedy = encrypted(&running, &client).await.unwrap();
    greedy.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    let mut start = [0; 8];
    in_time(greedy.read_exact(&mut start)).await.unwrap();
    clock.settle(SETTLE).await;
    clock.advance(WRITE_TIMEOUT + Duration::from_secs(1)).await;
    clock.settle(SETTLE).await;
    let mut rest = Vec::new();
    // Fails, since the end of the TLS session is missing.
    let _ = in_time(greedy.read_to_end(&mut rest)).await;
    assert!(rest.len() < LARGE, "{}", rest.len());
}

use rustls::HandshakeKind;

use super::*;

#[tokio::test]
async fn a_scrape_is_answered_over_tls() {
    let site = Site::new();
    site.web_yml(TLS);
    let exporter = site.exporter();
    assert_eq!(exporter.bind("127.0.0.1:0").await.unwrap().scheme(), "https");
    let running = Running::start(&exporter).await;
    let answer = asked(&running, &site.authority.client(None), "/metrics", "").await.unwrap();
    assert_eq!(status(&answer), "HTTP/1.0 200 OK");
    assert!(answer.contains("poolscope_scrape_duration_seconds"), "{answer}");
    let error = encrypted(&running, &Authority::new().client(None)).await.expect_err("an authority of others");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

/// Whether who shows `own` is answered, under this configuration of clients' certificates.
async fn admitted(site: &Site, clients: &str, own: Option<&Signed>) -> bool {
    let running = site.serve(&format!("{TLS}{clients}")).await;
    match asked(&running, &site.authority.client(own), "/-/healthy", "").await {
        Ok(answer) => status(&answer) == "HTTP/1.0 200 OK",
        Err(_) => false,
    }
}

#[tokio::test]
async fn whose_certificate_is_not_good_is_kept_out() {
    let site = Site::new();
    let (good, bad) = (site.authority.sign(&["prometheus"]), Authority::new().sign(&["prometheus"]));
    for (kind, without, others) in
        [("RequireAndVerifyClientCert", false, false), ("VerifyClientCertIfGiven", true, false)]
    {
        let clients = format!("  client_auth_type: {kind}\n  client_ca_file: ca.crt\n");
        assert!(admitted(&site, &clients, Some(&good)).await, "{kind}");
        assert_eq!(admitted(&site, &clients, None).await, without, "{kind}");
        assert_eq!(admitted(&site, &clients, Some(&bad)).await, others, "{kind}");
    }
    assert!(admitted(&site, "  client_auth_type: NoClientCert\n", None).await);
}

#[tokio::test]
async fn who_must_show_a_certificate_must_show_it_each_time() {
    let site = Site::new();
    let own = site.authority.sign(&["prometheus"]);
    for version in ["TLS12", "TLS13"] {
        let clients = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n";
        for (clients, again) in [("", HandshakeKind::Resumed), (clients, HandshakeKind::Full)] {
            let running =
                site.serve(&format!("{TLS}  min_version: {version}\n  max_version: {version}\n{clients}")).await;
            let client = site.authority.client(Some(&own));
            // Tickets come with the answer.
            asked(&running, &client, "/-/healthy", "").await.unwrap();
            let second = encrypted(&running, &client).await.unwrap();
            assert_eq!(second.get_ref().1.handshake_kind(), Some(again), "{version} {clients}");
        }
    }
}

#[tokio::test]
async fn a_certificate_of_another_name_is_kept_out() {
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
        assert_eq!(admitted(&site, clients, Some(&site.authority.sign(names))).await, good, "{names:?}");
    }
    // The name alone is no proof.
    assert!(!admitted(&site, clients, Some(&Authority::new().sign(&["prometheus"]))).await);
}

#[tokio::test]
async fn versions_suites_and_curves_are_those_that_are_wanted() {
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
    let as_clients_like = format!("{ordered}  prefer_server_cipher_suites: false\n");
    assert_eq!(negotiated(&as_clients_like).await.1, "TLS13_AES_256_GCM_SHA384");
    assert_eq!(negotiated("  curve_preferences: [CurveP384]\n").await.2, secp384r1);
    assert_eq!(negotiated("  curve_preferences: [CurveP256, CurveP384]\n").await.2, secp256r1);
    let (version, suite, _) = negotiated("  min_version: TLS13\n").await;
    assert_eq!((&*version, suite), ("TLSv1_3", "TLS13_AES_256_GCM_SHA384"));
}

#[tokio::test]
async fn who_speaks_http_to_tls_is_told_so_and_nothing_else() {
    let site = Site::new();
    let running =
        site.serve(&format!("{TLS}http_server_config:\n  headers:\n    Strict-Transport-Security: a\n")).await;
    let mut client = running.connect().await;
    let answer = client.request("GET", "/metrics").await;
    assert_eq!((answer.status, &*answer.body), (400, "TLS is spoken here: ask by https://, not by http://.\n"));
    assert!(!answer.headers.contains_key("strict-transport-security"), "it would not be heeded");
    assert_eq!(client.rest().await, "");
    let noise = running.connect().await;
    noise.send(b"\x00\x01\x02").await;
    assert_eq!(noise.rest().await, "");
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut_off_and_gives_its_place_back() {
    let site = Site::new();
    site.web_yml(TLS);
    let mut exporter = site.exporter();
    exporter.limits.handshake = SHORT;
    exporter.limits.connections = 1;
    let running = Running::start(&exporter).await;
    let silent = running.connect().await;
    assert_eq!(silent.rest().await, "");
    let slow = running.connect().await;
    // The head of a record of 512 bytes that never come.
    slow.send(b"\x16\x03\x01\x02\x00\x01").await;
    assert_eq!(slow.rest().await, "");
    let answer = patiently(asked(&running, &site.authority.client(None), "/-/healthy", "")).await.unwrap();
    assert_eq!(status(&answer), "HTTP/1.0 200 OK");
}

#[tokio::test]
async fn a_handshake_under_way_keeps_nobody_else_waiting() {
    let site = Site::new();
    site.web_yml(TLS);
    let mut exporter = site.exporter();
    exporter.limits.handshake = Duration::from_secs(3600);
    let running = Running::start(&exporter).await;
    let silent = running.connect().await;
    let answer = asked(&running, &site.authority.client(None), "/-/healthy", "").await.unwrap();
    assert_eq!(status(&answer), "HTTP/1.0 200 OK");
    drop(silent);
}

#[tokio::test]
async fn a_handshake_under_way_does_not_hold_up_the_shutdown() {
    let site = Site::new();
    site.web_yml(TLS);
    let mut exporter = site.exporter();
    exporter.limits.handshake = Duration::from_secs(3600);
    exporter.limits.shutdown_grace = Duration::from_secs(3600);
    let running = Running::start(&exporter).await;
    let silent = running.connect().await;
    let mut idle = encrypted(&running, &site.authority.client(None)).await.unwrap();
    idle.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    let mut answer = [0; 8];
    patiently(idle.read_exact(&mut answer)).await.unwrap();

    patiently(running.stop()).await.unwrap().unwrap();
    assert_eq!(silent.rest().await, "");
}

#[tokio::test]
async fn a_client_that_reads_nothing_over_tls_is_cut_off() {
    let site = Site::new();
    site.web_yml(TLS);
    let registry = Registry::new();
    registry.register(Box::new(IntGauge::new("large", "x".repeat(32 << 20)).unwrap())).unwrap();
    let mut exporter = Exporter::new(registry).web_config(site.read().unwrap());
    exporter.limits.write_stall = SHORT;
    exporter.limits.connections = 1;
    let running = Running::start(&exporter).await;
    let mut greedy = encrypted(&running, &site.authority.client(None)).await.unwrap();
    greedy.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    // There is one place, so this is answered once the other client has lost it.
    let answer = patiently(asked(&running, &site.authority.client(None), "/-/healthy", "")).await.unwrap();
    assert_eq!(status(&answer), "HTTP/1.0 200 OK");
    drop(greedy);
}

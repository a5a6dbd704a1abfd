//! TLS by `sslmode`, with a server certificate made for the test.

use std::io::Write;

use poolscope::{CheckoutError, ConnectError};
use poolscope_testing::server::Server;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::NamedTempFile;

use crate::support::{Admin, TestPool, backend, cancel_sleep, error_chain, poll_until, shared, with_deadline};

/// A certificate authority made for the test.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: NamedTempFile,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(params.self_signed(&key).unwrap().pem().as_bytes()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// Returns a certificate for `name`, and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Returns the URL parameter that trusts this authority.
    fn parameter(&self) -> String {
        format!("&sslrootcert={}", self.file.path().display())
    }
}

/// Returns whether the connection is encrypted. The protocol is observed in both cases.
async fn encrypted(test: &TestPool) -> bool {
    let connection = test.get().await;
    let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let encrypted = connection.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(test.pool.holders()[0].queries, 1);
    assert_eq!(test.pool.snapshot().wires_lost, 0);
    encrypted
}

/// Returns the text of the TLS error.
async fn tls_error(test: &TestPool) -> String {
    let error = with_deadline("an error", test.pool.get()).await.expect_err("an error");
    let CheckoutError::Connect { source: source @ ConnectError::Tls { .. }, .. } = &error else {
        panic!("{}", error_chain(&error));
    };
    assert_eq!((test.errors("connect", "tls"), test.outcomes("error")), (1, 1));
    source.to_string()
}

#[tokio::test]
async fn each_sslmode_encrypts_and_verifies() {
    let (trusted, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let (certificate, key) = trusted.issue("localhost");
    let server = Server::builder().tls(certificate, key).start().await.unwrap();
    let by_name = format!("postgres://postgres@localhost:{}/postgres?hostaddr=127.0.0.1", server.port());
    let by_address = format!("postgres://postgres@127.0.0.1:{}/postgres?", server.port());
    let pool = |url: &str, query: &str| {
        let url = format!("{url}&{query}").replace("?&", "?");
        TestPool::new(&format!("tls {query}"), &url, |builder| builder)
    };
    let (trusted, foreign) = (trusted.parameter(), foreign.parameter());

    for (url, query, expected) in [
        (&by_name, "sslmode=disable".to_owned(), false),
        (&by_name, "sslmode=prefer".to_owned(), true),
        (&by_name, "sslmode=require".to_owned(), true),
        (&by_name, format!("sslmode=prefer{trusted}"), true),
        (&by_name, format!("sslmode=verify-ca{trusted}"), true),
        (&by_name, format!("sslmode=verify-full{trusted}"), true),
        (&by_address, "sslmode=require".to_owned(), true),
        (&by_address, format!("sslmode=verify-ca{trusted}"), true),
    ] {
        assert_eq!(encrypted(&pool(url, &query)).await, expected, "{url} {query}");
    }

    let failed = "verification of the server's certificate failed (sslmode=";
    let unknown = "unknown issuer: give the certificate of its authority as sslrootcert";
    for (url, query, expected) in [
        (&by_name, format!("sslmode=prefer{foreign}"), format!("{failed}prefer): {unknown}")),
        // With `sslrootcert`, `require` means `verify-ca`.
        (&by_name, format!("sslmode=require{foreign}"), format!("{failed}verify-ca): {unknown}")),
        (&by_name, format!("sslmode=verify-ca{foreign}"), format!("{failed}verify-ca): {unknown}")),
        (&by_name, format!("sslmode=verify-full{foreign}"), format!("{failed}verify-full): {unknown}")),
        (
            &by_address,
            format!("sslmode=verify-full{trusted}"),
            format!(
                "{failed}verify-full): it is for other names than `127.0.0.1` (localhost): \
                 connect by one of them, or give sslmode=verify-ca"
            ),
        ),
    ] {
        assert_eq!(tls_error(&pool(url, &query)).await, expected, "{url} {query}");
    }
}

#[tokio::test]
async fn query_is_cancelled_over_tls() {
    let trusted = Authority::new("ours");
    let (certificate, key) = trusted.issue("localhost");
    let server = Server::builder().tls(certificate, key).start().await.unwrap();
    let url = format!(
        "postgres://postgres@localhost:{}/postgres?hostaddr=127.0.0.1&sslmode=verify-full{}",
        server.port(),
        trusted.parameter()
    );
    let test = TestPool::new("tls_cancel", &url, |builder| builder);
    assert!(encrypted(&test).await);
    let (admin, connection) = (Admin::new(&server).await, test.get().await);
    let (pid, token) = (backend(&connection).await, connection.cancel_token());
    for _ in 0..5 {
        cancel_sleep(&admin, pid, connection.batch_execute("SELECT pg_sleep(60)"), token.cancel()).await;
        connection.batch_execute("SELECT 1").await.unwrap();
    }
}

#[tokio::test]
async fn password_is_bound_to_the_tls_channel() {
    let trusted = Authority::new("ours");
    let (certificate, key) = trusted.issue("localhost");
    let server = Server::builder().tls(certificate, key).start().await.unwrap();
    let admin = Admin::new(&server).await;
    admin.execute("CREATE ROLE app LOGIN PASSWORD 'right'").await;
    let rules = server.dir().join("data/pg_hba.conf");
    std::fs::write(&rules, "local all all trust\nhostssl all all all scram-sha-256\n").unwrap();
    admin.execute("SELECT pg_reload_conf()").await;
    let url = format!("postgres://app:right@127.0.0.1:{}/postgres?sslmode=require", server.port());
    let bound = TestPool::new("tls_bound", &format!("{url}&channel_binding=require"), |builder| builder);
    // The reload is asynchronous: until then no password is required, and there is nothing to bind.
    drop(poll_until("a connection by password", async || bound.pool.get().await.ok()).await);
}

#[tokio::test]
async fn server_without_tls_accepts_prefer_only() {
    let server = Server::builder().tcp(true).start().await.unwrap();
    let url = server.tcp_url().unwrap();
    let prefers = TestPool::new("tls_prefers", &format!("{url}?sslmode=prefer"), |builder| builder);
    assert!(!encrypted(&prefers).await);
    let requires = TestPool::new("tls_requires", &format!("{url}?sslmode=require"), |builder| builder);
    assert_eq!(
        tls_error(&requires).await,
        "the server does not offer TLS (sslmode=require): enable it there, or give sslmode=prefer"
    );
}

#[tokio::test]
async fn unix_socket_is_never_encrypted() {
    for mode in ["prefer", "require"] {
        let url = format!("{}?sslmode={mode}", shared().await.url());
        let test = TestPool::new(&format!("tls_socket_{mode}"), &url, |builder| builder);
        assert!(!encrypted(&test).await, "{mode}");
    }
}

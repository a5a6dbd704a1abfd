//! TLS by `sslmode`, with a server certificate made for the test.

use std::io::Write;

use poolscope::{CheckoutError, ConnectError};
use poolscope_testing::server::Server;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::NamedTempFile;

use crate::support::{Admin, TestPool, backend, cancel_sleep, error_chain, poll_until, shared, with_deadline};

/// A certificate authority made for the test.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: NamedTempFile,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(params.self_signed(&key).unwrap().pem().as_bytes()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    fn pem(&self) -> String {
        std::fs::read_to_string(self.file.path()).unwrap()
    }

    /// Returns a certificate for `name`, and its key.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Returns the URL parameter that trusts this authority.
    pub(crate) fn parameter(&self) -> String {
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
    let text = source.to_string();
    let (address, problem) = text.split_once(": ").expect("an address");
    assert!(address.starts_with("could not connect to PostgreSQL at "), "{text}");
    problem.to_owned()
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
    let (trusted, foreign_file, foreign) = (trusted.parameter(), foreign.file.path(), foreign.parameter());

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
        let error = tls_error(&pool(url, &query)).await;
        let explanation = error.strip_prefix(&expected).unwrap_or_else(|| panic!("{url} {query}: {error}"));
        // Another file could help only where the issuer is unknown.
        let names_the_file = explanation.starts_with(&format!(" (`{}` was read at 2", foreign_file.display()));
        assert!(names_the_file || !expected.contains(unknown) && explanation.is_empty(), "{error}");
    }
}

/// A directory with files that are replaced as a whole.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Replaces a file, which only its owner can read.
    fn write(&self, name: &str, content: &str) {
        let mut file = NamedTempFile::new_in(self.0.path()).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file.persist(self.path(name)).unwrap();
    }
}

/// Gives a server another certificate and key.
async fn replace_certificate(server: &Server, admin: &Admin, (certificate, key): (String, String)) {
    // In place: the files keep their owner and permissions.
    std::fs::write(server.dir().join("server.crt"), certificate).unwrap();
    std::fs::write(server.dir().join("server.key"), key).unwrap();
    admin.execute("SELECT pg_reload_conf()").await;
}

#[tokio::test]
async fn new_authority_is_trusted_by_a_running_pool() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (certificate, key) = old.issue("localhost");
    let server = Server::builder().tls(certificate, key).start().await.unwrap();
    let (admin, files) = (Admin::new(&server).await, Files::new());
    files.write("ca.pem", &old.pem());
    let url = format!(
        "postgres://postgres@localhost:{}/postgres?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={}",
        server.port(),
        files.path("ca.pem")
    );
    let test = TestPool::new("tls_rotation", &url, |builder| builder);
    assert!(encrypted(&test).await);
    let earlier = test.pool.connect_unpooled().await.unwrap();

    replace_certificate(&server, &admin, new.issue("localhost")).await;
    let unknown = |error: &ConnectError| error.to_string().contains("unknown issuer: give the certificate of");
    // The server's reload is asynchronous.
    let refused = async || test.pool.connect_unpooled().await.err().filter(unknown);
    poll_until("the authority is unknown", refused).await;
    files.write("ca.pem", "half a fi");
    let refused = async || {
        let error = test.pool.connect_unpooled().await.unwrap_err();
        error.to_string().contains("not usable since: sslrootcert `").then_some(error)
    };
    poll_until("the error says that the file is unusable", refused).await;

    files.write("ca.pem", &(old.pem() + &new.pem()));
    let unpooled = async || test.pool.connect_unpooled().await.ok();
    drop(poll_until("a connection outside the pool", unpooled).await);
    test.pool.server_view().await.unwrap();
    let held = test.get_many(2).await;
    assert_eq!(held.len(), 2, "one of them is new");
    // A connection from before the change cancels with the new certificate.
    let backend = earlier.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let token = earlier.cancel_token();
    cancel_sleep(&admin, backend, earlier.batch_execute("SELECT pg_sleep(60)"), token.cancel()).await;
}

/// A server that accepts `app` with a certificate of `clients` only.
async fn server_for_clients(trusted: &Authority, clients: &Authority) -> (Server, Admin) {
    let (certificate, key) = trusted.issue("localhost");
    let server = Server::builder().tls(certificate, key).start().await.unwrap();
    let admin = Admin::new(&server).await;
    admin.execute("CREATE ROLE app LOGIN; CREATE ROLE other LOGIN; CREATE ROLE checked LOGIN PASSWORD 'right'").await;
    let authority = server.dir().join("clients.crt");
    std::fs::write(&authority, clients.pem()).unwrap();
    let rules =
        "local all all trust\nhostssl all checked all scram-sha-256 clientcert=verify-full\nhostssl all all all cert\n";
    std::fs::write(server.dir().join("data/pg_hba.conf"), rules).unwrap();
    admin.execute(&format!("ALTER SYSTEM SET ssl_ca_file = '{}'", authority.display())).await;
    admin.execute("SELECT pg_reload_conf()").await;
    (server, admin)
}

impl Authority {
    /// Returns a client's certificate and key. PostgreSQL compares the common name with the user.
    fn issue_to(&self, user: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, user);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn client_certificate_authenticates() {
    let (trusted, clients, foreign) = (Authority::new("ours"), Authority::new("clients"), Authority::new("foreign"));
    let (server, _admin) = server_for_clients(&trusted, &clients).await;
    let files = Files::new();
    for (name, (certificate, key)) in [
        ("app", clients.issue_to("app")),
        ("checked", clients.issue_to("checked")),
        ("foreign", foreign.issue_to("app")),
    ] {
        files.write(&format!("{name}.crt"), &certificate);
        files.write(&format!("{name}.key"), &key);
    }
    let pool = |user: &str, name: &str| {
        let (certificate, key) = (files.path(&format!("{name}.crt")), files.path(&format!("{name}.key")));
        let url = format!(
            "postgres://{user}@localhost:{}/postgres?hostaddr=127.0.0.1&sslmode=verify-full{}&sslcert={certificate}&sslkey={key}",
            server.port(),
            trusted.parameter()
        );
        TestPool::new(&format!("tls_client_{name}"), &url, |builder| builder)
    };
    let app = pool("app", "app");
    drop(poll_until("the server's rules are loaded", async || app.pool.get().await.ok()).await);
    assert!(encrypted(&app).await);
    assert!(encrypted(&pool("checked:right", "checked")).await, "clientcert=verify-full");
    let error = |test: TestPool| async move { error_chain(&test.pool.get().await.expect_err("an error")) };
    let other = error(pool("other", "app")).await;
    assert!(other.contains("certificate authentication failed for user \"other\""), "{other}");
    let wrong = error(pool("checked:right", "app")).await;
    assert!(wrong.contains("authentication failed for user \"checked\""), "{wrong}");
    let rejected = error(pool("app", "foreign")).await;
    let expected = format!(
        "the server rejected the client's certificate (sslmode=verify-full): UnknownCA: give one that it accepts as \
         sslcert, with its key as sslkey (`{}` was read at 2",
        files.path("foreign.crt")
    );
    assert!(rejected.contains(&expected), "{rejected}");
}

#[tokio::test]
async fn client_certificate_is_replaced_in_a_running_pool() {
    let (trusted, clients, foreign) = (Authority::new("ours"), Authority::new("clients"), Authority::new("foreign"));
    let (server, admin) = server_for_clients(&trusted, &clients).await;
    let files = Files::new();
    let write = |(certificate, key): (String, String)| {
        files.write("app.crt", &certificate);
        files.write("app.key", &key);
    };
    write(clients.issue_to("app"));
    let url = format!(
        "postgres://app@localhost:{}/postgres?hostaddr=127.0.0.1&sslmode=require&sslcert={}&sslkey={}",
        server.port(),
        files.path("app.crt"),
        files.path("app.key")
    );
    let test = TestPool::new("tls_client_rotation", &url, |builder| builder);
    drop(poll_until("the server's rules are loaded", async || test.pool.get().await.ok()).await);
    // The server trusts another authority from now on.
    std::fs::write(server.dir().join("clients.crt"), foreign.pem()).unwrap();
    admin.execute("SELECT pg_reload_conf()").await;
    poll_until("the certificate is rejected", async || test.pool.connect_unpooled().await.err()).await;
    let (certificate, key) = foreign.issue_to("app");
    // A certificate without its key is not used.
    files.write("app.crt", &certificate);
    let mismatch = async || {
        let error = test.pool.connect_unpooled().await.unwrap_err();
        error.to_string().contains("is not the key of sslcert").then_some(error)
    };
    poll_until("the error says that the key does not match", mismatch).await;
    write((certificate, key));
    drop(poll_until("a connection with the new certificate", async || test.pool.connect_unpooled().await.ok()).await);
}

#[test]
fn unusable_client_certificate_is_a_clear_error() {
    let clients = Authority::new("clients");
    let ((certificate, key), files) = (clients.issue_to("app"), Files::new());
    files.write("app.crt", &certificate);
    files.write("app.key", &key);
    files.write("other.key", &clients.issue_to("app").1);
    files.write("encrypted.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    files.write(
        "legacy.key",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    );
    files.write("open.key", &key);
    std::fs::set_permissions(files.path("open.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let error = |certificate: &str, key: &str| {
        let (certificate, key) = (files.path(certificate), files.path(key));
        let url = format!("postgres://app@localhost/d?sslmode=require&sslcert={certificate}&sslkey={key}");
        poolscope::Pool::from_url(&url).expect_err("an error").to_string()
    };
    for (key, problem) in [
        ("other.key", format!("is not the key of sslcert `{}`: give", files.path("app.crt"))),
        ("encrypted.key", "is encrypted, which is not supported: decrypt it with `openssl pkey".to_owned()),
        ("legacy.key", "is encrypted, which is not supported: decrypt it with".to_owned()),
        ("open.key", "is readable by others than its owner: set its permissions to 0600, or to 0640 if".to_owned()),
        ("app.crt", "holds no private key in PEM format: give a PEM file with the private key".to_owned()),
        ("none", "cannot be read: give a PEM file".to_owned()),
    ] {
        let error = error("app.crt", key);
        assert!(error.starts_with(&format!("sslkey `{}` {problem}", files.path(key))), "{error}");
    }
    assert!(error("app.key", "app.key").contains("app.key` holds no certificate: give a PEM file with the client's"));
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

//! Passwords that change while the pool runs: from a file, from libpq's password file and from a callback.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use poolscope::{ConnectError, Pool, Secret};
use poolscope_testing::server::Server;
use tempfile::{NamedTempFile, TempDir};

use crate::support::{Admin, TestPool, error_chain, poll_until};

/// A server that requires the password of `app` on TCP.
struct Fixture {
    server: Server,
    admin: Admin,
    directory: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let server = Server::builder().tcp(true).start().await.unwrap();
        let admin = Admin::new(&server).await;
        admin.execute("CREATE ROLE app LOGIN PASSWORD 'first'").await;
        let rules = "local all all trust\nhost all all all scram-sha-256\n";
        fs::write(server.dir().join("data/pg_hba.conf"), rules).unwrap();
        admin.execute("SELECT pg_reload_conf()").await;
        let fixture = Self { server, admin, directory: tempfile::tempdir().unwrap() };
        // The reload is asynchronous.
        let wrong = TestPool::new("passwords_wrong", &fixture.url_with(":wrong"), |builder| builder);
        poll_until("a password is required", async || wrong.pool.connect_unpooled().await.err()).await;
        fixture
    }

    fn url(&self) -> String {
        self.url_with("")
    }

    fn url_with(&self, password: &str) -> String {
        format!("postgres://app{password}@127.0.0.1:{}/postgres", self.server.port())
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Replaces a file, which only its owner can read.
    fn write(&self, name: &str, content: &str) {
        let mut file = NamedTempFile::new_in(self.directory.path()).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file.persist(self.path(name)).unwrap();
    }

    async fn change_password(&self, password: &str) {
        self.admin.execute(&format!("ALTER ROLE app PASSWORD '{password}'")).await;
    }
}

#[tokio::test]
async fn password_file_is_followed() {
    let fixture = Fixture::new().await;
    fixture.write("password", "first\n");
    let test =
        TestPool::new("passwords_file", &fixture.url(), |builder| builder.password_file(fixture.path("password")));
    let held = test.get().await;
    fixture.change_password("second").await;
    let error = test.pool.connect_unpooled().await.unwrap_err();
    assert_eq!(error.code().as_str(), "28P01", "{error:?}");
    // An invalid content is not used.
    fixture.write("password", "");
    let error = test.pool.connect_unpooled().await.unwrap_err();
    assert_eq!(error.code().as_str(), "28P01", "{error:?}");
    fixture.write("password", "second");
    drop(poll_until("the new password", async || test.pool.connect_unpooled().await.ok()).await);
    test.pool.server_view().await.unwrap();
    held.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(test.get_many(2).await.len(), 2);
}

#[tokio::test]
async fn provider_is_asked_at_each_connect() {
    let fixture = Fixture::new().await;
    let (asked, password) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Ok("first"))));
    let test = TestPool::new("passwords_provider", &fixture.url(), |builder| {
        let (asked, password) = (Arc::clone(&asked), Arc::clone(&password));
        builder.password_provider(move || {
            asked.fetch_add(1, Relaxed);
            let password = *password.lock().unwrap();
            async move { password.map(Secret::from) }
        })
    });
    drop(test.get_many(3).await);
    assert_eq!(asked.load(Relaxed), 3);
    drop(test.get().await);
    assert_eq!(asked.load(Relaxed), 3, "an idle connection needs no password");
    fixture.change_password("second").await;
    *password.lock().unwrap() = Ok("second");
    drop(test.pool.connect_unpooled().await.unwrap());
    *password.lock().unwrap() = Err("the token service is unavailable");
    let error = test.pool.connect_unpooled().await.unwrap_err();
    assert_eq!(error_chain(&error), "the password provider failed: the token service is unavailable");
    assert_eq!((error.code().as_str(), test.errors("connect", "auth")), ("auth", 1));
    *password.lock().unwrap() = Ok("second");
    drop(test.pool.connect_unpooled().await.unwrap());
}

#[tokio::test]
async fn passfile_has_the_password_of_the_host() {
    let fixture = Fixture::new().await;
    let port = fixture.server.port();
    fixture.write("pgpass", &format!("127.0.0.1:{port}:other:app:wrong\n127.0.0.1:{port}:*:nobody:wrong\n"));
    let test = TestPool::new("passwords_passfile", &fixture.url(), |builder| builder.passfile(fixture.path("pgpass")));
    let error = test.pool.connect_unpooled().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the server requires a password, but passfile `{}` has no entry for 127.0.0.1:{port}:postgres:app: add one",
            fixture.path("pgpass")
        )
    );
    assert!(matches!(error, ConnectError::Password { .. }));
    fixture.write("pgpass", &format!("# shop\n127.0.0.1:{port}:*:app:first\n"));
    drop(poll_until("the entry", async || test.pool.connect_unpooled().await.ok()).await);

    fs::set_permissions(fixture.path("pgpass"), Permissions::from_mode(0o644)).unwrap();
    let error = Pool::builder().url(&fixture.url()).passfile(fixture.path("pgpass")).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "passfile `{}` is readable by others than its owner: set its permissions to 0600",
            fixture.path("pgpass")
        )
    );
}

#[test]
fn sources_of_passwords_exclude_each_other() {
    let secret = || async { Ok::<_, String>(Secret::from("hunter2")) };
    let url = "postgres://app@h/d";
    for (builder, problem) in [
        (
            Pool::builder().url("postgres://app:hunter2@h/d").password_file("/password"),
            "both the URL's password and password_file are given: remove one",
        ),
        (
            Pool::builder().url(url).password_file("/a").passfile("/b"),
            "both password_file and passfile are given: remove one",
        ),
        (
            Pool::builder().url(url).passfile("/b").password_provider(secret),
            "both passfile and password_provider are given: remove one",
        ),
        (Pool::builder().url("postgres://h/d").passfile("/b"), "passfile requires the user, whose password it has"),
        (
            Pool::builder().url(url).password_file("/nonexistent"),
            "password_file `/nonexistent` cannot be read: give a file that contains only the password",
        ),
        (
            Pool::builder().url(url).password_file("/dev/zero"),
            "password_file `/dev/zero` cannot be read: give a file that contains only the password",
        ),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[tokio::test]
async fn server_must_request_a_required_method() {
    let fixture = Fixture::new().await;
    let connect = async |password: &str, query: &str| {
        let url = format!("{}?{query}", fixture.url_with(password));
        let test = TestPool::new("passwords_method", &url, |builder| builder);
        test.pool.connect_unpooled().await.map(drop)
    };
    connect(":first", "require_auth=scram-sha-256").await.unwrap();
    connect(":first", "require_auth=!password,!md5,!none").await.unwrap();
    let error = connect(":first", "require_auth=md5,none").await.unwrap_err();
    assert!(
        error_chain(&error).contains("the server requests the authentication method scram-sha-256, which require_auth"),
        "{}",
        error_chain(&error)
    );
    assert_eq!(error.code().as_str(), "auth");
    fs::write(fixture.server.dir().join("data/pg_hba.conf"), "local all all trust\nhost all all all password\n")
        .unwrap();
    fixture.admin.execute("SELECT pg_reload_conf()").await;
    let refused = async || connect(":first", "require_auth=scram-sha-256").await.err();
    let error = poll_until("the reload", refused).await;
    assert!(error_chain(&error).contains("requests the authentication method password"), "{}", error_chain(&error));
    // The server is on a loopback address.
    connect(":first", "").await.unwrap();
    fs::write(fixture.server.dir().join("data/pg_hba.conf"), "local all all trust\nhost all all all trust\n").unwrap();
    fixture.admin.execute("SELECT pg_reload_conf()").await;
    let unauthenticated = async || {
        let error = connect(":wrong", "require_auth=scram-sha-256").await.unwrap_err();
        error_chain(&error).contains("requests the authentication method none").then_some(())
    };
    poll_until("the reload", unauthenticated).await;
}

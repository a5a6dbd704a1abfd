//! The demo on an existing server: it creates its schema, and changes nothing else.

use nix::sys::signal::Signal;
use poolscope_testing::server::Server;
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

use crate::run::{demo, run_to_end, start};

/// A server, and its URL with a password that the server does not require.
struct ExistingServer {
    runtime: Runtime,
    server: Server,
    url: String,
}

impl ExistingServer {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(Server::builder().start()).expect("a server");
        let url = server.url().replace("postgres@", "postgres:hunter2@");
        Self { runtime, server, url }
    }

    fn query(&self, sql: &str) -> i64 {
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.server.url(), NoTls).await.expect("a connection");
            tokio::spawn(connection);
            let rows = client.simple_query(sql).await.expect("a response");
            let value = rows.iter().find_map(|row| match row {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
                _ => None,
            });
            value.unwrap_or_default()
        })
    }

    fn has_schema(&self) -> bool {
        self.query("SELECT count(*) FROM pg_namespace WHERE nspname = 'poolscope_demo'") > 0
    }
}

#[test]
fn schema_is_dropped_and_no_password_is_printed() {
    let existing = ExistingServer::start();
    let mut command = demo(&["--database-url", &existing.url, "--duration", "1500ms"]);
    let mut demo = start(command.env("RUST_LOG", "trace"));
    assert!(existing.has_schema());
    assert_eq!(demo.run.resources().0, 0, "no private server");
    let metrics = demo.get("/metrics").expect("a response").1;
    assert_eq!(demo.run.wait().code(), Some(0));
    assert!(!existing.has_schema());
    let (out, err) = (demo.run.remaining_output(), demo.run.stderr());
    assert!(demo.server.starts_with("postgres://postgres:***@") && demo.server.ends_with(", schema poolscope_demo"));
    assert!(out.ends_with("\nThe schema poolscope_demo was dropped.\n"), "{out}");
    assert!(err.contains(" INFO ") && err.contains(" DEBUG "), "{err}");
    for text in [&demo.banner, &out, &err, &metrics] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn schema_is_dropped_after_a_signal() {
    let existing = ExistingServer::start();
    let mut command = demo(&[]);
    // With a URL from the environment, and a setting in it.
    let mut demo = start(command.env("POOLSCOPE_DATABASE_URL", format!("{}?pool_size=2", existing.url)));
    assert!(demo.banner.contains("pool shop, 2 + 5 connections"), "{}", demo.banner);
    demo.run.signal(Signal::SIGTERM);
    assert_eq!(demo.run.wait().code(), Some(0));
    assert!(!existing.has_schema());
}

#[test]
fn locks_are_released_before_the_schema_is_dropped() {
    let existing = ExistingServer::start();
    let mut command = demo(&["--database-url", &existing.url, "--duration", "2s"]);
    let mut demo = start(command.args(["--scenario", "retry_storm", "--scenario-after", "500ms"]));
    assert_eq!(demo.run.wait().code(), Some(0), "{}", demo.run.stderr());
    assert!(!existing.has_schema());
}

#[test]
fn existing_schema_is_not_changed() {
    let existing = ExistingServer::start();
    existing.query("CREATE SCHEMA poolscope_demo; CREATE TABLE poolscope_demo.kept AS SELECT 7");
    let ended = run_to_end(demo(&["--database-url", &existing.url]));
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    for part in
        ["error: the schema poolscope_demo exists in postgres://postgres:***@", "DROP SCHEMA poolscope_demo CASCADE"]
    {
        assert!(ended.err.contains(part), "{part} is not in {}", ended.err);
    }
    assert_eq!(existing.query("SELECT * FROM poolscope_demo.kept"), 7);
}

#[test]
fn missing_privilege_is_an_error() {
    let existing = ExistingServer::start();
    existing.query("CREATE ROLE guest LOGIN");
    let ended = run_to_end(demo(&["--database-url", &existing.url.replace("postgres:hunter2@", "guest@")]));
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.starts_with("error: cannot create the schema poolscope_demo in postgres://guest@"),
        "{}",
        ended.err
    );
    assert!(ended.err.contains("permission denied for database postgres"), "{}", ended.err);
}

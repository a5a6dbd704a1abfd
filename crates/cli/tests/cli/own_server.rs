//! The demo on a server of somebody's own: it makes its schema, and leaves everything else as it was.

use nix::sys::signal::Signal;
use poolscope_testing::server::Server;
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

use crate::run::{demo, run_to_end, up};

/// A server, and its URL with a password that it does not ask for.
struct Own {
    runtime: Runtime,
    server: Server,
    url: String,
}

impl Own {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(Server::builder().start()).expect("a server");
        let url = server.url().replace("postgres@", "postgres:hunter2@");
        Self { runtime, server, url }
    }

    fn ask(&self, sql: &str) -> i64 {
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.server.url(), NoTls).await.expect("a connection");
            tokio::spawn(connection);
            let rows = client.simple_query(sql).await.expect("an answer");
            let value = rows.iter().find_map(|row| match row {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
                _ => None,
            });
            value.unwrap_or_default()
        })
    }

    fn has_schema(&self) -> bool {
        self.ask("SELECT count(*) FROM pg_namespace WHERE nspname = 'poolscope_demo'") > 0
    }
}

#[test]
fn a_demo_on_ones_own_server_drops_its_schema_and_shows_no_password_even_when_it_traces() {
    let own = Own::start();
    let mut command = demo(&["--database-url", &own.url, "--duration", "1500ms"]);
    let mut up = up(command.env("RUST_LOG", "trace"));
    assert!(own.has_schema());
    assert_eq!(up.run.resources().0, 0, "no server of its own");
    let metrics = up.get("/metrics").expect("an answer").1;
    assert_eq!(up.run.wait().code(), Some(0));
    assert!(!own.has_schema());
    let (out, err) = (up.run.remaining_output(), up.run.stderr());
    assert!(up.server.starts_with("postgres://postgres:***@") && up.server.ends_with(", schema poolscope_demo"));
    assert!(out.ends_with("\nSchema poolscope_demo is dropped.\n"), "{out}");
    assert!(err.contains(" INFO ") && err.contains(" DEBUG "), "{err}");
    for text in [&up.seen, &out, &err, &metrics] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_signal_drops_the_schema_too() {
    let own = Own::start();
    let mut command = demo(&[]);
    // The environment's URL does as well, and so do the settings in it.
    let mut up = up(command.env("POOLSCOPE_DATABASE_URL", format!("{}?pool_size=2", own.url)));
    assert!(up.seen.contains("pool shop, 2 + 5 connections"), "{}", up.seen);
    up.run.signal(Signal::SIGTERM);
    assert_eq!(up.run.wait().code(), Some(0));
    assert!(!own.has_schema());
}

#[test]
fn a_scenario_that_locks_rows_lets_go_of_them_before_the_schema_is_dropped() {
    let own = Own::start();
    let mut command = demo(&["--database-url", &own.url, "--duration", "2s"]);
    let mut up = up(command.args(["--scenario", "retry_storm", "--scenario-after", "500ms"]));
    assert_eq!(up.run.wait().code(), Some(0), "{}", up.run.stderr());
    assert!(!own.has_schema());
}

#[test]
fn a_schema_that_is_there_already_is_left_alone() {
    let own = Own::start();
    own.ask("CREATE SCHEMA poolscope_demo; CREATE TABLE poolscope_demo.kept AS SELECT 7");
    let ended = run_to_end(demo(&["--database-url", &own.url]));
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    for part in
        ["error: postgres://postgres:***@", "has a schema poolscope_demo already", "DROP SCHEMA poolscope_demo CASCADE"]
    {
        assert!(ended.err.contains(part), "{part} is not in {}", ended.err);
    }
    assert_eq!(own.ask("SELECT * FROM poolscope_demo.kept"), 7);
}

#[test]
fn a_user_who_may_not_make_a_schema_is_told() {
    let own = Own::start();
    own.ask("CREATE ROLE guest LOGIN");
    let ended = run_to_end(demo(&["--database-url", &own.url.replace("postgres:hunter2@", "guest@")]));
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.starts_with("error: cannot create the schema poolscope_demo in postgres://guest@"),
        "{}",
        ended.err
    );
    assert!(ended.err.contains("permission denied for database postgres"), "{}", ended.err);
}

//! PgBouncer in each of its modes, without its support for prepared statements.
//!
//! A client has a connection to the server for its session, for each transaction, or for each statement.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use poolscope::Connection;
use poolscope_testing::server_process::{Readiness, ServerProcess};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, SimpleQueryMessage, Transaction};
use tracing::Level;

use crate::support::log_lines::LogLines;
use crate::support::{TestPool, shared};

/// A PgBouncer in front of the shared server.
struct PgBouncer(ServerProcess);

impl PgBouncer {
    async fn start(mode: &str) -> Self {
        let tcp_url = shared().await.tcp_url().unwrap();
        let port = tcp_url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).unwrap();
        let arguments = |directory: &Path, address: std::net::SocketAddr| {
            let file = directory.join("pgbouncer.ini");
            // It refuses to run as root. Versions from 1.21 on would support prepared statements, unless this is zero;
            // earlier ones do not know the parameter, and only warn.
            let text = format!(
                "[databases]\npostgres = host=127.0.0.1 port={port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = 4\n\
                 {}{}",
                address.port(),
                if fs::metadata(directory).unwrap().uid() == 0 { "user = nobody\n" } else { "" },
                if supports_prepared_statements() { "max_prepared_statements = 0\n" } else { "" },
            );
            fs::write(&file, text).unwrap();
            vec![file.display().to_string()]
        };
        Self(ServerProcess::start_until(Readiness::Listening, program(), &[], arguments).await)
    }

    fn pool(&self, name: &str, cache_statements: bool) -> TestPool {
        let url = format!("postgres://postgres@{}/postgres?sslmode=disable", self.0.address());
        TestPool::new(name, &url, |builder| builder.pool_size(4).max_overflow(0).cache_statements(cache_statements))
    }
}

/// Returns the program, which Debian installs outside the `PATH` of most users.
fn program() -> &'static str {
    let debian = "/usr/sbin/pgbouncer";
    if Path::new(debian).is_file() { debian } else { "pgbouncer" }
}

/// Returns whether the version is 1.21 or later, which knows `max_prepared_statements`.
fn supports_prepared_statements() -> bool {
    let output = std::process::Command::new(program()).arg("--version").output();
    let output = output.expect("PgBouncer, which `scripts/setup test` installs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let minor = text.split_whitespace().nth(1).and_then(|version| version.split('.').nth(1)?.parse::<u32>().ok());
    minor.unwrap_or_else(|| panic!("no version in {text}")) >= 21
}

/// Begins a transaction, which takes one of PgBouncer's connections to the server.
async fn occupy(connection: &mut Connection) -> Transaction<'_> {
    let transaction = tokio_postgres::Client::transaction(connection).await.unwrap();
    transaction.batch_execute("SELECT 1").await.unwrap();
    transaction
}

const SELECT: &str = "SELECT 42";

async fn select(connection: &Connection) -> Result<i32, Error> {
    let statement = connection.prepare_cached(SELECT).await?;
    connection.query_one(&statement, &[]).await.map(|row| row.get(0))
}

async fn select_in_transaction(connection: &mut Connection) -> Result<i32, Error> {
    let transaction = connection.transaction().await?;
    let statement = transaction.prepare_cached(SELECT).await?;
    let value = transaction.query_one(&statement, &[]).await?.get(0);
    drop(statement);
    transaction.commit().await?;
    Ok(value)
}

#[tokio::test]
async fn cached_statements_are_reported_once() {
    let bouncer = PgBouncer::start("transaction").await;
    let test = bouncer.pool("bounced", true);
    let lines = LogLines::default();
    let _capture = lines.capture();
    let (connection, mut other) = (test.get().await, test.get().await);
    for _ in 0..3 {
        assert_eq!(select(&connection).await.unwrap(), 42);
        // The connection to the server that knows the statement.
        let occupied = occupy(&mut other).await;
        let error = select(&connection).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::INVALID_SQL_STATEMENT_NAME));
        assert_eq!(connection.statement_cache.size(), 0);
        occupied.rollback().await.unwrap();
    }
    let report = lines.count(Level::WARN, "the server does not keep the prepared statements of a connection");
    assert_eq!(report.lines, 1, "{lines:?}");
}

#[tokio::test]
async fn uncached_statements_work_in_transactions() {
    let bouncer = PgBouncer::start("transaction").await;
    for cache_statements in [true, false] {
        let test = bouncer.pool("uncached", cache_statements);
        let lines = LogLines::default();
        let _capture = lines.capture();
        let (mut connection, mut other) = (test.get().await, test.get().await);
        for _ in 0..3 {
            assert_eq!(select_in_transaction(&mut connection).await.unwrap(), 42);
            let occupied = occupy(&mut other).await;
            let result = select_in_transaction(&mut connection).await;
            if cache_statements {
                assert_eq!(result.unwrap_err().code(), Some(&SqlState::INVALID_SQL_STATEMENT_NAME));
            } else {
                assert_eq!(result.unwrap(), 42);
                assert_eq!(connection.statement_cache.size(), 0);
            }
            // Unnamed statements and simple queries work everywhere.
            let rows = connection.query_typed("SELECT $1::int4", &[(&42_i32, Type::INT4)]).await.unwrap();
            assert_eq!(rows[0].get::<_, i32>(0), 42);
            assert!(connection.simple_query(SELECT).await.is_ok());
            occupied.rollback().await.unwrap();
        }
        let report = lines.count(Level::WARN, "the server does not keep the prepared statements of a connection");
        assert_eq!(report.lines, u64::from(cache_statements));
    }
}

/// With a connection of its own for the session, everything works as with the server itself.
#[tokio::test]
async fn session_mode_keeps_everything() {
    let bouncer = PgBouncer::start("session").await;
    let test = bouncer.pool("bounced_session", true);
    let lines = LogLines::default();
    let _capture = lines.capture();
    let (mut connection, mut other) = (test.get().await, test.get().await);
    for _ in 0..3 {
        assert_eq!(select_in_transaction(&mut connection).await.unwrap(), 42);
        let occupied = occupy(&mut other).await;
        assert_eq!(select(&connection).await.unwrap(), 42);
        occupied.rollback().await.unwrap();
    }
    assert_eq!(connection.statement_cache.size(), 1);
    connection.batch_execute("BEGIN").await.unwrap();
    drop(connection);
    // It was reset: outside a transaction, each statement begins one.
    let outside = "SELECT now() = statement_timestamp()";
    for connection in [test.get().await, other] {
        let rows = connection.simple_query(outside).await.unwrap();
        let row = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        assert_eq!(row, Some("t"));
    }
    assert_eq!(lines.count(Level::WARN, "the server does not keep the prepared statements of a connection").lines, 0);
}

/// Without transactions, only single statements work. PgBouncer ends the session of a client that begins one, and the pool
/// replaces the connection.
#[tokio::test]
async fn statement_mode_refuses_transactions_only() {
    let bouncer = PgBouncer::start("statement").await;
    let test = bouncer.pool("bounced_statement", false);
    for _ in 0..3 {
        let mut connection = test.get().await;
        let rows = connection.query_typed("SELECT $1::int4", &[(&42_i32, Type::INT4)]).await.unwrap();
        assert_eq!(rows[0].get::<_, i32>(0), 42);
        assert!(connection.simple_query(SELECT).await.is_ok());
        assert!(select_in_transaction(&mut connection).await.is_err());
        drop(connection);
    }
    drop(test.get_many(4).await);
    let status = test.pool.status();
    assert_eq!((status.used, status.creating, status.in_flight), (0, 0, 0));
    assert!(test.closed("broken") >= 3, "{}", test.closed("broken"));
}

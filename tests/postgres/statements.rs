//! Cached statements that the server no longer executes.

use poolscope::{Connection, RunError};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::support::{Admin, TestPool, shared};

/// A statement whose result type changes with its table.
const SELECT: &str = "SELECT * FROM changing";

/// Executes [`SELECT`] by the cache of the connection.
async fn select(connection: &Connection) -> Result<usize, Error> {
    let statement = connection.prepare_cached(SELECT).await?;
    Ok(connection.query_one(&statement, &[]).await?.len())
}

async fn select_in_transaction(connection: &mut Connection) -> Result<usize, Error> {
    let transaction = connection.transaction().await?;
    let statement = transaction.prepare_cached(SELECT).await?;
    let row = transaction.query_one(&statement, &[]).await?;
    transaction.commit().await?;
    Ok(row.len())
}

fn assert_stale(result: Result<usize, Error>) {
    assert_eq!(result.unwrap_err().code(), Some(&SqlState::FEATURE_NOT_SUPPORTED));
}

/// A pool whose connections have [`SELECT`] in their caches, and its table in a schema of the test's name.
struct Fixture {
    test: TestPool,
    admin: Admin,
    table: String,
}

impl Fixture {
    async fn new(name: &str) -> Self {
        let server = shared().await;
        let (admin, table) = (Admin::new(server).await, format!("{name}.changing"));
        admin.execute(&format!("CREATE SCHEMA {name}; CREATE TABLE {table} AS SELECT 1 AS first")).await;
        let separator = if server.url().contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}options=-csearch_path%3D{name}", server.url());
        let test = TestPool::new(name, &url, |builder| builder.pool_size(3).max_overflow(0));
        for connection in &test.get_many(3).await {
            assert_eq!(select(connection).await.unwrap(), 1);
        }
        Self { test, admin, table }
    }

    async fn add_column(&self, name: &str) {
        self.admin.execute(&format!("ALTER TABLE {} ADD COLUMN {name} int", self.table)).await;
    }
}

#[tokio::test]
async fn stale_statement_fails_once_in_the_pool() {
    let fixture = Fixture::new("stale_plain").await;
    fixture.add_column("second").await;
    let connection = fixture.test.get().await;
    assert_stale(select(&connection).await);
    assert_eq!(select(&connection).await.unwrap(), 2, "its own cache was cleared at once");
    let others = fixture.test.get_many(2).await;
    for connection in &others {
        assert_eq!(connection.statement_cache.size(), 0);
        assert_eq!(select(connection).await.unwrap(), 2);
    }
    // One that was held meanwhile finds out by itself, as it has no checkout at which to drop its statements.
    fixture.add_column("third").await;
    assert_stale(select(&connection).await);
    assert_stale(select(&others[0]).await);
    assert_eq!((select(&connection).await.unwrap(), select(&others[0]).await.unwrap()), (3, 3));
}

#[tokio::test]
async fn stale_statement_in_a_transaction_fails_once() {
    let fixture = Fixture::new("stale_transaction").await;
    fixture.add_column("second").await;
    let mut connection = fixture.test.get().await;
    assert_stale(select_in_transaction(&mut connection).await);
    assert_eq!(select_in_transaction(&mut connection).await.unwrap(), 2);
    let work = async |connection: &mut Connection| select_in_transaction(connection).await;
    assert_eq!(fixture.test.pool.operation("select").run(work).await.unwrap(), 2);
}

#[tokio::test]
async fn stale_statement_of_an_operation_fails_once() {
    let fixture = Fixture::new("stale_operation").await;
    let run = async || {
        let work = async |connection: &mut Connection| select(connection).await;
        fixture.test.pool.run(work).await.map_err(|error| match error {
            RunError::Operation(error) => error,
            error => panic!("{error}"),
        })
    };
    for (column, columns) in [("second", 2), ("third", 3)] {
        fixture.add_column(column).await;
        assert_stale(run().await);
        for _ in 0..8 {
            assert_eq!(run().await.unwrap(), columns);
        }
    }
}

#[tokio::test]
async fn missing_statement_fails_once() {
    let fixture = Fixture::new("missing").await;
    let connection = fixture.test.get().await;
    connection.batch_execute("DEALLOCATE ALL").await.unwrap();
    let error = select(&connection).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INVALID_SQL_STATEMENT_NAME));
    assert_eq!(select(&connection).await.unwrap(), 1);
    drop(connection);
    for connection in &fixture.test.get_many(3).await {
        assert_eq!(select(connection).await.unwrap(), 1);
    }
}

/// A statement that the caller keeps can fail again and again, which must not empty the caches each time.
#[tokio::test]
async fn stale_statement_of_the_caller_keeps_the_caches() {
    let fixture = Fixture::new("kept").await;
    let connection = fixture.test.get().await;
    let kept = connection.prepare(SELECT).await.unwrap();
    fixture.add_column("second").await;
    let use_kept = async || connection.query_one(&kept, &[]).await.map(|row| row.len());
    assert_stale(use_kept().await);
    assert_eq!(connection.statement_cache.size(), 0, "it might have been one of the cache");
    assert_eq!(select(&connection).await.unwrap(), 2);
    for _ in 0..3 {
        assert_stale(use_kept().await);
        assert_eq!(connection.statement_cache.size(), 1);
    }
    // Nor do statements that are prepared and executed in SQL.
    let error = connection.batch_execute("EXECUTE nothing").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INVALID_SQL_STATEMENT_NAME));
    assert_eq!(connection.statement_cache.size(), 1);
}

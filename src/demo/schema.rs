//! The shop's tables.

use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::error::DemoError;
use crate::config::{ConfigError, DatabaseUrl, Settings};
use crate::pool::postgres::{ConnectError, Connector};

/// The schema that holds everything the demo makes in a database.
pub(super) const SCHEMA: &str = "poolscope_demo";

/// How many products and customers there are, with ids from 1.
pub(super) const PRODUCTS: i32 = 500;
/// See [`PRODUCTS`].
pub(super) const CUSTOMERS: i32 = 400;

/// Run in one transaction: all of it is there, or nothing. `request` 1 to 5000 are taken.
const CREATE: &str = "
    SET LOCAL statement_timeout = '60s';
    SET LOCAL client_min_messages = warning;
    CREATE SCHEMA poolscope_demo;
    CREATE TABLE poolscope_demo.products (
        id integer PRIMARY KEY,
        name text NOT NULL,
        cents bigint NOT NULL CHECK (cents > 0),
        stock integer NOT NULL
    );
    CREATE TABLE poolscope_demo.orders (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        request bigint NOT NULL UNIQUE,
        customer integer NOT NULL,
        product integer NOT NULL REFERENCES poolscope_demo.products,
        cents bigint NOT NULL,
        placed_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX orders_of_customer ON poolscope_demo.orders (customer, id DESC);
    INSERT INTO poolscope_demo.products
        SELECT id, 'product ' || id, 100 + 10 * (id % 97), 1000 FROM generate_series(1, 500) AS id;
    INSERT INTO poolscope_demo.orders (request, customer, product, cents, placed_at)
        SELECT n, 1 + n % 400, 1 + (n * 7) % 500, 100 + 10 * (n % 97), now() - (5000 - n) * interval '1 minute'
        FROM generate_series(1, 5000) AS n;
    ANALYZE poolscope_demo.products;
    ANALYZE poolscope_demo.orders;
";

const DROP: &str = "
    BEGIN;
    SET LOCAL statement_timeout = '20s';
    SET LOCAL lock_timeout = '5s';
    SET LOCAL client_min_messages = warning;
    DROP SCHEMA poolscope_demo CASCADE;
    COMMIT;
";

/// Makes and drops the schema, each time over a connection of its own, outside the pool.
#[derive(Debug)]
pub(super) struct Keeper {
    connector: Connector,
    url: DatabaseUrl,
}

/// A connection, until it is closed.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    task: JoinHandle<()>,
}

impl Session {
    /// Runs these, one after the other.
    pub(super) async fn run(&self, statements: &[&str]) -> Result<(), DemoError> {
        for statement in statements {
            self.client.batch_execute(statement).await.map_err(DemoError::system)?;
        }
        Ok(())
    }

    /// Closes the connection, and returns when it is.
    pub(super) async fn close(self) {
        drop(self.client);
        let _ = self.task.await;
    }
}

impl Keeper {
    pub(super) fn new(settings: &Settings, url: &DatabaseUrl) -> Result<Self, ConfigError> {
        Ok(Self { connector: Connector::new(settings, url, "schema")?, url: url.clone() })
    }

    async fn open(&self) -> Result<Session, ConnectError> {
        let established = self.connector.connect(None).await?;
        Ok(Session { client: established.client, task: established.task })
    }

    /// A connection.
    pub(super) async fn connect(&self) -> Result<Session, DemoError> {
        self.open().await.map_err(|source| DemoError::Connect { url: self.url.to_string(), source })
    }

    /// Makes the schema with everything in it.
    pub(super) async fn create(&self, mut session: Session) -> Result<(), DemoError> {
        let result = create(&mut session.client).await;
        session.close().await;
        result.map_err(|source| {
            let url = self.url.to_string();
            match source.code() {
                // Of two at once, the later one trips over the catalogue's own index.
                Some(code) if [SqlState::DUPLICATE_SCHEMA, SqlState::UNIQUE_VIOLATION].contains(code) => {
                    DemoError::SchemaExists { url }
                }
                _ => DemoError::Create { url, source },
            }
        })
    }

    /// Drops the schema with everything in it.
    pub(super) async fn remove(&self) -> Result<(), DemoError> {
        let failed = |source| DemoError::Drop { url: self.url.to_string(), source };
        let session = self.open().await.map_err(|error| failed(error.into()))?;
        let result = session.client.batch_execute(DROP).await;
        session.close().await;
        result.map_err(|error| failed(error.into()))
    }
}

async fn create(client: &mut Client) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(CREATE).await?;
    transaction.commit().await
}

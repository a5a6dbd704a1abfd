//! The schema with the shop's tables.

use poolscope::config::{ConfigError, Settings};
use poolscope::{Collector, ConnectError, Pool, UnpooledConnection};
use tokio_postgres::error::SqlState;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::error::DemoError;

/// The schema that the demo creates in a database.
pub(super) const SCHEMA: &str = "poolscope_demo";

/// The number of products; their ids start at 1.
pub(super) const PRODUCTS: i32 = 500;
/// The number of customers; their ids start at 1.
pub(super) const CUSTOMERS: i32 = 400;

/// Runs in one transaction. Creates orders with the `request` numbers 1 to 5000.
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

/// Creates and drops the schema, over connections that are not in the demo's pool.
#[derive(Debug)]
pub(super) struct SchemaManager {
    /// Opens the connections. It has a collector of its own, so that no metric counts them.
    pool: Pool,
    /// The database's URL, without its password.
    url: String,
}

/// A connection outside of the demo's pool. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Session {
    connection: UnpooledConnection,
}

impl Session {
    /// Runs the statements one after the other.
    pub(super) async fn run(&self, statements: &[&str]) -> Result<(), DemoError> {
        for statement in statements {
            self.connection.batch_execute(statement).await.map_err(DemoError::system)?;
        }
        Ok(())
    }
}

impl SchemaManager {
    pub(super) fn new(settings: &Settings) -> Result<Self, ConfigError> {
        let url = settings.database_url.as_ref().map(ToString::to_string).unwrap_or_default();
        let builder = Pool::builder().settings(settings.clone()).name("schema").collector(Collector::new());
        Ok(Self { pool: builder.build()?, url })
    }

    async fn open(&self) -> Result<Session, ConnectError> {
        // The pool would log the error, which the caller reports.
        let connection = self.pool.connect_unpooled().with_subscriber(NoSubscriber::new()).await?;
        Ok(Session { connection })
    }

    /// Opens a connection.
    pub(super) async fn connect(&self) -> Result<Session, DemoError> {
        self.open().await.map_err(|source| DemoError::Connect { url: self.url.clone(), source })
    }

    /// Creates the schema with its tables and rows.
    pub(super) async fn create(&self, mut session: Session) -> Result<(), DemoError> {
        let result = create(&mut session.connection).await;
        drop(session);
        result.map_err(|source| {
            let url = self.url.clone();
            match source.code() {
                // If two demos create it at once, one violates an index of the system catalog.
                Some(code) if [SqlState::DUPLICATE_SCHEMA, SqlState::UNIQUE_VIOLATION].contains(code) => {
                    DemoError::SchemaExists { url }
                }
                _ => DemoError::Create { url, source },
            }
        })
    }

    /// Drops the schema.
    pub(super) async fn remove(&self) -> Result<(), DemoError> {
        let failed = |source| DemoError::Drop { url: self.url.clone(), source };
        let session = self.open().await.map_err(|error| failed(error.into()))?;
        session.connection.batch_execute(DROP).await.map_err(|error| failed(error.into()))
    }
}

async fn create(client: &mut UnpooledConnection) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(CREATE).await?;
    transaction.commit().await
}

//! The shop's tables.

use poolscope::config::{ConfigError, Settings};
use poolscope::{Collector, ConnectError, Pool, UnpooledConnection};
use tokio_postgres::error::SqlState;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::error::DemoError;

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
    /// Makes the connections; it is apart from the demo's pool, so that no metric counts them.
    pool: Pool,
    /// The database, without the password.
    url: String,
}

/// A connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Session {
    connection: UnpooledConnection,
}

impl Session {
    /// Runs these, one after the other.
    pub(super) async fn run(&self, statements: &[&str]) -> Result<(), DemoError> {
        for statement in statements {
            self.connection.batch_execute(statement).await.map_err(DemoError::system)?;
        }
        Ok(())
    }
}

impl Keeper {
    pub(super) fn new(settings: &Settings) -> Result<Self, ConfigError> {
        let url = settings.database_url.as_ref().map(ToString::to_string).unwrap_or_default();
        let builder = Pool::builder().settings(settings.clone()).name("schema").collector(Collector::new());
        Ok(Self { pool: builder.build()?, url })
    }

    async fn open(&self) -> Result<Session, ConnectError> {
        // The error goes to the caller, and so not to the log.
        let connection = self.pool.connect_unpooled().with_subscriber(NoSubscriber::new()).await?;
        Ok(Session { connection })
    }

    /// A connection.
    pub(super) async fn connect(&self) -> Result<Session, DemoError> {
        self.open().await.map_err(|source| DemoError::Connect { url: self.url.clone(), source })
    }

    /// Makes the schema with everything in it.
    pub(super) async fn create(&self, mut session: Session) -> Result<(), DemoError> {
        let result = create(&mut session.connection).await;
        drop(session);
        result.map_err(|source| {
            let url = self.url.clone();
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

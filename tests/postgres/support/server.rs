//! The server that tests share, and a look at it from outside any pool.

use poolscope::demo::server::Server;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use super::until;

/// The server of the tests that neither stop nor configure theirs. It ends with this process, however that ends.
pub(crate) async fn shared() -> &'static Server {
    static SHARED: OnceCell<Server> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            Server::builder().setting("max_connections", "200").tcp(true).start().await.expect("a server")
        })
        .await
}

/// A connection outside any pool.
pub(crate) struct Admin(Client);

impl Admin {
    pub(crate) async fn new(server: &Server) -> Self {
        let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.expect("a connection");
        tokio::spawn(connection);
        Self(client)
    }

    pub(crate) async fn execute(&self, statements: &str) {
        self.0.batch_execute(statements).await.expect(statements);
    }

    /// Whether a query finds nothing.
    pub(crate) async fn is_empty(&self, query: &str) -> bool {
        self.0.query(query, &[]).await.expect(query).is_empty()
    }

    /// The number that a query answers with.
    pub(crate) async fn count(&self, query: &str) -> i64 {
        self.0.query_one(query, &[]).await.expect(query).get(0)
    }

    /// How many backends a pool has.
    pub(crate) async fn backends(&self, application: &str) -> usize {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        let count: i64 = self.0.query_one(query, &[&application]).await.expect("a count").get(0);
        usize::try_from(count).expect("a count")
    }

    /// Waits until a pool has so many backends: one goes a moment after its connection.
    pub(crate) async fn await_backends(&self, application: &str, count: usize) {
        until("the backends that the pool should have", async || {
            (self.backends(application).await == count).then_some(())
        })
        .await;
    }

    /// The last statement that the backend was sent.
    pub(crate) async fn last_statement(&self, backend: i32) -> String {
        let query = "SELECT query FROM pg_stat_activity WHERE pid = $1";
        self.0.query_one(query, &[&backend]).await.expect("a statement").get(0)
    }

    /// Waits until a backend is in the midst of a statement.
    pub(crate) async fn await_busy(&self, backend: i32) {
        until("a backend that is busy", async || {
            let query = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND state = 'active'";
            self.0.query_opt(query, &[&backend]).await.expect("an answer")
        })
        .await;
    }

    /// Ends a backend in the midst of a statement, and returns when it is gone.
    pub(crate) async fn terminate_busy(&self, backend: i32) {
        self.await_busy(backend).await;
        self.terminate(backend).await;
    }

    /// Ends a backend, and returns when it is gone.
    pub(crate) async fn terminate(&self, backend: i32) {
        self.0.execute("SELECT pg_terminate_backend($1)", &[&backend]).await.expect("a signal");
        until("the end of a backend", async || {
            let query = "SELECT 1 FROM pg_stat_activity WHERE pid = $1";
            self.0.query_opt(query, &[&backend]).await.expect("an answer").is_none().then_some(())
        })
        .await;
    }
}

//! The server shared by the tests, and queries outside any pool.

use poolscope_testing::server::Server;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use super::poll_until;

/// Returns the server of all tests that neither stop nor configure it. It ends with this process, however that ends.
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

    /// Returns whether a query has no rows.
    pub(crate) async fn is_empty(&self, query: &str) -> bool {
        self.0.query(query, &[]).await.expect(query).is_empty()
    }

    /// Returns the number that a query yields.
    pub(crate) async fn count(&self, query: &str) -> i64 {
        self.0.query_one(query, &[]).await.expect(query).get(0)
    }

    /// Returns how many backends an application has.
    pub(crate) async fn backends(&self, application: &str) -> usize {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        let count: i64 = self.0.query_one(query, &[&application]).await.expect("a count").get(0);
        usize::try_from(count).expect("a count")
    }

    /// Waits until an application has `count` backends: a backend ends a moment after its connection.
    pub(crate) async fn await_backends(&self, application: &str, count: usize) {
        poll_until("the expected number of backends", async || {
            (self.backends(application).await == count).then_some(())
        })
        .await;
    }

    /// Returns the last statement of a backend.
    pub(crate) async fn last_statement(&self, backend: i32) -> String {
        let query = "SELECT query FROM pg_stat_activity WHERE pid = $1";
        self.0.query_one(query, &[&backend]).await.expect("a statement").get(0)
    }

    /// Waits until a backend executes a statement.
    pub(crate) async fn await_busy(&self, backend: i32) {
        poll_until("a busy backend", async || {
            let query = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND state = 'active'";
            self.0.query_opt(query, &[&backend]).await.expect("a result")
        })
        .await;
    }

    /// Terminates a backend while it executes a statement, and waits for its end.
    pub(crate) async fn terminate_busy(&self, backend: i32) {
        self.await_busy(backend).await;
        self.terminate(backend).await;
    }

    /// Terminates a backend, and waits for its end.
    pub(crate) async fn terminate(&self, backend: i32) {
        self.0.execute("SELECT pg_terminate_backend($1)", &[&backend]).await.expect("a signal");
        poll_until("the backend is gone", async || {
            let query = "SELECT 1 FROM pg_stat_activity WHERE pid = $1";
            self.0.query_opt(query, &[&backend]).await.expect("a result").is_none().then_some(())
        })
        .await;
    }
}

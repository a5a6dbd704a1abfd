//! Connections that are cut at every point of a transaction: work that is not idempotent never takes effect twice.

use std::net::{Ipv4Addr, SocketAddr};

use poolscope::labels::GiveUp;
use poolscope::retry::{Class, Effects};
use poolscope::{Connection, RetryError, RetryPolicy};
use poolscope_testing::server::Server;
use tokio::sync::OnceCell;
use tokio_postgres::Error;

use crate::support::{Admin, Proxy, TestPool, error_chain, with_deadline};

/// Returns a server that listens on TCP, for the proxy.
async fn server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    let start = async || {
        let server = Server::builder().tcp(true).setting("max_connections", "100").start().await.unwrap();
        let admin = Admin::new(&server).await;
        admin.execute("CREATE TABLE orders (token text NOT NULL); CREATE TABLE once (token text PRIMARY KEY)").await;
        server
    };
    SERVER.get_or_init(start).await
}

/// A pool that reaches the server through a proxy, and the token of its order.
struct Fixture {
    proxy: Proxy,
    test: TestPool,
    token: String,
}

/// Sets a trap in the proxy.
type SetTrap = fn(&Fixture);

const POLICY: RetryPolicy =
    RetryPolicy::new().backoff(std::time::Duration::from_millis(1), std::time::Duration::from_millis(5));

impl Fixture {
    async fn new(name: &str) -> Self {
        let server = server().await;
        let proxy = Proxy::to(SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()))).await;
        let url = proxy.url(&server.tcp_url().unwrap());
        let test = TestPool::new(name, &url, |builder| builder.pool_size(2).max_overflow(0));
        // Prepared, so that the traps match only the work itself.
        let connection = test.get().await;
        connection.prepare_cached(ORDER).await.unwrap();
        connection.prepare_cached(IDEMPOTENT_ORDER).await.unwrap();
        drop(connection);
        Self { proxy, test, token: format!("token-{name}") }
    }

    /// Returns a pattern that matches only the INSERT of the order.
    fn order_pattern(&self) -> Vec<u8> {
        self.token.as_bytes().to_vec()
    }

    /// Places an order in a transaction.
    async fn place_order(&self, idempotent: bool) -> Result<u32, RetryError<Error>> {
        let work = async |connection: &mut Connection| {
            let transaction = connection.transaction().await?;
            let order = transaction.prepare_cached(if idempotent { IDEMPOTENT_ORDER } else { ORDER }).await?;
            transaction.execute(&order, &[&self.token]).await?;
            transaction.commit().await
        };
        self.run(idempotent, work).await
    }

    /// Places an order outside a transaction.
    async fn place_order_without_transaction(&self) -> Result<u32, RetryError<Error>> {
        let work = async |connection: &mut Connection| {
            let order = connection.prepare_cached(ORDER).await?;
            connection.execute(&order, &[&self.token]).await.map(drop)
        };
        self.run(false, work).await
    }

    /// Runs the work. Returns the number of attempts.
    async fn run<W>(&self, idempotent: bool, work: W) -> Result<u32, RetryError<Error>>
    where
        W: AsyncFnOnce(&mut Connection) -> Result<(), Error> + Clone,
    {
        let operation = self.test.pool.operation("buy").idempotent(idempotent).retry(POLICY);
        let completed = with_deadline("a result", operation.run_reporting(work)).await;
        assert_eq!(self.proxy.sprung(), 1, "one trap was sprung");
        completed.map(|completed| completed.report.attempts)
    }

    /// Returns the number of orders once the pool's backends are gone.
    async fn order_count(&self, table: &str) -> i64 {
        self.proxy.cut();
        let admin = Admin::new(server().await).await;
        admin.await_backends(self.test.pool.name(), 0).await;
        admin.count(&format!("SELECT count(*) FROM {table} WHERE token = '{}'", self.token)).await
    }
}

const ORDER: &str = "INSERT INTO orders VALUES ($1)";
const IDEMPOTENT_ORDER: &str = "INSERT INTO once VALUES ($1) ON CONFLICT DO NOTHING";
const BEGIN: &[u8] = b"START TRANSACTION\0";
const COMMIT: &[u8] = b"COMMIT\0";

#[tokio::test]
async fn loss_before_commit_is_retried_once() {
    let cut: [(&str, SetTrap); 4] = [
        ("begin_unsent", |fixture| fixture.proxy.cut_before(BEGIN)),
        ("begin_unanswered", |fixture| fixture.proxy.cut_unanswered(BEGIN)),
        ("order_unsent", |fixture| fixture.proxy.cut_before(fixture.order_pattern())),
        ("order_unanswered", |fixture| fixture.proxy.cut_unanswered(fixture.order_pattern())),
    ];
    for (name, set_trap) in cut {
        let fixture = Fixture::new(&format!("connection_loss_{name}")).await;
        set_trap(&fixture);
        assert_eq!(fixture.place_order(false).await.unwrap(), 2, "{name}");
        let lost = [("operation", "buy"), ("error_type", "io")];
        assert_eq!(fixture.test.scrape().count("poolscope_retries_total", &lost), 1);
        assert_eq!(fixture.order_count("orders").await, 1, "{name}");
    }
}

#[tokio::test]
async fn unanswered_commit_is_never_retried() {
    let cut: [(&str, SetTrap, i64); 2] = [
        ("unsent", |fixture| fixture.proxy.cut_before(COMMIT), 0),
        ("unanswered", |fixture| fixture.proxy.cut_unanswered(COMMIT), 1),
    ];
    for (name, set_trap, order_count) in cut {
        let fixture = Fixture::new(&format!("connection_loss_{name}")).await;
        set_trap(&fixture);
        let error = fixture.place_order(false).await.unwrap_err();
        assert_eq!((error.gave_up(), error.effects()), (GiveUp::CommitUnknown, Effects::CommitUnknown), "{error}");
        assert_eq!((error.class(), error.error_type(), error.attempts()), (Class::Lost, Some("io"), 1));
        let expected = "whether the COMMIT took effect is unknown, and the operation is not idempotent: ";
        assert!(error_chain(&error).contains(expected), "{}", error_chain(&error));
        let unknown = [("operation", "buy"), ("reason", "commit_unknown"), ("error_type", "io")];
        assert_eq!(fixture.test.scrape().count("poolscope_retry_exhausted_total", &unknown), 1);
        assert_eq!(fixture.order_count("orders").await, order_count, "{name}");
    }
}

#[tokio::test]
async fn answered_commit_is_a_success() {
    let fixture = Fixture::new("connection_loss_answered").await;
    fixture.proxy.cut_after(COMMIT);
    assert_eq!(fixture.place_order(false).await.unwrap(), 1);
    assert_eq!(fixture.order_count("orders").await, 1);
}

#[tokio::test]
async fn failure_after_commit_is_not_retried() {
    let fixture = Fixture::new("connection_loss_after").await;
    fixture.proxy.cut_after(COMMIT);
    let work = async |connection: &mut Connection| {
        let transaction = connection.transaction().await?;
        let order = transaction.prepare_cached(ORDER).await?;
        transaction.execute(&order, &[&fixture.token]).await?;
        transaction.commit().await?;
        connection.batch_execute("SELECT 1").await
    };
    let error = fixture.run(false, work).await.unwrap_err();
    assert_eq!((error.gave_up(), error.effects()), (GiveUp::NotIdempotent, Effects::Committed), "{error}");
    assert_eq!((error.class(), error.attempts()), (Class::Lost, 1));
    assert_eq!(fixture.order_count("orders").await, 1);
}

#[tokio::test]
async fn idempotent_work_is_retried_wherever_it_is_cut() {
    let cut: [(&str, SetTrap); 3] = [
        ("order", |fixture| fixture.proxy.cut_unanswered(fixture.order_pattern())),
        ("unsent", |fixture| fixture.proxy.cut_before(COMMIT)),
        ("unanswered", |fixture| fixture.proxy.cut_unanswered(COMMIT)),
    ];
    for (name, set_trap) in cut {
        let fixture = Fixture::new(&format!("connection_loss_idempotent_{name}")).await;
        set_trap(&fixture);
        assert_eq!(fixture.place_order(true).await.unwrap(), 2, "{name}");
        assert_eq!(fixture.order_count("once").await, 1, "{name}");
    }
}

#[tokio::test]
async fn statement_outside_transaction_is_not_retried() {
    let cut: [(&str, SetTrap, i64); 2] = [
        ("unsent", |fixture| fixture.proxy.cut_before(fixture.order_pattern()), 0),
        ("unanswered", |fixture| fixture.proxy.cut_unanswered(fixture.order_pattern()), 1),
    ];
    for (name, set_trap, order_count) in cut {
        let fixture = Fixture::new(&format!("connection_loss_statement_{name}")).await;
        set_trap(&fixture);
        let error = fixture.place_order_without_transaction().await.unwrap_err();
        assert_eq!((error.gave_up(), error.effects()), (GiveUp::NotIdempotent, Effects::StatementUnknown), "{error}");
        assert_eq!(fixture.order_count("orders").await, order_count, "{name}");
    }
}

#[tokio::test]
async fn loss_after_prepare_is_retried() {
    let fixture = Fixture::new("connection_loss_prepared").await;
    fixture.proxy.cut_unanswered("SELECT 42");
    let work = async |connection: &mut Connection| {
        let statement = connection.prepare_cached("SELECT 42").await?;
        connection.query(&statement, &[]).await.map(drop)
    };
    assert_eq!(fixture.run(false, work).await.unwrap(), 2);
}

//! A connection that is cut at every moment of a transaction: what is not idempotent never happens twice.

use std::net::{Ipv4Addr, SocketAddr};

use poolscope::demo::server::Server;
use poolscope::labels::GiveUp;
use poolscope::retry::{Class, Effects};
use poolscope::{Connection, RetryError, RetryPolicy};
use tokio::sync::OnceCell;
use tokio_postgres::Error;

use crate::support::{Admin, Counted, Proxy, chain, patiently};

/// A server that listens where a proxy can reach it.
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

/// A pool that reaches the server through a proxy, and an order of its own.
struct Rig {
    proxy: Proxy,
    counted: Counted,
    token: String,
}

/// Sets a trap.
type Arm = fn(&Rig);

const POLICY: RetryPolicy =
    RetryPolicy::new().backoff(std::time::Duration::from_millis(1), std::time::Duration::from_millis(5));

impl Rig {
    async fn new(name: &str) -> Self {
        let server = server().await;
        let proxy = Proxy::to(SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()))).await;
        let url = proxy.url(&server.tcp_url().unwrap());
        let counted = Counted::new(name, &url, |builder| builder.pool_size(2).max_overflow(0));
        // Prepared, so that the traps meet the work itself.
        let connection = counted.get().await;
        connection.prepare_cached(ORDER).await.unwrap();
        connection.prepare_cached(ONCE).await.unwrap();
        drop(connection);
        Self { proxy, counted, token: format!("token-{name}") }
    }

    /// What passes when the order is written, and nothing else does.
    fn order(&self) -> Vec<u8> {
        self.token.as_bytes().to_vec()
    }

    /// An order in a transaction.
    async fn buy(&self, idempotent: bool) -> Result<u32, RetryError<Error>> {
        let work = async |connection: &mut Connection| {
            let transaction = connection.transaction().await?;
            let order = transaction.prepare_cached(if idempotent { ONCE } else { ORDER }).await?;
            transaction.execute(&order, &[&self.token]).await?;
            transaction.commit().await
        };
        self.run(idempotent, work).await
    }

    /// An order by itself.
    async fn buy_at_once(&self) -> Result<u32, RetryError<Error>> {
        let work = async |connection: &mut Connection| {
            let order = connection.prepare_cached(ORDER).await?;
            connection.execute(&order, &[&self.token]).await.map(drop)
        };
        self.run(false, work).await
    }

    /// Answers how often it was tried.
    async fn run<W>(&self, idempotent: bool, work: W) -> Result<u32, RetryError<Error>>
    where
        W: AsyncFnOnce(&mut Connection) -> Result<(), Error> + Clone,
    {
        let operation = self.counted.pool.operation("buy").idempotent(idempotent).retry(POLICY);
        let completed = patiently("an answer", operation.run_reporting(work)).await;
        assert_eq!(self.proxy.sprung(), 1, "the trap was met");
        completed.map(|completed| completed.report.attempts)
    }

    /// How many orders there are in the end, once nobody works at them any more.
    async fn orders(&self, table: &str) -> i64 {
        self.proxy.cut();
        let admin = Admin::new(server().await).await;
        admin.await_backends(self.counted.pool.name(), 0).await;
        admin.count(&format!("SELECT count(*) FROM {table} WHERE token = '{}'", self.token)).await
    }
}

const ORDER: &str = "INSERT INTO orders VALUES ($1)";
const ONCE: &str = "INSERT INTO once VALUES ($1) ON CONFLICT DO NOTHING";
const BEGIN: &[u8] = b"START TRANSACTION\0";
const COMMIT: &[u8] = b"COMMIT\0";

#[tokio::test]
async fn loss_before_commit_is_retried_once() {
    let cut: [(&str, Arm); 4] = [
        ("begin_unsent", |rig| rig.proxy.cut_before(BEGIN)),
        ("begin_unanswered", |rig| rig.proxy.cut_unanswered(BEGIN)),
        ("order_unsent", |rig| rig.proxy.cut_before(rig.order())),
        ("order_unanswered", |rig| rig.proxy.cut_unanswered(rig.order())),
    ];
    for (name, arm) in cut {
        let rig = Rig::new(&format!("commits_{name}")).await;
        arm(&rig);
        assert_eq!(rig.buy(false).await.unwrap(), 2, "{name}");
        let lost = [("operation", "buy"), ("sqlstate", "io")];
        assert_eq!(rig.counted.scrape().count("poolscope_retries_total", &lost), 1);
        assert_eq!(rig.orders("orders").await, 1, "{name}");
    }
}

#[tokio::test]
async fn unanswered_commit_is_never_retried() {
    let cut: [(&str, Arm, i64); 2] =
        [("unsent", |rig| rig.proxy.cut_before(COMMIT), 0), ("unanswered", |rig| rig.proxy.cut_unanswered(COMMIT), 1)];
    for (name, arm, orders) in cut {
        let rig = Rig::new(&format!("commits_{name}")).await;
        arm(&rig);
        let error = rig.buy(false).await.unwrap_err();
        assert_eq!((error.gave_up(), error.effects()), (GiveUp::CommitUnknown, Effects::CommitUnknown), "{error}");
        assert_eq!((error.class(), error.sqlstate(), error.attempts()), (Class::Lost, Some("io"), 1));
        let told = "whether the COMMIT took effect is unknown, and the operation is not idempotent: ";
        assert!(chain(&error).contains(told), "{}", chain(&error));
        let unknown = [("operation", "buy"), ("reason", "commit_unknown"), ("sqlstate", "io")];
        assert_eq!(rig.counted.scrape().count("poolscope_retry_exhausted_total", &unknown), 1);
        assert_eq!(rig.orders("orders").await, orders, "{name}");
    }
}

#[tokio::test]
async fn answered_commit_is_a_success() {
    let rig = Rig::new("commits_answered").await;
    rig.proxy.cut_after(COMMIT);
    assert_eq!(rig.buy(false).await.unwrap(), 1);
    assert_eq!(rig.orders("orders").await, 1);
}

#[tokio::test]
async fn failure_after_commit_is_not_retried() {
    let rig = Rig::new("commits_after").await;
    rig.proxy.cut_after(COMMIT);
    let work = async |connection: &mut Connection| {
        let transaction = connection.transaction().await?;
        let order = transaction.prepare_cached(ORDER).await?;
        transaction.execute(&order, &[&rig.token]).await?;
        transaction.commit().await?;
        connection.batch_execute("SELECT 1").await
    };
    let error = rig.run(false, work).await.unwrap_err();
    assert_eq!((error.gave_up(), error.effects()), (GiveUp::NotIdempotent, Effects::Committed), "{error}");
    assert_eq!((error.class(), error.attempts()), (Class::Lost, 1));
    assert_eq!(rig.orders("orders").await, 1);
}

#[tokio::test]
async fn idempotent_work_is_retried_wherever_it_is_cut() {
    let cut: [(&str, Arm); 3] = [
        ("order", |rig| rig.proxy.cut_unanswered(rig.order())),
        ("unsent", |rig| rig.proxy.cut_before(COMMIT)),
        ("unanswered", |rig| rig.proxy.cut_unanswered(COMMIT)),
    ];
    for (name, arm) in cut {
        let rig = Rig::new(&format!("commits_idempotent_{name}")).await;
        arm(&rig);
        assert_eq!(rig.buy(true).await.unwrap(), 2, "{name}");
        assert_eq!(rig.orders("once").await, 1, "{name}");
    }
}

#[tokio::test]
async fn statement_outside_transaction_is_not_retried() {
    let cut: [(&str, Arm, i64); 2] = [
        ("unsent", |rig| rig.proxy.cut_before(rig.order()), 0),
        ("unanswered", |rig| rig.proxy.cut_unanswered(rig.order()), 1),
    ];
    for (name, arm, orders) in cut {
        let rig = Rig::new(&format!("commits_statement_{name}")).await;
        arm(&rig);
        let error = rig.buy_at_once().await.unwrap_err();
        assert_eq!((error.gave_up(), error.effects()), (GiveUp::NotIdempotent, Effects::StatementUnknown), "{error}");
        assert_eq!(rig.orders("orders").await, orders, "{name}");
    }
}

#[tokio::test]
async fn loss_after_prepare_is_retried() {
    let rig = Rig::new("commits_prepared").await;
    rig.proxy.cut_unanswered("SELECT 42");
    let work = async |connection: &mut Connection| {
        let statement = connection.prepare_cached("SELECT 42").await?;
        connection.query(&statement, &[]).await.map(drop)
    };
    assert_eq!(rig.run(false, work).await.unwrap(), 2);
}

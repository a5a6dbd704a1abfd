//! A failover: the primary becomes read-only, and another server takes over.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use poolscope::labels::GiveUp;
use poolscope::retry::Class;
use poolscope::{Connection, RetryPolicy, RunError};
use poolscope_testing::server::Server;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::support::{Admin, Proxy, TestPool, eventually};

const POLICY: RetryPolicy = RetryPolicy::new().backoff(Duration::from_millis(1), Duration::from_millis(5));

async fn write(connection: &mut Connection) -> Result<(), Error> {
    let transaction = connection.transaction().await?;
    transaction.batch_execute("INSERT INTO written VALUES (1)").await?;
    transaction.commit().await
}

/// Two servers behind one address, which leads to the first.
struct ServerPair {
    servers: [Server; 2],
    admins: [Admin; 2],
    proxy: Proxy,
    test: TestPool,
}

impl ServerPair {
    async fn new(name: &str) -> Self {
        let server = async || {
            let server = Server::builder().tcp(true).start().await.unwrap();
            let admin = Admin::new(&server).await;
            admin.execute("CREATE TABLE written (id int)").await;
            (server, admin)
        };
        let ((first, first_admin), (second, second_admin)) = tokio::join!(server(), server());
        let proxy = Proxy::to(address(&first)).await;
        let url = proxy.url(&first.tcp_url().unwrap());
        let test = TestPool::new(name, &url, |builder| builder.pool_size(4).max_overflow(0));
        drop(test.get_many(4).await);
        Self { servers: [first, second], admins: [first_admin, second_admin], proxy, test }
    }

    /// Makes the first server read-only.
    async fn demote(&self) {
        let admin = &self.admins[0];
        admin.execute("ALTER SYSTEM SET default_transaction_read_only = on").await;
        admin.execute("SELECT pg_reload_conf()").await;
        let is_read_only = "SELECT 1 WHERE current_setting('transaction_read_only') = 'on'";
        eventually("no more writes", async || !admin.is_empty(is_read_only).await).await;
        // Each session learns of it by a signal, before its next statement.
        let connections = self.test.get_many(4).await;
        for connection in &connections {
            let is_informed = async || connection.query_opt(is_read_only, &[]).await.unwrap().is_some();
            eventually("every session knows", is_informed).await;
        }
    }

    /// Routes new connections to the second server.
    fn promote(&self) {
        self.proxy.retarget(address(&self.servers[1]));
    }

    /// Returns the number of rows on each server.
    async fn written(&self) -> [i64; 2] {
        let count = "SELECT count(*) FROM written";
        [self.admins[0].count(count).await, self.admins[1].count(count).await]
    }
}

fn address(server: &Server) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()))
}

/// After a failover the connections to the old primary are closed, and the retried write reaches the new one.
#[tokio::test]
async fn write_is_retried_on_the_new_primary() {
    let pair = ServerPair::new("failover_retried").await;
    pair.demote().await;
    pair.promote();
    let test = &pair.test;
    let done = test.pool.operation("write").retry(POLICY).run_reporting(write).await.unwrap();
    assert_eq!((done.report.attempts, pair.written().await), (2, [0, 1]));
    // The others are closed at their next checkout.
    for _ in 0..8 {
        test.pool.run(write).await.unwrap();
    }
    assert_eq!(pair.written().await, [0, 9]);
    drop(test.get_many(4).await);
    assert_eq!((test.closed("read_only"), test.closed("invalidated")), (1, 3));
    let retries = [("operation", "write"), ("sqlstate", "25006")];
    assert_eq!(test.scrape().count("poolscope_retries_total", &retries), 1);
}

/// Without a policy, the connections to the old primary are closed when the first of them is returned.
#[tokio::test]
async fn old_primary_is_left_without_a_retry_policy() {
    let pair = ServerPair::new("failover_plain").await;
    pair.demote().await;
    pair.promote();
    let test = &pair.test;
    let refused = test.pool.run(write).await.unwrap_err();
    assert!(
        matches!(refused, RunError::Operation(error) if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION))
    );
    eventually("the server is queried", async || test.closed("read_only") == 1).await;
    for _ in 0..4 {
        test.pool.run(write).await.unwrap();
    }
    assert_eq!(pair.written().await, [0, 4]);
}

#[tokio::test]
async fn attempts_are_bounded_without_a_new_primary() {
    let pair = ServerPair::new("failover_none").await;
    pair.demote().await;
    let test = &pair.test;
    let error = test.pool.operation("write").retry(POLICY.attempts(3)).run(write).await.unwrap_err();
    assert_eq!((error.class(), error.gave_up(), error.attempts()), (Class::ReadOnly, GiveUp::Attempts, 3));
    // One for each attempt; the others are not invalidated repeatedly.
    assert_eq!(test.closed("read_only"), 3);
    assert!(test.closed("invalidated") <= 3);
}

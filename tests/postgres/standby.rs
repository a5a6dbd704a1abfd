//! A primary and its streaming standby, of which a pool knows both: the standby is promoted when the primary has failed.

use std::time::Duration;

use poolscope::labels::ServerRole;
use poolscope::telemetry::ServerPoll;
use poolscope::{Connection, PoolBuilder, RetryPolicy};
use poolscope_testing::server::{Server, Shutdown};
use tokio_postgres::Error;

use crate::support::{Admin, TestPool, block_on_other_thread, error_chain, eventually};

const POLICY: RetryPolicy = RetryPolicy::new()
    .attempts(100)
    .backoff(Duration::from_millis(20), Duration::from_millis(200))
    .deadline(Some(Duration::from_secs(30)));

/// A primary and its standby.
async fn pair() -> [Server; 2] {
    let server = async || {
        let settings = [("wal_level", "replica"), ("max_wal_senders", "4"), ("hot_standby", "on")];
        Server::builder().tcp(true).settings(settings).start().await.unwrap()
    };
    let (primary, standby) = tokio::join!(server(), server());
    standby.become_standby_of(&primary).await.unwrap();
    [primary, standby]
}

/// Returns a pool of the hosts that have these session attributes. The standby is the first host.
fn pool(name: &str, servers: &[Server; 2], attributes: &str) -> TestPool {
    let [primary, standby] = servers.each_ref().map(Server::port);
    let url = format!(
        "postgres://postgres@127.0.0.1:{standby},127.0.0.1:{primary}/postgres?target_session_attrs={attributes}"
    );
    TestPool::new(name, &url, |builder: PoolBuilder| {
        builder.pool_size(3).max_overflow(0).retry_floor(1_000).connect_timeout(Duration::from_secs(5))
    })
}

async fn write(connection: &mut Connection) -> Result<(), Error> {
    let transaction = connection.transaction().await?;
    transaction.batch_execute("INSERT INTO written VALUES (inet_server_port())").await?;
    transaction.commit().await
}

async fn port(test: &TestPool) -> u16 {
    let row = test.get().await.query_one("SELECT inet_server_port()", &[]).await.unwrap();
    u16::try_from(row.get::<_, i32>(0)).unwrap()
}

#[tokio::test]
async fn pool_follows_the_promotion_of_a_standby() {
    let servers = pair().await;
    let [primary, standby] = &servers;
    let admin = Admin::new(primary).await;
    admin.execute("CREATE TABLE written (port int)").await;
    let (writes, reads) =
        (pool("standby_writes", &servers, "read-write"), pool("standby_reads", &servers, "read-only"));
    assert_eq!(port(&writes).await, primary.port());
    assert_eq!(port(&reads).await, standby.port());
    writes.pool.operation("write").retry(POLICY).run(write).await.unwrap();
    // Replicated, and seen through the pool of the standby.
    eventually("the row is replicated", async || {
        reads.get().await.query("SELECT 1 FROM written", &[]).await.is_ok_and(|rows| rows.len() == 1)
    })
    .await;
    drop(writes.get_many(3).await);

    block_on_other_thread(async || primary.stop(Shutdown::Immediate).await).unwrap();
    let refused = writes.pool.operation("write").retry(POLICY.attempts(2)).run(write).await.unwrap_err();
    assert!(refused.attempts() <= 2, "{}", error_chain(&refused));
    // A write that begins before the promotion succeeds after it.
    let (written, promoted) =
        tokio::join!(writes.pool.operation("write").retry(POLICY).run(write), async { standby.promote().await });
    promoted.unwrap();
    written.unwrap();
    assert_eq!(port(&writes).await, standby.port());
    let admin = Admin::new(standby).await;
    let by_port = |port: u16| format!("SELECT count(*) FROM written WHERE port = {port}");
    assert_eq!(admin.count(&by_port(primary.port())).await, 1);
    assert_eq!(admin.count(&by_port(standby.port())).await, 1);

    let _watch = tokio::spawn(writes.pool.watch_server(Duration::from_millis(200)));
    eventually("the view of a primary", async || match writes.pool.snapshot().server {
        Some(ServerPoll::Seen(view)) => view.role == ServerRole::Primary,
        _ => false,
    })
    .await;
    // No place was lost.
    drop(writes.get_many(3).await);
}

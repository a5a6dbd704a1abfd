//! The server's own view, which is queried on a connection besides the pool.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use poolscope::PoolBuilder;
use poolscope::labels::{BackendState, ServerRole};
use poolscope::telemetry::{ServerPoll, ServerView};
use poolscope_testing::server::{Server, Shutdown};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::support::{Proxy, TestPool, block_on_other_thread, eventually, poll_until, shared, with_deadline};

const INTERVAL: Duration = Duration::from_millis(20);

fn single_connection(builder: PoolBuilder) -> PoolBuilder {
    builder.pool_size(1).max_overflow(0)
}

fn watch(test: &TestPool) -> JoinHandle<()> {
    tokio::spawn(test.pool.watch_server(INTERVAL))
}

/// Returns the server's view once it matches.
async fn view_when(test: &TestPool, what: &str, matches: impl Fn(&ServerView) -> bool) -> Arc<ServerView> {
    poll_until(what, async || match test.pool.snapshot().server {
        Some(ServerPoll::Seen(view)) => Some(view).filter(|view| matches(view)),
        _ => None,
    })
    .await
}

async fn await_failed_query(test: &TestPool) {
    eventually("a failed query", async || test.pool.snapshot().server == Some(ServerPoll::Failed)).await;
}

fn backends(view: &ServerView, application: &str, state: BackendState) -> u64 {
    let of = view.backends.iter().filter(|backends| &*backends.application == application && backends.state == state);
    of.map(|backends| backends.count).sum()
}

/// Connects as another application.
async fn connect_as(url: &str, application: &str) -> Client {
    let mut config: tokio_postgres::Config = url.parse().unwrap();
    let (client, connection) = config.application_name(application).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn backends_are_counted_by_application_and_state() {
    let server = Server::builder().setting("max_connections", "30").start().await.unwrap();
    let test = TestPool::new("view", &server.url(), single_connection);
    let _watch = watch(&test);
    let (holder, waiter) = (connect_as(&server.url(), "holder").await, connect_as(&server.url(), "waiter").await);
    let _idle = [
        connect_as(&server.url(), "idler").await,
        connect_as(&server.url(), "idler").await,
        connect_as(&server.url(), "").await,
    ];
    holder.batch_execute("CREATE TABLE t ()").await.unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE t").await.unwrap();
    let waiting = tokio::spawn(async move { waiter.batch_execute("BEGIN; LOCK TABLE t; COMMIT").await });

    // The server reads its backends a moment before its locks.
    let waits = |view: &ServerView| {
        view.lock_waiters == 1
            && backends(view, "holder", BackendState::IdleInTransaction) == 1
            && backends(view, "waiter", BackendState::Active) == 1
    };
    let view = view_when(&test, "a lock waiter", waits).await;
    assert_eq!(backends(&view, "idler", BackendState::Idle), 2, "{view:?}");
    assert_eq!(backends(&view, "unnamed", BackendState::Idle), 1, "{view:?}");
    // The watch's own connection; the pool has none.
    assert_eq!(backends(&view, "view", BackendState::Active), 1, "{view:?}");
    assert!(view.oldest_idle_in_transaction > Duration::ZERO, "{view:?}");
    assert!(view.oldest_transaction >= view.oldest_idle_in_transaction, "{view:?}");
    // Three slots are reserved by default, and six are taken.
    assert_eq!((view.slots, view.slots_left, view.role), (27, 21, ServerRole::Primary));
    assert!(view.version.starts_with(|first: char| first.is_ascii_digit()), "{view:?}");

    let scrape = test.scrape();
    assert_eq!(scrape.count("poolscope_server_backends", &[("application_name", "idler"), ("state", "idle")]), 2);
    assert_eq!(scrape.count("poolscope_server_slots_left", &[]), 21);
    assert_eq!(scrape.count("poolscope_server_lock_waiters", &[]), 1);
    assert_eq!((scrape.count("poolscope_server_up", &[]), scrape.count("poolscope_server_info", &[])), (1, 1));

    drop(holder);
    with_deadline("the lock", waiting).await.unwrap().unwrap();
    view_when(&test, "no lock waiter", |view| view.lock_waiters == 0 && view.oldest_idle_in_transaction.is_zero())
        .await;
}

/// The server is observed while the pool is exhausted, and the connection used for it is not counted in the pool.
#[tokio::test]
async fn server_is_observed_while_pool_is_exhausted() {
    let test = TestPool::shared("view_exhausted", single_connection).await;
    let held = test.get().await;
    let _watch = watch(&test);
    let view = view_when(&test, "both connections", |view| {
        let all = view.backends.iter().filter(|backends| &*backends.application == "view_exhausted");
        all.map(|backends| backends.count).sum::<u64>() == 2
    })
    .await;
    assert!(view.slots_left < view.slots, "{view:?}");
    let scrape = test.scrape();
    assert_eq!(scrape.count("poolscope_connections_created_total", &[]), 1);
    assert_eq!(scrape.count("poolscope_unpooled_connections_total", &[]), 0);
    assert_eq!(scrape.count("poolscope_checkouts_started_total", &[]), 1);
    drop(held);
}

#[tokio::test]
async fn metrics_vanish_while_the_server_is_down() {
    let server = Server::builder().start().await.unwrap();
    let test = TestPool::new("view_gone", &server.url(), single_connection);
    assert!(!test.scrape().names().any(|name| name.starts_with("poolscope_server_")));
    let watch = watch(&test);
    view_when(&test, "the server", |_| true).await;

    block_on_other_thread(async || server.stop(Shutdown::Immediate).await).unwrap();
    await_failed_query(&test).await;
    let scrape = test.scrape();
    let shown: Vec<_> = scrape.names().filter(|name| name.starts_with("poolscope_server_")).collect();
    assert_eq!((shown, scrape.count("poolscope_server_up", &[])), (vec!["poolscope_server_up"], 0));
    // Not counted as a failure of the pool.
    assert_eq!(scrape.count("poolscope_connection_errors_total", &[]), 0);

    block_on_other_thread(async || server.start().await).unwrap();
    view_when(&test, "the server again", |_| true).await;

    watch.abort();
    eventually("no metrics of the server", async || test.pool.snapshot().server.is_none()).await;
    assert!(!test.scrape().names().any(|name| name.starts_with("poolscope_server_")));
}

#[tokio::test]
async fn watch_ends_with_the_pool() {
    let test = TestPool::shared("view_closed", single_connection).await;
    let closed = watch(&test);
    view_when(&test, "the server", |_| true).await;
    test.pool.close().await;
    with_deadline("the watch ends", closed).await.unwrap();
    let rare = TestPool::shared("view_rarely", single_connection).await;
    let closed = tokio::spawn(rare.pool.watch_server(Duration::from_secs(3600)));
    view_when(&rare, "the server", |_| true).await;
    rare.pool.close().await;
    with_deadline("the watch ends at once", closed).await.unwrap();
    assert_eq!(rare.pool.snapshot().server, None);

    let test = TestPool::shared("view_dropped", single_connection).await;
    let dropped = tokio::spawn(test.pool.watch_server(Duration::from_secs(3600)));
    view_when(&test, "the server", |_| true).await;
    drop(test);
    with_deadline("the watch ends", dropped).await.unwrap();
}

#[tokio::test]
async fn unprivileged_role_sees_hidden_states() {
    let server = Server::builder().start().await.unwrap();
    let admin = connect_as(&server.url(), "admin").await;
    admin.batch_execute("CREATE ROLE watcher LOGIN").await.unwrap();
    admin.batch_execute("BEGIN").await.unwrap();
    let test = TestPool::new("view_hidden", &server.url().replace("postgres@", "watcher@"), single_connection);
    let _watch = watch(&test);
    let view = view_when(&test, "the server", |_| true).await;
    assert_eq!(backends(&view, "admin", BackendState::Hidden), 1, "{view:?}");
    assert_eq!(backends(&view, "view_hidden", BackendState::Active), 1, "{view:?}");
    // Neither background processes nor hidden backends take the wrong state.
    assert_eq!(view.slots - view.slots_left, 2, "{view:?}");
    assert_eq!(view.oldest_idle_in_transaction, Duration::ZERO);

    for statement in ["COMMIT", "GRANT pg_monitor TO watcher", "BEGIN"] {
        admin.batch_execute(statement).await.unwrap();
    }
    let granted = |view: &ServerView| backends(view, "admin", BackendState::IdleInTransaction) == 1;
    view_when(&test, "the other backend's state", granted).await;
}

#[tokio::test]
async fn slots_respect_the_database_connection_limit() {
    let server = Server::builder().start().await.unwrap();
    let admin = connect_as(&server.url(), "admin").await;
    admin.batch_execute("CREATE DATABASE small CONNECTION LIMIT 5").await.unwrap();
    let url = format!("{}/small", server.url().strip_suffix("/postgres").unwrap());
    let test = TestPool::new("view_small", &url, single_connection);
    let _watch = watch(&test);
    // The administrator is connected to another database.
    let view = view_when(&test, "the server", |_| true).await;
    assert_eq!((view.slots, view.slots_left), (5, 4), "{view:?}");
    let _held = connect_as(&url, "another").await;
    view_when(&test, "one slot less", |view| view.slots_left == 3).await;
}

#[tokio::test]
async fn full_server_is_observed_by_open_connection() {
    let server = Server::builder().setting("max_connections", "6").start().await.unwrap();
    let admin = connect_as(&server.url(), "admin").await;
    admin.batch_execute("CREATE ROLE app LOGIN").await.unwrap();
    drop(admin);
    let url = server.url().replace("postgres@", "app@");
    let test = TestPool::new("view_full", &url, single_connection);
    let _watch = watch(&test);
    view_when(&test, "the server", |view| view.slots_left == 2).await;
    let taken = [connect_as(&url, "taker").await, connect_as(&url, "taker").await];
    assert!(tokio_postgres::connect(&url, NoTls).await.is_err(), "no slot is left for unprivileged roles");
    let first = view_when(&test, "no slot left", |view| view.slots == 3 && view.slots_left == 0).await;
    // Reserved slots are taken as well; the number of slots left never drops below zero.
    let _reserved = [connect_as(&server.url(), "reserved").await, connect_as(&server.url(), "reserved").await];
    let both = |view: &ServerView| backends(view, "reserved", BackendState::Hidden) == 2;
    let later = view_when(&test, "the reserved slots", both).await;
    assert!(later.slots_left == 0 && later.seen_at > first.seen_at, "{later:?}");
    drop(taken);
}

#[tokio::test]
async fn backends_of_no_pool_are_counted() {
    let test = TestPool::shared("view_unowned", |builder| builder.pool_size(3)).await;
    let other = test.pool.server_view().await.unwrap();
    assert_eq!(other.unowned, Some([0, 0]));
    let _watch = [watch(&test), watch(&test)];
    let _held = [test.get().await, test.get().await];
    // The backend of a connection that was closed ends a moment later.
    let owned =
        |view: &ServerView| backends(view, "view_unowned", BackendState::Active) > 0 && view.unowned == Some([0, 0]);
    view_when(&test, "its own backends", owned).await;
    // As a process that has crashed leaves them.
    let url = shared().await.url();
    let left = [connect_as(&url, "view_unowned").await, connect_as(&url, "view_unowned").await];
    view_when(&test, "two backends without a pool", |view| view.unowned == Some([2, 0])).await;
    let count = |address| test.scrape().count("poolscope_server_unowned_connections", &[("client_address", address)]);
    assert_eq!((count("same"), count("other")), (2, 0));
    drop(left);
    view_when(&test, "none of them", |view| view.unowned == Some([0, 0])).await;
}

#[tokio::test]
async fn owners_are_unknown_where_the_wire_is_not_read() {
    let test = TestPool::shared("view_unread", |builder| builder.pool_size(1).read_wire(false)).await;
    let _held = test.get().await;
    assert_eq!(test.pool.server_view().await.unwrap().unowned, None);
}

#[tokio::test]
async fn dropped_watch_clears_only_its_own_view() {
    let test = TestPool::shared("view_two", single_connection).await;
    let watch = tokio::spawn(test.pool.watch_server(Duration::from_secs(3600)));
    let view = view_when(&test, "the server", |_| true).await;
    drop(test.pool.watch_server(INTERVAL));
    assert_eq!(test.pool.snapshot().server, Some(ServerPoll::Seen(view)));
    watch.abort();
    eventually("no metrics of the server", async || test.pool.snapshot().server.is_none()).await;
}

#[tokio::test]
async fn transaction_ages_exclude_the_watch_itself() {
    let server = Server::builder().setting("max_prepared_transactions", "1").start().await.unwrap();
    let test = TestPool::new("view_transactions", &server.url(), single_connection);
    let _watch = watch(&test);
    let view = view_when(&test, "the server", |_| true).await;
    assert_eq!((view.oldest_transaction, view.oldest_idle_in_transaction), (Duration::ZERO, Duration::ZERO));

    let failed = connect_as(&server.url(), "failed").await;
    failed.batch_execute("BEGIN").await.unwrap();
    failed.batch_execute("SELECT 1/0").await.unwrap_err();
    let aborted = |view: &ServerView| backends(view, "failed", BackendState::IdleInTransactionAborted) == 1;
    let view = view_when(&test, "a failed transaction", aborted).await;
    assert!(view.oldest_idle_in_transaction > Duration::ZERO, "{view:?}");
    // The maximum, not a sum.
    let second = connect_as(&server.url(), "second").await;
    second.batch_execute("BEGIN").await.unwrap();
    let both = |view: &ServerView| backends(view, "second", BackendState::IdleInTransaction) == 1;
    let before = view_when(&test, "both", both).await;
    let later = view_when(&test, "both, later", |view| view.seen_at > before.seen_at + 10 * INTERVAL).await;
    let passed = later.seen_at.duration_since(before.seen_at).unwrap();
    let grown = later.oldest_transaction.checked_sub(before.oldest_transaction).unwrap();
    assert!(grown < passed * 3 / 2, "{grown:?} in {passed:?}");
    failed.batch_execute("ROLLBACK").await.unwrap();

    second.batch_execute("CREATE TABLE t ()").await.unwrap();
    second.batch_execute("PREPARE TRANSACTION 'forgotten'").await.unwrap();
    let prepared = |view: &ServerView| view.oldest_idle_in_transaction.is_zero() && !view.oldest_transaction.is_zero();
    view_when(&test, "a prepared transaction", prepared).await;
}

#[tokio::test]
async fn standby_is_told_from_primary() {
    let server = Server::builder().setting("wal_level", "replica").start().await.unwrap();
    let test = TestPool::new("view_standby", &server.url(), single_connection);
    let _watch = watch(&test);
    assert_eq!(view_when(&test, "a primary", |_| true).await.role, ServerRole::Primary);
    block_on_other_thread(async || server.stop(Shutdown::Fast).await).unwrap();
    std::fs::write(server.dir().join("data/standby.signal"), "").unwrap();
    block_on_other_thread(async || server.start().await).unwrap();
    view_when(&test, "a standby", |view| view.role == ServerRole::Standby).await;
}

#[tokio::test]
async fn silent_server_is_queried_less_often() {
    let server = Server::builder().tcp(true).start().await.unwrap();
    let proxy = Proxy::to(SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()))).await;
    let test = TestPool::new("view_silent", &proxy.url(&server.tcp_url().unwrap()), single_connection);
    let _watch = watch(&test);
    view_when(&test, "the server", |_| true).await;
    let connected = proxy.accepted();
    proxy.delay(Duration::from_secs(600));
    let started = Instant::now();
    await_failed_query(&test).await;
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    // Besides a retry, cancelling the query took a connection.
    assert!(proxy.accepted() <= connected + 2, "{} connections", proxy.accepted() - connected);
}

#[tokio::test]
async fn locked_catalogue_reuses_one_backend() {
    let server = Server::builder().start().await.unwrap();
    let test = TestPool::new("view_locked", &server.url(), single_connection);
    let _watch = watch(&test);
    view_when(&test, "the server", |_| true).await;
    let (holder, witness) = (connect_as(&server.url(), "holder").await, connect_as(&server.url(), "witness").await);
    holder.batch_execute("BEGIN; LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE").await.unwrap();
    await_failed_query(&test).await;
    // Cancelled after 4 s, on the same connection: no other can be opened.
    let now = "SELECT count(*), extract(epoch FROM max(query_start))::float8 FROM pg_stat_get_activity(NULL) \
               WHERE application_name = 'view_locked'";
    let mut query_starts = Vec::<f64>::new();
    eventually("two more queries", async || {
        let row = witness.query_one(now, &[]).await.unwrap();
        assert!(row.get::<_, i64>(0) <= 1, "{} backends", row.get::<_, i64>(0));
        query_starts.extend(row.get::<_, Option<f64>>(1));
        query_starts.dedup();
        query_starts.len() > 2
    })
    .await;
    holder.batch_execute("COMMIT").await.unwrap();
    view_when(&test, "the server again", |_| true).await;
}

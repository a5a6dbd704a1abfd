//! What the server says of itself, beside the pool.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use poolscope::PoolBuilder;
use poolscope::demo::server::{Server, Shutdown};
use poolscope::telemetry::{BackendState, ServerLook, ServerRole, ServerView};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::support::{Counted, Proxy, behind_the_runtimes_back, eventually, patiently, until};

const OFTEN: Duration = Duration::from_millis(20);

fn one(builder: PoolBuilder) -> PoolBuilder {
    builder.pool_size(1).max_overflow(0)
}

fn watch(counted: &Counted) -> JoinHandle<()> {
    tokio::spawn(counted.pool.watch_server(OFTEN))
}

/// What the server says, once it says this.
async fn seen(counted: &Counted, what: &str, is_it: impl Fn(&ServerView) -> bool) -> Arc<ServerView> {
    until(what, async || match counted.pool.snapshot().server {
        Some(ServerLook::Seen(view)) => Some(view).filter(|view| is_it(view)),
        _ => None,
    })
    .await
}

async fn failed(counted: &Counted) {
    eventually("a look that fails", async || counted.pool.snapshot().server == Some(ServerLook::Failed)).await;
}

fn backends(view: &ServerView, application: &str, state: BackendState) -> u64 {
    let of = view.backends.iter().filter(|backends| &*backends.application == application && backends.state == state);
    of.map(|backends| backends.count).sum()
}

/// A client of somebody else's.
async fn other(url: &str, application: &str) -> Client {
    let mut config: tokio_postgres::Config = url.parse().unwrap();
    let (client, connection) = config.application_name(application).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn backends_are_counted_by_application_and_state() {
    let server = Server::builder().setting("max_connections", "30").start().await.unwrap();
    let counted = Counted::new("view", &server.url(), one);
    let _watch = watch(&counted);
    let (holder, waiter) = (other(&server.url(), "holder").await, other(&server.url(), "waiter").await);
    let _idle =
        [other(&server.url(), "idler").await, other(&server.url(), "idler").await, other(&server.url(), "").await];
    holder.batch_execute("CREATE TABLE t ()").await.unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE t").await.unwrap();
    let waiting = tokio::spawn(async move { waiter.batch_execute("BEGIN; LOCK TABLE t; COMMIT").await });

    let view = seen(&counted, "someone who waits for a lock", |view| view.lock_waiters == 1).await;
    assert_eq!(backends(&view, "holder", BackendState::IdleInTransaction), 1, "{view:?}");
    assert_eq!(backends(&view, "waiter", BackendState::Active), 1, "{view:?}");
    assert_eq!(backends(&view, "idler", BackendState::Idle), 2, "{view:?}");
    assert_eq!(backends(&view, "unnamed", BackendState::Idle), 1, "{view:?}");
    // The one that asks: the pool has none.
    assert_eq!(backends(&view, "view", BackendState::Active), 1, "{view:?}");
    assert!(view.oldest_idle_in_transaction > Duration::ZERO, "{view:?}");
    assert!(view.oldest_transaction >= view.oldest_idle_in_transaction, "{view:?}");
    // Three are reserved by default, and six are there.
    assert_eq!((view.slots, view.slots_left, view.role), (27, 21, ServerRole::Primary));
    assert!(view.version.starts_with(|first: char| first.is_ascii_digit()), "{view:?}");

    let scrape = counted.scrape();
    assert_eq!(scrape.count("poolscope_server_backends", &[("application_name", "idler"), ("state", "idle")]), 2);
    assert_eq!(scrape.count("poolscope_server_slots_left", &[]), 21);
    assert_eq!(scrape.count("poolscope_server_lock_waiters", &[]), 1);
    assert_eq!((scrape.count("poolscope_server_up", &[]), scrape.count("poolscope_server_info", &[])), (1, 1));

    drop(holder);
    patiently("the lock", waiting).await.unwrap().unwrap();
    seen(&counted, "nobody who waits", |view| view.lock_waiters == 0 && view.oldest_idle_in_transaction.is_zero())
        .await;
}

/// The server is observed while the pool is exhausted, and the connection used for it is not counted in the pool.
#[tokio::test]
async fn server_is_observed_while_pool_is_exhausted() {
    let counted = Counted::shared("view_exhausted", one).await;
    let held = counted.get().await;
    let _watch = watch(&counted);
    let view = seen(&counted, "both connections", |view| {
        let all = view.backends.iter().filter(|backends| &*backends.application == "view_exhausted");
        all.map(|backends| backends.count).sum::<u64>() == 2
    })
    .await;
    assert!(view.slots_left < view.slots, "{view:?}");
    let scrape = counted.scrape();
    assert_eq!(scrape.count("poolscope_connections_created_total", &[]), 1);
    assert_eq!(scrape.count("poolscope_unpooled_connections_total", &[]), 0);
    assert_eq!(scrape.count("poolscope_checkouts_started_total", &[]), 1);
    drop(held);
}

#[tokio::test]
async fn metrics_vanish_while_the_server_is_down() {
    let server = Server::builder().start().await.unwrap();
    let counted = Counted::new("view_gone", &server.url(), one);
    assert!(!counted.scrape().names().any(|name| name.starts_with("poolscope_server_")));
    let watch = watch(&counted);
    seen(&counted, "the server", |_| true).await;

    behind_the_runtimes_back(async || server.stop(Shutdown::Immediate).await).unwrap();
    failed(&counted).await;
    let scrape = counted.scrape();
    let shown: Vec<_> = scrape.names().filter(|name| name.starts_with("poolscope_server_")).collect();
    assert_eq!((shown, scrape.count("poolscope_server_up", &[])), (vec!["poolscope_server_up"], 0));
    // It is no failure of the pool's.
    assert_eq!(scrape.count("poolscope_connection_errors_total", &[]), 0);

    behind_the_runtimes_back(async || server.start().await).unwrap();
    seen(&counted, "the server again", |_| true).await;

    watch.abort();
    eventually("nothing shown", async || counted.pool.snapshot().server.is_none()).await;
    assert!(!counted.scrape().names().any(|name| name.starts_with("poolscope_server_")));
}

#[tokio::test]
async fn watch_ends_with_the_pool() {
    let counted = Counted::shared("view_closed", one).await;
    let closed = watch(&counted);
    seen(&counted, "the server", |_| true).await;
    counted.pool.close().await;
    patiently("the watch's end", closed).await.unwrap();
    let rare = Counted::shared("view_rarely", one).await;
    let closed = tokio::spawn(rare.pool.watch_server(Duration::from_secs(3600)));
    seen(&rare, "the server", |_| true).await;
    rare.pool.close().await;
    patiently("the watch's end at once", closed).await.unwrap();
    assert_eq!(rare.pool.snapshot().server, None);

    let counted = Counted::shared("view_dropped", one).await;
    let dropped = tokio::spawn(counted.pool.watch_server(Duration::from_secs(3600)));
    seen(&counted, "the server", |_| true).await;
    drop(counted);
    patiently("the watch's end", dropped).await.unwrap();
}

#[tokio::test]
async fn unprivileged_role_sees_hidden_states() {
    let server = Server::builder().start().await.unwrap();
    let admin = other(&server.url(), "admin").await;
    admin.batch_execute("CREATE ROLE watcher LOGIN").await.unwrap();
    admin.batch_execute("BEGIN").await.unwrap();
    let counted = Counted::new("view_hidden", &server.url().replace("postgres@", "watcher@"), one);
    let _watch = watch(&counted);
    let view = seen(&counted, "the server", |_| true).await;
    assert_eq!(backends(&view, "admin", BackendState::Hidden), 1, "{view:?}");
    assert_eq!(backends(&view, "view_hidden", BackendState::Active), 1, "{view:?}");
    // Neither the background's processes nor what is hidden are counted as what they are not.
    assert_eq!(view.slots - view.slots_left, 2, "{view:?}");
    assert_eq!(view.oldest_idle_in_transaction, Duration::ZERO);

    for statement in ["COMMIT", "GRANT pg_monitor TO watcher", "BEGIN"] {
        admin.batch_execute(statement).await.unwrap();
    }
    let granted = |view: &ServerView| backends(view, "admin", BackendState::IdleInTransaction) == 1;
    seen(&counted, "what the other is at", granted).await;
}

#[tokio::test]
async fn slots_respect_the_database_connection_limit() {
    let server = Server::builder().start().await.unwrap();
    let admin = other(&server.url(), "admin").await;
    admin.batch_execute("CREATE DATABASE small CONNECTION LIMIT 5").await.unwrap();
    let url = format!("{}/small", server.url().strip_suffix("/postgres").unwrap());
    let counted = Counted::new("view_small", &url, one);
    let _watch = watch(&counted);
    // The administrator is in another database.
    let view = seen(&counted, "the server", |_| true).await;
    assert_eq!((view.slots, view.slots_left), (5, 4), "{view:?}");
    let _held = other(&url, "another").await;
    seen(&counted, "one slot less", |view| view.slots_left == 3).await;
}

#[tokio::test]
async fn full_server_is_observed_by_open_connection() {
    let server = Server::builder().setting("max_connections", "6").start().await.unwrap();
    let admin = other(&server.url(), "admin").await;
    admin.batch_execute("CREATE ROLE app LOGIN").await.unwrap();
    drop(admin);
    let url = server.url().replace("postgres@", "app@");
    let counted = Counted::new("view_full", &url, one);
    let _watch = watch(&counted);
    seen(&counted, "the server", |view| view.slots_left == 2).await;
    let taken = [other(&url, "taker").await, other(&url, "taker").await];
    assert!(tokio_postgres::connect(&url, NoTls).await.is_err(), "there is no slot left for who has no privileges");
    let first = seen(&counted, "no slot left", |view| view.slots == 3 && view.slots_left == 0).await;
    // Those of the superuser's are taken, too: never less than none.
    let _reserved = [other(&server.url(), "reserved").await, other(&server.url(), "reserved").await];
    let both = |view: &ServerView| backends(view, "reserved", BackendState::Hidden) == 2;
    let later = seen(&counted, "the reserved slots", both).await;
    assert!(later.slots_left == 0 && later.seen_at > first.seen_at, "{later:?}");
    drop(taken);
}

#[tokio::test]
async fn dropped_watch_clears_only_its_own_view() {
    let counted = Counted::shared("view_two", one).await;
    let watch = tokio::spawn(counted.pool.watch_server(Duration::from_secs(3600)));
    let view = seen(&counted, "the server", |_| true).await;
    drop(counted.pool.watch_server(OFTEN));
    assert_eq!(counted.pool.snapshot().server, Some(ServerLook::Seen(view)));
    watch.abort();
    eventually("nothing shown", async || counted.pool.snapshot().server.is_none()).await;
}

#[tokio::test]
async fn transaction_ages_exclude_the_watch_itself() {
    let server = Server::builder().setting("max_prepared_transactions", "1").start().await.unwrap();
    let counted = Counted::new("view_transactions", &server.url(), one);
    let _watch = watch(&counted);
    let view = seen(&counted, "the server", |_| true).await;
    assert_eq!((view.oldest_transaction, view.oldest_idle_in_transaction), (Duration::ZERO, Duration::ZERO));

    let failed = other(&server.url(), "failed").await;
    failed.batch_execute("BEGIN").await.unwrap();
    failed.batch_execute("SELECT 1/0").await.unwrap_err();
    let aborted = |view: &ServerView| backends(view, "failed", BackendState::IdleInTransactionAborted) == 1;
    let view = seen(&counted, "a failed transaction", aborted).await;
    assert!(view.oldest_idle_in_transaction > Duration::ZERO, "{view:?}");
    // Not the sum of several.
    let second = other(&server.url(), "second").await;
    second.batch_execute("BEGIN").await.unwrap();
    let both = |view: &ServerView| backends(view, "second", BackendState::IdleInTransaction) == 1;
    let before = seen(&counted, "both", both).await;
    let later = seen(&counted, "both, later", |view| view.seen_at > before.seen_at + 10 * OFTEN).await;
    let passed = later.seen_at.duration_since(before.seen_at).unwrap();
    let grown = later.oldest_transaction.checked_sub(before.oldest_transaction).unwrap();
    assert!(grown < passed * 3 / 2, "{grown:?} in {passed:?}");
    failed.batch_execute("ROLLBACK").await.unwrap();

    second.batch_execute("CREATE TABLE t ()").await.unwrap();
    second.batch_execute("PREPARE TRANSACTION 'forgotten'").await.unwrap();
    let prepared = |view: &ServerView| view.oldest_idle_in_transaction.is_zero() && !view.oldest_transaction.is_zero();
    seen(&counted, "a prepared transaction", prepared).await;
}

#[tokio::test]
async fn standby_is_told_from_primary() {
    let server = Server::builder().setting("wal_level", "replica").start().await.unwrap();
    let counted = Counted::new("view_standby", &server.url(), one);
    let _watch = watch(&counted);
    assert_eq!(seen(&counted, "a primary", |_| true).await.role, ServerRole::Primary);
    behind_the_runtimes_back(async || server.stop(Shutdown::Fast).await).unwrap();
    std::fs::write(server.dir().join("data/standby.signal"), "").unwrap();
    behind_the_runtimes_back(async || server.start().await).unwrap();
    seen(&counted, "a standby", |view| view.role == ServerRole::Standby).await;
}

#[tokio::test]
async fn silent_server_is_queried_less_often() {
    let server = Server::builder().tcp(true).start().await.unwrap();
    let proxy = Proxy::to(SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()))).await;
    let counted = Counted::new("view_silent", &proxy.url(&server.tcp_url().unwrap()), one);
    let _watch = watch(&counted);
    seen(&counted, "the server", |_| true).await;
    let connected = proxy.accepted();
    proxy.delay(Duration::from_secs(600));
    let begun = Instant::now();
    failed(&counted).await;
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    // It had the server give up what it asked, which is a connection too.
    assert!(proxy.accepted() <= connected + 2, "{} connections", proxy.accepted() - connected);
}

#[tokio::test]
async fn locked_catalogue_reuses_one_backend() {
    let server = Server::builder().start().await.unwrap();
    let counted = Counted::new("view_locked", &server.url(), one);
    let _watch = watch(&counted);
    seen(&counted, "the server", |_| true).await;
    let (holder, witness) = (other(&server.url(), "holder").await, other(&server.url(), "witness").await);
    holder.batch_execute("BEGIN; LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE").await.unwrap();
    failed(&counted).await;
    // By an error, after 4 s, on the connection that was there: nobody can connect.
    let now = "SELECT count(*), extract(epoch FROM max(query_start))::float8 FROM pg_stat_get_activity(NULL) \
               WHERE application_name = 'view_locked'";
    let mut asked = Vec::<f64>::new();
    eventually("two more looks", async || {
        let row = witness.query_one(now, &[]).await.unwrap();
        assert!(row.get::<_, i64>(0) <= 1, "{} backends", row.get::<_, i64>(0));
        asked.extend(row.get::<_, Option<f64>>(1));
        asked.dedup();
        asked.len() > 2
    })
    .await;
    holder.batch_execute("COMMIT").await.unwrap();
    seen(&counted, "the server again", |_| true).await;
}

//! Notifications on a connection of their own.

use std::time::Duration;

use futures_util::StreamExt;
use poolscope::{Listener, Notification};

use crate::support::{Admin, Proxy, TestPool, eventually, shared, with_deadline};

async fn next(listener: &mut Listener) -> Notification {
    with_deadline("a notification", listener.next()).await.expect("a notification")
}

/// Awaits the first item.
async fn await_listening(listener: &mut Listener) {
    let first = next(listener).await;
    assert!(matches!(first, Notification::Listening), "{first:?}");
}

async fn message(listener: &mut Listener) -> (String, String) {
    match next(listener).await {
        Notification::Message(message) => (message.channel().to_owned(), message.payload().to_owned()),
        other => panic!("{other:?}"),
    }
}

/// Returns how many connections outside the pool were opened, and how many are open.
fn unpooled(test: &TestPool) -> (u64, u64) {
    let scrape = test.scrape();
    let count = |name: &str| scrape.count(name, &[]);
    (count("poolscope_unpooled_connections_total"), count("poolscope_unpooled_connections_active"))
}

async fn backend_of(admin: &Admin, application: &str) -> i32 {
    let query = format!("SELECT pid::bigint FROM pg_stat_activity WHERE application_name = '{application}'");
    i32::try_from(admin.count(&query).await).unwrap()
}

#[tokio::test]
async fn quoted_channels_deliver_their_messages() {
    let test = TestPool::shared("listen_quoted", |builder| builder.pool_size(1).max_overflow(0)).await;
    let hostile = "a\"b'; DROP TABLE x; --";
    let mut listener = test.pool.listen([hostile, "Mixed Case"]).unwrap();
    await_listening(&mut listener).await;
    let connection = test.get().await;
    for (channel, payload) in [(hostile, "1"), ("Mixed Case", "ünï"), ("mixed case", "not listened on"), (hostile, "")]
    {
        connection.execute("SELECT pg_notify($1, $2)", &[&channel, &payload]).await.unwrap();
    }
    for expected in [(hostile, "1"), ("Mixed Case", "ünï"), (hostile, "")] {
        let (channel, payload) = message(&mut listener).await;
        assert_eq!((&*channel, &*payload), expected);
    }
    // Its own connection, named after the call site.
    let totals = test.pool.snapshot().unpooled;
    assert_eq!((totals.len(), totals[0].opened, totals[0].active), (1, 1, 1));
    assert!(totals[0].operation.starts_with(file!()), "{totals:?}");
    assert_eq!(test.pool.status().used, 1);
}

#[tokio::test]
async fn killed_backend_leaves_a_gap_and_messages_continue() {
    let test = TestPool::shared("listen_killed", |builder| builder).await;
    let admin = Admin::new(shared().await).await;
    let mut listener = test.pool.listen(["killed"]).unwrap();
    await_listening(&mut listener).await;
    admin.execute("NOTIFY killed, 'before'").await;
    assert_eq!(message(&mut listener).await.1, "before");

    let first = backend_of(&admin, "listen_killed").await;
    admin.terminate(first).await;
    admin.execute("NOTIFY killed, 'missed'").await;
    let gap = next(&mut listener).await;
    let Notification::Gap { lasted, .. } = gap else { panic!("{gap:?}") };
    assert!(lasted >= Duration::from_millis(50), "{lasted:?}");
    assert_ne!(backend_of(&admin, "listen_killed").await, first);

    admin.execute("NOTIFY killed, 'after'").await;
    assert_eq!(message(&mut listener).await.1, "after");
    assert_eq!(unpooled(&test), (2, 1));
}

#[tokio::test]
async fn dropped_stream_closes_the_connection() {
    let test = TestPool::shared("listen_dropped", |builder| builder).await;
    let admin = Admin::new(shared().await).await;
    let mut listener = test.pool.listen(["dropped"]).unwrap();
    assert_eq!(unpooled(&test), (0, 0), "not connected before the first poll");
    await_listening(&mut listener).await;
    admin.await_backends("listen_dropped", 1).await;
    assert_eq!(unpooled(&test), (1, 1));
    drop(listener);
    assert_eq!(unpooled(&test), (1, 0));
    admin.await_backends("listen_dropped", 0).await;
}

#[tokio::test]
async fn closed_pool_ends_the_stream() {
    let test = TestPool::shared("listen_closed", |builder| builder).await;
    let admin = Admin::new(shared().await).await;
    let mut listener = test.pool.listen(["closed"]).unwrap();
    await_listening(&mut listener).await;
    let waiting = tokio::spawn(async move { (listener.next().await.is_none(), listener) });
    with_deadline("closing", test.pool.close()).await;
    let (ended, mut listener) = with_deadline("the end of the stream", waiting).await.unwrap();
    assert!(ended);
    assert_eq!(unpooled(&test), (1, 0));
    admin.await_backends("listen_closed", 0).await;
    // It stays at its end, as does one of a pool that was closed before.
    assert!(listener.next().await.is_none());
    assert!(with_deadline("the end", test.pool.listen(["closed"]).unwrap().next()).await.is_none());
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_stream() {
    let TestPool { pool, .. } = TestPool::shared("listen_handle", |builder| builder).await;
    let mut listener = pool.listen(["handle"]).unwrap();
    await_listening(&mut listener).await;
    drop(pool);
    assert!(with_deadline("the end of the stream", listener.next()).await.is_none());
}

#[tokio::test]
async fn unreachable_server_is_awaited() {
    let server = shared().await;
    let proxy = Proxy::to((std::net::Ipv4Addr::LOCALHOST, server.port()).into()).await;
    proxy.refuse();
    let test = TestPool::new("listen_unreachable", &proxy.url(&server.tcp_url().unwrap()), |builder| builder);
    let listener = test.pool.listen(["unreachable"]).unwrap();
    let first = tokio::spawn(async move {
        let mut listener = listener;
        (next(&mut listener).await, listener)
    });
    let failed = || test.scrape().count("poolscope_connection_errors_total", &[("phase", "connect")]);
    eventually("two attempts", async || failed() >= 2).await;
    assert_eq!(unpooled(&test), (0, 0));
    proxy.accept();
    let (first, mut listener) = with_deadline("a connection", first).await.unwrap();
    assert!(matches!(first, Notification::Listening), "{first:?}");

    // The loss of the network is noticed too.
    proxy.cut();
    let gap = next(&mut listener).await;
    assert!(matches!(gap, Notification::Gap { .. }), "{gap:?}");
}

#[tokio::test]
async fn cancelled_waits_lose_nothing() {
    let test = TestPool::shared("listen_cancelled", |builder| builder).await;
    let admin = Admin::new(shared().await).await;
    let mut listener = test.pool.listen(["cancelled"]).unwrap();
    // Each poll is dropped at once, also while it connects.
    eventually("the first item", async || {
        matches!(futures_util::poll!(std::pin::pin!(listener.next())), std::task::Poll::Ready(Some(_)))
    })
    .await;
    for number in 0..20 {
        admin.execute(&format!("NOTIFY cancelled, '{number}'")).await;
    }
    let mut received = Vec::new();
    eventually("all messages", async || {
        if let std::task::Poll::Ready(item) = futures_util::poll!(StreamExt::next(&mut listener)) {
            let Some(Notification::Message(message)) = item else { panic!("{item:?}") };
            received.push(message.payload().to_owned());
        }
        received.len() == 20
    })
    .await;
    assert_eq!(received, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
}

//! What passes through the proxy, and what is recorded of it.

use std::pin::pin;

use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use poolscope::labels::{Activity, CloseReason, Direction, Dirt, PoolKind};
use poolscope_testing::scrape::Scrape;
use prometheus::{Encoder as _, Registry, TextEncoder};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, NoTls};

use super::*;
use crate::support::shared;

#[tokio::test]
async fn queries_are_counted_by_operation() {
    let sidecar = Sidecar::to(shared().await).await;
    let mut client = sidecar.client("api").await;
    client.batch_execute("CREATE TEMP TABLE carts (id int)").await.unwrap();
    for id in 0..3 {
        client.execute("INSERT INTO carts VALUES ($1)", &[&id]).await.unwrap();
    }
    let transaction = client.transaction().await.unwrap();
    let count: i64 = transaction.query_one("SELECT count(*) FROM carts", &[]).await.unwrap().get(0);
    assert_eq!(count, 3);
    transaction.execute("DELETE FROM carts", &[]).await.unwrap();
    transaction.commit().await.unwrap();
    let route = "SELECT 1 /*controller='carts',route='%2Fcarts%2F%3Cid%3E'*/";
    let transaction = client.transaction().await.unwrap();
    transaction.query("SELECT count(*) FROM carts", &[]).await.unwrap();
    transaction.batch_execute(route).await.unwrap();
    let held = sidecar.await_pool("api", "the transaction", |pool| {
        pool.holders
            .iter()
            .any(|holder| &*holder.operation == "/carts/<id>" && holder.activity == Some(Activity::IdleInTransaction))
    });
    let held = held.await;
    assert_eq!((held.connections.used, held.connections.idle, held.kind), (1, 0, PoolKind::Proxy));
    assert!(held.sizing_reason().contains("a proxy does not see"), "{}", held.sizing_reason());
    assert!(held.holders[0].backend_pid.is_some() && held.holders[0].queries > 0, "{:?}", held.holders);
    // Not dropped: its ROLLBACK would be pipelined with the next query, and both be one use.
    transaction.rollback().await.unwrap();
    let long = format!("SELECT {} /*route='long'*/", vec!["1"; 1500].join(", "));
    client.batch_execute(&long).await.unwrap();
    let error = client.batch_execute("SELECT * FROM missing").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNDEFINED_TABLE));

    let pool = sidecar.await_pool("api", "idle", |pool| {
        pool.connections.idle == 1 && pool.query_errors.iter().any(|errors| errors.count == 1)
    });
    let pool = pool.await;
    assert_adds_up(&pool);
    let queries = |name| operation(&pool, name).queries;
    // tokio-postgres prepares statements, which is a use, too.
    assert!(operation(&pool, "INSERT carts").returned >= 3, "{:?}", operation(&pool, "INSERT carts"));
    assert_eq!((queries("INSERT carts"), queries("CREATE TABLE carts")), (3, 1));
    assert_eq!(operation(&pool, "long").returned, 1);
    // BEGIN counts for the client until the transaction is named; a comment names what follows.
    assert!(
        queries("/carts/<id>") >= 2 && queries("SELECT carts") >= 3 && queries("api") >= 2,
        "{:?}",
        pool.operations
    );
    let sum: u64 = pool.operations.iter().map(|operation| operation.queries - operation.queries_finished).sum();
    assert_eq!(sum, 0, "{:?}", pool.operations);
    assert_eq!((&*pool.query_errors[0].operation, pool.query_errors[0].code.as_str()), ("SELECT missing", "42P01"));
    let held: u64 = operation(&pool, "/carts/<id>").activity_nanos.iter().sum();
    assert!(held > 0 && pool.create_time.count() == 1 && pool.use_time.count() >= 7, "{pool:?}");
    assert!(pool.queries.iter().any(|query| &*query.summary == "INSERT carts" && query.durations.count() == 3));
    let bytes: u64 = pool.operations.iter().map(|operation| operation.wire_bytes[Direction::Sent.index()]).sum();
    assert!(bytes > long.len() as u64, "{bytes}");
    drop(client);
    let pool = sidecar.await_pool("api", "closed", |pool| pool.connections.live() == 0).await;
    assert_eq!(closed(&pool, CloseReason::ClientClosed), 1);
    assert_adds_up(&pool);
}

#[tokio::test]
async fn what_a_proxy_cannot_see_is_absent() {
    let sidecar = Sidecar::to(shared().await).await;
    let client = sidecar.client("api").await;
    client.batch_execute("SELECT 1").await.unwrap();
    sidecar.await_pool("api", "idle", |pool| pool.use_time.count() == 1 && pool.connections.idle == 1).await;
    let registry = Registry::new();
    registry.register(Box::new(sidecar.collector.clone())).unwrap();
    let mut page = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    let names: Vec<_> =
        page.lines().filter_map(|line| line.split(['{', ' ']).next().filter(|name| *name != "#")).collect();
    for absent in
        ["wait", "pending_requests", "timeouts", "checkout", "retry", "saturated", "connection_max", "idle_max"]
    {
        assert!(!names.iter().any(|name| name.contains(absent)), "{absent}: {names:?}");
    }
    let scrape = Scrape::parse(&page);
    let pool = ("db_client_connection_pool_name", "api postgres@postgres");
    assert_eq!(scrape.sum("db_client_connection_count", &[pool, ("db_client_connection_state", "idle")]), 1.0);
    assert_eq!(scrape.sum("poolscope_queries_total", &[pool]), 1.0);
    assert_eq!(scrape.sum("db_client_operation_duration_seconds_count", &[pool, ("db_query_summary", "SELECT")]), 1.0);
}

#[tokio::test]
async fn copy_notifications_and_cancel_pass() {
    let sidecar = Sidecar::to(shared().await).await;
    let url = sidecar.url("copy");
    let connecting = tokio_postgres::connect(&url, NoTls);
    let (client, mut connection) = with_deadline("a connection", connecting).await.unwrap();
    let (notified, mut notifications) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = notified.send(notification.payload().to_owned());
            }
        }
    });
    client.batch_execute("CREATE TEMP TABLE lines (line text); LISTEN sidecar").await.unwrap();
    let sink = client.copy_in::<_, bytes::Bytes>("COPY lines FROM STDIN").await.unwrap();
    let mut sink = pin!(sink);
    let line = bytes::Bytes::from("x".repeat(65_535) + "\n");
    for _ in 0..300 {
        sink.send(line.clone()).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 300);
    let out = client.copy_out("COPY lines TO STDOUT").await.unwrap();
    let length: usize = pin!(out).try_fold(0, |sum, part| async move { Ok(sum + part.len()) }).await.unwrap();
    assert_eq!(length, 300 * line.len());
    client.batch_execute("NOTIFY sidecar, 'hello'").await.unwrap();
    assert_eq!(with_deadline("a notification", notifications.recv()).await.as_deref(), Some("hello"));

    let token = client.cancel_token();
    let other = sidecar.client("copy").await;
    let (cancelled, undisturbed) = with_deadline(
        "a cancel",
        futures_util::future::join(client.batch_execute("SELECT pg_sleep(1000)"), async {
            sidecar
                .await_pool("copy", "the query", |pool| {
                    pool.holders
                        .iter()
                        .any(|holder| &*holder.operation == "SELECT" && holder.activity == Some(Activity::Executing))
                })
                .await;
            token.cancel_query(NoTls).await.unwrap();
            other.batch_execute("SELECT 1").await
        }),
    )
    .await;
    assert_eq!(cancelled.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    undisturbed.unwrap();
    let pool = sidecar.await_pool("copy", "idle", |pool| pool.connections.idle == 2).await;
    // The cancel request is no connection of the pool.
    assert_eq!((pool.created, pool.wires_lost), (2, 0));
    assert_adds_up(&pool);
}

#[tokio::test]
async fn session_that_ends_in_a_transaction_is_dirty() {
    let sidecar = Sidecar::to(shared().await).await;
    let client = sidecar.client("dirty").await;
    client.batch_execute("BEGIN; SELECT 1").await.unwrap();
    drop(client);
    let pool = sidecar.await_pool("dirty", "closed", |pool| pool.connections.live() == 0).await;
    let [dirty] = &pool.dirty_returns[..] else { panic!("{:?}", pool.dirty_returns) };
    assert_eq!((dirty.dirt, dirty.count), (Dirt::InTransaction, 1));
    assert_adds_up(&pool);
}

#[tokio::test]
async fn pools_are_bounded() {
    let sidecar = Sidecar::with(&upstream(shared().await), |settings| settings.max_pools = 2).await;
    let mut clients = Vec::new();
    for application in ["a", "b", "c", "d", "a"] {
        clients.push(sidecar.client(application).await);
    }
    let live = |name: &str| sidecar.pool(name).map(|pool| pool.connections.live());
    assert_eq!(live("a postgres@postgres"), Some(2));
    assert_eq!((live("b postgres@postgres"), live("c postgres@postgres"), live("other")), (Some(1), None, Some(2)));
}

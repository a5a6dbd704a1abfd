//! What a holder leaves in the session of its connection.

use std::time::Duration;

use poolscope::labels::{CloseReason, Dirt};
use poolscope::redis::PoolBuilder;
use poolscope::redis::redis::{AsyncCommands, Value, cmd, pipe};

use crate::support::{TestPool, eventually, server};

/// Returns the server's id of the next checkout's connection.
async fn client_id(test: &TestPool) -> i64 {
    cmd("CLIENT").arg("ID").query_async(&mut test.get().await).await.unwrap()
}

#[tokio::test]
async fn open_transaction_is_discarded() {
    let server = server().await;
    let test = TestPool::single(&server.url());
    let before = client_id(&test).await;
    let mut connection = test.get().await;
    let _: () = cmd("MULTI").query_async(&mut connection).await.unwrap();
    let queued: String = cmd("SET").arg("left").arg(1).query_async(&mut connection).await.unwrap();
    assert_eq!(queued, "QUEUED");
    drop(connection);
    assert_eq!(client_id(&test).await, before, "the connection is kept");
    assert_eq!(test.get().await.get::<_, Option<i64>>("left").await.unwrap(), None);
    assert_eq!(test.dirty(Dirt::InTransaction), 1);

    let mut connection = test.get().await;
    let _: () = cmd("MULTI").query_async(&mut connection).await.unwrap();
    cmd("NOSUCHCOMMAND").query_async::<()>(&mut connection).await.unwrap_err();
    drop(connection);
    assert_eq!(client_id(&test).await, before);
    assert_eq!(test.dirty(Dirt::FailedTransaction), 1);
}

#[tokio::test]
async fn watched_keys_do_not_concern_the_next_holder() {
    let server = server().await;
    let test = TestPool::single(&server.url());
    let mut connection = test.get().await;
    let _: () = cmd("WATCH").arg("watched").query_async(&mut connection).await.unwrap();
    drop(connection);
    let mut connection = test.get().await;
    assert_eq!(server.command(&["SET", "watched", "changed"]).unwrap(), "+OK");
    let executed: Option<(String,)> = pipe().atomic().set("other", 1).query_async(&mut connection).await.unwrap();
    assert!(executed.is_some(), "the transaction was executed");
    assert_eq!(test.dirty(Dirt::InTransaction), 1);
}

#[tokio::test]
async fn selected_database_is_restored() {
    let server = server().await;
    let test = TestPool::single(&format!("{}?db=3", server.url()));
    let before = client_id(&test).await;
    let mut connection = test.get().await;
    let _: () = connection.set("where", "three").await.unwrap();
    let _: () = cmd("SELECT").arg(5).query_async(&mut connection).await.unwrap();
    assert_eq!(connection.get::<_, Option<String>>("where").await.unwrap(), None);
    drop(connection);
    assert_eq!(test.get().await.get::<_, String>("where").await.unwrap(), "three");
    assert_eq!(client_id(&test).await, before);
    assert_eq!(test.dirty(Dirt::Settings), 1);
    // Selecting the same one changes nothing.
    let _: () = cmd("SELECT").arg(3).query_async(&mut test.get().await).await.unwrap();
    client_id(&test).await;
    assert_eq!(test.dirty(Dirt::Settings), 1);
}

#[tokio::test]
async fn session_that_cannot_be_restored_is_closed() {
    let server = server().await;
    let left: [&[&str]; 4] =
        [&["SUBSCRIBE", "news"], &["CLIENT", "TRACKING", "ON"], &["CLIENT", "REPLY", "SKIP"], &["MONITOR"]];
    for protocol in ["resp3", "resp2"] {
        for words in left {
            // Without RESP3, tracking needs another connection.
            if protocol == "resp2" && words[1..].contains(&"TRACKING") {
                continue;
            }
            let test = TestPool::single(&format!("{}?protocol={protocol}", server.url()));
            let before = client_id(&test).await;
            let mut connection = test.get().await;
            let mut packed = cmd(words[0]);
            packed.arg(&words[1..]);
            // Some have no reply.
            let _ = tokio::time::timeout(Duration::from_millis(50), packed.query_async::<()>(&mut connection)).await;
            drop(connection);
            assert_ne!(client_id(&test).await, before, "{words:?}");
            eventually("the closed connection", async || test.closed(CloseReason::Dirty) == 1).await;
        }
    }
}

#[tokio::test]
async fn messages_of_a_subscription_are_no_replies() {
    let server = server().await;
    for protocol in ["resp3", "resp2"] {
        let test = TestPool::single(&format!("{}?protocol={protocol}", server.url()));
        let mut connection = test.get().await;
        cmd("SUBSCRIBE").arg("news").query_async::<Value>(&mut connection).await.unwrap();
        eventually("a subscriber", async || server.command(&["PUBLISH", "news", "text"]).unwrap() == ":1").await;
        assert_eq!(test.snapshot().wires_lost, 0);
        drop(connection);
    }
}

#[tokio::test]
async fn abandoned_command_is_awaited_and_a_blocking_one_closes() {
    let server = server().await;
    // Long enough for a busy machine.
    let settings = |builder: PoolBuilder| builder.pool_size(1).max_overflow(0).clean_timeout(Duration::from_secs(20));
    let test = TestPool::new(&server.url(), settings);
    let before = client_id(&test).await;
    let slow = "local t = redis.call('TIME'); local e = t[1] * 1000000 + t[2] + 60000; \
                repeat t = redis.call('TIME') until t[1] * 1000000 + t[2] > e return 1";
    let mut connection = test.get().await;
    let abandoned = tokio::time::timeout(Duration::from_millis(10), async {
        cmd("EVAL").arg(slow).arg(0).query_async::<i64>(&mut connection).await
    });
    // Whether it has ended or not, the connection can be used afterwards.
    let _ = abandoned.await;
    drop(connection);
    test.await_idle(1).await;
    assert_eq!(client_id(&test).await, before, "the connection is kept");

    let mut connection = test.get().await;
    let popped = tokio::time::timeout(Duration::from_millis(50), connection.blpop::<_, ()>("nothing", 0.0)).await;
    popped.unwrap_err();
    drop(connection);
    assert_ne!(client_id(&test).await, before, "the connection was closed");
    assert!(test.dirty(Dirt::Busy) >= 1);
    eventually("the server has let go", async || server.info("blocked_clients").unwrap().as_deref() == Some("0")).await;
    eventually("one connection", async || test.pool.status().closing == 0).await;
}

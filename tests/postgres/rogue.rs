//! Servers that send too much: what a pool in a service reads of it.

use std::time::Duration;

use poolscope_testing::rogue::{Fault, RogueServer};

use crate::support::{TestPool, error_chain, eventually, with_deadline};

/// What a client may receive: the limit of a start, and the buffers of both sockets.
const MOST_RECEIVED: u64 = 12 * 1024 * 1024;

fn pool(name: &str, server: &RogueServer) -> TestPool {
    TestPool::new(name, &server.url(), |builder| builder.checkout_timeout(Duration::from_secs(20)))
}

#[tokio::test(flavor = "multi_thread")]
async fn start_of_a_session_is_bounded_with_a_clear_error() {
    for (fault, part) in [
        (Fault::StartImpossible, "announced a message of 2147483636 bytes"),
        (Fault::StartLarge, "while the session was starting, expected at most 65536"),
        (Fault::StartNotices, "more than 1048576 bytes while the session was starting"),
        (Fault::StartParameters, "the server reported more than 128 parameters"),
        (Fault::StartError, "while the session was starting, expected at most 65536"),
    ] {
        let server = RogueServer::start(fault);
        let test = pool(&format!("rogue_start_{fault:?}"), &server);
        let error = with_deadline("an error", test.pool.get()).await.expect_err("an error");
        let text = error_chain(&error);
        assert!(text.contains(part), "{fault:?}: {text}");
        assert!(server.most_sent() < MOST_RECEIVED, "{fault:?}: {}", server.most_sent());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connection_receives_little() {
    for fault in [Fault::IdleLarge, Fault::IdleParameters, Fault::IdleRows] {
        for read_wire in [true, false] {
            let server = RogueServer::start(fault);
            let name = format!("rogue_{fault:?}_{read_wire}");
            let test = TestPool::new(&name, &server.url(), |builder| builder.read_wire(read_wire));
            let connection = with_deadline("a connection", test.pool.get()).await;
            // The connection may be closed before it is handed out.
            if let Ok(connection) = connection {
                eventually("closed", async || connection.is_closed()).await;
            }
            assert!(server.most_sent() < MOST_RECEIVED, "{fault:?}: {}", server.most_sent());
        }
        let server = RogueServer::start(fault);
        let test = pool(&format!("rogue_{fault:?}_unpooled"), &server);
        if let Ok(connection) = with_deadline("a connection", test.pool.connect_unpooled()).await {
            eventually("closed", async || connection.is_closed()).await;
        }
        assert!(server.most_sent() < MOST_RECEIVED, "{fault:?}, unpooled: {}", server.most_sent());
    }
}

/// The pings and resets of a pool without a limit, since `SELECT 1` of an application may return anything.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_the_pool_itself_are_bounded() {
    for fault in [
        Fault::AnswerImpossible,
        Fault::AnswerLarge,
        Fault::AnswerRows,
        Fault::AnswerEmptyRows,
        Fault::AnswerTags,
        Fault::AnswerParameters,
        Fault::AnswerUnfollowed,
    ] {
        let server = RogueServer::start(fault);
        let test = TestPool::new(&format!("rogue_ping_{fault:?}"), &server.url(), |builder| {
            builder.pre_ping_idle(Duration::ZERO).ping_timeout(Duration::from_secs(3))
        });
        drop(with_deadline("a connection", test.pool.get()).await.unwrap());
        // Pinged, found to be unusable, and replaced.
        let is_replaced = async || {
            drop(with_deadline("a connection", test.pool.get()).await.unwrap());
            server.clients() >= 2
        };
        if fault == Fault::AnswerUnfollowed {
            // The answer to the ping is valid, and what follows it may be read later.
            eventually("replaced", is_replaced).await;
        } else {
            assert!(is_replaced().await, "{fault:?}");
        }
        eventually("closed", async || test.pool.snapshot().connections.live() <= 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_answers_closes_the_connection() {
    for fault in [Fault::AnswerLarge, Fault::AnswerRows, Fault::AnswerEmptyRows, Fault::AnswerTags] {
        let server = RogueServer::start(fault);
        let test =
            TestPool::new(&format!("rogue_limit_{fault:?}"), &server.url(), |builder| builder.max_answer_kib(64));
        let connection = test.pool.get().await.unwrap();
        let error = with_deadline("an error", connection.simple_query("SELECT 1")).await.unwrap_err();
        drop(error);
        assert!(connection.is_closed(), "{fault:?}");
        assert!(server.most_sent() < MOST_RECEIVED, "{fault:?}: {}", server.most_sent());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_message_closes_a_connection() {
    for fault in [Fault::AnswerImpossible, Fault::AnswerUnfollowed] {
        for read_wire in [true, false] {
            let server = RogueServer::start(fault);
            let name = format!("rogue_impossible_{fault:?}_{read_wire}");
            let test = TestPool::new(&name, &server.url(), |builder| builder.read_wire(read_wire));
            let connection = test.pool.get().await.unwrap();
            let _ = with_deadline("an answer", connection.simple_query("SELECT 1")).await;
            eventually("closed", async || connection.is_closed()).await;
            assert!(server.most_sent() < MOST_RECEIVED, "{fault:?}: {}", server.most_sent());
        }
    }
}

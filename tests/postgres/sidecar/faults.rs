//! Connections that are cut, and many of them.

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::limits::{message, query, startup};
use super::*;
use crate::support::shared;

#[tokio::test]
async fn connection_cut_anywhere_has_one_reason() {
    let sidecar = Sidecar::to(shared().await).await;
    // The pool exists, so that all belong to it.
    drop(sidecar.client("raw").await);
    let steps = [
        startup("raw"),
        query("BEGIN"),
        query("SELECT 1"),
        query("SELECT broken"),
        query("ROLLBACK"),
        message(b'X', b""),
    ];
    let bytes = steps.concat();
    let mut cuts: Vec<_> = steps
        .iter()
        .scan(0, |at, step| {
            *at += step.len();
            Some(*at)
        })
        .collect();
    cuts.extend([0, 1, 4, 7, 8, 20, startup("raw").len() + 1, startup("raw").len() + 5, bytes.len() - 1]);
    let rounds = 4;
    for round in 0..rounds {
        let cut = async |cut: usize| {
            let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
            stream.write_all(&bytes[..cut]).await.unwrap();
            if round % 2 == 0 && cut >= steps[0].len() {
                // After the first bytes of the answer, instead of at once.
                let _ = with_deadline("an answer", stream.read(&mut [0; 64])).await;
            }
            if round >= 2 {
                // With a reset.
                socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            }
        };
        join_all(cuts.iter().map(|at| cut(*at))).await;
    }
    let started = (cuts.iter().filter(|cut| **cut >= steps[0].len()).count() * rounds) as u64;
    let client = sidecar.client("raw").await;
    client.batch_execute("SELECT 1").await.unwrap();
    let pool = sidecar.await_pool("raw", "the ends", |pool| pool.connections.live() == 1).await;
    assert_adds_up(&pool);
    assert!(pool.created <= started + 2, "{} of {started}", pool.created);
    assert_eq!(pool.wires_lost, 0);
    let uses: u64 = pool.operations.iter().map(|operation| operation.returned).sum();
    assert_eq!(pool.use_time.count(), uses);
}

#[tokio::test]
async fn threads_of_the_proxy_serve_and_end() {
    let sidecar = Sidecar::with(&upstream(shared().await), |settings| settings.threads = 2).await;
    let run = async |_| {
        let client = sidecar.client("threads").await;
        client.batch_execute("SELECT 1").await.unwrap();
        client
    };
    let clients = join_all((0..10).map(run)).await;
    let pool = sidecar.await_pool("threads", "the sessions", |pool| pool.connections.idle == 10).await;
    assert_eq!(operation(&pool, "SELECT").queries, 10);
    drop(clients);
    let pool = sidecar.await_pool("threads", "the ends", |pool| pool.connections.live() == 0).await;
    assert_eq!(closed(&pool, CloseReason::ClientClosed), 10);
    assert_adds_up(&pool);
    let client = sidecar.client("threads").await;
    sidecar.stop().await;
    eventually("the last session's end", async || client.is_closed()).await;
}

/// A client that asks for more and more without reading is not observed further, but served.
#[tokio::test]
async fn requests_ahead_of_their_answers_are_bounded() {
    let sidecar = Sidecar::to(shared().await).await;
    let mut stream = limits::raw_session(sidecar.address).await;
    let ahead = 20_000;
    stream.write_all(&[query("SELECT pg_sleep(0.1)"), message(b'S', b"").repeat(ahead)].concat()).await.unwrap();
    sidecar.await_pool("raw", "the end of the observation", |pool| pool.wires_lost == 1).await;
    let (mut received, mut answers) = ([0; 4096], 0);
    while answers <= ahead {
        let count = with_deadline("the answers", stream.read(&mut received)).await.unwrap();
        assert!(count > 0);
        answers += received[..count].iter().filter(|byte| **byte == b'Z').count();
    }
}

#[tokio::test]
async fn query_in_parts_counts_for_its_comment() {
    let sidecar = Sidecar::to(shared().await).await;
    let mut stream = limits::raw_session(sidecar.address).await;
    let message = query("SELECT 1 /*route='%2Forders'*/");
    let (begin, end) = message.split_at(message.len() - 10);
    stream.write_all(begin).await.unwrap();
    sidecar.await_pool("raw", "the beginning", |pool| pool.connections.used == 1).await;
    stream.write_all(end).await.unwrap();
    let pool = sidecar.await_pool("raw", "the end", |pool| pool.connections.idle == 1).await;
    assert_eq!(operation(&pool, "/orders").queries, 1);
    assert_adds_up(&pool);
}

#[tokio::test]
async fn many_connections_leave_nothing_behind() {
    let sidecar = Sidecar::to(shared().await).await;
    let round = async || {
        for _ in 0..10 {
            let connect = async |number: usize| {
                let client = sidecar.client("many").await;
                if number.is_multiple_of(2) {
                    client.batch_execute("SELECT 1").await.unwrap();
                }
            };
            join_all((0..20).map(connect)).await;
        }
        sidecar.await_pool("many", "the ends", |pool| pool.connections.live() == 0).await
    };
    round().await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    eventually("the tasks' end", async || tasks() <= 2).await;
    for _ in 0..4 {
        round().await;
    }
    let pool = round().await;
    eventually("the tasks' end", async || tasks() <= 2).await;
    assert_eq!(pool.created, 1200);
    assert_adds_up(&pool);
}

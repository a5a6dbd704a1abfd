#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use poolscope_testing::ports::ReservedPort;

use super::super::client::Client;
use super::super::scripted_server::*;
use super::*;
use crate::labels::ErrorCode;

/// Returns the body of a cancel request, which has the code 80877102.
fn request(pid: i32, key: i32) -> Vec<u8> {
    [80_877_102_i32.to_be_bytes(), pid.to_be_bytes(), key.to_be_bytes()].concat()
}

async fn client(url: &str) -> Client {
    Client::connect(&connector(url), None, Arc::default()).await.unwrap()
}

#[tokio::test]
async fn cancel_goes_to_the_same_server_and_awaits_close() {
    let ((request_sender, requests), (close, closing)) = (mpsc::channel(), mpsc::channel::<()>());
    let mut first = None;
    let (port, _seen) = serve_each(2, move |mut socket| {
        let opening = read_untyped(&mut socket);
        if first.is_none() {
            socket.write_all(&authenticated_as(4711, -17)).unwrap();
            first = Some(socket);
        } else {
            request_sender.send(opening).unwrap();
            closing.recv_timeout(TEST_TIMEOUT).unwrap();
        }
    });
    // The first host refuses connections, and is not tried again.
    let closed = ReservedPort::new().unwrap();
    let refused = closed.number();
    let client = client(&format!("postgres://u@127.0.0.1:{refused},127.0.0.1:{port}/d?sslmode=disable")).await;
    let token = client.cancel_token();
    assert_eq!(format!("{token:?}"), format!("CancelToken {{ peer: Peer(127.0.0.1:{port}), .. }}"));
    let cancelling = tokio::spawn(async move { token.clone().cancel_query(tokio_postgres::NoTls).await });
    assert_eq!(receive(requests).await, request(4711, -17));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!cancelling.is_finished());
    close.send(()).unwrap();
    tokio::time::timeout(TEST_TIMEOUT, cancelling).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn client_keeps_its_side_open_after_a_cancel_request() {
    let mut first = None;
    let (port, read) = serve_each(2, move |mut socket| {
        read_untyped(&mut socket);
        if first.is_none() {
            socket.write_all(&authenticated_as(1, 2)).unwrap();
            first = Some(socket);
            return None;
        }
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Some(std::io::Read::read(&mut socket, &mut [0]).map_err(|error| error.kind()))
    });
    let client = client(&format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable")).await;
    client.cancel_token().cancel().await.unwrap();
    assert_eq!(read.iter().flatten().next(), Some(Err(std::io::ErrorKind::WouldBlock)));
}

#[tokio::test]
async fn cancel_times_out_if_the_server_does_not_close() {
    let (port, _held) = serve_each(2, |mut socket| {
        read_untyped(&mut socket);
        let _ = socket.write_all(&authenticated_as(1, 2));
        socket
    });
    let client = client(&format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable&connect_timeout=300ms")).await;
    let error = client.cancel_token().cancel().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TIMEOUT);
}

#[tokio::test]
async fn cancel_fails_if_the_server_is_unreachable() {
    let (port, _seen) = serve(|mut socket| {
        read_untyped(&mut socket);
        socket.write_all(&authenticated_as(1, 2)).unwrap();
    });
    let client = client(&format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable")).await;
    let token = client.cancel_token();
    // The listener closes when its thread ends.
    let error = loop {
        match token.cancel().await {
            Err(error @ ConnectError::Unreachable { .. }) => break error,
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    let address = format!("could not connect to PostgreSQL at 127.0.0.1:{port}: ");
    assert!(error.to_string().starts_with(&address), "{error}");
}

#[test]
fn token_is_send_sync_and_static() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    check::<CancelToken>();
}

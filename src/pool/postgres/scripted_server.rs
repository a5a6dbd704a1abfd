//! Servers with scripted behavior, for the tests.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::connect::{Connector, Established};
use super::error::ConnectError;
use crate::config::Settings;

pub(super) const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts a server that runs `script` for one client. Returns its port and the script's result.
pub(super) fn serve<T: Send + 'static>(
    script: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (u16, mpsc::Receiver<T>) {
    let mut script = Some(script);
    serve_each(1, move |socket| script.take().map(|script| script(socket)).unwrap())
}

/// Starts a server that runs `script` for each of `clients` clients in turn. Returns its port and the script's results.
pub(super) fn serve_each<T: Send + 'static>(
    clients: usize,
    mut script: impl FnMut(TcpStream) -> T + Send + 'static,
) -> (u16, mpsc::Receiver<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for _ in 0..clients {
            let (socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
            let _ = sender.send(script(socket));
        }
    });
    (port, receiver)
}

/// Reads a message without a type, like the startup message.
pub(super) fn read_untyped(stream: &mut impl Read) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body).unwrap();
    body
}

/// Reads a message with its type.
pub(super) fn read_typed(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut kind = [0];
    stream.read_exact(&mut kind).unwrap();
    (kind[0], read_untyped(stream))
}

pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind], &length[..], body].concat()
}

pub(super) fn authenticated() -> Vec<u8> {
    [message(b'R', &[0; 4]), message(b'Z', b"I")].concat()
}

/// Accepts the client, with the process id and the key for cancel requests.
pub(super) fn authenticated_as(pid: i32, key: i32) -> Vec<u8> {
    let keys = [pid.to_be_bytes(), key.to_be_bytes()].concat();
    [message(b'R', &[0; 4]), message(b'K', &keys), message(b'Z', b"I")].concat()
}

pub(super) fn fatal_error(sqlstate: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C{sqlstate}\0Mrefused\0\0");
    message(b'E', fields.as_bytes())
}

/// Returns the answer to `SHOW transaction_read_only`.
pub(super) fn show_answer(value: &str) -> Vec<u8> {
    let column = [&1_u16.to_be_bytes()[..], b"transaction_read_only\0", &[0; 18]].concat();
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    let row = [&1_u16.to_be_bytes()[..], &length, value.as_bytes()].concat();
    [message(b'T', &column), message(b'D', &row), message(b'C', b"SHOW\0"), message(b'Z', b"I")].concat()
}

/// Accepts the client and answers its first query with `answer`. Returns that query and the bytes that followed it.
pub(super) fn answer(mut socket: TcpStream, answer: &[u8]) -> (Vec<u8>, Vec<u8>) {
    read_untyped(&mut socket);
    socket.write_all(&authenticated()).unwrap();
    let (_, query) = read_typed(&mut socket);
    socket.write_all(answer).unwrap();
    (query, read_to_end(&mut socket))
}

/// Reads until the client closes, and returns the bytes.
pub(super) fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

pub(super) fn connector(url: &str) -> Connector {
    let settings = Settings::from_url(url).unwrap();
    Connector::new(&settings, settings.require_database_url().unwrap(), None, "test").unwrap()
}

pub(super) async fn establish(connector: &Connector) -> Result<Established, ConnectError> {
    connector.connect(None).await
}

pub(super) async fn failure(url: &str) -> ConnectError {
    establish(&connector(url)).await.map(drop).unwrap_err()
}

/// Receives without blocking the runtime.
pub(super) async fn receive<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> T {
    tokio::task::spawn_blocking(move || receiver.recv_timeout(TEST_TIMEOUT)).await.unwrap().unwrap()
}

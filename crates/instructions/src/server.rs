//! A server that accepts every client, and answers every statement with one row.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Starts the server in threads of its own, and returns its port.
pub(crate) fn start() -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || serve(client));
        }
    });
    Ok(port)
}

fn message(kind: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend(u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(body);
}

/// Answers what was read at once with one write: a client that writes a request at once reads its answer at once.
fn serve(mut client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut answer = Vec::new();
    read_body(&mut client)?;
    message(b'R', &[0; 4], &mut answer);
    message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4], &mut answer);
    message(b'Z', b"I", &mut answer);
    let mut read = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if !answer.is_empty() {
            client.write_all(&answer)?;
            answer.clear();
        }
        let length = client.read(&mut chunk)?;
        if length == 0 {
            return Ok(());
        }
        read.extend(&chunk[..length]);
        while let Some(length) = complete(&read) {
            reply(read[0], &mut answer);
            read.drain(..length);
        }
    }
}

/// Reads a message without a type.
fn read_body(client: &mut TcpStream) -> io::Result<()> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let mut body = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(4)];
    client.read_exact(&mut body)
}

/// Returns the length of the first message, if it is complete.
fn complete(read: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(read.get(1..5)?.try_into().ok()?) as usize + 1;
    (read.len() >= length).then_some(length)
}

fn reply(kind: u8, answer: &mut Vec<u8>) {
    // A column `n` of the type int4, in text format.
    const COLUMNS: &[u8] = b"\0\x01n\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
    match kind {
        b'Q' => {
            message(b'T', COLUMNS, answer);
            message(b'D', b"\0\x01\0\0\0\x011", answer);
            message(b'C', b"SELECT 1\0", answer);
            message(b'Z', b"I", answer);
        }
        b'P' => message(b'1', &[], answer),
        b'D' => {
            message(b't', &[0, 0], answer);
            message(b'T', COLUMNS, answer);
        }
        b'B' => message(b'2', &[], answer),
        b'E' => {
            message(b'D', b"\0\x01\0\0\0\x04\0\0\0\x01", answer);
            message(b'C', b"SELECT 1\0", answer);
        }
        b'C' => message(b'3', &[], answer),
        b'S' => message(b'Z', b"I", answer),
        _ => {}
    }
}

//! A minimal blocking HTTP client.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Returns the status and the body of the response.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    request(address, "GET", path)
}

/// Sends a request without a body, and returns the status and the body of the response.
pub fn request(address: SocketAddr, method: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = send_request(address, method, path)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

/// Sends a request without reading the response.
pub fn send_request(address: SocketAddr, method: &str, path: &str) -> std::io::Result<TcpStream> {
    send(address, method, path, "")
}

/// Returns the status, the other lines of the head, and the body of the response to a request with these lines in its head.
pub fn get_with(address: SocketAddr, path: &str, lines: &str) -> std::io::Result<(u16, String, Vec<u8>)> {
    let mut stream = send(address, "GET", path, lines)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, head, answer.split_off(end + 4)))
}

fn send(address: SocketAddr, method: &str, path: &str, lines: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{lines}\r\n")?;
    Ok(stream)
}

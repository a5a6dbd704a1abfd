//! `poolscope healthy`: queries an exporter's health, for container health checks.
//!
//! A container image without a shell has no other HTTP client. It runs often, so it starts neither a runtime nor threads.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use http::Uri;
use poolscope::exporter::DEFAULT_ADDRESS;
use poolscope::text::printable;
use thiserror::Error;

/// The path unless the URL has one.
const DEFAULT_PATH: &str = "/-/healthy";

/// How many bytes of a response are read. Those of the exporter have one line.
const MAX_RESPONSE_BYTES: usize = 16 * 1024;

#[derive(Debug, Args)]
pub(super) struct HealthyArgs {
    /// The exporter's URL, such as http://127.0.0.1:9719 or http://127.0.0.1:9719/-/ready
    ///
    /// The default path is /-/healthy. The default URL is that of --web.listen-address.
    #[arg(value_name = "URL")]
    url: Option<Target>,

    /// How long the request may take
    #[arg(long, value_name = "TIME", value_parser = super::duration::duration, default_value = "3s")]
    timeout: Duration,

    /// The address that the exporter listens on
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS",
        env = "POOLSCOPE_WEB_LISTEN_ADDRESS",
        default_value = DEFAULT_ADDRESS
    )]
    listen_address: Target,
}

/// The URL of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    /// Host and port.
    authority: String,
    path: String,
}

impl FromStr for Target {
    type Err = &'static str;

    /// Parses a URL, or a listen address. The unspecified address becomes `localhost`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const REMEDY: &str = "give http://host:port, optionally with a path; https is not supported";
        let is_address = !text.contains("://");
        let url = if is_address { format!("http://{}", connectable(text)) } else { text.to_owned() };
        let uri: Uri = url.parse().map_err(|_| REMEDY)?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(REMEDY)?;
        let is_complete = !is_address || authority.port_u16().is_some() && !text.contains('/');
        if uri.scheme_str() != Some("http") || authority.host().is_empty() || !is_complete {
            return Err(REMEDY);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            authority: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)),
            path: if path == "/" { DEFAULT_PATH } else { path }.to_owned(),
        })
    }
}

/// Returns the address to connect to for an exporter that listens at `address`.
fn connectable(address: &str) -> String {
    match address.rsplit_once(':') {
        Some(("" | "0.0.0.0" | "[::]", port)) => format!("localhost:{port}"),
        _ => address.to_owned(),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// Why the exporter is not healthy.
#[derive(Debug, Error)]
pub(super) enum HealthyError {
    /// It responded with a status other than 200.
    #[error("{target} responded {status}{reason}")]
    Unhealthy {
        target: String,
        status: u16,
        /// The first line of the body, after a colon.
        reason: String,
    },
    /// It did not respond in time.
    #[error("no response from {target}")]
    NoResponse {
        target: String,
        #[source]
        error: io::Error,
    },
    /// Standard output is closed.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

/// Queries the exporter, and prints its response if it is healthy.
pub(super) fn query(args: HealthyArgs) -> Result<(), HealthyError> {
    let target = args.url.unwrap_or(args.listen_address);
    let response = request(&target, args.timeout);
    let (status, line) = response.map_err(|error| HealthyError::NoResponse { target: target.to_string(), error })?;
    let reason = if line.is_empty() { line } else { format!(": {line}") };
    if status != 200 {
        return Err(HealthyError::Unhealthy { target: target.to_string(), status, reason });
    }
    let mut output = io::stdout().lock();
    match writeln!(output, "{target} responded {status}{reason}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Returns the status of the response, and the first line of its body.
fn request(target: &Target, timeout: Duration) -> io::Result<(u16, String)> {
    let deadline = Instant::now() + timeout;
    let mut stream = connect(&target.authority, deadline)?;
    // With HTTP/1.0 the response is not chunked, and the connection is closed after it.
    let request = format!("GET {} HTTP/1.0\r\nHost: {}\r\nAccept: text/plain\r\n\r\n", target.path, target.authority);
    stream.set_write_timeout(Some(time_left(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    let mut buffer = [0; 1024];
    while response.len() <= MAX_RESPONSE_BYTES {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => response.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The error of a read timeout on Unix.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
    parse(&String::from_utf8_lossy(&response))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "invalid HTTP response"))
}

fn connect(authority: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut last_error = io::Error::from(io::ErrorKind::NotFound);
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, time_left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// Returns the time until the deadline, or an error if it has passed.
fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Returns the status of a response, and the first line of its body.
fn parse(response: &str) -> Option<(u16, String)> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let (version, rest) = head.lines().next()?.split_once(' ')?;
    let status = rest.get(..3)?.parse().ok().filter(|_| version.starts_with("HTTP/1."))?;
    let line = body.lines().next().unwrap_or_default();
    Some((status, printable(line).into_owned()))
}

#[cfg(test)]
mod tests {
    use poolscope::text::MAX_CHARS;

    use super::*;

    fn target(text: &str) -> Option<String> {
        text.parse::<Target>().ok().map(|target| target.to_string())
    }

    #[test]
    fn url_or_listen_address_is_accepted() {
        for (given, expected) in [
            ("http://127.0.0.1:9719", "http://127.0.0.1:9719/-/healthy"),
            ("http://127.0.0.1:9719/", "http://127.0.0.1:9719/-/healthy"),
            ("http://shop:9719/-/ready", "http://shop:9719/-/ready"),
            ("http://shop/-/ready?a=b", "http://shop:80/-/ready?a=b"),
            ("http://[::1]:9719", "http://[::1]:9719/-/healthy"),
            ("127.0.0.1:9719", "http://127.0.0.1:9719/-/healthy"),
            (":9719", "http://localhost:9719/-/healthy"),
            ("0.0.0.0:80", "http://localhost:80/-/healthy"),
            ("[::]:9719", "http://localhost:9719/-/healthy"),
            ("[fe80::1]:9719", "http://[fe80::1]:9719/-/healthy"),
        ] {
            assert_eq!(target(given).as_deref(), Some(expected), "{given}");
        }
    }

    #[test]
    fn other_targets_are_refused() {
        for given in [
            "",
            "https://shop:9719",
            "ftp://shop",
            "http://",
            "http://me:secret@shop",
            "shop/-/ready",
            "a b",
            "shop",
            "***",
        ] {
            assert_eq!(target(given), None, "{given}");
        }
    }

    #[test]
    fn response_has_a_status_and_a_line() {
        assert_eq!(parse("HTTP/1.1 200 OK\r\na: b\r\n\r\nHealthy.\nMore.\n"), Some((200, "Healthy.".to_owned())));
        assert_eq!(parse("HTTP/1.0 503 \r\n\r\n"), Some((503, String::new())));
        assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\n\x1b[31mred"), Some((200, r"\u{1b}[31mred".to_owned())));
        let (_, long) = parse(&format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(10_000))).unwrap();
        assert_eq!(long.chars().count(), MAX_CHARS);
        for invalid in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 2\r\n\r\n", "HTTP/1.1 abc\r\n\r\n"] {
            assert_eq!(parse(invalid), None, "{invalid:?}");
        }
    }
}

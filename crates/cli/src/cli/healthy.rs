//! `poolscope healthy`: asks an exporter how it is, for whoever decides by an exit code.
//!
//! An image without a shell has nothing else that could ask. So this starts nothing: no runtime, no threads.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use http::Uri;
use poolscope::exporter::DEFAULT_ADDRESS;
use thiserror::Error;

/// What is asked for unless the URL says so.
const PATH: &str = "/-/healthy";

/// How much of an answer is read: the exporter's are a line.
const ANSWER: u64 = 16 * 1024;

#[derive(Debug, Args)]
pub(super) struct HealthyArgs {
    /// Where to ask, as http://127.0.0.1:9719, or with a path, as http://127.0.0.1:9719/-/ready
    ///
    /// Without it, where the exporter was told to listen.
    #[arg(value_name = "URL")]
    url: Option<Target>,

    /// How long it may take
    #[arg(long, value_name = "TIME", value_parser = super::duration, default_value = "3s")]
    timeout: Duration,

    /// Where the exporter was told to listen, as the demo has it
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS",
        env = "POOLSCOPE_WEB_LISTEN_ADDRESS",
        default_value = DEFAULT_ADDRESS
    )]
    listen_address: Target,
}

/// Whom to ask for what.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    /// Host and port.
    authority: String,
    path: String,
}

impl FromStr for Target {
    type Err = &'static str;

    /// From a URL; or from an address as an exporter listens at, where all interfaces are asked by this machine's own.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WOULD_DO: &str = "give http://host:port, with a path if need be; https is not spoken";
        let address = !text.contains("://");
        let url = if address { format!("http://{}", here(text)) } else { text.to_owned() };
        let uri: Uri = url.parse().map_err(|_| WOULD_DO)?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(WOULD_DO)?;
        let whole = !address || authority.port_u16().is_some() && !text.contains('/');
        if uri.scheme_str() != Some("http") || authority.host().is_empty() || !whole {
            return Err(WOULD_DO);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            authority: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)),
            path: if path == "/" { PATH } else { path }.to_owned(),
        })
    }
}

/// Where to ask for what listens at `address`.
fn here(address: &str) -> String {
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

/// Why it is not healthy.
#[derive(Debug, Error)]
pub(super) enum HealthyError {
    /// It says so itself.
    #[error("{target} answers {status}{said}")]
    Unhealthy {
        target: String,
        status: u16,
        /// In its own words.
        said: String,
    },
    /// There is no answer, or none in time.
    #[error("{target} does not answer")]
    Unanswered {
        target: String,
        #[source]
        error: io::Error,
    },
    /// Nothing takes what there is to say.
    #[error("what was answered cannot be written")]
    Output(#[from] io::Error),
}

/// Asks, and prints what a healthy one says.
pub(super) fn ask(args: HealthyArgs) -> Result<(), HealthyError> {
    let target = args.url.unwrap_or(args.listen_address);
    let answer = request(&target, args.timeout);
    let (status, said) = answer.map_err(|error| HealthyError::Unanswered { target: target.to_string(), error })?;
    if status != 200 {
        let said = if said.is_empty() { said } else { format!(": {said}") };
        return Err(HealthyError::Unhealthy { target: target.to_string(), status, said });
    }
    let mut output = io::stdout().lock();
    match writeln!(output, "{target} answers {status}{}{said}", if said.is_empty() { "" } else { ": " }) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The status of the answer, and the first line of its body.
fn request(target: &Target, timeout: Duration) -> io::Result<(u16, String)> {
    let deadline = Instant::now() + timeout;
    let mut stream = connect(&target.authority, deadline)?;
    // By HTTP/1.0 the answer comes in one piece and the connection is closed after it.
    let request = format!("GET {} HTTP/1.0\r\nHost: {}\r\nAccept: text/plain\r\n\r\n", target.path, target.authority);
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while answer.len() as u64 <= ANSWER {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What the system calls a time that is over.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
    read(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what it sent is no answer of HTTP"))
}

fn connect(authority: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// How much time there is left; an error if there is none.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The status of an answer, and the first line of its body, without what a terminal would obey.
fn read(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let (version, rest) = head.lines().next()?.split_once(' ')?;
    let status = rest.get(..3)?.parse().ok().filter(|_| version.starts_with("HTTP/1."))?;
    let line = body.lines().next().unwrap_or_default();
    Some((status, line.chars().filter(|c| !c.is_control()).take(200).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Option<String> {
        text.parse::<Target>().ok().map(|target| target.to_string())
    }

    #[test]
    fn a_url_or_where_an_exporter_listens_says_whom_to_ask() {
        for (given, asked) in [
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
            assert_eq!(target(given).as_deref(), Some(asked), "{given}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
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
    fn an_answer_is_a_status_and_a_line() {
        assert_eq!(read("HTTP/1.1 200 OK\r\na: b\r\n\r\nHealthy.\nMore.\n"), Some((200, "Healthy.".to_owned())));
        assert_eq!(read("HTTP/1.0 503 \r\n\r\n"), Some((503, String::new())));
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\n\x1b[31mred"), Some((200, "[31mred".to_owned())));
        for nothing in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 2\r\n\r\n", "HTTP/1.1 abc\r\n\r\n"] {
            assert_eq!(read(nothing), None, "{nothing:?}");
        }
    }
}

//! An HTTP client for exporters, plain or with TLS, with a password or a client certificate: for `healthy` and `diagnose`.
//!
//! Its future needs no other threads than that of [`block_on`], because health checks run often.

mod args;
mod target;

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use poolscope::text::printable;
use serde_json::Value;
use thiserror::Error;
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

pub(super) use self::args::{ClientArgs, ClientError};
pub(super) use self::target::Target;

/// Returns a runtime for queries. It reads the clock each time that a connection has been read, so that a server that sends
/// without end cannot delay a timeout.
pub(super) fn runtime() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().event_interval(1).build()
}

/// The size of the head of a response.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Runs the queries of a command.
pub(super) fn block_on<F: Future>(queries: F) -> io::Result<F::Output> {
    let runtime = runtime()?;
    let output = runtime.block_on(queries);
    // A thread may still look up the name of a host whose time is over.
    runtime.shutdown_background();
    Ok(output)
}

/// Why there is no response.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    /// The client has a password, and the target is another machine without TLS.
    #[error("the password is not sent over plain HTTP to another machine; use https://")]
    PlainPassword,
    /// It did not come in time.
    #[error("timed out")]
    TimedOut,
    /// The peer does not speak HTTP.
    #[error("invalid HTTP response")]
    Invalid,
    /// The status is not 200.
    #[error("it responded {status}: {}", printable(.line))]
    Status {
        status: u16,
        /// The first line of the body.
        line: String,
    },
    /// The body is longer than what is read, or has more values.
    #[error("the response is too large; select a pool with ?pool=NAME")]
    TooLarge,
    /// The body is not JSON.
    #[error("the response is not JSON; check the URL")]
    NotJson,
    /// Connecting, the TLS handshake or the exchange failed.
    #[error("{}", printable(.0))]
    Failed(String),
}

impl RequestError {
    /// Describes an error of hyper by its innermost source, such as "Connection refused". The outer ones name steps only.
    fn from_source(error: &(dyn Error + 'static)) -> Self {
        let mut innermost = error;
        loop {
            if innermost.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
                return Self::Invalid;
            }
            match innermost.source() {
                Some(source) => innermost = source,
                None => return Self::Failed(innermost.to_string()),
            }
        }
    }
}

/// The response to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Queries exporters.
pub(super) struct HttpClient {
    timeout: Duration,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    /// The value of the header `Authorization`.
    authorization: Option<HeaderValue>,
}

impl HttpClient {
    /// Reads the files that the arguments name. Certificates are read only if one of the targets uses TLS.
    pub(super) fn new(args: &ClientArgs, targets: &[Target]) -> Result<Self, ClientError> {
        let tls = args::tls_config(args, targets.iter().any(|target| target.is_tls))?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        // A server may send heads of 1xx without end: the less is parsed at once, the sooner the timeout is noticed.
        // The runtime stands still between two queries, so it would not notice that a server has closed an idle connection.
        let client = Client::builder(TokioExecutor::new())
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self { timeout: args.timeout, client, authorization: args::authorization(args)? })
    }

    /// Sends a request, and returns its response once the head has been received, within the timeout. The body may
    /// last for longer, as that of an event stream does.
    pub(super) async fn open(&self, target: &Target, accept: &str) -> Result<http::Response<Incoming>, RequestError> {
        let mut request = Request::get(target.to_string()).header(ACCEPT, accept);
        if let Some(authorization) = &self.authorization {
            if !target.is_tls && !target.is_local() {
                return Err(RequestError::PlainPassword);
            }
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::new()).map_err(|error| RequestError::from_source(&error))?;
        let response = timeout(self.timeout, self.client.request(request)).await;
        response.map_err(|_| RequestError::TimedOut)?.map_err(|error| RequestError::from_source(&error))
    }

    /// Sends a request, and reads at most about `max_bytes` of the response, within the timeout.
    pub(super) async fn get(&self, target: &Target, accept: &str, max_bytes: usize) -> Result<Response, RequestError> {
        let exchange = async {
            let response = self.open(target, accept).await?;
            let status = response.status().as_u16();
            let mut body = response.into_body();
            let mut received = Vec::new();
            while received.len() <= max_bytes
                && let Some(frame) = body.frame().await
            {
                let frame = frame.map_err(|error| RequestError::from_source(&error))?;
                received.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            }
            Ok(Response { status, body: String::from_utf8_lossy(&received).into_owned() })
        };
        timeout(self.timeout, exchange).await.map_err(|_| RequestError::TimedOut)?
    }

    /// Queries JSON of at most about `max_bytes`. A status other than 200 is an error.
    pub(super) async fn get_json(&self, target: &Target, max_bytes: usize) -> Result<Value, RequestError> {
        let Response { status, body } = self.get(target, "application/json", max_bytes).await?;
        if status != 200 {
            return Err(RequestError::Status { status, line: body.lines().next().unwrap_or_default().to_owned() });
        }
        if body.len() > max_bytes || values(&body) > MAX_VALUES {
            return Err(RequestError::TooLarge);
        }
        serde_json::from_str(&body).map_err(|_| RequestError::NotJson)
    }
}

/// How many values JSON may have: each takes up to a hundred bytes of memory, and may take two of the text.
const MAX_VALUES: usize = 2_000_000;

/// Returns the number of values that JSON has at most.
fn values(json: &str) -> usize {
    json.bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use clap::Parser;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: ClientArgs,
    }

    /// Returns a client of `target`. A response must begin within two seconds.
    fn client(target: &Target) -> HttpClient {
        let command = Command::parse_from(["poolscope", "--timeout", "2s"]);
        HttpClient::new(&command.args, std::slice::from_ref(target)).unwrap()
    }

    async fn listen() -> (TcpListener, Target) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        (listener, address.to_string().parse().unwrap())
    }

    async fn accept(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream
    }

    #[tokio::test]
    async fn stream_is_read_as_it_arrives_and_outlasts_the_timeout() {
        let (listener, target) = listen().await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n";
        let client = client(&target);
        let (response, mut peer) = tokio::join!(client.open(&target, "text/event-stream"), async {
            let mut peer = accept(&listener).await;
            peer.write_all(head).await.unwrap();
            peer
        });
        let mut body = response.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: 1\n\n");
        tokio::time::sleep(Duration::from_millis(2100)).await;
        peer.write_all(b"data: 2\n\n").await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: 2\n\n");
    }

    #[tokio::test]
    async fn body_that_stops_is_a_timeout_and_long_ones_are_cut() {
        let (listener, target) = listen().await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
        let client = client(&target);
        let (response, _peer) = tokio::join!(client.get(&target, "text/plain", 10), async {
            let mut peer = accept(&listener).await;
            peer.write_all(head).await.unwrap();
            peer
        });
        assert!(matches!(response, Err(RequestError::TimedOut)), "{response:?}");
        let (response, _peer) = tokio::join!(client.get(&target, "text/plain", 10), async {
            let mut peer = accept(&listener).await;
            peer.write_all(&[&head[..], &[b'a'; 20]].concat()).await.unwrap();
            peer
        });
        assert!(response.unwrap().body.starts_with("aaaaaaaaaaa"));
    }

    /// A server may close a connection between two queries, while nothing drives the client's runtime.
    #[test]
    fn closed_connection_is_not_used_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target: Target = listener.local_addr().unwrap().to_string().parse().unwrap();
        let server = std::thread::spawn(move || {
            for _ in 0..3 {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(std::io::Read::read(&mut stream, &mut [0; 1024]).unwrap() > 0);
                let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                std::io::Write::write_all(&mut stream, response).unwrap();
            }
        });
        let (runtime, client) = (runtime().unwrap(), client(&target));
        for _ in 0..3 {
            let json = runtime.block_on(client.get_json(&target, 10));
            assert_eq!(json.unwrap(), serde_json::json!({}));
        }
        server.join().unwrap();
    }

    #[test]
    fn values_are_counted_generously() {
        for (json, expected) in [("7", 0), ("[]", 1), ("[1,2,3]", 3), (r#"{"a":[{}],"b":2}"#, 4)] {
            assert_eq!(values(json), expected, "{json}");
        }
    }

    #[tokio::test]
    async fn errors_name_the_innermost_source() {
        let (listener, target) = listen().await;
        drop(listener);
        let refused = client(&target).get_json(&target, 10).await.unwrap_err().to_string();
        assert!(refused.starts_with("Connection refused"), "{refused}");
    }
}

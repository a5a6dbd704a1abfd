//! An OTLP collector that keeps the spans and metrics it receives.
//!
//! It runs on a thread of its own, so that it works while the test's threads are busy or blocked.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod server;
mod span;

use std::net::SocketAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::server::{Behavior, Protocol, Store, acceptor, serve};
pub use self::span::{Attributes, Link, Span};

/// Long enough for a busy machine; only failing tests wait for it.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A collector, which stops when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    store: Arc<Store>,
    certificate: Option<String>,
    is_open: watch::Sender<bool>,
    /// Receives a message whenever the listener was opened or closed.
    state_changes: Mutex<mpsc::Receiver<()>>,
}

impl Receiver {
    /// Starts a collector that speaks gRPC.
    pub fn grpc() -> Self {
        Self::start(Protocol::Grpc, false)
    }

    /// Starts a collector that speaks HTTP with protobuf.
    pub fn http() -> Self {
        Self::start(Protocol::Http, false)
    }

    /// Starts a collector that speaks gRPC or HTTP over TLS.
    pub fn tls(is_grpc: bool) -> Self {
        Self::start(if is_grpc { Protocol::Grpc } else { Protocol::Http }, true)
    }

    /// Returns its CA certificate as PEM, if it uses TLS.
    pub fn certificate(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    fn start(protocol: Protocol, tls: bool) -> Self {
        let (certificate, acceptor) = tls.then(|| acceptor(protocol)).unzip();
        let store = Arc::new(Store::default());
        let (is_open, open) = watch::channel(true);
        let (state_change, state_changes) = mpsc::channel();
        let (address_sender, address_receiver) = mpsc::channel();
        let served = Arc::clone(&store);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                address_sender.send(listener.local_addr().unwrap()).unwrap();
                serve(protocol, acceptor, listener, &served, open, &state_change).await;
            });
        });
        Self {
            address: address_receiver.recv_timeout(TIMEOUT).unwrap(),
            store,
            certificate,
            is_open,
            state_changes: Mutex::new(state_changes),
        }
    }

    /// Returns the base URL of the endpoint.
    pub fn endpoint(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Returns the spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        self.store.spans.lock().unwrap().clone()
    }

    /// Waits until `accept` is satisfied, and returns the spans. Blocks the thread.
    pub fn spans_when(&self, what: &str, accept: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let start = Instant::now();
        loop {
            let spans = self.spans();
            if accept(&spans) {
                return spans;
            }
            assert!(start.elapsed() < TIMEOUT, "still waiting for: {what}; {} spans", spans.len());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until there is a request with metrics, after the first `after` ones, and returns it. Blocks the thread.
    pub fn metrics_after(&self, after: usize) -> ExportMetricsServiceRequest {
        let start = Instant::now();
        loop {
            if let Some(request) = self.store.metrics.lock().unwrap().get(after) {
                return request.clone();
            }
            assert!(start.elapsed() < TIMEOUT, "still waiting for request {after} with metrics");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the number of requests with metrics.
    pub fn metrics_requests(&self) -> usize {
        self.store.metrics.lock().unwrap().len()
    }

    /// Returns the headers of all requests, including refused ones.
    pub fn requests(&self) -> Vec<Attributes> {
        self.store.headers.lock().unwrap().clone()
    }

    /// Closes the listener and all connections.
    pub fn pause(&self) {
        self.is_open.send_replace(false);
        self.state_changes.lock().unwrap().recv_timeout(TIMEOUT).unwrap();
    }

    /// Listens again on the same port.
    pub fn resume(&self) {
        self.is_open.send_replace(true);
        self.state_changes.lock().unwrap().recv_timeout(TIMEOUT).unwrap();
    }

    /// Delays further responses by `pause`.
    pub fn slow(&self, pause: Duration) {
        self.store.behavior.lock().unwrap().delay = pause;
    }

    /// Refuses further requests as temporarily unavailable.
    pub fn refuse(&self) {
        self.store.behavior.lock().unwrap().unavailable = true;
    }

    /// Rejects this many spans of each further request.
    pub fn reject(&self, spans: i64) {
        self.store.behavior.lock().unwrap().rejected_spans = spans;
    }

    /// Accepts further requests at once.
    pub fn accept(&self) {
        *self.store.behavior.lock().unwrap() = Behavior::default();
    }
}

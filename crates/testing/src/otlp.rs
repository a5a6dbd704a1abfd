//! An OTLP collector that keeps the spans it receives.
//!
//! It runs on a thread of its own, so that it works while the test's threads are busy or blocked.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tonic::codec::CompressionEncoding;

/// Long enough for a busy machine; only failing tests wait for it.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Attributes by name.
pub type Attributes = BTreeMap<String, String>;

/// A span, with its resource and scope. Values are text, as a trace store shows them.
#[derive(Clone, Debug)]
pub struct Span {
    /// The span's name.
    pub name: String,
    /// In hexadecimal digits.
    pub trace_id: String,
    /// In hexadecimal digits.
    pub span_id: String,
    /// `None` for a root.
    pub parent: Option<String>,
    /// `internal`, `server`, `client`, `producer` or `consumer`.
    pub kind: &'static str,
    /// `unset`, `ok` or `error`, and the status message.
    pub status: (&'static str, String),
    /// The span's attributes.
    pub attributes: Attributes,
    /// Events, by name and attributes.
    pub events: Vec<(String, Attributes)>,
    /// Links to other spans.
    pub links: Vec<Link>,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// Attributes of the resource.
    pub resource: Attributes,
    /// The name of the instrumentation scope.
    pub scope: String,
}

/// A link to another span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// In hexadecimal digits.
    pub trace_id: String,
    /// In hexadecimal digits.
    pub span_id: String,
    /// The link's attributes.
    pub attributes: Attributes,
}

impl Span {
    /// Returns the time from start to end.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.end - self.start)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Grpc,
    Http,
}

/// How requests are answered.
#[derive(Clone, Copy, Debug, Default)]
struct Behavior {
    delay: Duration,
    unavailable: bool,
    rejected_spans: i64,
}

#[derive(Debug, Default)]
struct Store {
    behavior: Mutex<Behavior>,
    spans: Mutex<Vec<Span>>,
    headers: Mutex<Vec<Attributes>>,
}

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

/// Returns a URL with a closed port.
pub fn unused_endpoint() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Returns a self-signed certificate as PEM, and a TLS acceptor that uses it.
fn acceptor(protocol: Protocol) -> (String, TlsAcceptor) {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ServerConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let chain = vec![signed.cert.der().clone()];
    let mut config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    if protocol == Protocol::Grpc {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    (signed.cert.pem(), TlsAcceptor::from(Arc::new(config)))
}

async fn serve(
    protocol: Protocol,
    acceptor: Option<TlsAcceptor>,
    listener: TcpListener,
    store: &Arc<Store>,
    mut open: watch::Receiver<bool>,
    state_change: &mpsc::Sender<()>,
) {
    let address = listener.local_addr().unwrap();
    let (mut listener, mut connections) = (Some(listener), JoinSet::new());
    loop {
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = open.changed() => {
                if changed.is_err() {
                    return;
                }
                if *open.borrow_and_update() {
                    listener = Some(TcpListener::bind(address).await.unwrap());
                } else {
                    listener = None;
                    connections.shutdown().await;
                }
                // Fails only if the receiver was dropped.
                let _ = state_change.send(());
            }
            Ok((stream, _)) = accepted => {
                let (acceptor, store) = (acceptor.clone(), Arc::clone(store));
                connections.spawn(async move {
                    match acceptor {
                        None => serve_connection(protocol, stream, store).await,
                        // A client that does not trust the certificate closes the connection.
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve_connection(protocol, stream, store).await;
                            }
                        }
                    }
                });
            }
        }
    }
}

async fn serve_connection(protocol: Protocol, stream: impl AsyncRead + AsyncWrite + Unpin + Send, store: Arc<Store>) {
    let io = TokioIo::new(stream);
    // Errors of connections are not of interest.
    match protocol {
        Protocol::Grpc => {
            let service = TraceServiceServer::new(Service(store)).accept_compressed(CompressionEncoding::Gzip);
            let service = TowerToHyperService::new(service);
            let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
        }
        Protocol::Http => {
            let service = service_fn(move |request| handle_http(Arc::clone(&store), request));
            let _ = http1::Builder::new().serve_connection(io, service).await;
        }
    }
}

struct Service(Arc<Store>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let headers = request.metadata().clone().into_headers();
        match self.0.take(&headers, || request.into_inner()).await {
            Some(response) => Ok(tonic::Response::new(response)),
            None => Err(tonic::Status::unavailable("not now")),
        }
    }
}

async fn handle_http(store: Arc<Store>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Full::default());
    if head.uri.path() != "/v1/traces" || head.headers["content-type"] != "application/x-protobuf" {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let mut body = body.collect().await.unwrap().to_bytes().to_vec();
    if head.headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
        body = plain;
    }
    match store.take(&head.headers, || ExportTraceServiceRequest::decode(&*body).unwrap()).await {
        Some(taken) => *response.body_mut() = Full::new(taken.encode_to_vec().into()),
        None => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
    }
    Ok(response)
}

impl Store {
    /// Keeps the spans of a request. Returns `None` if requests are refused.
    async fn take(
        &self,
        headers: &hyper::HeaderMap,
        request: impl FnOnce() -> ExportTraceServiceRequest,
    ) -> Option<ExportTraceServiceResponse> {
        let text = |value: &hyper::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        self.headers.lock().unwrap().push(headers);
        let behavior = *self.behavior.lock().unwrap();
        sleep(behavior.delay).await;
        if behavior.unavailable {
            return None;
        }
        let mut spans = flatten(request());
        spans.truncate(spans.len().saturating_sub(usize::try_from(behavior.rejected_spans).unwrap()));
        self.spans.lock().unwrap().extend(spans);
        let rejected = (behavior.rejected_spans > 0).then(|| ExportTracePartialSuccess {
            rejected_spans: behavior.rejected_spans,
            error_message: "too many".to_owned(),
        });
        Some(ExportTraceServiceResponse { partial_success: rejected })
    }
}

fn link(link: opentelemetry_proto::tonic::trace::v1::span::Link) -> Link {
    Link { trace_id: hex(&link.trace_id), span_id: hex(&link.span_id), attributes: attributes(link.attributes) }
}

fn flatten(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource_spans in request.resource_spans {
        let resource = attributes(resource_spans.resource.unwrap_or_default().attributes);
        for scope_spans in resource_spans.scope_spans {
            let scope = scope_spans.scope.unwrap_or_default().name;
            spans.extend(scope_spans.spans.into_iter().map(|span| {
                let kind = match span.kind() {
                    SpanKind::Server => "server",
                    SpanKind::Client => "client",
                    SpanKind::Producer => "producer",
                    SpanKind::Consumer => "consumer",
                    SpanKind::Internal | SpanKind::Unspecified => "internal",
                };
                let status = span.status.unwrap_or_default();
                let code = match status.code() {
                    SpanStatus::Unset => "unset",
                    SpanStatus::Ok => "ok",
                    SpanStatus::Error => "error",
                };
                Span {
                    name: span.name,
                    trace_id: hex(&span.trace_id),
                    span_id: hex(&span.span_id),
                    parent: (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id)),
                    kind,
                    status: (code, status.message),
                    attributes: attributes(span.attributes),
                    events: span.events.into_iter().map(|event| (event.name, attributes(event.attributes))).collect(),
                    links: span.links.into_iter().map(link).collect(),
                    start: span.start_time_unix_nano,
                    end: span.end_time_unix_nano,
                    resource: resource.clone(),
                    scope: scope.clone(),
                }
            }));
        }
    }
    spans
}

fn attributes(pairs: Vec<KeyValue>) -> Attributes {
    pairs.into_iter().map(|pair| (pair.key, pair.value.map(text).unwrap_or_default())).collect()
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::BoolValue(value)) => value.to_string(),
        Some(any_value::Value::IntValue(value)) => value.to_string(),
        Some(any_value::Value::DoubleValue(value)) => value.to_string(),
        Some(any_value::Value::ArrayValue(array)) => array.values.into_iter().map(text).collect::<Vec<_>>().join(","),
        Some(any_value::Value::BytesValue(bytes)) => hex(&bytes),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

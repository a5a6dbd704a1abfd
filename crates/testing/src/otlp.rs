//! A collector in this process: what spans arrive, and as what a trace store would see them.
//!
//! It runs on a thread of its own, so that a test whose own threads are busy, or blocked, has it all the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

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

/// How long anything may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Attributes by name.
pub type Attributes = BTreeMap<String, String>;

/// A span with all that is said of it elsewhere in its request. Values are text, as a trace store shows them.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// In hexadecimal digits.
    pub trace_id: String,
    /// In hexadecimal digits.
    pub span_id: String,
    /// `None` for a root.
    pub parent: Option<String>,
    /// `internal`, `server`, `client`, `producer` or `consumer`.
    pub kind: &'static str,
    /// `unset`, `ok` or `error`, and what was said of it.
    pub status: (&'static str, String),
    /// Its attributes.
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
    /// Its attributes.
    pub attributes: Attributes,
}

impl Span {
    /// Returns the time from its start to its end.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.end - self.start)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Grpc,
    Http,
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, Default)]
struct Mood {
    slow: Duration,
    refuses: bool,
    rejects: i64,
}

#[derive(Debug, Default)]
struct Store {
    mood: Mutex<Mood>,
    spans: Mutex<Vec<Span>>,
    headers: Mutex<Vec<Attributes>>,
}

/// A collector, until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    store: Arc<Store>,
    certificate: Option<String>,
    is_open: watch::Sender<bool>,
    /// Answers whenever the listener was opened or closed.
    done: Mutex<mpsc::Receiver<()>>,
}

impl Receiver {
    /// A collector that speaks gRPC.
    pub fn grpc() -> Self {
        Self::start(Protocol::Grpc, false)
    }

    /// A collector that speaks HTTP, with protobuf.
    pub fn http() -> Self {
        Self::start(Protocol::Http, false)
    }

    /// A collector that speaks gRPC, or HTTP, over TLS.
    pub fn tls(is_grpc: bool) -> Self {
        Self::start(if is_grpc { Protocol::Grpc } else { Protocol::Http }, true)
    }

    /// The authority of its certificate, as PEM, if it speaks over TLS.
    pub fn certificate(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    fn start(protocol: Protocol, tls: bool) -> Self {
        let (certificate, acceptor) = tls.then(|| acceptor(protocol)).unzip();
        let store = Arc::new(Store::default());
        let (is_open, open) = watch::channel(true);
        let (report, done) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let served = Arc::clone(&store);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                serve(protocol, acceptor, listener, &served, open, &report).await;
            });
        });
        Self { address: told.recv_timeout(DEADLINE).unwrap(), store, certificate, is_open, done: Mutex::new(done) }
    }

    /// The base URL to send to.
    pub fn endpoint(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// What has arrived so far.
    pub fn spans(&self) -> Vec<Span> {
        self.store.spans.lock().unwrap().clone()
    }

    /// What has arrived once it is what `enough` says. Blocks the thread.
    pub fn spans_when(&self, what: &str, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let begun = Instant::now();
        loop {
            let spans = self.spans();
            if enough(&spans) {
                return spans;
            }
            assert!(begun.elapsed() < DEADLINE, "still waiting for: {what}; {} spans", spans.len());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The headers of each request that came, refused ones too.
    pub fn requests(&self) -> Vec<Attributes> {
        self.store.headers.lock().unwrap().clone()
    }

    /// Closes the listener and every connection: nobody is there from now on.
    pub fn pause(&self) {
        self.is_open.send_replace(false);
        self.done.lock().unwrap().recv_timeout(DEADLINE).unwrap();
    }

    /// Listens again, at the same port.
    pub fn resume(&self) {
        self.is_open.send_replace(true);
        self.done.lock().unwrap().recv_timeout(DEADLINE).unwrap();
    }

    /// Takes so long for each answer from now on.
    pub fn slow(&self, pause: Duration) {
        self.store.mood.lock().unwrap().slow = pause;
    }

    /// Answers from now on that it cannot take anything at the moment.
    pub fn refuse(&self) {
        self.store.mood.lock().unwrap().refuses = true;
    }

    /// Takes requests from now on, but for so many spans of each.
    pub fn reject(&self, spans: i64) {
        self.store.mood.lock().unwrap().rejects = spans;
    }

    /// Takes everything again, and at once.
    pub fn accept(&self) {
        *self.store.mood.lock().unwrap() = Mood::default();
    }
}

/// A URL at which nobody listens.
pub fn unused_endpoint() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// What serves TLS with a certificate of its own, which is the first.
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
    report: &mpsc::Sender<()>,
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
                // A receiver that is gone waits for nothing.
                let _ = report.send(());
            }
            Ok((stream, _)) = accepted => {
                let (acceptor, store) = (acceptor.clone(), Arc::clone(store));
                connections.spawn(async move {
                    match acceptor {
                        None => converse(protocol, stream, store).await,
                        // Who does not trust it does not speak to it.
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                converse(protocol, stream, store).await;
                            }
                        }
                    }
                });
            }
        }
    }
}

async fn converse(protocol: Protocol, stream: impl AsyncRead + AsyncWrite + Unpin + Send, store: Arc<Store>) {
    let io = TokioIo::new(stream);
    // Connections end as they like.
    match protocol {
        Protocol::Grpc => {
            let service = TraceServiceServer::new(Service(store)).accept_compressed(CompressionEncoding::Gzip);
            let service = TowerToHyperService::new(service);
            let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
        }
        Protocol::Http => {
            let service = service_fn(move |request| answer(Arc::clone(&store), request));
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

async fn answer(store: Arc<Store>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
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
    /// Keeps the spans of a request; `None` if it is not in the mood.
    async fn take(
        &self,
        headers: &hyper::HeaderMap,
        request: impl FnOnce() -> ExportTraceServiceRequest,
    ) -> Option<ExportTraceServiceResponse> {
        let text = |value: &hyper::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        self.headers.lock().unwrap().push(headers);
        let mood = *self.mood.lock().unwrap();
        sleep(mood.slow).await;
        if mood.refuses {
            return None;
        }
        let mut spans = flat(request());
        spans.truncate(spans.len().saturating_sub(usize::try_from(mood.rejects).unwrap()));
        self.spans.lock().unwrap().extend(spans);
        let rejected = (mood.rejects > 0)
            .then(|| ExportTracePartialSuccess { rejected_spans: mood.rejects, error_message: "too many".to_owned() });
        Some(ExportTraceServiceResponse { partial_success: rejected })
    }
}

fn link(link: opentelemetry_proto::tonic::trace::v1::span::Link) -> Link {
    Link { trace_id: hex(&link.trace_id), span_id: hex(&link.span_id), attributes: attributes(link.attributes) }
}

fn flat(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut flat = Vec::new();
    for resource_spans in request.resource_spans {
        let resource = attributes(resource_spans.resource.unwrap_or_default().attributes);
        for scope_spans in resource_spans.scope_spans {
            let scope = scope_spans.scope.unwrap_or_default().name;
            flat.extend(scope_spans.spans.into_iter().map(|span| {
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
    flat
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

//! The server of the collector, for gRPC and HTTP.

use std::convert::Infallible;
use std::future::pending;
use std::io::Read;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::{Service as _, service_fn};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tonic::codec::CompressionEncoding;

use super::span::{Attributes, Span, flatten};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

/// How requests are answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Behavior {
    pub(super) delay: Duration,
    pub(super) unavailable: bool,
    pub(super) rejected_spans: i64,
}

/// The received spans and headers.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) behavior: Mutex<Behavior>,
    pub(super) spans: Mutex<Vec<Span>>,
    pub(super) headers: Mutex<Vec<Attributes>>,
    pub(super) metrics: Mutex<Vec<ExportMetricsServiceRequest>>,
}

/// Returns a self-signed certificate as PEM, and a TLS acceptor that uses it.
pub(super) fn acceptor(protocol: Protocol) -> (String, TlsAcceptor) {
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

/// Serves requests until `open` is dropped. Closes or opens the listener when `open` changes, and reports each change.
pub(super) async fn serve(
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
    // Errors of a connection concern its client only.
    match protocol {
        Protocol::Grpc => {
            let traces =
                TraceServiceServer::new(Service(Arc::clone(&store))).accept_compressed(CompressionEncoding::Gzip);
            let metrics = MetricsServiceServer::new(Service(store)).accept_compressed(CompressionEncoding::Gzip);
            let (traces, metrics) = (TowerToHyperService::new(traces), TowerToHyperService::new(metrics));
            let service = service_fn(move |request: Request<Incoming>| {
                let (traces, metrics) = (traces.clone(), metrics.clone());
                async move {
                    let of_metrics = request.uri().path().contains(".metrics.");
                    if of_metrics { metrics.call(request).await } else { traces.call(request).await }
                }
            });
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

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let headers = request.metadata().clone().into_headers();
        match self.0.take_metrics(&headers, || request.into_inner()).await {
            Some(response) => Ok(tonic::Response::new(response)),
            None => Err(tonic::Status::unavailable("not now")),
        }
    }
}

async fn handle_http(store: Arc<Store>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Full::default());
    let of_metrics = head.uri.path() == "/v1/metrics";
    if !(of_metrics || head.uri.path() == "/v1/traces") || head.headers["content-type"] != "application/x-protobuf" {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let mut body = body.collect().await.unwrap().to_bytes().to_vec();
    if head.headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
        body = plain;
    }
    let taken = if of_metrics {
        let request = || ExportMetricsServiceRequest::decode(&*body).unwrap();
        store.take_metrics(&head.headers, request).await.map(|response| response.encode_to_vec())
    } else {
        let request = || ExportTraceServiceRequest::decode(&*body).unwrap();
        store.take(&head.headers, request).await.map(|response| response.encode_to_vec())
    };
    match taken {
        Some(taken) => *response.body_mut() = Full::new(taken.into()),
        None => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
    }
    Ok(response)
}

impl Store {
    /// Keeps the metrics of a request. Returns `None` if requests are refused.
    async fn take_metrics(
        &self,
        headers: &hyper::HeaderMap,
        request: impl FnOnce() -> ExportMetricsServiceRequest,
    ) -> Option<ExportMetricsServiceResponse> {
        self.admit(headers).await?;
        self.metrics.lock().unwrap().push(request());
        Some(ExportMetricsServiceResponse::default())
    }

    /// Keeps the headers of a request, and returns how it is answered; `None` if it is refused.
    async fn admit(&self, headers: &hyper::HeaderMap) -> Option<Behavior> {
        let text = |value: &hyper::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        self.headers.lock().unwrap().push(headers);
        let behavior = *self.behavior.lock().unwrap();
        sleep(behavior.delay).await;
        (!behavior.unavailable).then_some(behavior)
    }

    /// Keeps the spans of a request. Returns `None` if requests are refused.
    async fn take(
        &self,
        headers: &hyper::HeaderMap,
        request: impl FnOnce() -> ExportTraceServiceRequest,
    ) -> Option<ExportTraceServiceResponse> {
        let behavior = self.admit(headers).await?;
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

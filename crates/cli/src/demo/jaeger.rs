//! The Jaeger UI with the demo's latest traces.
//!
//! `otlp-embedded` stores the traces and serves the UI. It generates its own types from the OTLP definitions, so spans are
//! passed to it in their encoded form.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use otlp_embedded::{Config, State, StateRef, TraceService, TraceServiceImpl, ui_app};
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::error::DemoError;

/// The bounds of the store. Beyond them, the oldest traces are dropped.
const MAX_TRACES: u32 = 2000;
const MAX_BYTES: usize = 64 << 20;

/// How many connections are served at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may take to send the header of a request.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The UI with its store of traces. Clones share the store.
#[derive(Clone)]
pub(super) struct JaegerUi {
    traces: StateRef,
    /// The resource of the spans.
    resource: Resource,
}

impl JaegerUi {
    /// Creates a UI without traces.
    pub(super) fn new() -> Self {
        let config = Config { max_length: MAX_TRACES, max_memory_usage: MAX_BYTES };
        Self { traces: State::new(config), resource: Resource::builder_empty().build() }
    }

    /// Serves the UI in `tasks`. Returns its address.
    pub(super) async fn serve(&self, address: &str, tasks: &mut JoinSet<()>) -> Result<SocketAddr, DemoError> {
        let failed = |source| DemoError::JaegerUi { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let app = ui_app(self.traces.clone(), "/");
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Some(_) = connections.join_next() => {}
                    accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                        Ok((stream, _)) => {
                            let service = TowerToHyperService::new(app.clone());
                            let connection = http1::Builder::new()
                                .timer(TokioTimer::new())
                                .header_read_timeout(HEADER_READ_TIMEOUT)
                                .serve_connection(TokioIo::new(stream), service);
                            // Errors of a connection concern its client only.
                            connections.spawn(async { drop(connection.await) });
                        }
                        Err(error) => {
                            tracing::debug!(%error, "the Jaeger UI could not accept a connection");
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                    },
                }
            }
        });
        Ok(local)
    }
}

impl SpanExporter for JaegerUi {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        let failure = |error: String| OTelSdkError::InternalFailure(error);
        batch.iter_mut().for_each(tag);
        let resource_spans = group_spans_by_resource_and_scope(batch, &(&self.resource).into());
        let request = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let request = Message::decode(&*request).map_err(|error| failure(error.to_string()))?;
        let exported = TraceServiceImpl::new(self.traces.clone()).export(tonic::Request::new(request)).await;
        exported.map(drop).map_err(|status| failure(status.to_string()))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.clone();
    }
}

impl fmt::Debug for JaegerUi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JaegerUi").finish_non_exhaustive()
    }
}

/// Adds the kind and status as attributes, because the UI shows them only as tags.
fn tag(span: &mut SpanData) {
    let kind = match span.span_kind {
        SpanKind::Client => "client",
        SpanKind::Server => "server",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
        SpanKind::Internal => "internal",
    };
    span.attributes.push(KeyValue::new("span.kind", kind));
    match &span.status {
        Status::Unset => {}
        Status::Ok => span.attributes.push(KeyValue::new("otel.status_code", "OK")),
        Status::Error { description } => {
            let description = KeyValue::new("otel.status_description", description.to_string());
            span.attributes.extend([
                KeyValue::new("error", true),
                KeyValue::new("otel.status_code", "ERROR"),
                description,
            ]);
        }
    }
}

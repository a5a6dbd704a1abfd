//! Jaeger's own page, with the demo's latest traces.
//!
//! `otlp-embedded` has the page and keeps the traces. Its types are its own, made from OTLP's definitions; what is
//! handed over is therefore written and read as it would be on a wire.

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

/// What is kept: the latest traces, as many as fit.
const MOST_TRACES: u32 = 2000;
const MOST_BYTES: usize = 64 << 20;

/// How many connections are served at once, and how long one may take to ask for something.
const MOST_CONNECTIONS: usize = 64;
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// The traces that the page shows. Clones are handles to the same.
#[derive(Clone)]
pub(super) struct Page {
    traces: StateRef,
    /// The resource of the spans.
    resource: Resource,
}

impl Page {
    pub(super) fn new() -> Self {
        let config = Config { max_length: MOST_TRACES, max_memory_usage: MOST_BYTES };
        Self { traces: State::new(config), resource: Resource::builder_empty().build() }
    }

    /// Serves the page in `tasks`, and says where.
    pub(super) async fn serve(&self, address: &str, tasks: &mut JoinSet<()>) -> Result<SocketAddr, DemoError> {
        let page = |source| DemoError::Page { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(page)?;
        let local = listener.local_addr().map_err(page)?;
        let app = ui_app(self.traces.clone(), "/");
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Some(_) = connections.join_next() => {}
                    accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                        Ok((stream, _)) => {
                            let service = TowerToHyperService::new(app.clone());
                            let connection = http1::Builder::new()
                                .timer(TokioTimer::new())
                                .header_read_timeout(HEAD_WITHIN)
                                .serve_connection(TokioIo::new(stream), service);
                            // How a browser ends it is its affair.
                            connections.spawn(async { drop(connection.await) });
                        }
                        Err(error) => {
                            tracing::debug!(%error, "the page could not take a connection");
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                    },
                }
            }
        });
        Ok(local)
    }
}

impl SpanExporter for Page {
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

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

/// Says kind and status in tags, as Jaeger does: the page knows them from nowhere else.
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
            let said = KeyValue::new("otel.status_description", description.to_string());
            span.attributes.extend([KeyValue::new("error", true), KeyValue::new("otel.status_code", "ERROR"), said]);
        }
    }
}

//! Spans as a trace store shows them.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;

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

fn link(link: opentelemetry_proto::tonic::trace::v1::span::Link) -> Link {
    Link { trace_id: hex(&link.trace_id), span_id: hex(&link.span_id), attributes: attributes(link.attributes) }
}

/// Returns the spans of a request.
pub(super) fn flatten(request: ExportTraceServiceRequest) -> Vec<Span> {
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

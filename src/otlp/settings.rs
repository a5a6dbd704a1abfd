//! The settings of the export.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

/// The protocol of the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// gRPC over HTTP/2, usually on port 4317.
    Grpc,
    /// Protobuf over HTTP/1.1, usually on port 4318.
    HttpProtobuf,
}

impl Protocol {
    /// Returns its name, as in `OTEL_EXPORTER_OTLP_PROTOCOL`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        }
    }

    /// Returns the default endpoint of a collector on this machine.
    pub(super) fn local_endpoint(self, signal: Signal) -> String {
        match self {
            Self::Grpc => "http://localhost:4317".to_owned(),
            Self::HttpProtobuf => format!("http://localhost:4318{}", signal.path()),
        }
    }
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    /// Returns the beginning of the variables that concern this signal only.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Traces => "OTEL_EXPORTER_OTLP_TRACES",
            Self::Metrics => "OTEL_EXPORTER_OTLP_METRICS",
        }
    }

    /// Returns the variable that selects the exporter.
    pub(super) const fn exporter(self) -> &'static str {
        match self {
            Self::Traces => "OTEL_TRACES_EXPORTER",
            Self::Metrics => "OTEL_METRICS_EXPORTER",
        }
    }

    /// Returns the path that HTTP adds to a base URL.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "grpc" => Ok(Self::Grpc),
            "http/protobuf" => Ok(Self::HttpProtobuf),
            _ => Err(format!("invalid value \"{}\", expected grpc or http/protobuf", text.escape_debug())),
        }
    }
}

/// The sampling of traces.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sampling {
    /// The ratio of sampled traces, of those that begin in this process, from 0 to 1.
    pub ratio: f64,
    /// Whether traces that began elsewhere are sampled as decided there.
    pub parent_based: bool,
}

/// The settings of the export. Without an endpoint, nothing is exported.
///
/// ```
/// use poolscope::otlp::{Protocol, Settings};
///
/// let mut settings = Settings::new("shop");
/// settings.protocol = Protocol::Grpc;
/// settings.endpoint = Some("https://collector.example.com:4317".to_owned());
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The URL of the collector; for [`Protocol::HttpProtobuf`] with the path, usually `/v1/traces` or `/v1/metrics`.
    pub endpoint: Option<String>,
    /// The protocol.
    pub protocol: Protocol,
    /// Headers, or gRPC metadata, of each request. They may contain secrets, and are never shown.
    pub headers: Vec<(String, String)>,
    /// The time for a batch, including retries.
    pub timeout: Duration,
    /// Whether batches are compressed with gzip.
    pub gzip: bool,
    /// The authorities of an `https` endpoint's certificate, as PEM; `None` for those that the system trusts.
    pub certificate: Option<Vec<u8>>,
    /// The client certificate and its key, as PEM. The key is never shown.
    pub client_certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// The name of the service.
    pub service_name: String,
    /// Further attributes of the resource.
    pub resource: Vec<(String, String)>,
    /// The sampling of traces.
    pub sampling: Sampling,
    /// The number of spans that can wait. Further ones are dropped.
    pub queue_size: usize,
    /// The largest number of spans in a batch.
    pub batch_size: usize,
    /// The longest time a span waits for a batch to fill; the interval between two exports of metrics.
    pub delay: Duration,
    /// Whether tracing is disabled.
    pub disabled: bool,
}

impl Settings {
    /// Creates settings with the defaults of OpenTelemetry's specification, and without an endpoint.
    pub fn new(service_name: impl Into<String>) -> Self {
        Self {
            endpoint: None,
            protocol: Protocol::HttpProtobuf,
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            gzip: false,
            certificate: None,
            client_certificate: None,
            service_name: service_name.into(),
            resource: Vec::new(),
            sampling: Sampling { ratio: 1.0, parent_based: true },
            queue_size: 2048,
            batch_size: 512,
            delay: Duration::from_secs(5),
            disabled: false,
        }
    }

    /// Returns the resource of all spans: the service's name, its attributes, and those of the SDK.
    pub(super) fn sdk_resource(&self) -> Resource {
        let attributes = self.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        Resource::builder().with_attributes(attributes).with_service_name(self.service_name.clone()).build()
    }

    /// Returns scheme, host and port of the endpoint, which are no secrets.
    #[must_use]
    pub fn destination(&self) -> Option<String> {
        let uri: http::Uri = self.endpoint.as_deref()?.parse().ok()?;
        let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{}://{}{port}", uri.scheme_str()?, uri.host()?))
    }
}

impl fmt::Debug for Settings {
    /// Omits the values of headers and the path of the endpoint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Settings")
            .field("endpoint", &self.destination())
            .field("protocol", &self.protocol)
            .field("headers", &headers)
            .field("timeout", &self.timeout)
            .field("gzip", &self.gzip)
            .field("certificate", &self.certificate.is_some())
            .field("client_certificate", &self.client_certificate.is_some())
            .field("service_name", &self.service_name)
            .field("resource", &self.resource)
            .field("sampling", &self.sampling)
            .field("queue_size", &self.queue_size)
            .field("batch_size", &self.batch_size)
            .field("delay", &self.delay)
            .field("disabled", &self.disabled)
            .finish()
    }
}

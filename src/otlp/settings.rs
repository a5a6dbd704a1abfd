//! What is sent where, and how.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

use super::{OtlpError, env};

/// How spans travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// gRPC over HTTP/2; the collector's port is usually 4317.
    Grpc,
    /// Protobuf over HTTP/1.1; the collector's port is usually 4318.
    HttpProtobuf,
}

impl Protocol {
    /// Its name, as in `OTEL_EXPORTER_OTLP_PROTOCOL`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        }
    }

    /// Where a collector on this machine listens.
    const fn local(self) -> &'static str {
        match self {
            Self::Grpc => "http://localhost:4317",
            Self::HttpProtobuf => "http://localhost:4318/v1/traces",
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "grpc" => Ok(Self::Grpc),
            "http/protobuf" => Ok(Self::HttpProtobuf),
            _ => Err(format!("\"{}\" cannot be: give grpc or http/protobuf", text.escape_debug())),
        }
    }
}

/// Which traces are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sampling {
    /// The share of the traces that begin here, from 0 to 1.
    pub ratio: f64,
    /// Whether a trace that began elsewhere is kept as it was decided there.
    pub parent_based: bool,
}

/// What is sent where, and how. Nothing is sent anywhere without an endpoint.
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The URL to send to, in full: for [`Protocol::HttpProtobuf`] with its path, `/v1/traces` as a rule.
    pub endpoint: Option<String>,
    /// How.
    pub protocol: Protocol,
    /// Headers, or gRPC metadata, of each request. They may hold secrets, and are never shown.
    pub headers: Vec<(String, String)>,
    /// How long a batch may take, retries included.
    pub timeout: Duration,
    /// Whether batches are compressed, with gzip.
    pub gzip: bool,
    /// Authorities that an `https` endpoint's certificate may be of, as PEM; `None` for those that the system trusts.
    pub certificate: Option<Vec<u8>>,
    /// The certificate to show to the collector and its key, as PEM. The key is never shown.
    pub client_certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// The service's name.
    pub service_name: String,
    /// Further attributes of the resource.
    pub resource: Vec<(String, String)>,
    /// Which traces are kept.
    pub sampling: Sampling,
    /// How many spans may wait. A further one is dropped.
    pub queue_size: usize,
    /// How many spans are sent at once, at most.
    pub batch_size: usize,
    /// How long a span waits for others before it is sent, at most.
    pub delay: Duration,
    /// Whether nothing is traced at all.
    pub disabled: bool,
}

impl Settings {
    /// The defaults of OpenTelemetry's specification, and no endpoint.
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

    /// The defaults, and what the process's environment says: see [the module](super). `service_name` is what counts
    /// if the environment has none.
    ///
    /// # Errors
    ///
    /// When a variable has a value that cannot be; the message says which, and what would do.
    pub fn from_env(service_name: impl Into<String>) -> Result<Self, OtlpError> {
        Self::from_env_and(service_name, None, None)
    }

    /// The same, with what wins over the environment: a base URL and a protocol.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env), and when the URL cannot be; the message calls it `--otlp.endpoint`.
    pub fn from_env_and(
        service_name: impl Into<String>,
        endpoint: Option<&str>,
        protocol: Option<Protocol>,
    ) -> Result<Self, OtlpError> {
        env::read(Self::new(service_name), endpoint, protocol, |name| std::env::var_os(name))
    }

    /// Sends to a collector on this machine, at the port of the protocol.
    pub(super) fn send_to_this_machine(&mut self) {
        self.endpoint = Some(self.protocol.local().to_owned());
    }

    /// What all spans come from: the service's name, its attributes, and what the SDK says of itself.
    pub fn as_resource(&self) -> Resource {
        let attributes = self.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        Resource::builder().with_attributes(attributes).with_service_name(self.service_name.clone()).build()
    }

    /// Where to, without anything that may be a secret: scheme, host and port.
    #[must_use]
    pub fn destination(&self) -> Option<String> {
        let uri: http::Uri = self.endpoint.as_deref()?.parse().ok()?;
        let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{}://{}{port}", uri.scheme_str()?, uri.host()?))
    }
}

impl fmt::Debug for Settings {
    /// Leaves out the values of headers and the endpoint's path.
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

//! The way to a collector: gRPC or HTTP, with TLS where the endpoint is `https`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{Compression, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use rustls::{ClientConfig, RootCertStore};
use tonic::metadata::MetadataMap;
use tonic::transport::ClientTlsConfig;

use super::refusals;
use super::settings::{Protocol, Settings};
use super::worker::Deliver;

/// A collector, by OTLP.
#[derive(Debug)]
pub(super) struct Collector {
    exporter: SpanExporter,
}

impl Collector {
    /// Connects to nothing yet. What it does later, it does in the runtime that this is called in.
    pub(super) fn new(settings: &Settings, endpoint: &str, resource: &Resource) -> Result<Self, String> {
        let built = match settings.protocol {
            Protocol::Grpc => {
                let mut builder = SpanExporter::builder()
                    .with_tonic()
                    .with_endpoint(endpoint)
                    .with_timeout(settings.timeout)
                    .with_metadata(MetadataMap::from_headers(headers(settings)));
                if endpoint.starts_with("https:") {
                    builder = builder.with_tls_config(ClientTlsConfig::new().with_native_roots());
                }
                if settings.gzip {
                    builder = builder.with_compression(Compression::Gzip);
                }
                builder.build()
            }
            Protocol::HttpProtobuf => {
                let client = client(endpoint, settings.timeout)?;
                let headers = settings.headers.iter().cloned().collect();
                let mut builder = SpanExporter::builder()
                    .with_http()
                    .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                    .with_http_client(client)
                    .with_endpoint(endpoint)
                    .with_timeout(settings.timeout)
                    .with_headers(headers);
                if settings.gzip {
                    builder = builder.with_compression(Compression::Gzip);
                }
                builder.build()
            }
        };
        // What the builder says may quote the endpoint.
        let mut exporter = built.map_err(|_| "the exporter cannot be made for this endpoint".to_owned())?;
        exporter.set_resource(resource);
        Ok(Self { exporter })
    }
}

impl Deliver for Collector {
    async fn send(&mut self, batch: Vec<SpanData>) -> Result<u64, String> {
        refusals::forget();
        match self.exporter.export(batch).await {
            Ok(()) => Ok(refusals::told()),
            Err(OTelSdkError::InternalFailure(reason)) => Err(reason),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn headers(settings: &Settings) -> HeaderMap {
    let parsed = settings
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?)));
    parsed
        .map(|(name, mut value)| {
            value.set_sensitive(true);
            (name, value)
        })
        .collect()
}

type Connector = hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>;

fn client(endpoint: &str, timeout: Duration) -> Result<HyperClient<Connector>, String> {
    let mut roots = RootCertStore::empty();
    if endpoint.starts_with("https:") {
        let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            return Err("the system has no certificates of authorities that TLS could trust".to_owned());
        }
    }
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
    Ok(HyperClient::new(connector, timeout, None))
}

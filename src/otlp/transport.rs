//! The way to a collector: gRPC or HTTP, with TLS where the endpoint is `https`.

use std::error::Error;

use http::{HeaderMap, HeaderName, HeaderValue};
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{Compression, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

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
                    builder = builder.with_tls_config(grpc_tls(settings));
                }
                if settings.gzip {
                    builder = builder.with_compression(Compression::Gzip);
                }
                builder.build()
            }
            Protocol::HttpProtobuf => {
                let client = client(settings, endpoint)?;
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
        let mut exporter =
            built.map_err(|_| "the exporter cannot be made for this endpoint and these certificates".to_owned())?;
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

fn client(settings: &Settings, endpoint: &str) -> Result<HyperClient<Connector>, String> {
    let config = http_tls(settings, endpoint.starts_with("https:")).map_err(|error| error.to_string())?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
    Ok(HyperClient::new(connector, settings.timeout, None))
}

fn grpc_tls(settings: &Settings) -> ClientTlsConfig {
    let config = match &settings.certificate {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    match &settings.client_certificate {
        Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
        None => config,
    }
}

fn http_tls(settings: &Settings, is_used: bool) -> Result<ClientConfig, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    match &settings.certificate {
        _ if !is_used => {}
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate?)?;
            }
        }
        None => {
            let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if added == 0 {
                return Err("the system has no certificates of authorities that TLS could trust".into());
            }
        }
    }
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match &settings.client_certificate {
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>()?;
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?
        }
        None => config.with_no_client_auth(),
    })
}

//! Creates OTLP exporters: gRPC or HTTP, with TLS if the endpoint is `https`.

use std::error::Error;

use http::{HeaderMap, HeaderName, HeaderValue};
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{Compression, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::settings::{Protocol, Settings};

/// Creates an exporter, which is not connected yet. It runs in the runtime that this is called in.
///
/// # Errors
///
/// Returns an error without any setting, which may be a secret.
pub(super) fn exporter(settings: &Settings, endpoint: &str) -> Result<SpanExporter, String> {
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
            let client = http_client(settings, endpoint)?;
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
    // The builder's error may contain the endpoint.
    built.map_err(|_| "the endpoint and the certificates do not make a valid exporter".to_owned())
}

pub(super) fn headers(settings: &Settings) -> HeaderMap {
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

pub(super) type Connector = hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>;

pub(super) fn http_client(settings: &Settings, endpoint: &str) -> Result<HyperClient<Connector>, String> {
    let config = http_tls(settings, endpoint.starts_with("https:")).map_err(|error| error.to_string())?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
    Ok(HyperClient::new(connector, settings.timeout, None))
}

pub(super) fn grpc_tls(settings: &Settings) -> ClientTlsConfig {
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
                return Err("the system has no certificates of trusted authorities".into());
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

//! Sends requests over gRPC or HTTP.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Request};
use opentelemetry_http::HttpClient as _;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use prost::Message as _;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};

use super::super::settings::{Protocol, Settings};
use super::super::transport::{self, Connector};

/// Sends requests to one endpoint.
pub(super) enum Sender {
    Grpc { client: MetricsServiceClient<Channel>, headers: HeaderMap },
    Http { client: Box<HyperClient<Connector>>, endpoint: String, headers: HeaderMap, gzip: bool },
}

impl Sender {
    /// Creates a sender, which is not connected yet. It runs in the runtime that this is called in.
    ///
    /// # Errors
    ///
    /// Returns an error without any setting, which may be a secret.
    pub(super) fn new(settings: &Settings, endpoint: &str) -> Result<Self, String> {
        const INVALID: &str = "the endpoint and the certificates do not make a valid exporter";
        let headers = transport::headers(settings);
        match settings.protocol {
            Protocol::Grpc => {
                let mut channel = Endpoint::from_shared(endpoint.to_owned()).map_err(|_| INVALID)?;
                channel = channel.connect_timeout(settings.timeout);
                if endpoint.starts_with("https:") {
                    channel = channel.tls_config(transport::grpc_tls(settings)).map_err(|_| INVALID)?;
                }
                let mut client = MetricsServiceClient::new(channel.connect_lazy());
                if settings.gzip {
                    client = client.send_compressed(CompressionEncoding::Gzip);
                }
                Ok(Self::Grpc { client, headers })
            }
            Protocol::HttpProtobuf => {
                let client = Box::new(transport::http_client(settings, endpoint)?);
                Ok(Self::Http { client, endpoint: endpoint.to_owned(), headers, gzip: settings.gzip })
            }
        }
    }

    /// Sends a request. Returns what the collector rejected, if it did.
    ///
    /// # Errors
    ///
    /// Returns a description of the failure.
    pub(super) async fn send(&mut self, metrics: ExportMetricsServiceRequest) -> Result<Option<String>, String> {
        let response = match self {
            Self::Grpc { client, headers } => {
                let mut request = tonic::Request::new(metrics);
                *request.metadata_mut() = MetadataMap::from_headers(headers.clone());
                let response = client.export(request).await;
                response.map_err(|status| format!("{}: {}", status.code(), status.message()))?.into_inner()
            }
            Self::Http { client, endpoint, headers, gzip } => {
                let mut body = metrics.encode_to_vec();
                let mut request = Request::post(&*endpoint).header(CONTENT_TYPE, "application/x-protobuf");
                if *gzip {
                    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                    encoder.write_all(&body).map_err(|error| error.to_string())?;
                    body = encoder.finish().map_err(|error| error.to_string())?;
                    request = request.header(CONTENT_ENCODING, "gzip");
                }
                let mut request = request.body(body.into()).map_err(|_| "the endpoint is invalid")?;
                request.headers_mut().extend(headers.clone());
                let response = client.send_bytes(request).await.map_err(|error| error.to_string())?;
                if !response.status().is_success() {
                    return Err(format!("HTTP status {}", response.status()));
                }
                // Prometheus answers without a body, which is an empty message.
                ExportMetricsServiceResponse::decode(&**response.body()).unwrap_or_default()
            }
        };
        let partial = response.partial_success.filter(|partial| partial.rejected_data_points > 0);
        Ok(partial
            .map(|partial| format!("{} points were rejected: {}", partial.rejected_data_points, partial.error_message)))
    }
}

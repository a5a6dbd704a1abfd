//! Creates the configuration of a TLS server from certificate files.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{Error, ServerConfig};

use super::config::{PemFile, read_certificates, read_key};
use crate::config::ConfigError;
use crate::files::Files;
use crate::text::Printable;

const CERTIFICATE: PemFile = PemFile {
    name: "tls_certificate",
    remedy: "give a PEM file with the certificate that clients verify, followed by those of intermediate authorities",
};
const KEY: PemFile =
    PemFile { name: "tls_key", remedy: "give a PEM file with the private key of the certificate in tls_certificate" };

/// Creates the configuration, and reads its files.
pub(crate) fn server_config(certificate: &Path, key: &Path, files: &mut Files) -> Result<ServerConfig, ConfigError> {
    let chain = read_certificates(CERTIFICATE, certificate, files)?;
    let private_key = read_key(KEY, key, files)?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private_key))
        .map_err(|error| match error {
            Error::InconsistentKeys(_) => KEY.error(
                key,
                format!("is not the key of tls_certificate `{}`", Printable(certificate.display())),
                None,
            ),
            // rustls's error contains nothing of the key.
            error => KEY.error(key, format!("is not usable ({error})"), None),
        })
}

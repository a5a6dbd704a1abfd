//! TLS to the server, with rustls.
//!
//! The cryptography is always ring's, chosen here: the process-wide default belongs to the application, and may not be
//! set.

mod rewrap;

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslNegotiation;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use self::rewrap::RewrapTls;
use super::error_source::find_source;
use super::socket::Socket;
use crate::config::{ConfigError, Roots, TlsMode, Verify};

/// The TLS configuration of a pool's connections.
pub(super) struct ClientTls(Option<MakeRustlsConnect>);

impl ClientTls {
    /// Creates the configuration for `mode`, and reads its certificate files.
    pub(super) fn new(mode: &TlsMode, negotiation: SslNegotiation) -> Result<Self, ConfigError> {
        let (TlsMode::Prefer(verify) | TlsMode::Require(verify)) = mode else {
            return Ok(Self(None));
        };
        let mut config = client_config(verify)?;
        // Without PostgreSQL's own negotiation, the server requires ALPN.
        if negotiation == SslNegotiation::Direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(Self(Some(MakeRustlsConnect::new(config))))
    }

    /// Returns what connects TLS to the server of this name, below a wrapper of the socket; `None` for plaintext.
    pub(super) fn for_host(
        &self,
        hostname: &str,
    ) -> Option<RewrapTls<<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect>> {
        let mut tls = self.0.clone()?;
        let Ok(tls) = MakeTlsConnect::<Socket>::make_tls_connect(&mut tls, hostname);
        Some(RewrapTls(tls))
    }
}

fn client_config(verify: &Verify) -> Result<ClientConfig, ConfigError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(verify, &provider)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| certificates(format!("TLS could not be set up: {error}"), None))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

fn verifier(verify: &Verify, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, ConfigError> {
    let algorithms = provider.signature_verification_algorithms;
    Ok(match verify {
        Verify::Nothing => Arc::new(NoHostnameVerifier { roots: None, algorithms }),
        Verify::Chain(roots) => Arc::new(NoHostnameVerifier { roots: Some(load(roots)?), algorithms }),
        Verify::ChainAndName(roots) => {
            let roots = Arc::new(load(roots)?);
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
                .build()
                .map_err(|error| certificates(format!("the trusted certificates: {error}"), None))?
        }
    })
}

/// Returns the trusted authorities. An error if there are none.
fn load(roots: &Roots) -> Result<RootCertStore, ConfigError> {
    match roots {
        Roots::System => load_system(),
        Roots::File(path) => load_file(path),
    }
}

fn load_system() -> Result<RootCertStore, ConfigError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // Among a system's many certificates, webpki always rejects some.
    let (usable, _) = store.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(certificates(
            "the system has no certificate authorities to verify the server's certificate".to_owned(),
            None,
        ));
    }
    Ok(store)
}

fn load_file(path: &Path) -> Result<RootCertStore, ConfigError> {
    let problem = |what: &str| certificates(format!("sslrootcert `{}` {what}", path.display()), None);
    let pem = std::fs::read(path)
        .map_err(|error| certificates(format!("sslrootcert `{}` cannot be read", path.display()), Some(error)))?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| problem("is not well-formed PEM"))?;
        store.add(certificate).map_err(|_| problem("holds a certificate that cannot be read"))?;
    }
    if store.is_empty() {
        return Err(problem("holds no certificate"));
    }
    Ok(store)
}

fn certificates(problem: String, source: Option<std::io::Error>) -> ConfigError {
    ConfigError::Certificates {
        problem,
        remedy: "give a PEM file with the certificate of the server's authority as sslrootcert",
        source,
    }
}

/// Ignores the server's name. With `roots` it verifies the certificate's chain, without them nothing of the
/// certificate.
///
/// In both cases it verifies the handshake's signature: the server must hold the certificate's key.
#[derive(Debug)]
struct NoHostnameVerifier {
    roots: Option<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for NoHostnameVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, self.algorithms.all)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Returns what is wrong with the TLS of a connection that failed with `error`; `None` if rustls reported nothing.
pub(super) fn tls_problem(error: &tokio_postgres::Error, sslmode: &str) -> Option<String> {
    Some(match find_source::<Error>(error)? {
        Error::InvalidCertificate(reason) => {
            format!(
                "verification of the server's certificate failed (sslmode={sslmode}): {}",
                certificate_problem(reason)
            )
        }
        _ => format!("the TLS handshake failed (sslmode={sslmode})"),
    })
}

fn certificate_problem(reason: &CertificateError) -> String {
    use CertificateError as Reason;
    match reason {
        Reason::UnknownIssuer => "unknown issuer: give the certificate of its authority as sslrootcert".to_owned(),
        Reason::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            if presented.is_empty() {
                format!(
                    "it has no host name as subjectAltName, and its common name does not count: \
                     issue one for `{expected}`, or give sslmode=verify-ca"
                )
            } else {
                format!(
                    "it is for other names than `{expected}` ({}): connect by one of them, or give sslmode=verify-ca",
                    presented.iter().map(|name| bare_name(name)).collect::<Vec<_>>().join(", ")
                )
            }
        }
        Reason::NotValidForName => "it is for other names than the host's".to_owned(),
        Reason::Expired | Reason::ExpiredContext { .. } => "it has expired: renew it".to_owned(),
        Reason::BadSignature => "a signature does not match: the server does not hold the certificate's key, or the \
                                 authority in sslrootcert has the same name and another key"
            .to_owned(),
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => {
            "it is not valid yet: compare the clocks of client and server".to_owned()
        }
        // webpki's error, which rustls passes on without its type.
        Reason::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            "it is self-signed, as an authority's: issue one for the server with CA:FALSE".to_owned()
        }
        other => other.to_string(),
    }
}

/// Strips the type from a name as rustls presents it, such as `DnsName("db.example")`.
fn bare_name(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, inner)| inner.trim_end_matches(')'));
    inner.trim_matches('"')
}

#[cfg(test)]
mod connect_tests;
#[cfg(test)]
mod tests;

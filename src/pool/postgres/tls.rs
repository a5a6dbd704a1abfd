//! rustls as the database URL asks for it.
//!
//! The cryptography is always ring's, named here: a process-wide default is for the application to choose, and
//! there may be none.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::socket::Sock;
use crate::config::{ConfigError, Roots, TlsMode, Verify};
use crate::pool::wire::Above;

/// The connector for `mode`, or `None` for plaintext. Reads the certificate files, this once.
///
/// `direct`: TLS starts without PostgreSQL's own negotiation, and the server insists on being told what for.
pub(crate) fn connector(mode: &TlsMode, direct: bool) -> Result<Option<MakeRustlsConnect>, ConfigError> {
    let (TlsMode::Prefer(verify) | TlsMode::Require(verify)) = mode else {
        return Ok(None);
    };
    let mut config = client_config(verify)?;
    if direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(Some(MakeRustlsConnect::new(config)))
}

/// TLS for one connection to the server of this name, beneath whatever lies around the socket.
pub(super) fn above(
    tls: &MakeRustlsConnect,
    hostname: &str,
) -> Above<<MakeRustlsConnect as MakeTlsConnect<Sock>>::TlsConnect> {
    let Ok(tls) = MakeTlsConnect::<Sock>::make_tls_connect(&mut tls.clone(), hostname);
    Above(tls)
}

fn client_config(verify: &Verify) -> Result<ClientConfig, ConfigError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(verify, &provider)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| certificates(format!("TLS cannot be set up: {error}"), None))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

fn verifier(verify: &Verify, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, ConfigError> {
    let algorithms = provider.signature_verification_algorithms;
    Ok(match verify {
        Verify::Nothing => Arc::new(NamelessVerifier { roots: None, algorithms }),
        Verify::Chain(roots) => Arc::new(NamelessVerifier { roots: Some(load(roots)?), algorithms }),
        Verify::ChainAndName(roots) => {
            let roots = Arc::new(load(roots)?);
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
                .build()
                .map_err(|error| certificates(format!("the trusted certificates: {error}"), None))?
        }
    })
}

/// The trusted authorities: at least one.
fn load(roots: &Roots) -> Result<RootCertStore, ConfigError> {
    match roots {
        Roots::System => load_system(),
        Roots::File(path) => load_file(path),
    }
}

fn load_system() -> Result<RootCertStore, ConfigError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // Of a system's hundred certificates some are always too odd for webpki.
    let (usable, _) = store.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(certificates(
            "the system has no certificate authorities to verify the server with".to_owned(),
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
        remedy: "give a file with the PEM certificate of the server's authority as sslrootcert",
        source,
    }
}

/// Does not look at the server's name: verifies the chain where there are `roots`, else nothing of the certificate.
///
/// Either way the server must hold the certificate's key: the handshake's signature is verified.
#[derive(Debug)]
struct NamelessVerifier {
    roots: Option<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for NamelessVerifier {
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

#[cfg(test)]
#[path = "tls_tests.rs"]
pub(super) mod tests;

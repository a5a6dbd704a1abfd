//! Creates the configuration of a TLS client from certificate files.

use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, Error, RootCertStore};

use super::verifier::NoHostnameVerifier;
use crate::config::{ClientCertificate, ConfigError, Roots, Verify};
use crate::files::{Files, SecretKind};
use crate::text::Printable;

/// Creates the configuration, and reads its files.
pub(crate) fn client_config(
    verify: &Verify,
    certificate: Option<&ClientCertificate>,
    files: &mut Files,
) -> Result<ClientConfig, ConfigError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(verify, &provider, files)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| authorities(format!("TLS could not be set up: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(ClientCertificate { certificate, key, .. }) = certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let (chain, private_key) = (read_certificates(SSLCERT, certificate, files)?, read_key(SSLKEY, key, files)?);
    builder.with_client_auth_cert(chain, private_key).map_err(|error| match error {
        Error::InconsistentKeys(_) => {
            SSLKEY.error(key, format!("is not the key of sslcert `{}`", Printable(certificate.display())), None)
        }
        // rustls's error contains nothing of the key.
        error => SSLKEY.error(key, format!("is not usable ({error})"), None),
    })
}

fn verifier(
    verify: &Verify,
    provider: &Arc<CryptoProvider>,
    files: &mut Files,
) -> Result<Arc<dyn ServerCertVerifier>, ConfigError> {
    let algorithms = provider.signature_verification_algorithms;
    Ok(match verify {
        Verify::Nothing => Arc::new(NoHostnameVerifier { roots: None, algorithms }),
        Verify::Chain(roots) => Arc::new(NoHostnameVerifier { roots: Some(load(roots, files)?), algorithms }),
        Verify::ChainAndName(roots) => {
            let roots = Arc::new(load(roots, files)?);
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
                .build()
                .map_err(|error| authorities(format!("the trusted certificates: {error}")))?
        }
    })
}

/// Returns the trusted authorities. An error if there are none.
pub(crate) fn load(roots: &Roots, files: &mut Files) -> Result<RootCertStore, ConfigError> {
    match roots {
        Roots::System => load_system(files),
        Roots::File(path) => load_file(path, files),
    }
}

fn load_system(files: &mut Files) -> Result<RootCertStore, ConfigError> {
    // What `load_native_certs` reads, except on macOS and Windows, whose stores are not files.
    let locations = openssl_probe::probe();
    for path in locations.cert_file.into_iter().chain(locations.cert_dir) {
        files.watch(path);
    }
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // Among a system's many certificates, webpki always rejects some.
    let (usable, _) = store.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(authorities(
            "the system has no certificate authorities to verify the server's certificate".to_owned(),
        ));
    }
    Ok(store)
}

fn load_file(path: &Path, files: &mut Files) -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in read_certificates(SSLROOTCERT, path, files)?.into_iter().enumerate() {
        let nth = index + 1;
        let invalid =
            |_| SSLROOTCERT.error(path, format!("holds a certificate that cannot be read (number {nth})"), None);
        store.add(certificate).map_err(invalid)?;
    }
    Ok(store)
}

/// A parameter that names a PEM file.
#[derive(Clone, Copy)]
pub(super) struct PemFile {
    pub(super) name: &'static str,
    pub(super) remedy: &'static str,
}

const SSLROOTCERT: PemFile = PemFile {
    name: "sslrootcert",
    remedy: "give a PEM file with the certificate of the server's authority as sslrootcert",
};
const SSLCERT: PemFile =
    PemFile { name: "sslcert", remedy: "give a PEM file with the client's certificate as sslcert" };
const SSLKEY: PemFile =
    PemFile { name: "sslkey", remedy: "give a PEM file with the private key of the client's certificate as sslkey" };

impl PemFile {
    pub(super) fn error(self, path: &Path, problem: impl Into<String>, source: Option<io::Error>) -> ConfigError {
        let (setting, path, problem, remedy) = (self.name, path.to_owned(), problem.into(), self.remedy);
        ConfigError::File { setting, path, problem, remedy, source }
    }

    fn read(self, path: &Path, files: &mut Files) -> Result<Vec<u8>, ConfigError> {
        files.read(path).map_err(|error| self.error(path, "cannot be read", Some(error)))
    }
}

/// Returns the certificates in a file: at least one.
pub(super) fn read_certificates(
    parameter: PemFile,
    path: &Path,
    files: &mut Files,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let pem = parameter.read(path, files)?;
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let problem =
            |_| parameter.error(path, format!("is not well-formed PEM{}", line_of(&pem, certificates.len())), None);
        certificates.push(certificate.map_err(problem)?);
    }
    if certificates.is_empty() {
        return Err(parameter.error(path, "holds no certificate", None));
    }
    Ok(certificates)
}

/// Returns the line on which the certificate after the first `count` begins, for an error.
fn line_of(pem: &[u8], count: usize) -> Cow<'static, str> {
    let begins = |line: &[u8]| line.starts_with(b"-----BEGIN CERTIFICATE");
    let mut lines = pem.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| begins(line));
    lines.nth(count).map_or(Cow::Borrowed(""), |(index, _)| Cow::Owned(format!(" (line {})", index + 1)))
}

pub(super) fn read_key(
    parameter: PemFile,
    path: &Path,
    files: &mut Files,
) -> Result<PrivateKeyDer<'static>, ConfigError> {
    let unreadable = |error| parameter.error(path, "cannot be read", Some(error));
    let file = files.read_secrets(path, SecretKind::Key).map_err(unreadable)?;
    let pem = file.content;
    if file.is_exposed {
        return Err(ConfigError::File {
            setting: parameter.name,
            path: path.to_owned(),
            problem: "is readable by others than its owner".to_owned(),
            remedy: "set its permissions to 0600, or to 0640 if it belongs to root",
            source: None,
        });
    }
    let contains = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
    if contains(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || contains(b"Proc-Type: 4,ENCRYPTED") {
        return Err(ConfigError::File {
            setting: parameter.name,
            path: path.to_owned(),
            problem: "is encrypted, which is not supported".to_owned(),
            remedy: "decrypt it with `openssl pkey -in KEY -out NEW_KEY`, and restrict the new file to its owner",
            source: None,
        });
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| parameter.error(path, "holds no private key in PEM format", None))
}

fn authorities(problem: String) -> ConfigError {
    ConfigError::Certificates {
        problem,
        remedy: "give a PEM file with the certificate of the server's authority as sslrootcert",
        source: None,
    }
}

//! The flags of commands that query exporters, and what they name: passwords, certificates, keys.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use http::HeaderValue;
use poolscope::config::read_file;
use poolscope::exporter::DEFAULT_ADDRESS;
use poolscope::text::Printable;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

use super::Target;

/// The environment variable with the password.
const PASSWORD_VARIABLE: &str = "POOLSCOPE_WEB_PASSWORD";

/// How an exporter is queried.
#[derive(Debug, Args)]
pub(in crate::cli) struct ClientArgs {
    /// How long a request may take
    #[arg(long, value_name = "TIME", value_parser = crate::cli::duration::duration, default_value = "3s")]
    pub(super) timeout: Duration,

    /// The PEM file with the certificates to trust, instead of the system's
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,

    /// The PEM file with the client's certificate, for exporters that require one
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// The PEM file with its private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// The user name for basic authentication
    ///
    /// The password is the first line of --password-file, or the variable POOLSCOPE_WEB_PASSWORD. A password is sent over
    /// plain HTTP only to this machine.
    #[arg(long, value_name = "NAME", env = "POOLSCOPE_WEB_USER")]
    user: Option<String>,

    /// The file with the password
    #[arg(long, value_name = "FILE", requires = "user", env = "POOLSCOPE_WEB_PASSWORD_FILE")]
    password_file: Option<PathBuf>,

    /// The address that the exporter listens on
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS",
        env = "POOLSCOPE_WEB_LISTEN_ADDRESS",
        default_value = DEFAULT_ADDRESS
    )]
    pub(in crate::cli) listen_address: Target,
}

/// Why the client's own files or settings are unusable.
#[derive(Debug, Error)]
pub(in crate::cli) enum ClientError {
    /// A file cannot be read.
    #[error("cannot read {flag} {}", Printable(.path.display()))]
    File {
        flag: &'static str,
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// A PEM file has no valid certificate or key.
    #[error("{flag} {} is not a PEM file with what is expected: {problem}", Printable(.path.display()))]
    Pem { flag: &'static str, path: PathBuf, problem: String },
    /// A user without a password.
    #[error("--user is given without a password; give --password-file, or the variable {PASSWORD_VARIABLE}")]
    NoPassword,
    /// A certificate and its key do not match, or no certificate is trusted.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl ClientError {
    /// Returns the conversion of an error in the PEM file that a flag names.
    fn pem<E: fmt::Display>(flag: &'static str, path: &Path) -> impl Fn(E) -> Self {
        move |problem| Self::Pem { flag, path: path.to_owned(), problem: problem.to_string() }
    }
}

fn read(flag: &'static str, path: &Path) -> Result<String, ClientError> {
    read_file(path).map_err(|error| ClientError::File { flag, path: path.to_owned(), error })
}

fn password(args: &ClientArgs) -> Result<String, ClientError> {
    let text = match &args.password_file {
        Some(path) => read("--password-file", path)?,
        None => std::env::var(PASSWORD_VARIABLE).map_err(|_| ClientError::NoPassword)?,
    };
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let pem = read(flag, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(ClientError::pem(flag, path))?;
    if found.is_empty() { Err(ClientError::pem(flag, path)("it has no certificate")) } else { Ok(found) }
}

/// Returns the value of the header `Authorization`, if a user is given.
pub(super) fn authorization(args: &ClientArgs) -> Result<Option<HeaderValue>, ClientError> {
    let Some(user) = &args.user else { return Ok(None) };
    let credentials = BASE64_STANDARD.encode(format!("{user}:{}", password(args)?));
    // The alphabet of Base64 is valid in a header.
    let mut value = HeaderValue::try_from(format!("Basic {credentials}")).ok();
    if let Some(value) = &mut value {
        value.set_sensitive(true);
    }
    Ok(value)
}

/// Reads the certificates and the key that the arguments name. Without `is_tls` no certificate of the system is read.
pub(super) fn tls_config(args: &ClientArgs, is_tls: bool) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    match &args.cacert {
        _ if !is_tls => {}
        Some(path) => {
            for certificate in certificates("--cacert", path)? {
                roots.add(certificate).map_err(ClientError::pem("--cacert", path))?;
            }
        }
        None => {
            // Among a system's many certificates, some are always rejected.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let failed = |error: rustls::Error| ClientError::Tls(error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots);
    match (&args.cert, &args.key) {
        (Some(cert), Some(key)) if is_tls => {
            let pem = read("--key", key)?;
            let parsed = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(ClientError::pem("--key", key))?;
            builder.with_client_auth_cert(certificates("--cert", cert)?, parsed).map_err(failed)
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_client_are_bounded_text() {
        let directory = tempfile::tempdir().unwrap();
        let written = |name: &str, content: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let args = |password_file: PathBuf| ClientArgs {
            timeout: Duration::from_secs(1),
            cacert: None,
            cert: None,
            key: None,
            user: Some("alice".to_owned()),
            password_file: Some(password_file),
            listen_address: DEFAULT_ADDRESS.parse().unwrap(),
        };
        let problem = |error: ClientError| poolscope::text::ErrorChain(&error).to_string();
        assert_eq!(password(&args(written("password", b"sesame\nmore\n"))).unwrap(), "sesame");
        let latin = written("latin", b"s\xe9same\n");
        let expected = format!("cannot read --password-file {}: line 1 is not UTF-8", latin.display());
        assert_eq!(problem(password(&args(latin)).unwrap_err()), expected);
        let zero = || PathBuf::from("/dev/zero");
        let refused = |flag: &str| format!("cannot read {flag} /dev/zero: neither a regular file nor a FIFO");
        assert_eq!(problem(password(&args(zero())).unwrap_err()), refused("--password-file"));
        let cacert = ClientArgs { cacert: Some(zero()), ..args(zero()) };
        assert_eq!(problem(tls_config(&cacert, true).unwrap_err()), refused("--cacert"));
        let key = ClientArgs { cert: Some(zero()), key: Some(zero()), ..args(zero()) };
        assert_eq!(problem(tls_config(&key, true).unwrap_err()), refused("--key"));
        assert_eq!(problem(certificates("--cert", &zero()).unwrap_err()), refused("--cert"));
    }
}

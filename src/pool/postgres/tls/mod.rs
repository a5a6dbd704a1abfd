//! TLS to the server, with rustls.
//!
//! The cryptography is always ring's, chosen here: the process-wide default belongs to the application, and may not be
//! set.

mod config;
mod problem;
mod rewrap;
mod verifier;

use std::sync::Arc;
use std::time::SystemTime;

use rustls::{CertificateError, Error};
use tokio_postgres::config::SslNegotiation;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

pub(super) use self::problem::tls_problem;
use self::rewrap::RewrapTls;
use super::error::ConnectError;
use super::error_source::find_source;
use super::pool_name::PoolName;
use super::socket::Socket;
use crate::config::{ClientCertificate, ConfigError, DatabaseUrl, Roots, TlsMode, Verify};
use crate::files::{Files, Live, Source};
use crate::telemetry::log::{ReloadLimiter, event};
use crate::text::{ErrorChain, Printable};

/// The TLS configuration of a pool's connections, which follows its certificate files.
pub(super) struct ClientTls(Option<Arc<Live<CertificateFiles>>>);

impl ClientTls {
    /// Creates the configuration for `url`, and reads its certificate files. `pool` is the name for the log.
    pub(super) fn new(url: &DatabaseUrl, pool: &PoolName) -> Result<Self, ConfigError> {
        let (TlsMode::Prefer(verify) | TlsMode::Require(verify)) = url.tls() else { return Ok(Self(None)) };
        let source = CertificateFiles {
            verify: verify.clone(),
            certificate: url.client_certificate().cloned(),
            negotiation: url.config().get_ssl_negotiation(),
            pool: pool.clone(),
            limiter: ReloadLimiter::default(),
        };
        let mut files = Files::first();
        let loaded = source.load(&mut files)?;
        Ok(Self(Some(Arc::new(Live::new(source, loaded, files)))))
    }

    /// Returns the configuration for a connection, after a check of the certificate files; see [`Live::current`].
    pub(super) async fn current(&self) -> CurrentTls {
        let Some(live) = &self.0 else { return CurrentTls(None) };
        CurrentTls(Some((live.current().await, Arc::clone(live))))
    }
}

/// The TLS configuration of one connection attempt.
pub(super) struct CurrentTls(Option<(Arc<Loaded>, Arc<Live<CertificateFiles>>)>);

impl CurrentTls {
    /// Returns what connects TLS to the server of this name, below a wrapper of the socket; `None` for plaintext.
    pub(super) fn for_host(
        &self,
        hostname: &str,
    ) -> Option<RewrapTls<<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect>> {
        let mut tls = self.0.as_ref()?.0.connector.clone();
        let Ok(tls) = MakeTlsConnect::<Socket>::make_tls_connect(&mut tls, hostname);
        Some(RewrapTls(tls))
    }

    /// Adds to the error of a verification which files it used, and when they were read.
    pub(super) fn explain(&self, error: ConnectError) -> ConnectError {
        let ConnectError::Tls { address, problem, source } = error else { return error };
        let explanation = self.explanation(&source).map(|explanation| format!(" ({explanation})"));
        ConnectError::Tls { address, problem: problem + &explanation.unwrap_or_default(), source }
    }

    /// Returns `None` if no other files would help.
    fn explanation(&self, error: &tokio_postgres::Error) -> Option<String> {
        let (loaded, live) = self.0.as_ref()?;
        let files = live.source().name_of_files(find_source(error)?)?;
        let read_at = humantime::format_rfc3339_seconds(loaded.read_at);
        Some(match live.error() {
            None => format!("{files} read at {read_at}"),
            Some(error) => format!("{files} read at {read_at}; not usable since: {}", Printable(error)),
        })
    }
}

/// What is read for TLS.
pub(super) struct CertificateFiles {
    verify: Verify,
    certificate: Option<ClientCertificate>,
    negotiation: SslNegotiation,
    pool: PoolName,
    limiter: ReloadLimiter,
}

/// A configuration of TLS.
pub(super) struct Loaded {
    connector: MakeRustlsConnect,
    read_at: SystemTime,
}

impl CertificateFiles {
    fn load(&self, files: &mut Files) -> Result<Loaded, ConfigError> {
        let read_at = SystemTime::now();
        let mut config = config::client_config(&self.verify, self.certificate.as_ref(), files)?;
        // Without PostgreSQL's own negotiation, the server requires ALPN.
        if self.negotiation == SslNegotiation::Direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(Loaded { connector: MakeRustlsConnect::new(config), read_at })
    }

    /// Returns the name of the files that were used for what failed with `error`.
    fn name_of_files(&self, error: &Error) -> Option<String> {
        match (error, &self.verify, &self.certificate) {
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature),
                Verify::Chain(roots) | Verify::ChainAndName(roots),
                _,
            ) => Some(match roots {
                Roots::System => "the system's authorities were".to_owned(),
                Roots::File(path) => format!("`{}` was", Printable(path.display())),
            }),
            (Error::AlertReceived(alert), _, Some(ClientCertificate { certificate, .. }))
                if problem::rejects_client(*alert) =>
            {
                Some(format!("`{}` was", Printable(certificate.display())))
            }
            _ => None,
        }
    }
}

impl Source for CertificateFiles {
    type Value = Loaded;

    fn reread(&self, _: &Loaded, files: &mut Files) -> Result<Loaded, String> {
        self.load(files).map_err(|error| ErrorChain(&error).to_string())
    }

    fn log(&self, result: Result<(), &str>) {
        let Some(suppressed) = self.limiter.pass(result) else { return };
        let pool = self.pool.as_str();
        match result {
            Ok(()) => event!(info, pool, suppressed, "reloaded the certificates for TLS"),
            Err(error) => event!(
                error,
                pool,
                error,
                suppressed,
                "the certificate files have changed and cannot be used; new connections use the previous ones"
            ),
        }
    }
}

#[cfg(test)]
mod connect_tests;
#[cfg(test)]
mod tests;

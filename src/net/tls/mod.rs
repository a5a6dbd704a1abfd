//! TLS to the server, with rustls.
//!
//! The cryptography is always ring's, chosen here: the process-wide default belongs to the application, and may not be
//! set.

mod config;
mod problem;
mod reload_log;
#[cfg(feature = "proxy")]
mod server;
mod verifier;

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{CertificateError, ClientConfig, Error};

use self::config::client_config;
pub(crate) use self::problem::tls_problem;
#[cfg(feature = "proxy")]
pub(crate) use self::reload_log::ReloadLog;
#[cfg(not(feature = "proxy"))]
use self::reload_log::ReloadLog;
#[cfg(feature = "proxy")]
pub(crate) use self::server::server_config;
use super::error_source::find_source;
use super::pool_name::PoolName;
use crate::config::{ClientCertificate, ConfigError, Roots, TlsMode, Verify};
use crate::files::{Files, Live, Source};
use crate::text::{ErrorChain, Printable};

/// The TLS configuration of connections to a server, which follows its certificate files.
pub(crate) struct ClientTls(Option<Arc<Live<CertificateFiles>>>);

impl ClientTls {
    /// Creates the configuration for `mode` and a client's certificate, and reads its files. `protocol` is the one to
    /// negotiate by ALPN, and `pool` the name for the log.
    pub(crate) fn new(
        mode: &TlsMode,
        certificate: Option<&ClientCertificate>,
        protocol: Option<&'static [u8]>,
        pool: &PoolName,
    ) -> Result<Self, ConfigError> {
        Self::with_log(mode, certificate, protocol, ReloadLog::of_pool(pool))
    }

    /// The same for a proxy's connections.
    #[cfg(feature = "proxy")]
    pub(crate) fn of_proxy(
        mode: &TlsMode,
        certificate: Option<&ClientCertificate>,
        protocol: Option<&'static [u8]>,
    ) -> Result<Self, ConfigError> {
        Self::with_log(mode, certificate, protocol, ReloadLog::of_proxy("to the server"))
    }

    fn with_log(
        mode: &TlsMode,
        certificate: Option<&ClientCertificate>,
        protocol: Option<&'static [u8]>,
        log: ReloadLog,
    ) -> Result<Self, ConfigError> {
        let (TlsMode::Prefer(verify) | TlsMode::Require(verify)) = mode else { return Ok(Self(None)) };
        let source = CertificateFiles { verify: verify.clone(), certificate: certificate.cloned(), protocol, log };
        let mut files = Files::first();
        let loaded = source.load(&mut files)?;
        Ok(Self(Some(Arc::new(Live::new(source, loaded, files)))))
    }

    /// Returns the configuration for a connection, after a check of the certificate files; see [`Live::current`].
    pub(crate) async fn current(&self) -> CurrentTls {
        let Some(live) = &self.0 else { return CurrentTls(None) };
        CurrentTls(Some((live.current().await, Arc::clone(live))))
    }
}

/// The TLS configuration of one connection attempt.
pub(crate) struct CurrentTls(Option<(Arc<Loaded>, Arc<Live<CertificateFiles>>)>);

impl CurrentTls {
    /// Returns the configuration; `None` for plaintext.
    pub(crate) fn config(&self) -> Option<&Arc<ClientConfig>> {
        Some(&self.0.as_ref()?.0.config)
    }

    /// Returns which files a verification that failed with `error` used, and when they were read; `None` if no other files
    /// would help.
    pub(crate) fn explanation(&self, error: &(dyn StdError + 'static)) -> Option<String> {
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
    protocol: Option<&'static [u8]>,
    log: ReloadLog,
}

/// A configuration of TLS.
pub(super) struct Loaded {
    config: Arc<ClientConfig>,
    read_at: SystemTime,
}

impl CertificateFiles {
    fn load(&self, files: &mut Files) -> Result<Loaded, ConfigError> {
        let read_at = SystemTime::now();
        let mut config = client_config(&self.verify, self.certificate.as_ref(), files)?;
        config.alpn_protocols = self.protocol.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Loaded { config: Arc::new(config), read_at })
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
        self.log.record(result);
    }
}

#[cfg(test)]
pub(crate) mod tests;

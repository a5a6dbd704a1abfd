//! The TLS mode that results from libpq's `sslmode` and `sslrootcert`.

use std::path::PathBuf;

use super::error::ConfigError;
use super::location::Location;

/// Whether the connection is encrypted, and how the server is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsMode {
    /// Plaintext.
    Disable,
    /// Encrypted if the server supports it.
    Prefer(Verify),
    /// Encrypted, or not at all.
    Require(Verify),
}

/// How the server's certificate is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// Any certificate is accepted; the server only has to have its private key.
    Nothing,
    /// One of these certificate authorities must have issued it.
    Chain(Roots),
    /// One of these certificate authorities must have issued it, for the host in the URL.
    ChainAndName(Roots),
}

/// The certificate authorities that are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Roots {
    /// The operating system's.
    System,
    /// The PEM certificates in a file.
    File(PathBuf),
}

/// The files of the certificate that the client presents, libpq's `sslcert` and `sslkey`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCertificate {
    /// The PEM file with the certificate, followed by those of intermediate authorities.
    pub certificate: PathBuf,
    /// The PEM file with its private key, not encrypted.
    pub key: PathBuf,
}

impl TlsMode {
    /// Returns the corresponding `sslmode` of libpq.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer(_) => "prefer",
            Self::Require(Verify::Nothing) => "require",
            Self::Require(Verify::Chain(_)) => "verify-ca",
            Self::Require(Verify::ChainAndName(_)) => "verify-full",
        }
    }
}

/// The values of `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    pub(super) const EXPECTED: &'static str = "disable, allow, prefer, require, verify-ca or verify-full";

    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }
}

/// Returns the client's certificate for the parameters of a URL.
pub(super) fn client_certificate(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    mode: Option<SslMode>,
    location: &Location,
) -> Result<Option<ClientCertificate>, ConfigError> {
    let problem = match (certificate, key) {
        (None, None) => return Ok(None),
        (Some(_), None) => "sslcert requires its private key: give the key's PEM file as sslkey",
        (None, Some(_)) => "sslkey requires its certificate: give the certificate's PEM file as sslcert",
        _ if !cfg!(feature = "tls") => {
            "sslcert requires TLS, which this build lacks: enable the feature `tls` of poolscope"
        }
        _ if mode == Some(SslMode::Disable) => {
            "sslcert has no effect with sslmode=disable: give another sslmode, or remove sslcert and sslkey"
        }
        (Some(certificate), Some(key)) => return Ok(Some(ClientCertificate { certificate, key })),
    };
    Err(ConfigError::conflict(location, problem))
}

/// Returns the mode for the parameters of a URL; `direct` is `sslnegotiation=direct`.
pub(super) fn resolve(
    mode: Option<SslMode>,
    roots: Option<Roots>,
    direct: bool,
    location: &Location,
) -> Result<TlsMode, ConfigError> {
    let system = roots == Some(Roots::System);
    // As in libpq: anyone can obtain a certificate from a public authority, so trusting all of them without checking
    // the name would verify nothing.
    if system && !matches!(mode, None | Some(SslMode::VerifyFull)) {
        return Err(ConfigError::conflict(
            location,
            "sslrootcert=system would verify nothing without the host's name: give sslmode=verify-full",
        ));
    }
    let default = if system { SslMode::VerifyFull } else { SslMode::Prefer };
    let chain = |roots: Option<Roots>| roots.map_or(Verify::Nothing, Verify::Chain);
    let tls = match (mode.unwrap_or(default), roots) {
        (SslMode::Disable, _) => TlsMode::Disable,
        (SslMode::Allow | SslMode::Prefer, roots) => TlsMode::Prefer(chain(roots)),
        (SslMode::Require, roots) => TlsMode::Require(chain(roots)),
        (SslMode::VerifyCa, Some(roots)) => TlsMode::Require(Verify::Chain(roots)),
        (SslMode::VerifyCa, None) => {
            return Err(ConfigError::conflict(
                location,
                "sslmode=verify-ca requires the certificate of an authority: give it as sslrootcert, or give \
                 sslmode=verify-full",
            ));
        }
        (SslMode::VerifyFull, roots) => TlsMode::Require(Verify::ChainAndName(roots.unwrap_or(Roots::System))),
    };
    let encrypted = matches!(tls, TlsMode::Require(_));
    if encrypted && !cfg!(feature = "tls") {
        return Err(ConfigError::TlsUnavailable { location: location.to_string(), sslmode: tls.as_str() });
    }
    if direct && !encrypted {
        return Err(ConfigError::conflict(
            location,
            "sslnegotiation=direct does not allow plaintext: give sslmode=require or a stricter mode",
        ));
    }
    Ok(tls)
}

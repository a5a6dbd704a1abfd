//! What the URL asks of TLS: libpq's `sslmode` and `sslrootcert`, made one decision.

use std::path::PathBuf;

use super::error::{ConfigError, Origin};

/// Whether the connection is encrypted, and what is verified of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsMode {
    /// Plaintext.
    Disable,
    /// Encrypted if the server offers it.
    Prefer(Verify),
    /// Encrypted, or not at all.
    Require(Verify),
}

/// What is verified of the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// Only that the server holds the key of the certificate it shows, whatever that is.
    Nothing,
    /// That an authority among these roots issued it.
    Chain(Roots),
    /// That an authority among these roots issued it, for the host that was asked for.
    ChainAndName(Roots),
}

/// The certificate authorities that are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Roots {
    /// Those of the operating system.
    System,
    /// Those in a file, as PEM.
    File(PathBuf),
}

impl TlsMode {
    /// The mode in libpq's words.
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
    pub(super) const REMEDY: &'static str = "give disable, allow, prefer, require, verify-ca or verify-full";

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

/// The decision, from what stands in the URL at `origin`; `direct` is `sslnegotiation=direct`.
pub(super) fn decide(
    mode: Option<SslMode>,
    roots: Option<Roots>,
    direct: bool,
    origin: &Origin,
) -> Result<TlsMode, ConfigError> {
    let conflict = |problem: &str| ConfigError::Conflict { origin: origin.clone(), problem: problem.to_owned() };
    let system = roots == Some(Roots::System);
    // As in libpq: anyone can get a certificate of a public authority, so that trusting them all without
    // checking the name would verify nothing.
    if system && !matches!(mode, None | Some(SslMode::VerifyFull)) {
        return Err(conflict(
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
            return Err(conflict(
                "sslmode=verify-ca needs to know the authority: give its certificate as sslrootcert, \
                 or sslmode=verify-full",
            ));
        }
        (SslMode::VerifyFull, roots) => TlsMode::Require(Verify::ChainAndName(roots.unwrap_or(Roots::System))),
    };
    let encrypted = matches!(tls, TlsMode::Require(_));
    if encrypted && !cfg!(feature = "tls") {
        return Err(ConfigError::TlsUnavailable { origin: origin.clone(), sslmode: tls.as_str() });
    }
    if direct && !encrypted {
        return Err(conflict("sslnegotiation=direct leaves no way back to plaintext: give sslmode=require or more"));
    }
    Ok(tls)
}

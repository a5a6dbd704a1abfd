//! The database URL: hosts, login, TLS, and settings of the pool in its query.
//!
//! The parser is not tokio-postgres's, whose errors may quote parts of a password that contains an unescaped `@`.

mod known;
mod parameters;
#[cfg(test)]
mod redaction_tests;
pub(super) mod split;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};

use self::parameters::Target;
use super::authentication::AuthenticationMethods;
use super::error::ConfigError;
use super::location::Location;
use super::table::Setting;
use super::tls::{self, ClientCertificate, Roots, TlsMode, Verify};
use super::value::Value;

/// A parsed `postgres://` or `postgresql://` URL. `Display` and `Debug` print it without the password
/// and the values of `options`.
///
/// Cheap to clone.
///
/// ```
/// use poolscope::config::DatabaseUrl;
///
/// # fn main() -> Result<(), poolscope::ConfigError> {
/// let url: DatabaseUrl = "postgres://app:secret@db.example/shop".parse()?;
/// assert_eq!(url.to_string(), "postgres://app:***@db.example/shop");
/// assert_eq!(url.default_pool_name(), "db.example:5432/shop");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DatabaseUrl(Arc<Parsed>);

const SCHEME: split::Scheme = split::Scheme {
    names: &["postgres://", "postgresql://"],
    problem: "begins with neither postgres:// nor postgresql://: give postgres://user:password@host:5432/database",
    is_known: known::is_known,
};

#[derive(Clone)]
struct Parsed {
    config: Config,
    tls: TlsMode,
    client_certificate: Option<ClientCertificate>,
    require_auth: Option<AuthenticationMethods>,
    redacted: String,
    settings: Vec<(&'static Setting, Value)>,
}

impl DatabaseUrl {
    /// Parses a URL that was given at `location`.
    pub(super) fn parse(text: &str, location: &Location) -> Result<Self, ConfigError> {
        let location = &location.url();
        let invalid = |problem: &str| ConfigError::url(location, problem);
        let parts = split::split(text, &SCHEME).map_err(invalid)?;
        let mut target = Target::new(&parts, location).map_err(invalid)?;
        for parameter in &parts.parameters {
            target.apply(parameter)?;
        }
        let Target { mut config, sslmode, sslrootcert, sslcert, sslkey, require_auth, settings, .. } = target.finish();

        complete_hosts(&mut config).map_err(invalid)?;
        let direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
        let client_certificate = tls::client_certificate(sslcert, sslkey, sslmode, location)?;
        let mut tls = tls::resolve(sslmode, sslrootcert, direct, location)?;
        if config.get_hosts().iter().all(is_socket) {
            // As in libpq: the server does not support TLS on a Unix socket, which is local.
            tls = TlsMode::Disable;
            config.ssl_negotiation(SslNegotiation::Postgres);
        }
        config.ssl_mode(match tls {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer(_) => SslMode::Prefer,
            TlsMode::Require(_) => SslMode::Require,
        });
        Ok(Self(Arc::new(Parsed {
            config,
            tls,
            client_certificate,
            require_auth,
            redacted: parts.redacted(text),
            settings,
        })))
    }

    /// Returns the URL with relative paths of its certificate files (`sslrootcert`, `sslcert`, `sslkey`) starting at
    /// `directory`, such as that of a configuration file, instead of the working directory.
    #[must_use]
    pub fn with_files_in(mut self, directory: &Path) -> Self {
        let parsed = Arc::make_mut(&mut self.0);
        if let TlsMode::Prefer(verify) | TlsMode::Require(verify) = &mut parsed.tls
            && let Verify::Chain(Roots::File(path)) | Verify::ChainAndName(Roots::File(path)) = verify
        {
            *path = directory.join(&*path);
        }
        if let Some(ClientCertificate { certificate, key }) = &mut parsed.client_certificate {
            for path in [certificate, key] {
                *path = directory.join(&*path);
            }
        }
        self
    }

    /// Returns the configuration for tokio-postgres, without the time limits, keepalive and `application_name` of the
    /// [`Settings`](super::Settings).
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Returns whether the connection is encrypted, and how the server is verified.
    #[must_use]
    pub fn tls(&self) -> &TlsMode {
        &self.0.tls
    }

    /// Returns the files of the certificate that the client presents, if it has one.
    #[must_use]
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.0.client_certificate.as_ref()
    }

    /// Returns the protocol to negotiate by ALPN: without PostgreSQL's own negotiation, the server requires it.
    pub(crate) fn alpn(&self) -> Option<&'static [u8]> {
        (self.config().get_ssl_negotiation() == SslNegotiation::Direct).then_some(b"postgresql")
    }

    /// Returns the authentication methods that the server may request; `None` for all.
    pub(crate) fn require_auth(&self) -> Option<AuthenticationMethods> {
        self.0.require_auth
    }

    /// Returns the default name of a pool, OpenTelemetry's `server.address:server.port/database`. The address is the
    /// first host, or the directory of a Unix socket; the user replaces an absent database.
    #[must_use]
    pub fn default_pool_name(&self) -> String {
        let config = self.config();
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(host)) if host.contains(':') => format!("[{host}]"),
            Some(Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(Host::Unix(directory)) => directory.display().to_string(),
            None => String::new(),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        match config.get_dbname().or(config.get_user()) {
            Some(database) => format!("{host}:{port}/{database}"),
            None => format!("{host}:{port}"),
        }
    }

    /// Returns the settings in the query.
    pub(super) fn settings(&self) -> &[(&'static Setting, Value)] {
        &self.0.settings
    }
}

impl FromStr for DatabaseUrl {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::parse(text, &Location::URL)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.redacted)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatabaseUrl").field(&self.0.redacted).finish()
    }
}

fn is_socket(host: &Host) -> bool {
    !matches!(host, Host::Tcp(_))
}

/// Checks the lists of hosts, addresses and ports, which tokio-postgres would check only when it connects.
fn complete_hosts(config: &mut Config) -> Result<(), &'static str> {
    let addresses = config.get_hostaddrs().to_vec();
    if config.get_hosts().is_empty() {
        // TLS needs a name even where nothing is verified: the address serves as one.
        for address in &addresses {
            config.host(address.to_string());
        }
    }
    let hosts = config.get_hosts().len();
    if hosts == 0 {
        return Err("no host: give one, as in postgres://user@host/database, or a socket's directory as parameter \
                    `host`");
    }
    if !addresses.is_empty() && addresses.len() != hosts {
        return Err("the number of `hostaddr` differs from the number of hosts: give one for each, or none");
    }
    if config.get_ports().len() > 1 && config.get_ports().len() != hosts {
        return Err("the number of ports differs from the number of hosts: give one for each, or one for all");
    }
    Ok(())
}

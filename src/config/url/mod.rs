//! The database URL: where the database is, how to log in, what of TLS, and settings of the pool in its query.
//!
//! It is taken apart here rather than by tokio-postgres: a parser that reads `pa@ss` as a password and a host
//! cannot keep the password out of its errors.

mod parameters;
#[cfg(test)]
mod redaction_tests;
mod split;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};

use self::parameters::Target;
use super::Settings;
use super::error::{ConfigError, Origin};
use super::table::Setting;
use super::tls::{self, TlsMode};
use super::value::Value;

/// A `postgres://` or `postgresql://` URL that was read. `Display` and `Debug` print it without the password.
///
/// Cheap to clone.
#[derive(Clone)]
pub struct DatabaseUrl(Arc<Parsed>);

struct Parsed {
    config: Config,
    tls: TlsMode,
    redacted: String,
    settings: Vec<(&'static Setting, Value)>,
}

impl DatabaseUrl {
    /// Reads a URL that stands at `origin`.
    pub(crate) fn parse(text: &str, origin: &Origin) -> Result<Self, ConfigError> {
        let origin = &origin.url();
        let problem = |problem: &str| ConfigError::Url { origin: origin.clone(), problem: problem.to_owned() };
        let parts = split::split(text).map_err(problem)?;
        let mut target = Target::new(&parts, origin).map_err(problem)?;
        for parameter in &parts.parameters {
            target.apply(parameter)?;
        }
        let Target { mut config, sslmode, sslrootcert, settings, .. } = target.finish();

        complete_hosts(&mut config).map_err(problem)?;
        let direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
        let mut tls = tls::decide(sslmode, sslrootcert, direct, origin)?;
        if config.get_hosts().iter().all(is_socket) {
            // As in libpq: the server refuses TLS on a socket, and nobody else can listen in.
            tls = TlsMode::Disable;
            config.ssl_negotiation(SslNegotiation::Postgres);
        }
        config.ssl_mode(match tls {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer(_) => SslMode::Prefer,
            TlsMode::Require(_) => SslMode::Require,
        });
        Ok(Self(Arc::new(Parsed { config, tls, redacted: parts.redacted(text), settings })))
    }

    /// What tokio-postgres connects with. Its time-outs, keepalive and `application_name` are not yet those of the
    /// [`Settings`].
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Whether the connection is encrypted, and what is verified.
    #[must_use]
    pub fn tls(&self) -> &TlsMode {
        &self.0.tls
    }

    /// The name of a pool that was given none: `server.address:server.port/database`, as OpenTelemetry has it. Of
    /// several hosts the first; the directory and the port of a Unix socket; the user where no database is named.
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

    /// Takes over the settings in the query.
    pub(crate) fn apply_to(&self, settings: &mut Settings) {
        for (setting, value) in &self.0.settings {
            setting.assign(settings, value.clone());
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::parse(text, &Origin::URL)
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

/// Checks what tokio-postgres would find only when it connects.
fn complete_hosts(config: &mut Config) -> Result<(), &'static str> {
    let addresses = config.get_hostaddrs().to_vec();
    if config.get_hosts().is_empty() {
        // Without a name of its own TLS fails, even where nothing is verified: the address is the name.
        for address in &addresses {
            config.host(address.to_string());
        }
    }
    let hosts = config.get_hosts().len();
    if hosts == 0 {
        return Err("names no host: give one, as in postgres://user@host/database, or a socket's directory \
                    as parameter `host`");
    }
    if !addresses.is_empty() && addresses.len() != hosts {
        return Err("has another number of `hostaddr` than of hosts: give one for each, or none");
    }
    if config.get_ports().len() > 1 && config.get_ports().len() != hosts {
        return Err("has another number of ports than of hosts: give one for each, or one for all");
    }
    Ok(())
}

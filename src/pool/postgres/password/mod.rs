//! The passwords of connections: from the URL, a file or a callback.

mod file;
mod passfile;
mod secret;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use tokio_postgres::Config;

use self::file::{FileContent, PasswordFile};
use self::passfile::Login;
pub use self::secret::Secret;
use super::error::{ConnectError, is_password_missing};
use super::peer::{Address, Peer};
use super::pool_name::PoolName;
use crate::config::{ConfigError, DatabaseUrl, Settings};
use crate::files::Live;
use crate::text::Printable;

type ProviderError = Box<dyn StdError + Send + Sync>;

type Answer = Pin<Box<dyn Future<Output = Result<Secret, ProviderError>> + Send>>;

/// A callback that returns the password of a new connection.
#[derive(Clone)]
pub(super) struct PasswordProvider(Arc<dyn Fn() -> Answer + Send + Sync>);

impl PasswordProvider {
    pub(super) fn new<F, Fut, E>(provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Secret, E>> + Send + 'static,
        E: Into<ProviderError>,
    {
        Self(Arc::new(move || {
            let answer = provider();
            Box::pin(async move { answer.await.map_err(Into::into) })
        }))
    }
}

impl fmt::Debug for PasswordProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordProvider")
    }
}

/// Where the passwords of a pool's connections come from.
pub(super) enum Passwords {
    /// The configuration, which has a password or none.
    Configured,
    File(Arc<Live<PasswordFile>>),
    Provider(PasswordProvider),
}

impl Passwords {
    /// Reads the password's file, if the settings name one. `pool` is the name for the log.
    ///
    /// # Errors
    ///
    /// Returns an error if there is more than one source of passwords, or the file cannot be read.
    pub(super) fn new(
        settings: &Settings,
        url: &DatabaseUrl,
        provider: Option<PasswordProvider>,
        pool: &PoolName,
    ) -> Result<Self, ConfigError> {
        let config = url.config();
        let sources = [
            ("the URL's password", config.get_password().is_some()),
            ("password_file", settings.password_file.is_some()),
            ("passfile", settings.passfile.is_some()),
            ("password_provider", provider.is_some()),
        ];
        let mut given = sources.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name);
        if let (Some(one), Some(other)) = (given.next(), given.next()) {
            return Err(conflict(format!("both {one} and {other} are given: remove one")));
        }
        if settings.passfile.is_some() && config.get_user().is_none() {
            return Err(conflict("passfile requires the user, whose password it has: give it in the URL"));
        }
        Ok(match (PasswordFile::new(settings, pool), provider) {
            (Some(file), _) => Self::File(file.read()?),
            (None, Some(provider)) => Self::Provider(provider),
            (None, None) => Self::Configured,
        })
    }

    /// Returns the password for a connection attempt. A file is checked for changes before, see [`Live::current`]; a
    /// provider is asked.
    ///
    /// # Errors
    ///
    /// Returns the provider's error.
    pub(super) async fn current(&self) -> Result<CurrentPassword, ConnectError> {
        match self {
            Self::Configured => Ok(CurrentPassword::Configured),
            Self::File(file) => Ok(CurrentPassword::File(file.current().await, Arc::clone(file))),
            Self::Provider(PasswordProvider(provider)) => match provider().await {
                Ok(password) => Ok(CurrentPassword::Provided(password)),
                Err(source) => Err(ConnectError::Password {
                    problem: "the password provider failed".to_owned(),
                    source: Some(source),
                }),
            },
        }
    }
}

fn conflict(problem: impl Into<String>) -> ConfigError {
    ConfigError::Conflict { location: "settings".to_owned(), problem: problem.into() }
}

/// Returns host and port as configured: a name, an address, or the directory of a Unix socket.
fn configured(peer: &Peer) -> (Cow<'_, str>, u16) {
    match peer.address() {
        (Address::Tcp(address), Some(name)) => (Cow::Borrowed(name), address.port()),
        (Address::Tcp(address), None) => (Cow::Owned(address.ip().to_string()), address.port()),
        (Address::Unix(path), _) => {
            let directory = path.parent().map_or(Cow::Borrowed(""), Path::to_string_lossy);
            // The socket's name is `.s.PGSQL.` and the port.
            let port = path.extension().and_then(|port| port.to_str()?.parse().ok());
            (directory, port.unwrap_or_default())
        }
    }
}

/// The password of one connection attempt.
pub(super) enum CurrentPassword {
    Configured,
    Provided(Secret),
    File(Arc<FileContent>, Arc<Live<PasswordFile>>),
}

impl CurrentPassword {
    /// Returns the configuration with the password for `peer`.
    pub(super) fn configure<'a>(&self, config: &'a Config, peer: &Peer) -> Cow<'a, Config> {
        let password = match self {
            Self::Configured => None,
            Self::Provided(password) => Some(Cow::Borrowed(password)),
            Self::File(content, _) => match &**content {
                FileContent::Password(password) => Some(Cow::Borrowed(password)),
                FileContent::Passfile(passfile) => {
                    let (host, port) = configured(peer);
                    Login::new(&host, port, config).and_then(|login| passfile.find(&login)).map(Cow::Owned)
                }
            },
        };
        let Some(password) = password else { return Cow::Borrowed(config) };
        let mut config = config.clone();
        config.password(password.bytes());
        Cow::Owned(config)
    }

    /// Explains the error of a server that requires a password where the password file has none.
    pub(super) fn explain(&self, error: ConnectError, config: &Config, peer: &Peer) -> ConnectError {
        let (Self::File(_, file), ConnectError::Postgres { source, .. }) = (self, &error) else { return error };
        if !is_password_missing(source) {
            return error;
        }
        let (host, port) = configured(peer);
        let Some(login) = Login::new(&host, port, config) else { return error };
        let Login { host, port, database, user } = login;
        let mut problem = format!(
            "the server requires a password, but passfile `{}` has no entry for {}: add one",
            Printable(file.source().path().display()),
            Printable(format_args!("{host}:{port}:{database}:{user}"))
        );
        if let Some(error) = file.error() {
            problem = format!("{problem} (it has changed, but {})", Printable(error));
        }
        ConnectError::Password { problem, source: None }
    }
}

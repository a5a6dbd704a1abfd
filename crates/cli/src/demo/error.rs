//! Why the demo could not start, or not end as it should.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use super::schema::SCHEMA;
use crate::service::ServiceError;
use poolscope::ConnectError;
use poolscope::config::ConfigError;
use poolscope_testing::server::ServerError;

/// Why the demo could not start, or not end as it should. No message shows a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// A setting cannot be.
    #[error(transparent)]
    Settings(ConfigError),
    /// The URL on the command line cannot be.
    #[error("--database-url cannot be used")]
    DatabaseUrl(#[source] ConfigError),
    /// What the demo is made of failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The shop could not listen.
    #[error("cannot open the shop at {address}; choose another address with --shop.listen-address")]
    Shop {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The page of traces could not listen.
    #[cfg(feature = "jaeger")]
    #[error("cannot show traces at {address}; choose another address with --traces.listen-address")]
    Page {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// There is no private server.
    #[error("cannot have a private PostgreSQL; --database-url takes one of your own")]
    Server(#[source] ServerError),
    /// The scenario does to a server what nobody wants done to their own.
    #[error(
        "--scenario {scenario} {does}, so it needs a private one: leave out --database-url, and unset \
         POOLSCOPE_DATABASE_URL"
    )]
    NotPrivate {
        /// The scenario's name.
        scenario: &'static str,
        /// What it does.
        does: &'static str,
    },
    /// There is no connection to set the schema up with, or to drop it.
    #[error("cannot connect to {url}")]
    Connect {
        /// Where to, without the password.
        url: String,
        /// Why not.
        source: ConnectError,
    },
    /// Somebody else has a schema of that name.
    #[error(
        "{url} has a schema {SCHEMA} already, which another demo uses or left behind: \
         end that demo, or run `DROP SCHEMA {SCHEMA} CASCADE`, or give another database"
    )]
    SchemaExists {
        /// Where, without the password.
        url: String,
    },
    /// The schema could not be made. Nothing of it was left.
    #[error("cannot create the schema {SCHEMA} in {url}")]
    Create {
        /// Where, without the password.
        url: String,
        /// What the server said.
        source: tokio_postgres::Error,
    },
    /// The schema is still there.
    #[error("the schema {SCHEMA} is still in {url}; run `DROP SCHEMA {SCHEMA} CASCADE` there")]
    Drop {
        /// Where, without the password.
        url: String,
        /// What the server, or the way to it, said.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The system refuses what the demo runs on: threads, signals, metrics.
    #[error("cannot start the demo")]
    System(#[source] Box<dyn StdError + Send + Sync>),
    /// Standard output takes no more.
    #[error("cannot write to standard output")]
    Output(#[source] Arc<io::Error>),
}

impl DemoError {
    /// Whether a flag, the URL or an environment variable is to blame.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Settings(_) | Self::DatabaseUrl(_) | Self::NotPrivate { .. } => true,
            Self::Service(error) => error.is_usage(),
            Self::Shop { source, .. } => source.kind() == io::ErrorKind::InvalidInput,
            _ => false,
        }
    }

    pub(super) fn system(source: impl StdError + Send + Sync + 'static) -> Self {
        Self::System(Box::new(source))
    }
}

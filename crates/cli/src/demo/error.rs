//! The errors of the demo.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use poolscope::ConnectError;
use poolscope::config::ConfigError;
use poolscope::proxy::ProxyError;
use poolscope::text::Printable;
use poolscope_testing::server::ServerError;

use super::client::CLIENT_SCENARIOS;
use crate::service::ServiceError;

/// Why the demo could not start, or not clean up. No message contains a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DemoError {
    /// A setting is invalid.
    #[error(transparent)]
    Settings(ConfigError),
    /// The URL on the command line is invalid.
    #[error("invalid --database-url")]
    DatabaseUrl(#[source] ConfigError),
    /// A part that all long-running commands share failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The shop cannot listen.
    #[error("cannot serve the shop at {}; choose another address with --shop.listen-address", Printable(address))]
    Shop {
        /// The address.
        address: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The Jaeger UI cannot listen.
    #[cfg(feature = "jaeger")]
    #[error("cannot serve traces at {}; choose another address with --traces.listen-address", Printable(address))]
    JaegerUi {
        /// The address.
        address: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The private server cannot be started, stopped or restarted.
    #[error("cannot run a private PostgreSQL server; use an existing one with --database-url")]
    Server(#[source] ServerError),
    /// The private Redis server cannot be started or restarted.
    #[error("cannot run a private Redis server for the cache; install redis-server (Debian's package of that name)")]
    Redis(#[source] io::Error),
    /// The scenario disrupts the server, so it is not run on a server that others may use.
    #[error(
        "--scenario {scenario} {disruption}, so it requires a private server: remove --database-url and unset \
         POOLSCOPE_DATABASE_URL"
    )]
    NotPrivate {
        /// The scenario's name.
        scenario: &'static str,
        /// What it does to the server.
        disruption: &'static str,
    },
    /// The client's proxy cannot be started.
    #[error("cannot run the proxy of the client")]
    Proxy(#[source] ProxyError),
    /// The client cannot be run.
    #[error(
        "--client python needs Python 3 with SQLAlchemy 2 and psycopg 3, but {} {problem}; install them with \
         `python3 -m venv .venv && .venv/bin/pip install sqlalchemy 'psycopg[binary]'`, and set \
         POOLSCOPE_PYTHON=.venv/bin/python",
        Printable(interpreter)
    )]
    Python {
        /// The interpreter.
        interpreter: String,
        /// What is missing.
        problem: String,
    },
    /// The scenario's fault is none of a client.
    #[error("--client has no scenario {scenario}, only {}", CLIENT_SCENARIOS.join(", "))]
    ClientScenario {
        /// The scenario's name.
        scenario: &'static str,
    },
    /// The client uses a private server.
    #[error("--client requires a private server: remove --database-url and unset POOLSCOPE_DATABASE_URL")]
    ClientNeedsPrivateServer,
    /// The connection for the schema failed.
    #[error("cannot connect to {url}")]
    Connect {
        /// The URL, without its password.
        url: String,
        /// Why it failed.
        source: ConnectError,
    },
    /// The database has a schema of that name.
    #[error(
        "the schema poolscope_demo exists in {url}, because another demo uses it or did not drop it: \
         stop that demo, or run `DROP SCHEMA poolscope_demo CASCADE`, or use another database"
    )]
    SchemaExists {
        /// The URL, without its password.
        url: String,
    },
    /// The schema could not be created. The transaction was rolled back.
    #[error("cannot create the schema poolscope_demo in {url}")]
    Create {
        /// The URL, without its password.
        url: String,
        /// The server's error.
        source: tokio_postgres::Error,
    },
    /// The schema could not be dropped.
    #[error("cannot drop the schema poolscope_demo in {url}; run `DROP SCHEMA poolscope_demo CASCADE` there")]
    Drop {
        /// The URL, without its password.
        url: String,
        /// The error of the connection or the server.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The private server's directory exists after the server was stopped.
    #[error(
        "cannot clean up: {}the directory {} is left; {}remove it",
        .pid.map(|pid| format!("the private PostgreSQL server still runs as process {pid}, and ")).unwrap_or_default(),
        Printable(.directory.display()),
        .pid.map(|pid| format!("stop the server with `kill -INT {pid}`, and ")).unwrap_or_default()
    )]
    Remains {
        /// The directory.
        directory: PathBuf,
        /// The server's main process, if it still runs.
        pid: Option<u32>,
    },
    /// The operating system refused a thread, a signal handler or process metrics.
    #[error("cannot start the demo")]
    System(#[source] Box<dyn StdError + Send + Sync>),
    /// Standard output failed.
    #[error("cannot write to standard output")]
    Output(#[source] Arc<io::Error>),
}

impl DemoError {
    /// Returns whether a flag, the URL or an environment variable is the cause.
    #[must_use]
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Settings(_)
            | Self::DatabaseUrl(_)
            | Self::NotPrivate { .. }
            | Self::ClientScenario { .. }
            | Self::ClientNeedsPrivateServer => true,
            Self::Service(error) => error.is_usage(),
            Self::Shop { source, .. } => source.kind() == io::ErrorKind::InvalidInput,
            _ => false,
        }
    }

    pub(super) fn system(source: impl StdError + Send + Sync + 'static) -> Self {
        Self::System(Box::new(source))
    }
}

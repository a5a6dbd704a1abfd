//! The settings of a proxy.

use std::path::PathBuf;
use std::time::Duration;

use super::error::ProxyError;
use super::listener::ListenAddress;
use super::pools::GroupKey;
use crate::config::DatabaseUrl;

/// The address that a proxy listens on by default: PgBouncer's port, on this host only.
const DEFAULT_LISTEN: &str = "127.0.0.1:6432";

/// The settings of a [`Proxy`](super::Proxy).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where clients connect. Default: `127.0.0.1:6432`.
    pub listen: Vec<ListenAddress>,
    /// The server: one host or the directory of a Unix socket, its port, and the parameters of TLS and keepalive. Its user, password
    /// and database are those that each client sends.
    pub upstream: DatabaseUrl,
    /// The PEM file with the certificate that is presented to clients, followed by those of intermediate authorities.
    /// Default `None`: clients that request TLS are told that there is none.
    pub tls_certificate: Option<PathBuf>,
    /// The PEM file with its private key.
    pub tls_key: Option<PathBuf>,
    /// What distinguishes the pools. Default: application name, user and database.
    pub group_by: Vec<GroupKey>,
    /// The maximum number of pools; clients of further ones are counted in the pool `other`. Default 50.
    pub max_pools: usize,
    /// The maximum number of connections of each pool of the clients, if it is known: it is the limit on pages and in the
    /// diagnosis, and is not enforced. Default 0: unknown.
    pub pool_size: usize,
    /// The maximum number of client connections, beyond which they are refused with SQLSTATE 53300. Default 0: no limit.
    pub max_connections: usize,
    /// The number of threads that serve the clients, each with a runtime of its own, which is faster than a runtime of several
    /// threads. Default 0: the caller's runtime serves them.
    pub threads: usize,
    /// The time limit from a client's connection until the server is ready for its first query. Default 60 s, as
    /// PostgreSQL's `authentication_timeout`.
    pub startup_timeout: Duration,
    /// The time limit of connecting to the server, without authentication. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a shutdown waits for open transactions. Default 30 s.
    pub drain_timeout: Duration,
    /// For how long a transaction is open without traffic before it is a suspected leak; `None`: never. Default 60 s.
    pub leak_threshold: Option<Duration>,
    /// The duration from which on a query is logged, by its summary; `None`: never. Default `None`.
    pub slow_query_threshold: Option<Duration>,
    /// Which keys of a statement's comment form the name of its operation: the first alternative of which all are
    /// present. An alternative is a key, or several joined by a slash. Default: `route`, `controller/action`.
    pub operation_keys: Vec<String>,
}

impl Settings {
    /// Returns the default settings for a server, given as a `postgres://` URL.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL is invalid, names several hosts, or has a user, a password or a database.
    pub fn new(upstream: &str) -> Result<Self, ProxyError> {
        let upstream: DatabaseUrl = upstream.parse().map_err(|error| ProxyError::Url(Box::new(error)))?;
        check_upstream(&upstream)?;
        Ok(Self {
            listen: vec![ListenAddress::Tcp(DEFAULT_LISTEN.to_owned())],
            upstream,
            tls_certificate: None,
            tls_key: None,
            group_by: vec![GroupKey::Application, GroupKey::User, GroupKey::Database],
            max_pools: 50,
            pool_size: 0,
            max_connections: 0,
            threads: 0,
            startup_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
            leak_threshold: Some(Duration::from_secs(60)),
            slow_query_threshold: None,
            operation_keys: ["route", "controller/action"].map(str::to_owned).to_vec(),
        })
    }

    /// Checks the settings as a whole.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is out of range.
    pub fn validate(&self) -> Result<(), ProxyError> {
        let invalid = |problem| Err(ProxyError::Setting(problem));
        if self.listen.is_empty() {
            return invalid("listen has no address");
        }
        if self.max_pools == 0 {
            return invalid("max_pools is 0, expected at least 1");
        }
        if self.group_by.is_empty() {
            return invalid("group_by is empty, expected application, user, database or client");
        }
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            return invalid("tls_certificate and tls_key belong together, and one is missing");
        }
        if self.startup_timeout.is_zero() || self.connect_timeout.is_zero() {
            return invalid("startup_timeout or connect_timeout is 0, expected a time limit");
        }
        Ok(())
    }
}

fn check_upstream(upstream: &DatabaseUrl) -> Result<(), ProxyError> {
    let config = upstream.config();
    let invalid = |problem| Err(ProxyError::Upstream(problem));
    if config.get_hosts().len() > 1 || config.get_hostaddrs().len() > 1 {
        return invalid("names several hosts, expected one");
    }
    if config.get_password().is_some() {
        return invalid("has a password, which each client sends itself: remove it");
    }
    if config.get_user().is_some() || config.get_dbname().is_some() {
        return invalid("has a user or a database, which each client sends itself: remove them");
    }
    Ok(())
}

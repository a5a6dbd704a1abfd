//! The hosts to connect to, in order.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts};

use super::error::ConnectError;
use super::peer::{Address, Peer};
use super::tcp_options::{Keepalive, TcpOptions};

const DEFAULT_PORT: u16 = 5432;

/// A configured host.
pub(super) struct Candidate<'a> {
    host: Option<&'a Host>,
    hostaddr: Option<IpAddr>,
    port: u16,
}

/// Returns the configured hosts in the order in which to try them. May be empty.
///
/// # Errors
///
/// Returns [`ConnectError::Hosts`] if the numbers of hosts, addresses and ports do not match.
pub(super) fn candidates(config: &Config) -> Result<Vec<Candidate<'_>>, ConnectError> {
    let (hosts, hostaddrs, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = hosts.len().max(hostaddrs.len());
    if !hosts.is_empty() && !hostaddrs.is_empty() && hosts.len() != hostaddrs.len() {
        let (hosts, hostaddrs) = (hosts.len(), hostaddrs.len());
        return Err(problem(format!("{hostaddrs} hostaddr for {hosts} hosts: give one for each, or none")));
    }
    if ports.len() > 1 && ports.len() != count {
        let ports = ports.len();
        return Err(problem(format!("{ports} ports for {count} hosts: give one for each, or one for all")));
    }
    let candidate = |at: usize| Candidate {
        host: hosts.get(at),
        hostaddr: hostaddrs.get(at).copied(),
        port: ports.get(at).or(ports.first()).copied().unwrap_or(DEFAULT_PORT),
    };
    let mut candidates: Vec<_> = (0..count).map(candidate).collect();
    balance(config, &mut candidates);
    Ok(candidates)
}

/// Returns the configured hosts and ports for a message, as in `db.example:5432, /run/postgresql/.s.PGSQL.5432`.
pub(super) fn configured_addresses(config: &Config) -> String {
    let candidates = candidates(config).unwrap_or_default();
    candidates.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The name and port, or the address and port if there is no name; or the path of the Unix socket.
impl fmt::Display for Candidate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host, self.hostaddr) {
            (Some(Host::Tcp(name)), _) if !name.contains(':') => write!(f, "{name}:{}", self.port),
            (Some(Host::Tcp(name)), _) => write!(f, "[{name}]:{}", self.port),
            (_, Some(ip)) => write!(f, "{}", SocketAddr::new(ip, self.port)),
            (Some(host), None) => match socket_path(host, self.port) {
                Some(path) => write!(f, "{}", path.display()),
                None => f.write_str("a Unix socket"),
            },
            (None, None) => f.write_str("no host"),
        }
    }
}

/// Returns the path of the server's socket, if `host` is a directory.
#[cfg(unix)]
fn socket_path(host: &Host, port: u16) -> Option<PathBuf> {
    match host {
        Host::Unix(directory) => Some(directory.join(format!(".s.PGSQL.{port}"))),
        Host::Tcp(_) => None,
    }
}

#[cfg(not(unix))]
fn socket_path(_: &Host, _: u16) -> Option<PathBuf> {
    None
}

fn tcp_options(config: &Config) -> TcpOptions {
    let keepalive = config.get_keepalives().then(|| Keepalive {
        idle: config.get_keepalives_idle(),
        interval: config.get_keepalives_interval(),
        retries: config.get_keepalives_retries(),
    });
    TcpOptions::new(config.get_tcp_user_timeout().copied(), keepalive)
}

fn problem(problem: String) -> ConnectError {
    ConnectError::Hosts { problem }
}

/// Shuffles the list if `load_balance_hosts` is `random`.
fn balance<T>(config: &Config, list: &mut [T]) {
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        fastrand::shuffle(list);
    }
}

impl Candidate<'_> {
    /// Returns the host's addresses in the order in which to try them. With a `hostaddr`, the name is not looked up; it
    /// is still the name expected in the server's certificate.
    pub(super) async fn peers(&self, config: &Config) -> Result<Vec<Peer>, ConnectError> {
        let hostname = match self.host {
            Some(Host::Tcp(name)) => Some(name.clone()),
            _ => None,
        };
        let timeout = config.get_connect_timeout().copied();
        let peer = |address| Peer::new(address, hostname.clone(), timeout, tcp_options(config));
        match (self.hostaddr, self.host) {
            (Some(ip), _) => Ok(vec![peer(Address::Tcp(SocketAddr::new(ip, self.port)))]),
            (None, Some(Host::Tcp(name))) => {
                let addresses = self
                    .look_up(name, config)
                    .await
                    .map_err(|source| ConnectError::Unreachable { address: format!("{name}:{}", self.port), source })?;
                Ok(addresses.into_iter().map(|address| peer(Address::Tcp(address))).collect())
            }
            (None, host) => {
                let path = host.and_then(|host| socket_path(host, self.port));
                Ok(path.into_iter().map(|path| peer(Address::Unix(path))).collect())
            }
        }
    }

    async fn look_up(&self, name: &str, config: &Config) -> io::Result<Vec<SocketAddr>> {
        let mut addresses: Vec<_> = tokio::net::lookup_host((name, self.port)).await?.collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "could not resolve any addresses"));
        }
        balance(config, &mut addresses);
        Ok(addresses)
    }
}

#[cfg(test)]
#[path = "hosts_tests.rs"]
mod tests;

//! The classification of errors of connecting.
//!
//! | error | class | effect on the next attempts |
//! |---|---|---|
//! | EAGAIN, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL; the name server did not answer | `local_resource` | this checkout tries again after a pause, with fewer at once; for all of them after a second without success |
//! | ECONNREFUSED, no such Unix socket | `server_down` | suspended, with pauses of 50 ms to 0.8 s |
//! | unreachable host or network, unknown name | `server_down` | the same |
//! | `connect_timeout`, ETIMEDOUT | `server_down` | the same |
//! | connection reset or closed during the handshake; SQLSTATE 57P01, 57P02, 08xxx, 53xxx, 58xxx, XXxxx, others | `server_down` | the same |
//! | no server matches `target_session_attrs`; the password provider failed; a hook (`after_connect`, `before_checkout`) failed without an error of the server | `server_down` | the same |
//! | 57P03 | `server_starting` | the same |
//! | 53300 | `too_many_connections` | the same; checkouts wait for a returned connection |
//! | more sent than a session's start may need, an impossible message | `configuration` | suspended, with pauses of 1 s to 10 s; not retried |
//! | 28xxx, 3D000, 22xxx, 42xxx, 0Axxx, 08004, 57P04; authentication, certificates, TLS, socket permissions, number of hosts, no password in the password file | `configuration` | suspended, with pauses of 1 s to 10 s; not retried |

use std::error::Error as StdError;
use std::io::{self, ErrorKind};

use super::error::{ConnectError, is_authentication};
use super::error_source::find_source;
use crate::net::io_failure;
use crate::pool::ConnectFailure;
use crate::wire::LimitExceeded;

impl ConnectError {
    /// Classifies the failure by the table in this module's documentation.
    pub(crate) fn connect_failure(&self) -> ConnectFailure {
        match self {
            Self::Timeout { .. } | Self::WrongSession { .. } => ConnectFailure::ServerDown,
            Self::Unreachable { source, .. } => of_io(source),
            Self::Hosts { .. } | Self::Answer {} | Self::Password { source: None, .. } => ConnectFailure::Configuration,
            // The service that provides passwords is unavailable.
            Self::Password { source: Some(_), .. } => ConnectFailure::ServerDown,
            Self::Tls { source, .. } => of_tls(source),
            // Of the server, if it is one.
            Self::AfterConnect { source, .. } | Self::BeforeCheckout { source, .. } => {
                find_source(&**source as &(dyn StdError + 'static)).map_or(ConnectFailure::ServerDown, of_postgres)
            }
            Self::Query { source } | Self::Postgres { source, .. } => of_postgres(source),
        }
    }
}

fn of_postgres(error: &tokio_postgres::Error) -> ConnectFailure {
    match error.code() {
        Some(state) => of_sqlstate(state.code()),
        None if is_authentication(error) => ConnectFailure::Configuration,
        None => find_source(error).map_or(ConnectFailure::ServerDown, of_io),
    }
}

/// Classifies an error of the operating system, of the resolver, or of the observer.
fn of_io(error: &io::Error) -> ConnectFailure {
    if LimitExceeded::is_source_of(error) { ConnectFailure::Configuration } else { io_failure(error) }
}

/// Classifies a failure of the TLS handshake: one of the network, unless the peers disagree.
fn of_tls(error: &tokio_postgres::Error) -> ConnectFailure {
    match find_source::<io::Error>(error) {
        // rustls' errors are of these kinds.
        Some(error) if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::Other) => {
            of_io(error)
        }
        _ => ConnectFailure::Configuration,
    }
}

/// Classifies an error that the server sent instead of a session.
fn of_sqlstate(code: &str) -> ConnectFailure {
    match code {
        // too_many_connections, of the server, of a database or of a role.
        "53300" => ConnectFailure::TooManyConnections,
        // cannot_connect_now.
        "57P03" => ConnectFailure::ServerStarting,
        // The server rejected the connection; the database was dropped.
        "08004" | "57P04" => ConnectFailure::Configuration,
        _ => match code.get(..2) {
            // Data, authorization, catalog name, syntax or access rule, unsupported feature.
            Some("22" | "28" | "3D" | "42" | "0A") => ConnectFailure::Configuration,
            _ => ConnectFailure::ServerDown,
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::time::Duration;

    use super::ConnectFailure::{Configuration, LocalResource, ServerDown, ServerStarting, TooManyConnections};
    use super::*;

    fn unreachable(source: io::Error) -> ConnectFailure {
        ConnectError::Unreachable { address: "db:5432".to_owned(), source }.connect_failure()
    }

    #[cfg(unix)]
    #[test]
    fn errors_of_the_system_have_their_documented_class() {
        for (numbers, failure) in [
            (
                &[
                    libc::EAGAIN,
                    libc::EINTR,
                    libc::EMFILE,
                    libc::ENFILE,
                    libc::ENOBUFS,
                    libc::ENOMEM,
                    libc::EADDRNOTAVAIL,
                ][..],
                LocalResource,
            ),
            (&[libc::ECONNREFUSED, libc::ENOENT], ServerDown),
            (&[libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ENETDOWN], ServerDown),
            (&[libc::ETIMEDOUT], ServerDown),
            (&[libc::ECONNRESET, libc::EPIPE, libc::ECONNABORTED], ServerDown),
            (&[libc::EACCES, libc::EPERM], Configuration),
        ] {
            for number in numbers {
                let error = io::Error::from_raw_os_error(*number);
                let shown = error.to_string();
                assert_eq!(unreachable(error), failure, "{shown}");
            }
        }
    }

    #[test]
    fn resolver_errors_have_their_documented_class() {
        let lookup =
            |text: &str| unreachable(io::Error::other(format!("failed to lookup address information: {text}")));
        assert_eq!(lookup("Temporary failure in name resolution"), LocalResource);
        assert_eq!(lookup("Try again"), LocalResource);
        assert_eq!(lookup("Name or service not known"), ServerDown);
        assert_eq!(unreachable(io::Error::new(ErrorKind::InvalidInput, "could not resolve any addresses")), ServerDown);
    }

    #[test]
    fn sqlstates_have_their_documented_class() {
        for (codes, failure) in [
            (&["53300"][..], TooManyConnections),
            (&["57P03"], ServerStarting),
            (&["28000", "28P01", "3D000", "42501", "42704", "22023", "0A000", "08004", "57P04"], Configuration),
            (
                &["57P01", "57P02", "57P05", "08000", "08001", "08006", "08P01", "53200", "58030", "XX000", "", "é"],
                ServerDown,
            ),
        ] {
            for code in codes {
                assert_eq!(of_sqlstate(code), failure, "{code}");
            }
        }
    }

    #[test]
    fn other_errors_have_their_documented_class() {
        let timeout = ConnectError::Timeout { address: "db:5432".to_owned(), after: Duration::from_secs(5) };
        assert_eq!(timeout.connect_failure(), ServerDown);
        let session = ConnectError::WrongSession { address: "db:5432".to_owned(), problem: "allows writes" };
        assert_eq!(session.connect_failure(), ServerDown);
        assert_eq!(ConnectError::no_host().connect_failure(), Configuration);
    }

    /// The operating system's own error for a full accept queue.
    #[cfg(unix)]
    #[tokio::test]
    async fn full_accept_queue_is_a_local_shortage() {
        use socket2::{Domain, SockAddr, Socket, Type};

        let directory = tempfile::tempdir().unwrap();
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(directory.path().join(".s.PGSQL.5432")).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let url = format!("postgres://u@{}/d", directory.path().display().to_string().replace('/', "%2F"));
        let connector = super::super::scripted_server::connector(&format!("{url}?connect_timeout=100ms"));
        let mut queued = Vec::new();
        let error = loop {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            match socket.connect(&SockAddr::unix(directory.path().join(".s.PGSQL.5432")).unwrap()) {
                Ok(()) => queued.push(socket),
                Err(_) => break super::super::scripted_server::establish(&connector).await.map(drop).unwrap_err(),
            }
            assert!(queued.len() < 10_000, "the queue is never full");
        };
        assert_eq!(error.connect_failure(), LocalResource, "{error:?}");
    }
}

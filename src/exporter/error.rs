use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::text::{ErrorChain, Printable};

/// An error that prevents an exporter from starting or serving.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExporterError {
    /// The listen address is invalid.
    InvalidAddress {
        /// The address, as given.
        address: String,
    },

    /// The host of the listen address could not be resolved.
    Resolve {
        /// The address, as given.
        address: String,
        /// The error of the resolver.
        source: io::Error,
    },

    /// Another socket listens on the address.
    AddressInUse {
        /// The address, as given.
        address: String,
    },

    /// No network interface has the address.
    AddressNotAvailable {
        /// The address, as given.
        address: String,
    },

    /// The process is not permitted to listen on the address.
    PermissionDenied {
        /// The address, as given.
        address: String,
    },

    /// The socket could not be opened for another reason.
    Listen {
        /// The address, as given.
        address: String,
        /// The error of the system.
        source: io::Error,
    },

    /// The registry already has metrics of the exporter's names, most likely from another exporter.
    Register {
        /// The error of the registry.
        source: prometheus::Error,
    },

    /// The listening socket failed permanently.
    Accept {
        /// The error of the system.
        source: io::Error,
    },

    /// The socket passed to [`Exporter::bind_to`](super::Exporter::bind_to) is unusable.
    Socket {
        /// The error of the system.
        source: io::Error,
    },
}

impl fmt::Display for ExporterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidAddress { address } => write!(
                f,
                "invalid listen address `{}`; give host:port, such as 127.0.0.1:9719 or [::1]:9719, or :9719 for all \
                 interfaces",
                Printable(address)
            ),
            Self::Resolve { address, source } => write!(
                f,
                "cannot resolve the host in {}; give an IP address or a name this machine can resolve: {}",
                Printable(address),
                ErrorChain(source)
            ),
            Self::AddressInUse { address } => write!(
                f,
                "cannot listen on {}: address already in use; stop the other process or choose another with \
                 --web.listen-address",
                Printable(address)
            ),
            Self::AddressNotAvailable { address } => write!(
                f,
                "cannot listen on {}: no interface of this machine has that address; choose another with \
                 --web.listen-address, :9719 for all interfaces",
                Printable(address)
            ),
            Self::PermissionDenied { address } => write!(
                f,
                "cannot listen on {}: permission denied; choose a port from 1024 up with --web.listen-address",
                Printable(address)
            ),
            Self::Listen { address, source } => {
                write!(f, "cannot listen on {}: {}", Printable(address), ErrorChain(source))
            }
            Self::Register { source } => write!(
                f,
                "cannot register the exporter's own metrics, poolscope_scrapes_total and poolscope_scrape_duration_seconds; \
                 serve a registry by one exporter, and bind a clone of it to listen on a further address: {}",
                ErrorChain(source)
            ),
            Self::Accept { source } => {
                write!(f, "the exporter can no longer accept connections: {}", ErrorChain(source))
            }
            Self::Socket { source } => write!(f, "cannot serve on the given socket: {}", ErrorChain(source)),
        }
    }
}

/// The message contains the cause, so there is no source; the variants' fields have the errors underneath.
impl StdError for ExporterError {}

impl ExporterError {
    pub(super) fn listen(address: &str, source: io::Error) -> Self {
        let address = address.to_owned();
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { address },
            io::ErrorKind::AddrNotAvailable => Self::AddressNotAvailable { address },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { address },
            _ => Self::Listen { address, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_escaped_and_cut() {
        for address in ["\n2026 ERROR forged \u{1b}[2J".to_owned(), "x".repeat(100_000)] {
            let error = ExporterError::listen(&address, io::ErrorKind::AddrInUse.into()).to_string();
            assert!(error.chars().count() < 700 && !error.contains(char::is_control), "{error}");
            let error = ExporterError::InvalidAddress { address }.to_string();
            assert!(error.chars().count() < 700 && !error.contains(char::is_control), "{error}");
        }
    }

    #[test]
    fn messages_end_with_the_cause() {
        let address = || "db.example:9719".to_owned();
        let io = || io::Error::other("the source");
        for error in [
            ExporterError::Resolve { address: address(), source: io() },
            ExporterError::Listen { address: address(), source: io() },
            ExporterError::Register { source: prometheus::Error::Msg("the source".to_owned()) },
            ExporterError::Socket { source: io() },
            ExporterError::Accept { source: io() },
        ] {
            assert!(error.to_string().ends_with(": the source"), "{error}");
            assert!(error.source().is_none());
        }
    }
}

use std::io;

use thiserror::Error;

/// Why an exporter could not start or go on serving.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExporterError {
    /// The address is not of a form the exporter understands.
    #[error(
        "`{address}` is not an address to listen on; give host:port, such as 127.0.0.1:9719 or \
         [::1]:9719, or :9719 for all interfaces"
    )]
    InvalidAddress {
        /// As it was given.
        address: String,
    },

    /// The address names a host that no resolver knows.
    #[error("cannot resolve the host in {address}; give an IP address or a name this machine can resolve")]
    Resolve {
        /// As it was given.
        address: String,
        /// The resolver's answer.
        source: io::Error,
    },

    /// Something else listens there.
    #[error(
        "cannot listen on {address}: address already in use; stop the other process or choose \
         another with --web.listen-address"
    )]
    AddressInUse {
        /// As it was given.
        address: String,
    },

    /// No network interface has that address.
    #[error(
        "cannot listen on {address}: no interface of this machine has that address; choose another \
         with --web.listen-address, :9719 for all interfaces"
    )]
    AddressNotAvailable {
        /// As it was given.
        address: String,
    },

    /// The process may not listen there.
    #[error(
        "cannot listen on {address}: permission denied; choose a port from 1024 up with \
         --web.listen-address"
    )]
    PermissionDenied {
        /// As it was given.
        address: String,
    },

    /// The socket could not be opened for another reason.
    #[error("cannot listen on {address}")]
    Listen {
        /// As it was given.
        address: String,
        /// The system's answer.
        source: io::Error,
    },

    /// The registry has metrics of these names already, most likely another exporter's.
    #[error(
        "cannot register the exporter's own metrics, poolscope_scrapes_total and \
         poolscope_scrape_duration_seconds; serve a registry by one exporter, and bind a clone of \
         it to listen on a further address"
    )]
    Register {
        /// The registry's answer.
        source: prometheus::Error,
    },

    /// The listening socket failed in a way that trying again does not mend.
    #[error("the exporter can no longer accept connections")]
    Accept {
        /// The system's answer.
        source: io::Error,
    },

    /// The socket that was given cannot be used.
    #[error("cannot serve at the socket that was given")]
    Given {
        /// The system's answer.
        source: io::Error,
    },
}

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

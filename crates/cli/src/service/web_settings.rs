//! Where the exporter listens and by which rules it serves, as flags say it.

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;
use thiserror::Error;

use poolscope::exporter::{BoundExporter, Exporter, ExporterError, WebConfig, WebConfigError};

/// Where the exporter listens and by which rules it serves.
#[derive(Debug)]
pub struct WebSettings {
    /// Where it listens.
    pub listen: Listen,
    /// TLS, users and headers; `None` for none.
    pub config: Option<WebConfig>,
}

/// Where an exporter listens.
#[derive(Debug)]
pub enum Listen {
    /// At this address, as [`Exporter::bind`] takes it.
    Address(String),
    /// At a socket that listens already.
    Given(TcpListener),
}

/// Why the exporter cannot serve as the flags say.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WebError {
    /// The address cannot be.
    #[error("--web.listen-address cannot be used")]
    ListenAddress(#[source] ExporterError),
    /// The web configuration cannot be.
    #[error("--web.config.file cannot be used")]
    ConfigFile(#[source] WebConfigError),
    /// Nobody passed a socket.
    #[error(
        "--web.systemd-socket: systemd passed no socket (LISTEN_FDS and LISTEN_PID name none for this process); start \
         this by a .socket unit, or leave the flag out"
    )]
    NoSocket,
    /// More sockets were passed than there can be.
    #[error(
        "--web.systemd-socket: systemd passed {passed} sockets, and one is served; leave one ListenStream= in the .socket unit"
    )]
    Sockets {
        /// How many.
        passed: usize,
    },
    /// What was passed is something else.
    #[error(
        "--web.systemd-socket: what systemd passed is no TCP socket that listens; give the .socket unit \
         ListenStream= with a port, and no Accept=yes"
    )]
    NotListening(#[source] io::Error),
    /// The exporter cannot listen.
    #[error(transparent)]
    Exporter(ExporterError),
}

impl WebError {
    /// Whether a flag, or what it names, is to blame.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::ListenAddress(_) | Self::ConfigFile(_))
    }
}

impl WebSettings {
    /// At the address, or at the socket that systemd passed, if that is wanted in its place.
    ///
    /// To be called before there are threads: it takes variables from the environment.
    ///
    /// # Errors
    ///
    /// If there is not one socket.
    pub fn new(listen_address: String, config: Option<WebConfig>, systemd_socket: bool) -> Result<Self, WebError> {
        let listen = if systemd_socket { Listen::Given(passed()?) } else { Listen::Address(listen_address) };
        Ok(Self { listen, config })
    }

    /// Has `exporter` listen so.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub async fn bind(self, mut exporter: Exporter) -> Result<BoundExporter, WebError> {
        if let Some(config) = self.config {
            exporter = exporter.web_config(config);
        }
        let bound = match self.listen {
            Listen::Address(address) => exporter.bind(address).await,
            Listen::Given(listener) => exporter.bind_to(listener).await,
        };
        bound.map_err(|error| match error {
            ExporterError::InvalidAddress { .. } => WebError::ListenAddress(error),
            error => WebError::Exporter(error),
        })
    }
}

/// The socket that systemd passed to this process.
fn passed() -> Result<TcpListener, WebError> {
    let mut sockets = ListenFd::from_env();
    match sockets.len() {
        0 => return Err(WebError::NoSocket),
        1 => {}
        passed => return Err(WebError::Sockets { passed }),
    }
    let socket = sockets.take_tcp_listener(0).map_err(WebError::NotListening)?.ok_or(WebError::NoSocket)?;
    // Of Accept=yes, it would be a connection.
    #[cfg(target_os = "linux")]
    if !socket2::SockRef::from(&socket).is_listener().map_err(WebError::NotListening)? {
        return Err(WebError::NotListening(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen")));
    }
    Ok(socket)
}

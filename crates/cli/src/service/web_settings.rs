//! The exporter's listener and web configuration, as given by flags.

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;
use poolscope::exporter::{BoundExporter, Exporter, ExporterError, WebConfig, WebConfigError};
use thiserror::Error;

/// The exporter's listener and web configuration.
#[derive(Debug)]
pub(crate) struct WebSettings {
    listen: Listen,
    /// TLS, users and headers; `None` for plain HTTP.
    config: Option<WebConfig>,
    /// The template of links to traces.
    trace_url: Option<String>,
}

/// Where an exporter listens.
#[derive(Debug)]
enum Listen {
    /// An address, as for [`Exporter::bind`].
    Address(String),
    /// A listening socket that systemd passed.
    Socket(TcpListener),
}

/// Why the exporter cannot be set up as the flags require.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum WebError {
    /// The address is invalid.
    #[error("invalid --web.listen-address")]
    ListenAddress(#[source] ExporterError),
    /// The web configuration is invalid.
    #[error("invalid --web.config.file")]
    ConfigFile(#[source] WebConfigError),
    /// systemd passed no socket.
    #[error(
        "--web.systemd-socket: systemd passed no socket (LISTEN_FDS and LISTEN_PID name none for this process); \
         start the service from a .socket unit, or omit the flag"
    )]
    NoSocket,
    /// systemd passed several sockets.
    #[error(
        "--web.systemd-socket: systemd passed {passed} sockets, expected one; keep one ListenStream= in the .socket unit"
    )]
    Sockets {
        /// How many.
        passed: usize,
    },
    /// systemd passed a descriptor that is not a listening TCP socket.
    #[error(
        "--web.systemd-socket: systemd passed no listening TCP socket; set ListenStream= to a port in the .socket unit, \
         without Accept=yes"
    )]
    NotListening(#[source] io::Error),
    /// The exporter cannot listen.
    #[error(transparent)]
    Exporter(ExporterError),
}

impl WebError {
    /// Returns whether the value of a flag is the cause.
    #[must_use]
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::ListenAddress(_) | Self::ConfigFile(_))
    }
}

impl WebSettings {
    /// Creates settings for `listen_address`, or with `systemd_socket` for the socket that systemd passed.
    ///
    /// Must be called before the process has threads, because it removes variables from the environment.
    ///
    /// # Errors
    ///
    /// Returns an error unless systemd passed exactly one listening TCP socket.
    pub(crate) fn new(
        listen_address: String,
        config: Option<WebConfig>,
        systemd_socket: bool,
    ) -> Result<Self, WebError> {
        let listen = if systemd_socket { Listen::Socket(passed_socket()?) } else { Listen::Address(listen_address) };
        Ok(Self { listen, config, trace_url: None })
    }

    /// Sets the template of links to traces, if it is not `None`.
    #[must_use]
    pub(crate) fn with_trace_url(self, trace_url: Option<String>) -> Self {
        Self { trace_url, ..self }
    }

    /// Binds `exporter` to the listener, with the web configuration.
    ///
    /// # Errors
    ///
    /// Returns an error if the address is invalid or in use.
    pub(super) async fn bind(self, mut exporter: Exporter) -> Result<BoundExporter, WebError> {
        if let Some(config) = self.config {
            exporter = exporter.web_config(config);
        }
        if let Some(trace_url) = self.trace_url {
            exporter = exporter.trace_url(trace_url);
        }
        let bound = match self.listen {
            Listen::Address(address) => exporter.bind(address).await,
            Listen::Socket(listener) => exporter.bind_to(listener).await,
        };
        bound.map_err(|error| match error {
            ExporterError::InvalidAddress { .. } => WebError::ListenAddress(error),
            error => WebError::Exporter(error),
        })
    }
}

/// Returns the socket that systemd passed to this process.
fn passed_socket() -> Result<TcpListener, WebError> {
    let mut sockets = ListenFd::from_env();
    match sockets.len() {
        0 => return Err(WebError::NoSocket),
        1 => {}
        passed => return Err(WebError::Sockets { passed }),
    }
    let socket = sockets.take_tcp_listener(0).map_err(WebError::NotListening)?.ok_or(WebError::NoSocket)?;
    // With Accept=yes it is a connection.
    #[cfg(target_os = "linux")]
    if !socket2::SockRef::from(&socket).is_listener().map_err(WebError::NotListening)? {
        return Err(WebError::NotListening(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen")));
    }
    Ok(socket)
}

//! Applies the web configuration to connections and requests.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::config;
use super::reload::LiveConfig;
use crate::exporter::blocking::{BlockingLimiter, JobError};
use crate::telemetry::log::Limiter;
use crate::text::Printable;

/// Time from accepting a connection to the end of its TLS handshake.
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The first byte of a TLS connection: the type of a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// The web configuration of one bound exporter, if it has one.
#[derive(Debug)]
pub(in crate::exporter) struct Auth {
    config: Option<Arc<LiveConfig>>,
    shutting_down: watch::Sender<bool>,
}

/// A stream with or without TLS.
pub(in crate::exporter) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Auth {
    pub(in crate::exporter) fn new(config: Option<Arc<LiveConfig>>) -> Self {
        Self { config, shutting_down: watch::Sender::new(false) }
    }

    /// Returns whether TLS is enabled.
    pub(in crate::exporter) fn is_tls(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.is_tls())
    }

    /// Aborts handshakes in progress, and later ones.
    pub(in crate::exporter) fn begin_shutdown(&self) {
        self.shutting_down.send_replace(true);
    }

    /// Performs the handshake, if TLS is enabled, on the stream that `wrap` returns.
    ///
    /// Returns the stream and whether its client uses HTTP where TLS is required, or `None` if the handshake failed, or
    /// was aborted by its timeout or the shutdown.
    pub(in crate::exporter) async fn accept<S: Stream + 'static>(
        &self,
        stream: TcpStream,
        wrap: impl FnOnce(TcpStream) -> S,
    ) -> Option<(Box<dyn Stream>, bool)> {
        let Some(config) = &self.config else { return Some((Box::new(wrap(stream)), false)) };
        let mut shutting_down = self.shutting_down.subscribe();
        tokio::select! {
            accepted = timeout(TLS_HANDSHAKE_TIMEOUT, handshake(config, stream, wrap)) => match accepted {
                Ok(accepted) => accepted,
                Err(_elapsed) => {
                    tracing::debug!("a TLS handshake timed out");
                    None
                }
            },
            _ = shutting_down.wait_for(|shutting_down| *shutting_down) => None,
        }
    }

    /// Returns the rules for a request.
    pub(in crate::exporter) async fn rules(&self) -> Rules {
        let Some(config) = &self.config else { return Rules(None) };
        Rules(Some((config.current().await, config.password_limiter().clone())))
    }
}

async fn handshake<S: Stream + 'static>(
    config: &Arc<LiveConfig>,
    stream: TcpStream,
    wrap: impl FnOnce(TcpStream) -> S,
) -> Option<(Box<dyn Stream>, bool)> {
    let rules = config.current().await;
    let Some(tls) = &rules.tls else { return Some((Box::new(wrap(stream)), false)) };
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first[0] == TLS_HANDSHAKE => {}
        Ok(1) if first[0].is_ascii_uppercase() => return Some((Box::new(wrap(stream)), true)),
        _ => return None,
    }
    match TlsAcceptor::from(Arc::clone(&tls.server)).accept(wrap(stream)).await {
        Ok(stream) => Some((Box::new(stream), false)),
        Err(error) => {
            tracing::debug!(error = %Printable(error), "a TLS handshake failed");
            None
        }
    }
}

/// The rules for one request, which do not change while it is served.
pub(in crate::exporter) struct Rules(Option<(Arc<config::Rules>, BlockingLimiter)>);

impl Rules {
    /// Returns whether a request with these headers is authorized.
    pub(in crate::exporter) async fn is_authorized(&self, headers: &HeaderMap) -> Result<bool, JobError> {
        static PANICS: Limiter = Limiter::new();
        let Some((rules, password_limiter)) = &self.0 else { return Ok(true) };
        let Some(users) = &rules.users else { return Ok(true) };
        let authorized = users.is_authorized(headers, password_limiter).await;
        if let Err(JobError::Panicked(message)) = &authorized
            && let Some(suppressed) = PANICS.pass_now()
        {
            tracing::error!(panic = message, suppressed, "verifying a password panicked");
        }
        authorized
    }

    /// Returns whether a request addresses the exporter by an allowed host.
    pub(in crate::exporter) fn allows_host(&self, request: &Parts) -> bool {
        self.0.as_ref().and_then(|(rules, _)| rules.hosts.as_ref()).is_none_or(|hosts| hosts.allow(request))
    }

    /// Sets the headers that all responses have.
    pub(in crate::exporter) fn set_headers(&self, headers: &mut HeaderMap) {
        if let Some((rules, _)) = &self.0 {
            rules.set_headers(headers);
        }
    }
}

//! Stands before the routes: who comes in by which way, and who gets an answer.

use std::sync::Arc;

use http_body_util::Full;
use hyper::Response;
use hyper::http::request::Parts;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::live::Live;
use super::users::Verdict;
use crate::exporter::limits::Limits;
use crate::exporter::routes::{self, Routes};
use crate::exporter::stall::StallLimit;
use crate::exporter::stock::Content;
use crate::exporter::turns::Undone;

/// The first byte of whatever speaks TLS: a record of a handshake.
const HANDSHAKE: u8 = 0x16;

/// The web configuration, at work.
#[derive(Debug)]
pub(in crate::exporter) struct Guard {
    live: Arc<Live>,
    stopping: watch::Sender<bool>,
}

/// How a connection turned out to begin.
pub(in crate::exporter) enum Opening {
    /// Nothing is encrypted here.
    Plain(StallLimit<TcpStream>),
    Encrypted(Box<TlsStream<StallLimit<TcpStream>>>),
    /// It speaks HTTP where TLS is spoken.
    Mistaken(StallLimit<TcpStream>),
}

impl Guard {
    pub(in crate::exporter) fn new(live: Arc<Live>) -> Self {
        Self { live, stopping: watch::Sender::new(false) }
    }

    /// Whether connections are encrypted.
    pub(in crate::exporter) fn is_tls(&self) -> bool {
        self.live.is_tls()
    }

    /// Gives up the handshakes under way, and those to come.
    pub(in crate::exporter) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Waits for a connection to be one; `None` if it is given up, or is none in time.
    pub(in crate::exporter) async fn open(&self, stream: TcpStream, limits: &Limits) -> Option<Opening> {
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            opening = timeout(limits.handshake, self.shake_hands(stream, limits)) => match opening {
                Ok(opening) => opening,
                Err(_elapsed) => {
                    tracing::debug!("a handshake took too long");
                    None
                }
            },
            _ = stopping.wait_for(|stopping| *stopping) => None,
        }
    }

    async fn shake_hands(&self, stream: TcpStream, limits: &Limits) -> Option<Opening> {
        let guarded = |stream| StallLimit::new(stream, limits.write_stall);
        let Some(config) = self.live.now().await.tls() else { return Some(Opening::Plain(guarded(stream))) };
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first[0] == HANDSHAKE => {}
            Ok(1) if first[0].is_ascii_uppercase() => return Some(Opening::Mistaken(guarded(stream))),
            _ => return None,
        }
        match TlsAcceptor::from(config).accept(guarded(stream)).await {
            Ok(stream) => Some(Opening::Encrypted(Box::new(stream))),
            Err(error) => {
                tracing::debug!(%error, "a handshake failed");
                None
            }
        }
    }

    /// Answers a request, if whoever sent it may have an answer.
    pub(in crate::exporter) async fn answer(&self, request: &Parts, routes: &Routes) -> Response<Full<Content>> {
        let config = self.live.now().await;
        let mut response = match config.judge(&request.headers, &self.live).await {
            Verdict::Admitted => routes.answer(request).await,
            Verdict::Refused => routes.refuse(request),
            Verdict::Undone(undone) => {
                if let Undone::Panicked(message) = &undone {
                    tracing::error!(panic = message, "verifying a password panicked");
                }
                routes::unverified(&undone)
            }
        };
        config.dress(response.headers_mut());
        response
    }
}

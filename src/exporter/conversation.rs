//! What is said on one connection, from its first byte to its last.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::Full;
use hyper::Response;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::limits::{Limits, MAX_HEAD_BYTES, MAX_HEADERS};
use super::routes::Routes;
use super::stall::StallLimit;
use super::stock::Content;
#[cfg(feature = "web-config")]
use super::web_config::Guard;

/// What each connection of one exporter is served with.
#[derive(Debug)]
pub(super) struct Conversation {
    http: http1::Builder,
    routes: Routes,
    limits: Limits,
    #[cfg(feature = "web-config")]
    guard: Option<Guard>,
}

impl Conversation {
    pub(super) fn new(routes: Routes, limits: &Limits, #[cfg(feature = "web-config")] guard: Option<Guard>) -> Self {
        Self {
            http: http(limits),
            routes,
            limits: limits.clone(),
            #[cfg(feature = "web-config")]
            guard,
        }
    }

    /// From now on `/-/ready` says no, and connections of which nobody knows yet whether they will be are given up.
    pub(super) fn stop(&self) {
        self.routes.stop();
        #[cfg(feature = "web-config")]
        if let Some(guard) = &self.guard {
            guard.stop();
        }
    }

    /// Serves a connection to its end.
    pub(super) async fn hold(self: Arc<Self>, stream: TcpStream, watcher: Watcher) {
        #[cfg(feature = "web-config")]
        if let Some(guard) = &self.guard {
            use super::web_config::Opening;

            match guard.open(stream, &self.limits).await {
                Some(Opening::Plain(stream)) => Arc::clone(&self).speak(stream, watcher, false).await,
                Some(Opening::Encrypted(stream)) => Arc::clone(&self).speak(*stream, watcher, false).await,
                Some(Opening::Mistaken(stream)) => Arc::clone(&self).speak(stream, watcher, true).await,
                None => {}
            }
            return;
        }
        let stream = StallLimit::new(stream, self.limits.write_stall);
        self.speak(stream, watcher, false).await;
    }

    /// Speaks HTTP. `mistaken`: to somebody who should speak TLS, and who is told that and nothing else.
    async fn speak<S>(self: Arc<Self>, stream: S, watcher: Watcher, mistaken: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let http = self.http.clone();
        let service = service_fn(move |request: hyper::Request<_>| {
            let conversation = Arc::clone(&self);
            // The body is dropped unread.
            let (head, _) = request.into_parts();
            async move { Ok::<_, Infallible>(conversation.answer(&head, mistaken).await) }
        });
        if let Err(error) = watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    #[cfg(feature = "web-config")]
    async fn answer(&self, request: &Parts, mistaken: bool) -> Response<Full<Content>> {
        match &self.guard {
            None => self.routes.answer(request).await,
            Some(_) if mistaken => super::routes::speaks_https(),
            Some(guard) => guard.answer(request, &self.routes).await,
        }
    }

    #[cfg(not(feature = "web-config"))]
    async fn answer(&self, request: &Parts, _: bool) -> Response<Full<Content>> {
        self.routes.answer(request).await
    }
}

fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.request_head)
        .max_header_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        // Room to see that a head is too large, and to say so.
        .max_buf_size(2 * MAX_HEAD_BYTES);
    http
}

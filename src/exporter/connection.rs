//! Serves one connection: TLS, HTTP, and authorization before the routes.

use std::convert::Infallible;
use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Full;
use hyper::Response;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::limits::{MAX_HEAD_BYTES, MAX_HEADERS, REQUEST_HEAD_TIMEOUT, WRITE_TIMEOUT};
use super::routes::{Body, Routes};
use super::web_config::Auth;
use crate::text::ErrorChain;

/// Serves the connections of one bound exporter.
#[derive(Debug)]
pub(super) struct ConnectionHandler {
    http: http1::Builder,
    auth: Auth,
    routes: Routes,
}

impl ConnectionHandler {
    pub(super) fn new(auth: Auth, routes: Routes) -> Self {
        Self { http: http(), auth, routes }
    }

    /// Returns the scheme of the exporter's URLs.
    pub(super) fn scheme(&self) -> &'static str {
        if self.auth.is_tls() { "https" } else { "http" }
    }

    /// Makes `/-/ready` report that the process is not ready, and aborts handshakes.
    pub(super) fn begin_shutdown(&self) {
        self.routes.begin_shutdown();
        self.auth.begin_shutdown();
    }

    /// Serves a connection to its end.
    pub(super) async fn handle(self: Arc<Self>, stream: TcpStream, watcher: Watcher) {
        let with_timeout = |stream| WriteTimeout::new(stream, WRITE_TIMEOUT);
        if let Some((stream, lacks_tls)) = self.auth.accept(stream, with_timeout).await {
            self.serve_http(stream, watcher, lacks_tls).await;
        }
    }

    /// Serves HTTP. `lacks_tls`: to a client that should use TLS, and gets only that answer.
    async fn serve_http<S>(self: Arc<Self>, stream: S, watcher: Watcher, lacks_tls: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let http = self.http.clone();
        let service = service_fn(move |request: hyper::Request<_>| {
            let handler = Arc::clone(&self);
            // The body is dropped unread.
            let (head, _) = request.into_parts();
            async move {
                let response = if lacks_tls { handler.routes.tls_required() } else { handler.respond(&head).await };
                Ok::<_, Infallible>(response)
            }
        });
        if let Err(error) = watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await {
            tracing::debug!(error = %ErrorChain(&error), "a connection ended early");
        }
    }

    async fn respond(&self, request: &Parts) -> Response<Full<Body>> {
        let rules = self.auth.rules().await;
        let mut response = match rules.is_authorized(&request.headers).await {
            Ok(true) => self.routes.respond(request).await,
            Ok(false) => self.routes.unauthorized(request),
            Err(error) => self.routes.unverified(&error),
        };
        rules.set_headers(response.headers_mut());
        response
    }
}

fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD_TIMEOUT)
        .max_header_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        // Enough to find that a head is too large, and to respond.
        .max_buf_size(2 * MAX_HEAD_BYTES);
    http
}

/// A stream whose writes fail once nothing could be written for `timeout`.
///
/// hyper has a timeout for a request's head but none for its response. A client that stops reading would hold the
/// memory of the response and its connection permit forever.
#[derive(Debug)]
struct WriteTimeout<S> {
    stream: S,
    timeout: Duration,
    pending: Option<Pin<Box<Sleep>>>,
}

impl<S: Unpin> WriteTimeout<S> {
    fn new(stream: S, timeout: Duration) -> Self {
        Self { stream, timeout, pending: None }
    }

    fn poll_with_timeout<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match poll(Pin::new(&mut self.stream), cx) {
            Poll::Ready(progress) => {
                self.pending = None;
                Poll::Ready(progress)
            }
            Poll::Pending => {
                let timeout = self.timeout;
                let pending = self.pending.get_or_insert_with(|| Box::pin(sleep(timeout)));
                pending.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_with_timeout(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with_timeout(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with_timeout(cx, |stream, cx| stream.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with_timeout(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

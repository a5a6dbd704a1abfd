//! Serves one connection: TLS, HTTP, and authorization before the routes.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::Response;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::body::ResponseBody;
use super::client_stream::ClientStream;
use super::clients::Client;
use super::limits::{IDLE_TIMEOUT, MAX_HEAD_BYTES, MAX_HEADERS};
use super::routes::{self, Routes};
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

    /// Serves a connection until it ends, or is to be closed for another one or because it has no request.
    pub(super) async fn handle(self: Arc<Self>, stream: TcpStream, client: Arc<Client>, watcher: Watcher) {
        let serving = async {
            let bounded = |stream| ClientStream::new(stream, Arc::clone(&client));
            if let Some((stream, lacks_tls)) = self.auth.accept(stream, bounded).await {
                Arc::clone(&self).serve_http(stream, &client, watcher, lacks_tls).await;
            }
        };
        tokio::select! {
            () = serving => {}
            cause = client.overdue() => tracing::debug!(?cause, "closed a connection"),
        }
    }

    /// Serves HTTP. `lacks_tls`: to a client that should use TLS, and gets only that answer.
    async fn serve_http<S>(self: Arc<Self>, stream: S, client: &Arc<Client>, watcher: Watcher, lacks_tls: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let http = self.http.clone();
        let service = service_fn(move |request: hyper::Request<_>| {
            let (handler, client) = (Arc::clone(&self), Arc::clone(client));
            // The body is dropped unread.
            let (head, _) = request.into_parts();
            async move {
                client.begin_request();
                let response =
                    if lacks_tls { handler.routes.tls_required() } else { handler.respond(&head, &client).await };
                if response.body().is_stream() {
                    client.begin_stream();
                } else {
                    client.begin_response();
                }
                Ok::<_, Infallible>(response)
            }
        });
        if let Err(error) = watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await {
            tracing::debug!(error = %ErrorChain(&error), "a connection ended early");
        }
    }

    /// Returns the response, and records in `client` if the request is authorized.
    async fn respond(&self, request: &Parts, client: &Client) -> Response<ResponseBody> {
        let rules = self.auth.rules().await;
        let is_health_check = routes::is_health_check(request);
        let mut response = if client.is_reserved() && !is_health_check {
            self.routes.full()
        } else if !is_health_check && !rules.allows_host(request) {
            self.routes.host_not_allowed()
        } else {
            match rules.is_authorized(&request.headers).await {
                Ok(true) => {
                    client.authorized();
                    self.routes.respond(request).await
                }
                Ok(false) => self.routes.unauthorized(request),
                Err(error) => self.routes.unverified(&error),
            }
        };
        rules.set_headers(response.headers_mut());
        response
    }
}

fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_header_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        // Enough to find that a head is too large, and to respond.
        .max_buf_size(2 * MAX_HEAD_BYTES);
    http
}

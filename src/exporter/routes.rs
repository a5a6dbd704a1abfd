//! Maps requests to responses.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::Full;
use hyper::body::{Buf, Bytes};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::blocking::JobError;
use super::landing_page::{self, Link, State};
use super::page::PooledPage;
use super::pools_api::{self, PoolsApi, PoolsError};
use super::readiness::Readiness;
use super::runbooks::{self, RUNBOOKS, Runbook};
use super::scrape::{Negotiated, ScrapeError, Scraper};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

/// The `Retry-After` of a response to a client that found too many others.
const RETRY_AFTER_SECONDS: &str = "5";

/// Pages load nothing and run nothing.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The body of a response.
#[derive(Debug)]
pub(super) enum Body {
    Bytes(Bytes),
    Page(PooledPage),
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl Buf for Body {
    fn remaining(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.remaining(),
            Self::Page(pooled) => pooled.page().remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.chunk(),
            Self::Page(pooled) => pooled.page().chunk(),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.chunks_vectored(slices),
            Self::Page(pooled) => pooled.page().chunks_vectored(slices),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::Page(pooled) => pooled.page_mut().advance(count),
        }
    }
}

/// The endpoints of the exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Landing,
    Metrics,
    Pools,
    Runbooks,
    Healthy,
    Ready,
}

impl Endpoint {
    const ALL: [Self; 6] = [Self::Landing, Self::Metrics, Self::Pools, Self::Runbooks, Self::Healthy, Self::Ready];

    const fn path(self) -> &'static str {
        match self {
            Self::Landing => "/",
            Self::Metrics => "/metrics",
            Self::Pools => "/api/v1/pools",
            Self::Runbooks => "/runbooks/",
            Self::Healthy => "/-/healthy",
            Self::Ready => "/-/ready",
        }
    }

    fn at(path: &str) -> Option<Self> {
        if path.starts_with(Self::Runbooks.path()) {
            return Some(Self::Runbooks);
        }
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }
}

/// Responds to requests.
#[derive(Debug)]
pub(super) struct Routes {
    scraper: Arc<Scraper>,
    pools: PoolsApi,
    readiness: Readiness,
    shutting_down: AtomicBool,
    links: Vec<Link>,
}

impl Routes {
    pub(super) fn new(scraper: Arc<Scraper>, pools: PoolsApi, readiness: Readiness, extra_links: &[Link]) -> Self {
        let own = [
            (Endpoint::Metrics, "Metrics", "for Prometheus, in the text format or as OpenMetrics"),
            (Endpoint::Pools, "Pools", "connection holders and waiters of each pool, as JSON"),
            (Endpoint::Runbooks, "Runbooks", "the meaning of each alert, and what to do"),
            (Endpoint::Healthy, "Health", "200 while the process responds"),
            (Endpoint::Ready, "Readiness", "200 when the process is ready, else 503"),
        ];
        let own = own.map(|(endpoint, text, description)| Link {
            address: endpoint.path().into(),
            text: text.into(),
            description: description.into(),
        });
        Self {
            scraper,
            pools,
            readiness,
            shutting_down: AtomicBool::new(false),
            links: own.into_iter().chain(extra_links.iter().cloned()).collect(),
        }
    }

    /// Makes `/-/ready` report that the process is not ready, whatever its [`Readiness`].
    pub(super) fn begin_shutdown(&self) {
        self.shutting_down.store(true, Ordering::Release);
    }

    /// Responds to a request. hyper omits the body if the method is HEAD.
    pub(super) async fn respond(&self, request: &Parts) -> Response<Full<Body>> {
        let Parts { method, uri, headers, .. } = request;
        let path = uri.path();
        let Some(endpoint) = Endpoint::at(path) else {
            return text(StatusCode::NOT_FOUND, not_found());
        };
        if method != Method::GET && method != Method::HEAD {
            let response = text(StatusCode::METHOD_NOT_ALLOWED, format!("{path} supports GET and HEAD only.\n"));
            return with(response, ALLOW, "GET, HEAD");
        }
        match endpoint {
            Endpoint::Landing => html(landing_page::landing(&self.state(), &self.pools.exhausted(), &self.links)),
            Endpoint::Metrics => self.metrics(headers).await,
            Endpoint::Pools => self.pools(uri.query().unwrap_or_default()).await,
            Endpoint::Runbooks => runbook(path.strip_prefix(endpoint.path()).unwrap_or_default()),
            Endpoint::Healthy => text(StatusCode::OK, "poolscope is healthy.\n"),
            Endpoint::Ready => self.ready(),
        }
    }

    /// Responds to a client that is not authorized.
    pub(super) fn unauthorized(&self, request: &Parts) -> Response<Full<Body>> {
        if Endpoint::at(request.uri.path()) == Some(Endpoint::Metrics) {
            self.scraper.count_unauthorized();
        }
        let message = "Authentication required: the user name or the password is missing or wrong.\n";
        let response = text(StatusCode::UNAUTHORIZED, message);
        let response = with(response, WWW_AUTHENTICATE, r#"Basic realm="poolscope", charset="UTF-8""#);
        // Unauthorized clients must not keep the connections that authorized ones need.
        with(response, CONNECTION, "close")
    }

    /// Responds to a client whose password could not be verified.
    pub(super) fn unverified(&self, error: &JobError) -> Response<Full<Body>> {
        match error {
            JobError::Busy { .. } => {
                with_retry_after(text(StatusCode::SERVICE_UNAVAILABLE, "Too many passwords are being verified.\n"))
            }
            JobError::ShuttingDown => with_retry_after(shutting_down()),
            JobError::Panicked(_) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The password could not be verified; see the log of this process.\n",
            ),
        }
    }

    /// Responds to a client for which only health checks have room.
    pub(super) fn full(&self) -> Response<Full<Body>> {
        let message = "Too many connections: all others have a request under way.\n";
        let response = with_retry_after(text(StatusCode::SERVICE_UNAVAILABLE, message));
        with(response, CONNECTION, "close")
    }

    /// Responds to a client that addresses the exporter by a host that the web configuration does not allow.
    pub(super) fn host_not_allowed(&self) -> Response<Full<Body>> {
        let message = "The host in the request is not in allowed_hosts of the web configuration.\n";
        let response = text(StatusCode::MISDIRECTED_REQUEST, message);
        with(response, CONNECTION, "close")
    }

    /// Responds to a client that uses HTTP where TLS is required. hyper closes the connection afterwards.
    pub(super) fn tls_required(&self) -> Response<Full<Body>> {
        let response = text(StatusCode::BAD_REQUEST, "This port serves HTTPS; use https:// instead of http://.\n");
        with(response, CONNECTION, "close")
    }

    async fn metrics(&self, headers: &HeaderMap) -> Response<Full<Body>> {
        let negotiated = Negotiated::from_headers(headers);
        match self.scraper.scrape(negotiated).await {
            Ok(page) => {
                let response = respond(StatusCode::OK, negotiated.format.content_type(), Body::Page(page));
                let response = with(response, VARY, "Accept, Accept-Encoding");
                if negotiated.gzip { with(response, CONTENT_ENCODING, "gzip") } else { response }
            }
            Err(ScrapeError::Job(JobError::Busy { max_running, waited })) => {
                let message = format!(
                    "Too many concurrent scrapes: {max_running} are running, and none finished within {waited:?}. \
                     Scrape less often, or find the slow collector.\n"
                );
                with_retry_after(text(StatusCode::SERVICE_UNAVAILABLE, message))
            }
            Err(ScrapeError::Job(JobError::ShuttingDown)) => shutting_down(),
            Err(ScrapeError::Job(JobError::Panicked(_))) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "A collector panicked while the metrics were gathered; see the log of this process.\n",
            ),
            Err(ScrapeError::Encoding(error)) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("The metrics could not be encoded: {error}\n"))
            }
        }
    }

    async fn pools(&self, query: &str) -> Response<Full<Body>> {
        match self.pools.list(query).await {
            Ok(json) => respond(StatusCode::OK, JSON, json),
            Err(PoolsError::Query(message)) => json_error(StatusCode::BAD_REQUEST, &message),
            Err(PoolsError::Job(JobError::Busy { max_running, waited })) => {
                let message = format!(
                    "too many concurrent requests: {max_running} are running, and none finished within {waited:?}; \
                     poll less often"
                );
                with_retry_after(json_error(StatusCode::SERVICE_UNAVAILABLE, &message))
            }
            Err(PoolsError::Job(JobError::ShuttingDown)) => {
                json_error(StatusCode::SERVICE_UNAVAILABLE, "the process is shutting down")
            }
            Err(PoolsError::Job(JobError::Panicked(_)) | PoolsError::Encoding) => json_error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the pools could not be listed; see the log of this process",
            ),
        }
    }

    fn ready(&self) -> Response<Full<Body>> {
        match self.state() {
            State::Ready => text(StatusCode::OK, "poolscope is ready.\n"),
            State::NotReady(reason) => {
                text(StatusCode::SERVICE_UNAVAILABLE, format!("poolscope is not ready: {reason}.\n"))
            }
        }
    }

    fn state(&self) -> State {
        if self.shutting_down.load(Ordering::Acquire) {
            return State::NotReady("shutting down".into());
        }
        match self.readiness.reason() {
            None => State::Ready,
            Some(reason) => State::NotReady(reason),
        }
    }
}

/// Returns whether a request is a health check.
pub(super) fn is_health_check(request: &Parts) -> bool {
    matches!(Endpoint::at(request.uri.path()), Some(Endpoint::Healthy | Endpoint::Ready))
}

/// Responds with a runbook as plain text, which every browser shows; some would download Markdown.
fn runbook(name: &str) -> Response<Full<Body>> {
    if name.is_empty() {
        let links: Vec<_> = RUNBOOKS.iter().map(runbook_link).collect();
        return html(landing_page::index("Runbooks", "The meaning of each alert, and what to do.", &links));
    }
    match runbooks::find(name) {
        Some(runbook) => text(StatusCode::OK, runbook.text),
        None => text(StatusCode::NOT_FOUND, runbooks::not_found()),
    }
}

fn runbook_link(runbook: &Runbook) -> Link {
    Link {
        address: format!("{}{}", Endpoint::Runbooks.path(), runbook.name).into(),
        text: runbook.name.into(),
        description: runbook.summary().into(),
    }
}

fn not_found() -> String {
    format!("Not found. Available paths: {}.\n", Endpoint::ALL.map(Endpoint::path).join(", "))
}

fn shutting_down() -> Response<Full<Body>> {
    text(StatusCode::SERVICE_UNAVAILABLE, "The process is shutting down.\n")
}

fn text(status: StatusCode, body: impl Into<Body>) -> Response<Full<Body>> {
    respond(status, TEXT, body)
}

fn html(page: String) -> Response<Full<Body>> {
    with(respond(StatusCode::OK, HTML, page), CONTENT_SECURITY_POLICY, PAGE_POLICY)
}

fn json_error(status: StatusCode, message: &str) -> Response<Full<Body>> {
    respond(status, JSON, pools_api::error_json(message))
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response<Full<Body>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let response = with(response, CONTENT_TYPE, content_type);
    let response = with(response, CACHE_CONTROL, "no-store");
    with(response, X_CONTENT_TYPE_OPTIONS, "nosniff")
}

fn with_retry_after(response: Response<Full<Body>>) -> Response<Full<Body>> {
    with(response, RETRY_AFTER, RETRY_AFTER_SECONDS)
}

fn with(mut response: Response<Full<Body>>, name: HeaderName, value: &'static str) -> Response<Full<Body>> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use prometheus::Registry;

    use super::super::blocking::BlockingLimiter;
    use super::*;
    use crate::telemetry::Collector;

    async fn routes(limiter: BlockingLimiter) -> Routes {
        let scraper = Scraper::register(Collector::new(), Registry::new()).await.unwrap();
        let readiness = Readiness::new();
        readiness.ready();
        Routes::new(scraper, PoolsApi::new(Collector::new(), limiter), readiness, &[])
    }

    async fn get(routes: &Routes, path: &str) -> Response<Full<Body>> {
        let (request, ()) = hyper::Request::get(path).body(()).unwrap().into_parts();
        routes.respond(&request).await
    }

    #[test]
    fn module_doc_lists_every_endpoint() {
        let documented: Vec<_> = include_str!("mod.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! * `GET "))
            .filter_map(|line| line.split('`').next())
            .collect();
        assert_eq!(documented, Endpoint::ALL.map(Endpoint::path));
    }

    #[tokio::test]
    async fn shutdown_overrides_readiness() {
        let routes = routes(BlockingLimiter::new(1, Duration::ZERO)).await;
        assert_eq!(get(&routes, "/-/ready").await.status(), StatusCode::OK);
        routes.begin_shutdown();
        assert_eq!(get(&routes, "/-/ready").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn pool_lists_over_the_limit_are_rejected() {
        let routes = routes(BlockingLimiter::new(0, Duration::from_millis(50))).await;
        let response = get(&routes, "/api/v1/pools").await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "5");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let message = "too many concurrent requests: 0 are running, and none finished within 50ms; poll less often";
        assert_eq!(json, serde_json::json!({ "error": message }));

        assert_eq!(get(&routes, "/metrics").await.status(), StatusCode::OK);
    }
}

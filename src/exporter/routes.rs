//! Maps requests to responses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::header::{ALLOW, CONNECTION, CONTENT_ENCODING, HeaderMap, VARY, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::api::Api;
use super::assets;
use super::blocking::JobError;
use super::body::{Data, ResponseBody};
use super::landing_page::{self, Link, State};
use super::readiness::Readiness;
use super::response::{html, respond, shutting_down, text, with, with_retry_after};
use super::runbooks::{self, RUNBOOKS, Runbook};
use super::scrape::{Negotiated, ScrapeError, Scraper};

/// The endpoints of the exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Landing,
    Metrics,
    Pools,
    History,
    Stream,
    Record,
    Assets,
    Runbooks,
    Healthy,
    Ready,
}

impl Endpoint {
    const ALL: [Self; 10] = [
        Self::Landing,
        Self::Metrics,
        Self::Pools,
        Self::History,
        Self::Stream,
        Self::Record,
        Self::Assets,
        Self::Runbooks,
        Self::Healthy,
        Self::Ready,
    ];

    const fn path(self) -> &'static str {
        match self {
            Self::Landing => "/",
            Self::Metrics => "/metrics",
            Self::Pools => "/api/v1/pools",
            Self::History => "/api/v1/history",
            Self::Stream => "/api/v1/stream",
            Self::Record => "/api/v1/record",
            Self::Assets => "/assets/",
            Self::Runbooks => "/runbooks/",
            Self::Healthy => "/-/healthy",
            Self::Ready => "/-/ready",
        }
    }

    /// Returns the methods that it supports, as in `Allow`.
    const fn methods(self) -> &'static str {
        match self {
            Self::Record => "POST",
            _ => "GET, HEAD",
        }
    }

    fn at(path: &str) -> Option<Self> {
        if let Some(folder) = [Self::Runbooks, Self::Assets].into_iter().find(|folder| path.starts_with(folder.path()))
        {
            return Some(folder);
        }
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }
}

/// Responds to requests.
#[derive(Debug)]
pub(super) struct Routes {
    scraper: Arc<Scraper>,
    api: Api,
    readiness: Readiness,
    shutting_down: AtomicBool,
    links: Vec<Link>,
}

impl Routes {
    pub(super) fn new(scraper: Arc<Scraper>, api: Api, readiness: Readiness, extra_links: &[Link]) -> Self {
        let own = [
            (Endpoint::Metrics, "Metrics", "for Prometheus, in the text format or as OpenMetrics"),
            (Endpoint::Pools, "Pools", "connection holders and waiters of each pool, as JSON"),
            (Endpoint::History, "History", "the last 15 minutes of each pool, as JSON"),
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
            api,
            readiness,
            shutting_down: AtomicBool::new(false),
            links: own.into_iter().chain(extra_links.iter().cloned()).collect(),
        }
    }

    /// Makes `/-/ready` report that the process is not ready, whatever its [`Readiness`].
    pub(super) fn begin_shutdown(&self) {
        self.shutting_down.store(true, Ordering::Release);
        self.api.begin_shutdown();
    }

    /// Responds to a request. hyper omits the body if the method is HEAD.
    pub(super) async fn respond(&self, request: &Parts) -> Response<ResponseBody> {
        let Parts { method, uri, headers, .. } = request;
        let (path, query) = (uri.path(), uri.query().unwrap_or_default());
        let Some(endpoint) = Endpoint::at(path).filter(|endpoint| self.has(*endpoint)) else {
            return text(StatusCode::NOT_FOUND, self.not_found(path));
        };
        let methods = endpoint.methods();
        if !methods.split(", ").any(|allowed| method == allowed) {
            let shown = methods.replace(", ", " and ");
            let response = text(StatusCode::METHOD_NOT_ALLOWED, format!("{path} supports {shown} only.\n"));
            return with(response, ALLOW, methods);
        }
        match endpoint {
            Endpoint::Landing => html(landing_page::landing(&self.state(), &self.api.exhausted(), &self.links)),
            Endpoint::Metrics => self.metrics(headers).await,
            Endpoint::Pools => self.api.pools(query).await,
            Endpoint::History => self.api.history(query).await,
            Endpoint::Stream if method == Method::HEAD => self.api.stream_head(),
            Endpoint::Stream => self.api.stream(query, headers).await,
            Endpoint::Record => self.api.record(query, headers),
            Endpoint::Assets => asset(path.strip_prefix(endpoint.path()).unwrap_or_default(), headers),
            Endpoint::Runbooks => runbook(path.strip_prefix(endpoint.path()).unwrap_or_default()),
            Endpoint::Healthy => text(StatusCode::OK, "poolscope is healthy.\n"),
            Endpoint::Ready => self.ready(),
        }
    }

    fn has(&self, endpoint: Endpoint) -> bool {
        endpoint != Endpoint::Record || self.api.can_record()
    }

    fn not_found(&self, path: &str) -> String {
        if path == Endpoint::Record.path() {
            return "Recording on request is not enabled: see Exporter::record_on_request, or --web.enable-record.\n"
                .to_owned();
        }
        let paths: Vec<_> =
            Endpoint::ALL.into_iter().filter(|endpoint| self.has(*endpoint)).map(Endpoint::path).collect();
        format!("Not found. Available paths: {}.\n", paths.join(", "))
    }

    /// Responds to a client that is not authorized.
    pub(super) fn unauthorized(&self, request: &Parts) -> Response<ResponseBody> {
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
    pub(super) fn unverified(&self, error: &JobError) -> Response<ResponseBody> {
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
    pub(super) fn full(&self) -> Response<ResponseBody> {
        let message = "Too many connections: all others have a request under way.\n";
        let response = with_retry_after(text(StatusCode::SERVICE_UNAVAILABLE, message));
        with(response, CONNECTION, "close")
    }

    /// Responds to a client that addresses the exporter by a host that the web configuration does not allow.
    pub(super) fn host_not_allowed(&self) -> Response<ResponseBody> {
        let message = "The host in the request is not in allowed_hosts of the web configuration.\n";
        let response = text(StatusCode::MISDIRECTED_REQUEST, message);
        with(response, CONNECTION, "close")
    }

    /// Responds to a client that uses HTTP where TLS is required. hyper closes the connection afterwards.
    pub(super) fn tls_required(&self) -> Response<ResponseBody> {
        let response = text(StatusCode::BAD_REQUEST, "This port serves HTTPS; use https:// instead of http://.\n");
        with(response, CONNECTION, "close")
    }

    async fn metrics(&self, headers: &HeaderMap) -> Response<ResponseBody> {
        let negotiated = Negotiated::from_headers(headers);
        match self.scraper.scrape(negotiated).await {
            Ok(page) => {
                let response = respond(StatusCode::OK, negotiated.format.content_type(), Data::Page(page));
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

    fn ready(&self) -> Response<ResponseBody> {
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
fn runbook(name: &str) -> Response<ResponseBody> {
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

/// Responds with a file of the pages.
fn asset(name: &str, headers: &HeaderMap) -> Response<ResponseBody> {
    let Some(asset) = assets::find(name) else {
        return text(StatusCode::NOT_FOUND, "Not found. The pages have no such file.\n");
    };
    let is_compressed = Negotiated::from_headers(headers).gzip;
    let body = if is_compressed { asset.compressed.clone() } else { asset.text.into() };
    let response = with(respond(StatusCode::OK, asset.content_type, body), VARY, "Accept-Encoding");
    if is_compressed { with(response, CONTENT_ENCODING, "gzip") } else { response }
}

/// Responds to a request of a fuzzer.
#[cfg(fuzzing)]
pub(crate) async fn fuzz(head: &str) {
    use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};

    use super::blocking::BlockingLimiter;
    use super::history_api::HistoryApi;
    use super::pools_api::PoolsApi;
    use super::stream::{StreamApi, Viewers};
    use crate::telemetry::Collector;

    let mut lines = head.lines();
    let (method, target) = lines.next().and_then(|line| line.split_once(' ')).unwrap_or(("GET", "/"));
    let mut request = hyper::Request::builder().method(method).uri(target);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    let Ok(request) = request.body(()) else { return };
    static ROUTES: tokio::sync::OnceCell<Routes> = tokio::sync::OnceCell::const_new();
    let routes = ROUTES.get_or_init(async || {
        let (collector, limiter) = (Collector::new(), BlockingLimiter::new(1, std::time::Duration::from_secs(1)));
        let scraper = Scraper::register(collector.clone(), prometheus::Registry::new()).await.expect("a registry");
        let viewers = Viewers::new(collector.clone(), limiter.clone(), None);
        let pools = PoolsApi::new(collector, limiter.clone());
        let api = Api::live(pools, HistoryApi::new(Arc::default(), limiter), StreamApi::new(Arc::new(viewers)), None);
        Routes::new(scraper, api, Readiness::new(), &[])
    });
    let response = routes.await.respond(&request.into_parts().0).await;
    let status = response.status().as_u16();
    assert!(matches!(status, 200 | 400 | 404 | 405 | 503), "{status}");
    assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert!(response.headers().contains_key(CONTENT_TYPE) && response.headers().contains_key(CACHE_CONTROL));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use prometheus::Registry;

    use hyper::header::{CONTENT_TYPE, RETRY_AFTER};

    use super::super::blocking::BlockingLimiter;
    use super::super::history_api::HistoryApi;
    use super::super::pools_api::PoolsApi;
    use super::super::stream::{StreamApi, Viewers};
    use super::*;
    use crate::telemetry::Collector;

    async fn routes(limiter: BlockingLimiter) -> Routes {
        let scraper = Scraper::register(Collector::new(), Registry::new()).await.unwrap();
        let readiness = Readiness::new();
        readiness.ready();
        let viewers = Viewers::new(Collector::new(), limiter.clone(), None);
        let history = HistoryApi::new(Arc::default(), limiter.clone());
        let pools = PoolsApi::new(Collector::new(), limiter);
        let api = Api::live(pools, history, StreamApi::new(Arc::new(viewers)), None);
        Routes::new(scraper, api, readiness, &[])
    }

    async fn get(routes: &Routes, path: &str) -> Response<ResponseBody> {
        let (request, ()) = hyper::Request::get(path).body(()).unwrap().into_parts();
        routes.respond(&request).await
    }

    #[test]
    fn module_doc_lists_every_endpoint() {
        let documented: Vec<_> = include_str!("mod.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! * `GET ").or_else(|| line.strip_prefix("//! * `POST ")))
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

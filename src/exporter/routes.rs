//! From a request's method and path to its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
#[cfg(feature = "web-config")]
use hyper::header::{CONNECTION, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::Readiness;
use super::api::{self, Api, ApiError};
use super::landing::{self, Link, State};
use super::negotiation::Wish;
use super::runbooks::{self, RUNBOOKS, Runbook};
use super::scrape::{ScrapeError, Scraper};
use super::stock::Content;
use super::turns::Undone;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

/// How many seconds whoever found no turn is asked to wait.
const RETRY_SECONDS: &str = "5";

/// The page loads nothing and runs nothing.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the exporter serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Landing,
    Metrics,
    Pools,
    Runbooks,
    Healthy,
    Ready,
}

impl Endpoint {
    pub(super) const ALL: [Self; 6] =
        [Self::Landing, Self::Metrics, Self::Pools, Self::Runbooks, Self::Healthy, Self::Ready];

    pub(super) const fn path(self) -> &'static str {
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

/// What the answers are made from.
#[derive(Debug)]
pub(super) struct Routes {
    scraper: Arc<Scraper>,
    api: Api,
    readiness: Readiness,
    stopping: AtomicBool,
    links: Vec<Link>,
}

impl Routes {
    pub(super) fn new(scraper: Arc<Scraper>, api: Api, readiness: Readiness, extra_links: &[Link]) -> Self {
        let own = [
            (Endpoint::Metrics, "Metrics", "what Prometheus scrapes, as text or OpenMetrics"),
            (Endpoint::Pools, "Pools", "who holds connections and who waits for one, as JSON"),
            (Endpoint::Runbooks, "Runbooks", "what each alert means, and what to do"),
            (Endpoint::Healthy, "Health", "200 while this process answers"),
            (Endpoint::Ready, "Readiness", "200 when it can do its work, 503 otherwise"),
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
            stopping: AtomicBool::new(false),
            links: own.into_iter().chain(extra_links.iter().cloned()).collect(),
        }
    }

    /// From now on `/-/ready` says no, whatever the latch says.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Answers a request of somebody who may not ask.
    #[cfg(feature = "web-config")]
    pub(super) fn refuse(&self, request: &Parts) -> Response<Full<Content>> {
        if Endpoint::at(request.uri.path()) == Some(Endpoint::Metrics) {
            self.scraper.refused();
        }
        unauthorized()
    }

    /// Answers a request. hyper leaves the body out where the method is HEAD.
    pub(super) async fn answer(&self, request: &Parts) -> Response<Full<Content>> {
        let Parts { method, uri, headers, .. } = request;
        let path = uri.path();
        let Some(endpoint) = Endpoint::at(path) else {
            return text(StatusCode::NOT_FOUND, nothing_here());
        };
        if method != Method::GET && method != Method::HEAD {
            let refusal = text(StatusCode::METHOD_NOT_ALLOWED, format!("{path} is read with GET or HEAD.\n"));
            return with(refusal, ALLOW, "GET, HEAD");
        }
        match endpoint {
            Endpoint::Landing => self.landing(),
            Endpoint::Metrics => self.metrics(headers).await,
            Endpoint::Pools => self.pools(uri.query().unwrap_or_default()).await,
            Endpoint::Runbooks => runbook(path.strip_prefix(endpoint.path()).unwrap_or_default()),
            Endpoint::Healthy => text(StatusCode::OK, "poolscope is healthy.\n"),
            Endpoint::Ready => self.ready(),
        }
    }

    fn landing(&self) -> Response<Full<Content>> {
        html(landing::render(&self.state(), &self.links))
    }

    async fn metrics(&self, headers: &HeaderMap) -> Response<Full<Content>> {
        let wish = Wish::of(headers);
        match self.scraper.scrape(wish).await {
            Ok(page) => {
                let page = respond(StatusCode::OK, wish.format.content_type(), Content::Page(page));
                let page = with(page, VARY, "Accept, Accept-Encoding");
                if wish.gzip { with(page, CONTENT_ENCODING, "gzip") } else { page }
            }
            Err(ScrapeError::Undone(Undone::Busy { at_once, waited })) => {
                let refusal = text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!(
                        "Too many scrapes are under way: {at_once} are gathering, and none ended \
                         within {waited:?}. Scrape less often, or find the collector that is slow.\n"
                    ),
                );
                with(refusal, RETRY_AFTER, RETRY_SECONDS)
            }
            Err(ScrapeError::Undone(Undone::Stopping)) => {
                text(StatusCode::SERVICE_UNAVAILABLE, "The process is shutting down.\n")
            }
            Err(ScrapeError::Undone(Undone::Panicked(_))) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "A collector panicked while the metrics were gathered; the log of this process \
                 says where.\n",
            ),
            Err(ScrapeError::Encoding(complaint)) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("The metrics cannot be written: {complaint}\n"))
            }
        }
    }

    async fn pools(&self, query: &str) -> Response<Full<Content>> {
        match self.api.pools(query).await {
            Ok(json) => respond(StatusCode::OK, JSON, json),
            Err(ApiError::Query(complaint)) => refusal(StatusCode::BAD_REQUEST, &complaint),
            Err(ApiError::Undone(Undone::Busy { at_once, waited })) => {
                let complaint = format!(
                    "too many listings are under way: {at_once} are being made, and none was done within {waited:?}; \
                     ask less often"
                );
                with(refusal(StatusCode::SERVICE_UNAVAILABLE, &complaint), RETRY_AFTER, RETRY_SECONDS)
            }
            Err(ApiError::Undone(Undone::Stopping)) => {
                refusal(StatusCode::SERVICE_UNAVAILABLE, "the process is shutting down")
            }
            Err(ApiError::Undone(Undone::Panicked(_)) | ApiError::Encoding) => refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the pools could not be listed; the log of this process says why",
            ),
        }
    }

    fn ready(&self) -> Response<Full<Content>> {
        match self.state() {
            State::Ready => text(StatusCode::OK, "poolscope is ready.\n"),
            State::NotReady(reason) => {
                text(StatusCode::SERVICE_UNAVAILABLE, format!("poolscope is not ready: {reason}.\n"))
            }
        }
    }

    fn state(&self) -> State {
        if self.stopping.load(Ordering::Acquire) {
            return State::NotReady("shutting down".into());
        }
        match self.readiness.obstacle() {
            None => State::Ready,
            Some(reason) => State::NotReady(reason),
        }
    }
}

/// A runbook as plain text, which every browser shows; Markdown some would download.
fn runbook(name: &str) -> Response<Full<Content>> {
    if name.is_empty() {
        let links: Vec<_> = RUNBOOKS.iter().map(runbook_link).collect();
        return html(landing::list("Runbooks", "What each alert means, and what to do.", &links));
    }
    match runbooks::find(name) {
        Some(runbook) => text(StatusCode::OK, runbook.text),
        None => text(StatusCode::NOT_FOUND, runbooks::none_of_that_name()),
    }
}

fn runbook_link(runbook: &Runbook) -> Link {
    Link {
        address: format!("{}{}", Endpoint::Runbooks.path(), runbook.name).into(),
        text: runbook.name.into(),
        description: runbook.summary().into(),
    }
}

/// That whoever asks is to say who they are.
#[cfg(feature = "web-config")]
fn unauthorized() -> Response<Full<Content>> {
    let refusal =
        text(StatusCode::UNAUTHORIZED, "This needs a user's name and password, and they are missing or wrong.\n");
    let refusal = with(refusal, WWW_AUTHENTICATE, r#"Basic realm="poolscope", charset="UTF-8""#);
    // Who keeps connections and may not ask would keep out those who may.
    with(refusal, CONNECTION, "close")
}

/// That nobody could find out whether a password is right.
#[cfg(feature = "web-config")]
pub(super) fn unverified(undone: &Undone) -> Response<Full<Content>> {
    let (status, why) = match undone {
        Undone::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "Too many passwords wait to be verified.\n"),
        Undone::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "The process is shutting down.\n"),
        Undone::Panicked(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "The password could not be verified; the log of this process says why.\n",
        ),
    };
    let refusal = text(status, why);
    if status == StatusCode::SERVICE_UNAVAILABLE { with(refusal, RETRY_AFTER, RETRY_SECONDS) } else { refusal }
}

/// What is said to whoever speaks HTTP where TLS is spoken. hyper closes the connection after it.
#[cfg(feature = "web-config")]
pub(super) fn speaks_https() -> Response<Full<Content>> {
    let refusal = text(StatusCode::BAD_REQUEST, "TLS is spoken here: ask by https://, not by http://.\n");
    with(refusal, CONNECTION, "close")
}

fn html(page: String) -> Response<Full<Content>> {
    with(respond(StatusCode::OK, HTML, page), CONTENT_SECURITY_POLICY, PAGE_POLICY)
}

fn nothing_here() -> String {
    let paths = Endpoint::ALL.map(Endpoint::path);
    let (last, others) = match paths.split_last() {
        Some((last, others)) => (*last, others.join(", ")),
        None => ("", String::new()),
    };
    format!("There is nothing at this path; what exists is {others} and {last}.\n")
}

fn text(status: StatusCode, body: impl Into<Content>) -> Response<Full<Content>> {
    respond(status, TEXT, body)
}

/// Why an API has no answer, for whoever reads nothing but JSON.
fn refusal(status: StatusCode, complaint: &str) -> Response<Full<Content>> {
    respond(status, JSON, api::complaint(complaint))
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Content>) -> Response<Full<Content>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let response = with(response, CONTENT_TYPE, content_type);
    let response = with(response, CACHE_CONTROL, "no-store");
    with(response, X_CONTENT_TYPE_OPTIONS, "nosniff")
}

fn with(mut response: Response<Full<Content>>, name: HeaderName, value: &'static str) -> Response<Full<Content>> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_doc_lists_every_endpoint() {
        let documented: Vec<_> = include_str!("mod.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! * `GET "))
            .filter_map(|line| line.split('`').next())
            .collect();
        assert_eq!(documented, Endpoint::ALL.map(Endpoint::path));
    }
}

//! Replaces `web_config` without that feature: plain HTTP, no authentication, no further headers.

use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use tokio::net::TcpStream;

use super::blocking::JobError;

/// A web configuration, of which there are none.
#[derive(Debug)]
pub(super) enum LiveConfig {}

#[derive(Debug)]
pub(super) struct Auth;

pub(super) struct Rules;

impl Auth {
    pub(super) fn new(_: Option<std::sync::Arc<LiveConfig>>) -> Self {
        Self
    }

    pub(super) fn is_tls(&self) -> bool {
        false
    }

    pub(super) fn begin_shutdown(&self) {}

    pub(super) async fn accept<S>(&self, stream: TcpStream, wrap: impl FnOnce(TcpStream) -> S) -> Option<(S, bool)> {
        Some((wrap(stream), false))
    }

    pub(super) async fn rules(&self) -> Rules {
        Rules
    }
}

impl Rules {
    pub(super) async fn is_authorized(&self, _: &HeaderMap) -> Result<bool, JobError> {
        Ok(true)
    }

    pub(super) fn allows_host(&self, _: &Parts) -> bool {
        true
    }

    pub(super) fn set_headers(&self, _: &mut HeaderMap) {}
}

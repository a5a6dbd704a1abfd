//! What the shop answers.

use std::error::Error as StdError;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use tokio::task::JoinError;
use tokio_postgres::Error;

use super::endpoint::listed;
use poolscope::{CheckoutError, ConnectError, RetryError, RunError};

/// What a handler has to say, or why it failed.
pub(super) type Served = Result<Value, Failure>;

/// An answer as it is sent.
pub(super) type Answer = Response<Full<Bytes>>;

/// Why a request failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) source: Box<dyn StdError + Send + Sync>,
}

impl Failure {
    fn new(has_connection: bool, source: impl StdError + Send + Sync + 'static) -> Self {
        let status = if has_connection { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::SERVICE_UNAVAILABLE };
        Self { status, source: Box::new(source) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(true, error)
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        Self::new(true, error)
    }
}

impl From<CheckoutError> for Failure {
    fn from(error: CheckoutError) -> Self {
        Self::new(false, error)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::new(false, error)
    }
}

impl From<RunError<Error>> for Failure {
    fn from(error: RunError<Error>) -> Self {
        Self::new(matches!(error, RunError::Operation(_)), error)
    }
}

impl From<RetryError<Error>> for Failure {
    fn from(error: RetryError<Error>) -> Self {
        Self::new(matches!(error.error(), Some(RunError::Operation(_))), error)
    }
}

/// What was asked for. Nothing that there is not is a 404.
pub(super) fn found(value: &Value) -> Answer {
    let status = if value.is_null() { StatusCode::NOT_FOUND } else { StatusCode::OK };
    answer(status, "application/json", format!("{value}\n"))
}

/// That it failed. Why is for the shop's log.
pub(super) fn failed(status: StatusCode) -> Answer {
    answer(status, "text/plain", format!("{status}\n"))
}

/// That there is nothing at this path, and what there is elsewhere.
pub(super) fn unknown_path() -> Answer {
    answer(StatusCode::NOT_FOUND, "text/plain", format!("The shop has:\n{}", listed()))
}

/// That there is something at this path, which is asked for in another way.
pub(super) fn unknown_method(allowed: &str) -> Answer {
    let mut answer = failed(StatusCode::METHOD_NOT_ALLOWED);
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        answer.headers_mut().insert(ALLOW, allowed);
    }
    answer
}

fn answer(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

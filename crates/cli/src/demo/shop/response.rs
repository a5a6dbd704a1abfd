//! The responses of the shop.

use std::error::Error as StdError;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use poolscope::cache::LoadError;
use poolscope::{CheckoutError, ConnectError, RetryError, RunError};
use serde_json::Value;
use tokio::task::JoinError;
use tokio_postgres::Error;

use super::endpoint::list;

/// The result of a handler.
pub(super) type HandlerResult = Result<Value, Failure>;

/// A response with its body.
pub(super) type ShopResponse = Response<Full<Bytes>>;

/// Why a request failed, with the status of the response.
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

/// The error of a load, which other requests may share.
impl From<LoadError<Self>> for Failure {
    fn from(error: LoadError<Self>) -> Self {
        match error {
            LoadError::Loader(failure) => Self { status: failure.status, source: failure.source.to_string().into() },
            _ => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                source: "too many loads of the cache are running".into(),
            },
        }
    }
}

impl From<RetryError<Error>> for Failure {
    fn from(error: RetryError<Error>) -> Self {
        Self::new(matches!(error.error(), Some(RunError::Operation(_))), error)
    }
}

/// Returns the response with a value; 404 if it is null.
pub(super) fn success(value: &Value) -> ShopResponse {
    let status = if value.is_null() { StatusCode::NOT_FOUND } else { StatusCode::OK };
    response(status, "application/json", format!("{value}\n"))
}

/// Returns the response of a failed request. The error is logged only.
pub(super) fn failure(status: StatusCode) -> ShopResponse {
    response(status, "text/plain", format!("{status}\n"))
}

/// Returns the response for an unknown path, which lists the endpoints.
pub(super) fn unknown_path() -> ShopResponse {
    response(StatusCode::NOT_FOUND, "text/plain", format!("The shop has:\n{}", list()))
}

/// Returns the response for a method that the path does not support.
pub(super) fn unknown_method(allowed: &str) -> ShopResponse {
    let mut response = failure(StatusCode::METHOD_NOT_ALLOWED);
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> ShopResponse {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

//! Responses of the endpoints.

use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

use super::blocking::JobError;
use super::body::{Data, ResponseBody};

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
pub(super) const JSON: &str = "application/json";

/// The `Retry-After` of a response to a client that found too many others.
pub(super) const RETRY_AFTER_SECONDS: &str = "5";

/// Pages load and run what this server has, and no text of theirs can become markup.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

pub(super) fn text(status: StatusCode, body: impl Into<Data>) -> Response<ResponseBody> {
    respond(status, TEXT, body)
}

pub(super) fn html(page: String) -> Response<ResponseBody> {
    with(respond(StatusCode::OK, HTML, page), CONTENT_SECURITY_POLICY, PAGE_POLICY)
}

/// Responds to a request for which `failed` describes what did not succeed.
pub(super) fn job_error(error: &JobError, failed_job: &str) -> Response<ResponseBody> {
    match error {
        JobError::Busy { max_running, waited } => {
            let message = format!(
                "too many concurrent requests: {max_running} are running, and none finished within {waited:?}; poll less often"
            );
            with_retry_after(json_error(StatusCode::SERVICE_UNAVAILABLE, &message))
        }
        JobError::ShuttingDown => json_error(StatusCode::SERVICE_UNAVAILABLE, "the process is shutting down"),
        JobError::Panicked(_) => failed(failed_job),
    }
}

pub(super) fn failed(job: &str) -> Response<ResponseBody> {
    let message = format!("{job}; see the log of this process");
    json_error(StatusCode::INTERNAL_SERVER_ERROR, &message)
}

pub(super) fn json_error(status: StatusCode, message: &str) -> Response<ResponseBody> {
    let body = serde_json::json!({ "error": message }).to_string();
    respond(status, JSON, body)
}

pub(super) fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Data>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(body));
    *response.status_mut() = status;
    let response = with(response, CONTENT_TYPE, content_type);
    let response = with(response, CACHE_CONTROL, "no-store");
    with(response, X_CONTENT_TYPE_OPTIONS, "nosniff")
}

pub(super) fn with_retry_after(response: Response<ResponseBody>) -> Response<ResponseBody> {
    with(response, RETRY_AFTER, RETRY_AFTER_SECONDS)
}

pub(super) fn with(
    mut response: Response<ResponseBody>,
    name: HeaderName,
    value: &'static str,
) -> Response<ResponseBody> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

pub(super) fn shutting_down() -> Response<ResponseBody> {
    text(StatusCode::SERVICE_UNAVAILABLE, "The process is shutting down.\n")
}

//! The outcome of a request, from its response.

use http::{HeaderMap, HeaderName, StatusCode};

use crate::labels::Outcome;

// A name given as a string would be parsed at each lookup.
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Returns the outcome of a request with this response: `timeout` for the statuses of layers that limit the time (504 Gateway
/// Timeout, and 408 Request Timeout, which is tower-http's default), `error` for others of 500 or more and for gRPC failures.
#[inline]
pub(super) fn of_response(status: StatusCode, headers: &HeaderMap) -> Outcome {
    match status {
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Outcome::Timeout,
        status if status.is_server_error() => Outcome::Error,
        _ => of_grpc_status(headers).unwrap_or(Outcome::Ok),
    }
}

/// Returns the outcome if headers or trailers have a gRPC status that
/// [OpenTelemetry](https://opentelemetry.io/docs/specs/semconv/rpc/grpc/) classifies as a server error: `timeout` for deadline
/// exceeded, and `error` for unknown, unimplemented, internal, unavailable, data loss.
#[inline]
pub(super) fn of_grpc_status(headers: &HeaderMap) -> Option<Outcome> {
    if headers.is_empty() {
        return None;
    }
    let status = headers.get(&GRPC_STATUS).and_then(|status| status.to_str().ok());
    match status {
        Some("4") => Some(Outcome::Timeout),
        Some("2" | "12" | "13" | "14" | "15") => Some(Outcome::Error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn status_determines_the_outcome() {
        let expected = [
            (200, Outcome::Ok),
            (404, Outcome::Ok),
            (408, Outcome::Timeout),
            (499, Outcome::Ok),
            (500, Outcome::Error),
            (502, Outcome::Error),
            (503, Outcome::Error),
            (504, Outcome::Timeout),
        ];
        for (status, outcome) in expected {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(of_response(status, &HeaderMap::new()), outcome, "{status}");
        }
    }

    #[test]
    fn grpc_status_determines_the_outcome() {
        let expected = [
            ("0", Outcome::Ok),
            ("4", Outcome::Timeout),
            ("5", Outcome::Ok),
            ("13", Outcome::Error),
            ("x", Outcome::Ok),
        ];
        for (status, outcome) in expected {
            let headers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
            assert_eq!(of_response(StatusCode::OK, &headers), outcome, "{status}");
        }
    }
}

//! The outcome of a request, from its response.

use http::{HeaderMap, StatusCode};

/// Returns whether the server failed: a status of 500 or more, or a gRPC failure.
pub(super) fn is_failure(status: StatusCode, headers: &HeaderMap) -> bool {
    status.is_server_error() || is_grpc_failure(headers)
}

/// Returns whether headers or trailers have a gRPC status that
/// [OpenTelemetry](https://opentelemetry.io/docs/specs/semconv/rpc/grpc/) classifies as a server error: unknown, deadline
/// exceeded, unimplemented, internal, unavailable, data loss.
pub(super) fn is_grpc_failure(headers: &HeaderMap) -> bool {
    let status = headers.get("grpc-status").and_then(|status| status.to_str().ok());
    matches!(status, Some("2" | "4" | "12" | "13" | "14" | "15"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn client_errors_are_no_failures() {
        let none = HeaderMap::new();
        let grpc = |status| HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
        assert!(!is_failure(StatusCode::OK, &none) && !is_failure(StatusCode::NOT_FOUND, &none));
        assert!(is_failure(StatusCode::BAD_GATEWAY, &none));
        assert!(is_failure(StatusCode::OK, &grpc("13")));
        assert!(!is_failure(StatusCode::OK, &grpc("0")) && !is_failure(StatusCode::OK, &grpc("5")));
    }
}

//! What became of a request, as far as its answer tells.

use http::{HeaderMap, StatusCode};

/// Whether the server failed, and not the client: a status of 500 or more, or what is one of gRPC's.
pub(super) fn is_failure(status: StatusCode, headers: &HeaderMap) -> bool {
    status.is_server_error() || is_grpc_failure(headers)
}

/// Whether headers or trailers say that a call failed for a reason of the server's, as
/// [OpenTelemetry](https://opentelemetry.io/docs/specs/semconv/rpc/grpc/) has it: unknown, deadline exceeded,
/// unimplemented, internal, unavailable, data loss.
pub(super) fn is_grpc_failure(headers: &HeaderMap) -> bool {
    let status = headers.get("grpc-status").and_then(|status| status.to_str().ok());
    matches!(status, Some("2" | "4" | "12" | "13" | "14" | "15"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_failure_is_the_servers_fault_alone() {
        let none = HeaderMap::new();
        let grpc = |status| HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
        assert!(!is_failure(StatusCode::OK, &none) && !is_failure(StatusCode::NOT_FOUND, &none));
        assert!(is_failure(StatusCode::BAD_GATEWAY, &none));
        assert!(is_failure(StatusCode::OK, &grpc("13")));
        assert!(!is_failure(StatusCode::OK, &grpc("0")) && !is_failure(StatusCode::OK, &grpc("5")));
    }
}

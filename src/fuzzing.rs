//! The entry points of `fuzz/`, which sees only the public API. Each panics if an invariant does not hold.

/// Replays bytes of the wire protocol in several ways, which must report the same and keep all invariants.
pub fn protocol(bytes: &[u8]) {
    crate::wire::fuzz_protocol(bytes);
}

/// The same for Redis's protocol.
#[cfg(feature = "redis")]
pub fn resp(bytes: &[u8]) {
    crate::wire::fuzz_resp(bytes);
}

/// Reads a web configuration. It is valid, or the error is one line.
#[cfg(feature = "web-config")]
pub fn web_config(content: &[u8]) {
    crate::exporter::fuzz_web_config(content);
}

/// Responds to a request: the first line has the method and the target, and the others a header each.
#[cfg(feature = "exporter")]
pub async fn http(head: &str) {
    crate::exporter::fuzz_http(head).await;
}

/// Parses a `traceparent` header, the second line being `tracestate`.
#[cfg(all(feature = "middleware", feature = "otel"))]
pub fn traceparent(headers: &str) {
    crate::middleware::fuzz_traceparent(headers);
}

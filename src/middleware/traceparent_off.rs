//! Without the feature `otel`, requests have no server span.

use http::Request;
use tracing::Span;

use crate::pool::request::ActiveRequest;

pub(super) fn server_span<B>(_: &ActiveRequest, _: &Request<B>) -> Option<Span> {
    None
}

//! Without the feature `otel`, no trace is joined.

use http::Request;
use tracing::Span;

use crate::pool::request::ActiveRequest;

pub(super) fn join<B>(_: &ActiveRequest, _: &Request<B>) -> Option<Span> {
    None
}

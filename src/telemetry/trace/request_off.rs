//! The counterpart of `request.rs` without the feature `otel`: requests have no server spans.

use std::time::Duration;

use tracing::Span;

use super::{SampledSpan, spans};
use crate::labels::{ErrorCode, Outcome};

pub(crate) fn end(span: &Span, outcome: Outcome, error: Option<ErrorCode>) {
    spans::end(span, outcome, error);
}

/// Marks a span as failed by a panic, if it declares the fields.
pub(crate) fn mark_panic(span: &Span) {
    spans::fail(span, Some(ErrorCode::PANIC), spans::UNKNOWN);
}

pub(crate) fn set_attributes(span: &SampledSpan, _: &[(&'static str, u64)], _: &[(&'static str, Duration)]) {
    match span.0 {}
}

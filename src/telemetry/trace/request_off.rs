//! The counterpart of `request.rs` without the feature `otel`: requests have no server spans.

use std::time::Duration;

use tracing::Span;

use super::{SampledSpan, spans};
use crate::labels::Outcome;

pub(crate) fn end(span: &Span, outcome: Outcome) {
    spans::end(span, outcome, None);
}

pub(crate) fn set_attributes(span: &SampledSpan, _: &[(&'static str, u64)], _: &[(&'static str, Duration)]) {
    match span.0 {}
}

//! The durations of failed queries, by summary and error code.

use std::collections::BTreeMap;
use std::time::Duration;

use super::state::MAX_ERRORS;
use crate::labels::ErrorCode;
use crate::telemetry::clock::nanos;
use crate::telemetry::exemplar::Exemplars;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::queries::QueryId;
use crate::telemetry::trace_context::TraceContext;

/// At most [`MAX_ERRORS`] entries; beyond that the code is `other`.
#[derive(Debug, Default)]
pub(super) struct FailedQueries(BTreeMap<(QueryId, ErrorCode), Failed>);

/// Failed queries with the same summary and code.
#[derive(Debug, Default)]
pub(super) struct Failed {
    pub(super) durations: Histogram,
    pub(super) exemplars: Exemplars,
}

impl FailedQueries {
    pub(super) fn count(&mut self, query: QueryId, code: ErrorCode, took: Duration, trace: Option<TraceContext>) {
        let known = self.0.len() < MAX_ERRORS || self.0.contains_key(&(query, code));
        let failed = self.0.entry((query, if known { code } else { ErrorCode::OTHER })).or_default();
        failed.durations.observe(nanos(took));
        if let Some(trace) = trace {
            failed.exemplars.record(nanos(took), trace);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (QueryId, ErrorCode, &Failed)> {
        self.0.iter().map(|((query, code), failed)| (*query, *code, failed))
    }
}

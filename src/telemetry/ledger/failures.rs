//! Queries that failed: how long they took, by what they are and by their errors.

use std::collections::BTreeMap;
use std::time::Duration;

use super::books::MAX_ERRORS;
use crate::labels::ErrorCode;
use crate::telemetry::clock::nanos;
use crate::telemetry::exemplar::Exemplars;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::queries::QueryId;
use crate::telemetry::trace::TraceContext;

/// As many are told apart as of errors; beyond that the code is `other`.
#[derive(Debug, Default)]
pub(super) struct FailedQueries(BTreeMap<(QueryId, ErrorCode), Failed>);

/// Those of one kind that ended in the same error.
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
            failed.exemplars.keep(nanos(took), trace);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (QueryId, ErrorCode, &Failed)> {
        self.0.iter().map(|((query, code), failed)| (*query, *code, failed))
    }
}

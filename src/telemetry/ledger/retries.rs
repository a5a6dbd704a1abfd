//! Counters of retries.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::snapshot::{Retries, RetriesExhausted};
use super::state::MAX_ERRORS;
use crate::labels::{ErrorCode, GiveUp};
use crate::telemetry::operations::OperationId;

/// Counters of retries by operation and error code. At most [`MAX_ERRORS`] entries of each; beyond that the code is
/// `other`.
#[derive(Debug, Default)]
pub(super) struct RetryTotals {
    retries: BTreeMap<(OperationId, ErrorCode), u64>,
    exhausted: BTreeMap<(OperationId, GiveUp, ErrorCode), u64>,
    recovered: BTreeMap<OperationId, u64>,
}

impl RetryTotals {
    pub(super) fn count_retry(&mut self, operation: OperationId, code: ErrorCode) {
        count(&mut self.retries, |code| (operation, code), code);
    }

    pub(super) fn count_exhausted(&mut self, operation: OperationId, reason: GiveUp, code: ErrorCode) {
        count(&mut self.exhausted, |code| (operation, reason, code), code);
    }

    pub(super) fn count_recovered(&mut self, operation: OperationId) {
        *self.recovered.entry(operation).or_insert(0) += 1;
    }

    pub(super) fn retries(&self, name_of: impl Fn(OperationId) -> Arc<str>) -> impl Iterator<Item = Retries> {
        let retries = self.retries.iter();
        retries.map(move |((id, code), count)| Retries { operation: name_of(*id), code: *code, count: *count })
    }

    pub(super) fn exhausted(
        &self,
        name_of: impl Fn(OperationId) -> Arc<str>,
    ) -> impl Iterator<Item = RetriesExhausted> {
        self.exhausted.iter().map(move |((id, reason, code), count)| {
            let (operation, reason, code) = (name_of(*id), *reason, *code);
            RetriesExhausted { operation, reason, code, count: *count }
        })
    }

    pub(super) fn recovered(&self, operation: OperationId) -> u64 {
        self.recovered.get(&operation).copied().unwrap_or(0)
    }
}

/// Increments the counter of the key with this code or, if there are too many counters, of the key with the code
/// `other`.
pub(super) fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: impl Fn(ErrorCode) -> K, code: ErrorCode) {
    let known = counts.len() < MAX_ERRORS || counts.contains_key(&key(code));
    *counts.entry(key(if known { code } else { ErrorCode::OTHER })).or_insert(0) += 1;
}

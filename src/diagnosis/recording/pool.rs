//! A pool at one second of a recording, with the members that it has in `/api/v1/pools`.

use serde::Serialize;

use super::super::interval::{HolderGroup, Interval};
use super::format::RecordedEvidence;
use super::listing::{ListedHolder, ListedState, ListedWaiter};
use super::read::Recording;
use crate::labels::{Activity, PoolKind};

/// For how long a listing of holders and waiters counts as that of the moment, in seconds.
const LISTING_SECONDS: f64 = 2.0;

/// A pool at one second of a recording.
#[derive(Debug, Serialize)]
pub(crate) struct RecordedPool<'a> {
    name: &'a str,
    kind: &'static str,
    state: ListedState,
    holders: Vec<ListedHolder>,
    waiters: &'a [ListedWaiter],
    suspected_leaks: usize,
    holders_omitted: usize,
    waiters_omitted: usize,
    diagnosis: Option<RecordedDiagnosis<'a>>,
    sizing: NoSizing,
}

#[derive(Debug, Serialize)]
struct RecordedDiagnosis<'a> {
    cause: &'a str,
    since_seconds: f64,
    operation: Option<&'a str>,
    call_site: Option<&'a str>,
    evidence: &'a [RecordedEvidence],
    advice: &'a str,
    consequences: &'a [String],
    finding: &'a str,
    sample_interval_seconds: f64,
}

/// Recordings do not contain the load from which a size is recommended.
#[derive(Debug, Serialize)]
struct NoSizing {
    recommended_size: Option<usize>,
    withheld_by: Option<&'static str>,
    reason: &'static str,
    wait_target_seconds: f64,
    available_slots: Option<usize>,
}

const NO_SIZING: NoSizing = NoSizing {
    recommended_size: None,
    withheld_by: None,
    reason: "a recording does not contain the load",
    wait_target_seconds: 0.0,
    available_slots: None,
};

impl Recording {
    /// Returns the pool at a second, by its index in [`seconds`](Self::seconds), as JSON: an element of the list in
    /// `/api/v1/pools`. `None` if there is no such second.
    ///
    /// Between the moments at which holders and waiters were recorded, the holders are groups by operation and call site.
    #[must_use]
    pub fn pool_json(&self, second: usize) -> Option<String> {
        serde_json::to_string(&self.pool(second)?).ok()
    }

    pub(crate) fn pool(&self, index: usize) -> Option<RecordedPool<'_>> {
        let second = self.seconds.get(index)?;
        let (at, interval) = (second.at_seconds, &second.interval);
        let listing = self.listings.iter().rev().find(|(listed, _)| *listed <= at);
        let listing = listing.filter(|(listed, _)| at - listed < LISTING_SECONDS).map(|(_, listing)| listing);
        let (waiters, holders_omitted, waiters_omitted) = listing
            .map_or((&[][..], 0, 0), |listing| (&listing.waiters, listing.holders_omitted, listing.waiters_omitted));
        Some(RecordedPool {
            name: &self.header.pool,
            kind: PoolKind::of(interval.is_proxied).as_str(),
            state: state(interval),
            holders: listing.map_or_else(|| groups(interval), |listing| listing.holders.clone()),
            waiters,
            suspected_leaks: count(interval.suspected_leaks),
            holders_omitted,
            waiters_omitted,
            diagnosis: self.diagnosis(index),
            sizing: NO_SIZING,
        })
    }

    fn diagnosis(&self, index: usize) -> Option<RecordedDiagnosis<'_>> {
        let seconds = self.seconds.get(..=index)?;
        let last = seconds.last()?;
        let (second, verdict) = seconds.iter().rev().find_map(|second| Some((second, second.verdict.as_ref()?)))?;
        Some(RecordedDiagnosis {
            cause: &verdict.cause,
            since_seconds: verdict.since_seconds + (last.at_seconds - second.at_seconds).max(0.0),
            operation: verdict.operation.as_deref(),
            call_site: verdict.call_site.as_deref(),
            evidence: &verdict.evidence,
            advice: &verdict.advice,
            consequences: &verdict.consequences,
            finding: &verdict.finding,
            sample_interval_seconds: last.interval.seconds,
        })
    }

    /// Returns the index of the second at which an incident file was begun: that of the problem. Zero for others.
    #[must_use]
    pub fn incident_second(&self) -> usize {
        let at = self.header.incident.as_ref().map_or(0.0, |incident| incident.at_seconds);
        let index = self.seconds.partition_point(|second| second.at_seconds < at);
        index.min(self.seconds.len().saturating_sub(1))
    }
}

fn state(interval: &Interval) -> ListedState {
    ListedState {
        used: count(interval.used),
        idle: count(interval.idle),
        creating: count(interval.creating),
        closing: count(interval.closing),
        waiting: count(interval.queued),
        max: count(interval.max),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
fn count(value: f64) -> usize {
    value.round() as usize
}

/// Returns the groups of holders, each as if it were one holder.
fn groups(interval: &Interval) -> Vec<ListedHolder> {
    interval.holders.iter().map(group).collect()
}

fn group(group: &HolderGroup) -> ListedHolder {
    let operation = &group.operation;
    let operation = match count(group.connections) {
        0 | 1 => operation.to_string(),
        connections => format!("{operation} ({connections} connections)"),
    };
    let most = Activity::ALL.iter().zip(group.activities).filter(|(_, connections)| *connections > 0.0);
    let most = most.max_by(|(_, a), (_, b)| a.total_cmp(b));
    ListedHolder {
        operation,
        call_site: group.call_site.as_ref().map(ToString::to_string),
        age_seconds: group.oldest,
        activity: most.map(|(activity, _)| activity.as_str().to_owned()),
        silent_seconds: group.silent,
        suspected_leak: group.suspected_leaks > 0.0,
        ..ListedHolder::default()
    }
}

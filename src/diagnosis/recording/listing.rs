//! The holders and waiters of a pool at one moment.

use std::panic::Location;

use serde::{Deserialize, Serialize};

use super::super::call_site::CallSite;
use super::lists::at_most;
use crate::telemetry::{Holder, PoolSnapshot, Waiter};

/// The holders, and the waiters, of a listing: the oldest of them.
const MAX_LISTED: usize = 200;

/// Who held connections and who waited at one moment, as in `/api/v1/pools`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listing {
    state: ListedState,
    #[serde(deserialize_with = "at_most::<_, _, MAX_LISTED>")]
    pub(super) holders: Vec<ListedHolder>,
    #[serde(deserialize_with = "at_most::<_, _, MAX_LISTED>")]
    pub(super) waiters: Vec<ListedWaiter>,
    pub(super) holders_omitted: usize,
    pub(super) waiters_omitted: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ListedState {
    pub(super) used: usize,
    pub(super) idle: usize,
    pub(super) creating: usize,
    pub(super) closing: usize,
    pub(super) waiting: usize,
    pub(super) max: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ListedHolder {
    pub(super) operation: String,
    pub(super) call_site: Option<String>,
    pub(super) age_seconds: f64,
    pub(super) activity: Option<String>,
    pub(super) queries: u64,
    pub(super) backend_pid: Option<i32>,
    pub(super) trace_id: Option<String>,
    pub(super) silent_seconds: f64,
    pub(super) maintenance: bool,
    pub(super) suspected_leak: bool,
    pub(super) waits_for_own_pool: bool,
    pub(super) request: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ListedWaiter {
    operation: String,
    call_site: String,
    phase: String,
    age_seconds: f64,
    own: Option<ListedOwn>,
    trace_id: Option<String>,
    request: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct ListedOwn {
    operation: String,
    call_site: Option<String>,
}

impl Listing {
    pub(super) fn new(snapshot: &PoolSnapshot) -> Self {
        let PoolSnapshot { connections, queued, limits, holders, waiters, .. } = snapshot;
        Self {
            state: ListedState {
                used: connections.used,
                idle: connections.idle,
                creating: connections.creating,
                closing: connections.closing,
                waiting: *queued,
                max: limits.max(),
            },
            holders: holders.iter().take(MAX_LISTED).map(ListedHolder::new).collect(),
            waiters: waiters.iter().take(MAX_LISTED).map(ListedWaiter::new).collect(),
            holders_omitted: holders.len().saturating_sub(MAX_LISTED),
            waiters_omitted: waiters.len().saturating_sub(MAX_LISTED),
        }
    }

    /// Returns the number of holders and of waiters that are listed.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.holders.len(), self.waiters.len())
    }

    /// Returns the listing as a JSON object with the members `state`, `holders`, `waiters`, `holders_omitted` and
    /// `waiters_omitted` of `/api/v1/pools`.
    #[must_use]
    pub fn json(&self) -> String {
        // Neither a map's key nor a number of it can fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn site(location: &'static Location<'static>) -> String {
    CallSite::Code(location).to_string()
}

impl ListedHolder {
    fn new(holder: &Holder) -> Self {
        Self {
            operation: holder.operation.to_string(),
            call_site: holder.call_site.map(site),
            age_seconds: holder.age.as_secs_f64(),
            activity: holder.activity.map(|activity| activity.as_str().to_owned()),
            queries: holder.queries,
            backend_pid: holder.backend_pid,
            trace_id: holder.trace.map(|trace| trace.trace().to_string()),
            silent_seconds: holder.silent.as_secs_f64(),
            maintenance: holder.maintenance,
            suspected_leak: holder.suspected_leak,
            waits_for_own_pool: holder.waits_for_own_pool,
            request: holder.request.as_deref().map(str::to_owned),
        }
    }
}

impl ListedWaiter {
    fn new(waiter: &Waiter) -> Self {
        Self {
            operation: waiter.operation.to_string(),
            call_site: site(waiter.call_site),
            phase: waiter.phase.as_str().to_owned(),
            age_seconds: waiter.age.as_secs_f64(),
            own: waiter
                .own_connection
                .as_ref()
                .map(|own| ListedOwn { operation: own.operation.to_string(), call_site: own.call_site.map(site) }),
            trace_id: waiter.trace.map(|trace| trace.trace().to_string()),
            request: waiter.request.as_deref().map(str::to_owned),
        }
    }
}

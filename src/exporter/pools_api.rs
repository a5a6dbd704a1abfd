//! Answers `/api/v1/pools`: the connection holders and waiters of each pool, as JSON.
//!
//! The fields are defined here and not by the types of the snapshot, which may change while clients rely on the names.
//! New fields go to the end of their object.

mod sizing;

use std::panic::Location;
use std::time::Duration;

use serde::{Serialize, Serializer};

use self::sizing::SizingJson;
use super::blocking::{BlockingLimiter, JobError};
use super::query;
use crate::telemetry::log::Limiter;
use crate::telemetry::{
    Collector, Evidence, Holder, OwnConnection, PoolSnapshot, Status, TraceContext, Verdict, Waiter,
};
use crate::text::printable;

/// The number of holders, and of waiters, that are listed for one pool: the oldest of them. It bounds the size of a
/// response, however many tasks wait during an outage.
pub(super) const MAX_LISTED: usize = 1000;

/// Why a request has no list of pools.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PoolsError {
    /// The query is invalid.
    Query(String),
    /// The list could not be built.
    Job(JobError),
    /// The list could not be encoded as JSON.
    Encoding,
}

/// Lists the pools of a collector.
///
/// The limit is separate from that of the scrapes: when a collector of the registry hangs, the holders of the pools are
/// needed most, and clients that poll this endpoint must not delay Prometheus.
#[derive(Debug)]
pub(super) struct PoolsApi {
    collector: Collector,
    limiter: BlockingLimiter,
}

impl PoolsApi {
    pub(super) fn new(collector: Collector, limiter: BlockingLimiter) -> Self {
        Self { collector, limiter }
    }

    /// Describes each pool all of whose connections are in use while checkouts wait.
    pub(super) fn exhausted(&self) -> Vec<String> {
        let mut ledgers = Vec::new();
        self.collector.ledgers(&mut ledgers);
        let describe = |ledger: &std::sync::Arc<crate::telemetry::ledger::Ledger>| {
            let status = ledger.status();
            let exhausted = status.idle == 0 && status.used >= status.max && status.waiting > 0;
            exhausted.then(|| {
                let (name, Status { used, max, waiting, .. }) = (printable(ledger.name()), status);
                format!("pool `{name}`: {used} of {max} connections used, {waiting} waiting")
            })
        };
        ledgers.iter().filter_map(describe).collect()
    }

    /// Returns the pools that `query` selects, as JSON. It is built off the runtime's workers, since a ledger has a lock
    /// and a pool may have many holders.
    ///
    /// # Cancel safety
    ///
    /// A list that is being built is completed, and counts against the limit until then.
    pub(super) async fn list(&self, query: &str) -> Result<Vec<u8>, PoolsError> {
        static FAILURES: Limiter = Limiter::new();
        static PANICS: Limiter = Limiter::new();
        let [pool] = query::parse(query, [query::POOL]).map_err(PoolsError::Query)?;
        let collector = self.collector.clone();
        let listed = self.limiter.run(move || {
            let snapshots = collector.snapshots();
            serde_json::to_vec(&PoolList::new(&snapshots, pool.as_deref()))
        });
        match listed.await {
            Ok(Ok(json)) => Ok(json),
            Ok(Err(error)) => {
                if let Some(suppressed) = FAILURES.pass_now() {
                    tracing::error!(%error, suppressed, "could not encode the pools as JSON");
                }
                Err(PoolsError::Encoding)
            }
            Err(error) => {
                if let JobError::Panicked(message) = &error
                    && let Some(suppressed) = PANICS.pass_now()
                {
                    tracing::error!(panic = message, suppressed, "listing the pools panicked");
                }
                Err(PoolsError::Job(error))
            }
        }
    }
}

/// The response.
#[derive(Debug, Serialize)]
struct PoolList<'a> {
    pools: Vec<PoolJson<'a>>,
}

impl<'a> PoolList<'a> {
    fn new(snapshots: &'a [PoolSnapshot], only: Option<&str>) -> Self {
        // By the name given to the pool, or as it is displayed.
        let only = only.map(printable);
        let is_selected = |snapshot: &&PoolSnapshot| only.as_ref().is_none_or(|name| *snapshot.name == **name);
        Self {
            pools: snapshots.iter().filter(is_selected).map(|snapshot| PoolJson::new(snapshot, MAX_LISTED)).collect(),
        }
    }
}

/// The state of one pool.
#[derive(Debug, Serialize)]
pub(super) struct PoolJson<'a> {
    name: &'a str,
    /// Where the pool is: in this process, or in the clients of a proxy.
    kind: &'static str,
    state: StateJson,
    holders: Vec<HolderJson<'a>>,
    waiters: Vec<WaiterJson<'a>>,
    suspected_leaks: usize,
    /// The number of holders beyond the limit.
    holders_omitted: usize,
    /// The number of waiters beyond the limit.
    waiters_omitted: usize,
    diagnosis: Option<DiagnosisJson<'a>>,
    sizing: SizingJson,
}

impl<'a> PoolJson<'a> {
    /// Lists the oldest `max_listed` holders, and as many waiters.
    pub(super) fn new(snapshot: &'a PoolSnapshot, max_listed: usize) -> Self {
        let PoolSnapshot { name, holders, waiters, suspected_leaks, diagnosis, .. } = snapshot;
        Self {
            name,
            kind: snapshot.kind.as_str(),
            state: StateJson::new(snapshot),
            holders: holders.iter().take(max_listed).map(HolderJson::new).collect(),
            waiters: waiters.iter().take(max_listed).map(WaiterJson::new).collect(),
            suspected_leaks: *suspected_leaks,
            holders_omitted: holders.len().saturating_sub(max_listed),
            waiters_omitted: waiters.len().saturating_sub(max_listed),
            diagnosis: diagnosis.as_deref().map(DiagnosisJson::new),
            sizing: SizingJson::new(snapshot),
        }
    }
}

#[derive(Debug, Serialize)]
struct StateJson {
    used: usize,
    idle: usize,
    creating: usize,
    closing: usize,
    /// The number of waiters in the phase `queue`.
    waiting: usize,
    max: usize,
}

impl StateJson {
    fn new(snapshot: &PoolSnapshot) -> Self {
        let connections = snapshot.connections;
        Self {
            used: connections.used,
            idle: connections.idle,
            creating: connections.creating,
            closing: connections.closing,
            waiting: snapshot.queued,
            max: snapshot.max(),
        }
    }
}

#[derive(Debug, Serialize)]
struct HolderJson<'a> {
    operation: &'a str,
    call_site: Option<CallSite>,
    age_seconds: Seconds,
    activity: Option<&'static str>,
    queries: u64,
    backend_pid: Option<i32>,
    trace_id: Option<TraceId>,
    silent_seconds: Seconds,
    maintenance: bool,
    suspected_leak: bool,
    waits_for_own_pool: bool,
    request: Option<&'a str>,
}

impl<'a> HolderJson<'a> {
    fn new(holder: &'a Holder) -> Self {
        Self {
            operation: &holder.operation,
            call_site: holder.call_site.map(CallSite),
            age_seconds: Seconds(holder.age),
            activity: holder.activity.map(|activity| activity.as_str()),
            queries: holder.queries,
            backend_pid: holder.backend_pid,
            trace_id: holder.trace.map(TraceId),
            silent_seconds: Seconds(holder.silent),
            maintenance: holder.maintenance,
            suspected_leak: holder.suspected_leak,
            waits_for_own_pool: holder.waits_for_own_pool,
            request: holder.request.as_deref(),
        }
    }
}

#[derive(Debug, Serialize)]
struct WaiterJson<'a> {
    operation: &'a str,
    call_site: CallSite,
    phase: &'static str,
    age_seconds: Seconds,
    own: Option<OwnHoldJson<'a>>,
    trace_id: Option<TraceId>,
    request: Option<&'a str>,
}

impl<'a> WaiterJson<'a> {
    fn new(waiter: &'a Waiter) -> Self {
        Self {
            operation: &waiter.operation,
            call_site: CallSite(waiter.call_site),
            phase: waiter.phase.as_str(),
            age_seconds: Seconds(waiter.age),
            own: waiter.own_connection.as_ref().map(OwnHoldJson::new),
            trace_id: waiter.trace.map(TraceId),
            request: waiter.request.as_deref(),
        }
    }
}

/// The connection that the task of a waiter holds.
#[derive(Debug, Serialize)]
struct OwnHoldJson<'a> {
    operation: &'a str,
    call_site: Option<CallSite>,
}

impl<'a> OwnHoldJson<'a> {
    fn new(own: &'a OwnConnection) -> Self {
        Self { operation: &own.operation, call_site: own.call_site.map(CallSite) }
    }
}

#[derive(Debug, Serialize)]
struct DiagnosisJson<'a> {
    cause: &'static str,
    since_seconds: Seconds,
    operation: Option<&'a str>,
    call_site: Option<&'a str>,
    evidence: Vec<EvidenceJson>,
    advice: &'a str,
    consequences: Vec<&'static str>,
    finding: &'a str,
    sample_interval_seconds: Seconds,
}

impl<'a> DiagnosisJson<'a> {
    fn new(verdict: &'a Verdict) -> Self {
        Self {
            cause: verdict.cause.as_str(),
            since_seconds: Seconds(verdict.lasting),
            operation: verdict.operation.as_deref(),
            call_site: verdict.call_site.as_deref(),
            evidence: verdict.evidence.iter().map(EvidenceJson::new).collect(),
            advice: &verdict.advice,
            consequences: verdict.consequences.iter().map(|cause| cause.as_str()).collect(),
            finding: &verdict.finding,
            sample_interval_seconds: Seconds(verdict.sample_interval),
        }
    }
}

#[derive(Debug, Serialize)]
struct EvidenceJson {
    name: &'static str,
    value: f64,
    unit: &'static str,
    usual: Option<f64>,
}

impl EvidenceJson {
    fn new(evidence: &Evidence) -> Self {
        let Evidence { name, value, unit, usual } = *evidence;
        Self { name, value: rounded(value), unit, usual: usual.map(rounded) }
    }
}

/// Rounds to six decimals.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// A call site, as in `src/orders.rs:42`.
#[derive(Clone, Copy, Debug)]
struct CallSite(&'static Location<'static>);

impl Serialize for CallSite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{}", self.0.file(), self.0.line()))
    }
}

/// A trace ID, as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug)]
struct TraceId(TraceContext);

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.trace())
    }
}

/// Seconds, rounded down to microseconds: nine digits are hard to read.
#[derive(Clone, Copy, Debug)]
struct Seconds(Duration);

impl Serialize for Seconds {
    #[allow(clippy::cast_precision_loss, reason = "exact for the first 285 years")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_micros() as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_at_most_six_decimals() {
        for (nanos, json) in [
            (0, "0.0"),
            (999, "0.0"),
            (1_000_000_000, "1.0"),
            (1_234_567_891, "1.234567"),
            (300_000, "0.0003"),
            // More than a year.
            (40_000_000_000_001_999, "40000000.000001"),
        ] {
            assert_eq!(serde_json::to_string(&Seconds(Duration::from_nanos(nanos))).unwrap(), json);
        }
    }

    #[test]
    fn call_sites_are_file_and_line() {
        let here = Location::caller();
        let json = serde_json::to_string(&CallSite(here)).unwrap();
        assert_eq!(json, format!("\"src/exporter/pools_api.rs:{}\"", here.line()));
    }
}

//! The recommended size, as plain data, and the reading of the load that it is derived from.

use std::time::Duration;

use humantime::format_duration;

use super::clock::Nanos;
use super::ledger::PoolSnapshot;
use super::owned::UseTimes;
use super::server::ServerPoll;
use crate::labels::{Cause, PoolKind};

/// The share of checkouts that are to wait for less than `wait_target`.
pub(crate) const TARGET_SHARE: f64 = 0.99;

/// The fewest checkouts, and the shortest time, from which a size is recommended.
pub(crate) const MIN_CHECKOUTS: u64 = 100;
pub(crate) const MIN_RECORDED: Duration = Duration::from_secs(10);

/// Above this, bursts are not seen.
const FINE_RESOLUTION: Duration = Duration::from_millis(500);

/// What a pool has counted of its load, at one point in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadReading {
    pub(crate) at: Nanos,
    /// Checkouts that have begun.
    pub(crate) arrivals: u64,
    /// Uses that have ended.
    pub(crate) uses: UseTimes,
}

/// How checkouts would wait with this number of connections, by a replay of the recorded load.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SizingRow {
    /// The number of connections.
    pub size: usize,
    /// The median wait.
    pub wait_p50: Duration,
    /// The 99th percentile of waits, in steps of 6 %.
    pub wait_p99: Duration,
    /// The share of checkouts that wait at all. Always finite, as the other share.
    pub waiting_share: f64,
    /// The share of checkouts that time out.
    pub timeout_share: f64,
}

/// A replay of the recorded load with different numbers of connections.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sizing {
    /// The smallest number of connections with which 99 % of checkouts wait for less than the target.
    pub needed: usize,
    /// The target: `wait_target`.
    pub target: Duration,
    /// The time that was recorded, without `excluded`.
    pub recorded: Duration,
    /// The recorded time that is left out, because a fault inflated the demand then.
    pub excluded: Duration,
    /// The number of checkouts in the recorded time.
    pub checkouts: u64,
    /// The share of the use time that is left out because the connection was held without traffic for more than a second,
    /// or waited for a lock.
    pub excluded_use_share: f64,
    /// The time between two readings of the load. Bursts that are shorter are not seen.
    pub resolution: Duration,
    /// The mean number of connections in use, without what is left out.
    pub mean_in_use: f64,
    /// By number of connections, ascending, around `needed` and the pool's maximum.
    pub table: Vec<SizingRow>,
}

impl Sizing {
    /// Returns the rows of the table with at most so many connections, if that is known.
    pub fn table_within(&self, slots: Option<usize>) -> impl Iterator<Item = &SizingRow> {
        self.table.iter().filter(move |row| slots.is_none_or(|slots| row.size <= slots.max(1)))
    }
}

impl PoolSnapshot {
    /// Returns the number of connections that the pool may have by the slots of the server, if it is watched: its own,
    /// and those that are left.
    #[must_use]
    pub fn available_slots(&self) -> Option<usize> {
        let Some(ServerPoll::Seen(view)) = &self.server else { return None };
        let left = usize::try_from(view.slots_left).unwrap_or(usize::MAX);
        Some(left.saturating_add(self.connections.live()))
    }

    /// Returns the recommended size by the diagnosis and the sizing.
    pub(crate) fn recommendation(&self) -> Option<usize> {
        if self.size_withheld_by().is_some() {
            return None;
        }
        let needed = self.sizing.as_ref()?.needed;
        Some(self.available_slots().map_or(needed, |slots| needed.min(slots.max(1))))
    }

    /// Returns the fault because of which no size is recommended, if any; `None` for a pool of a proxy, which never has a
    /// recommended size.
    #[must_use]
    pub fn size_withheld_by(&self) -> Option<Cause> {
        if self.kind == PoolKind::Proxy {
            return None;
        }
        self.diagnosis.as_ref().and_then(|verdict| verdict.withheld_by())
    }

    /// Returns why the recommended size is what it is, or why there is none, in one sentence without a full stop.
    #[must_use]
    pub fn sizing_reason(&self) -> String {
        if let Some(cause) = self.size_withheld_by() {
            return format!("no size is recommended until {} ends: {}", cause.as_str(), inflated_by(cause));
        }
        if self.kind == PoolKind::Proxy {
            return "no size is recommended: a proxy does not see the checkouts that it would be derived from"
                .to_owned();
        }
        let Some(sizing) = &self.sizing else {
            return format!(
                "no size is recommended yet: at least {MIN_CHECKOUTS} checkouts within {} have to be recorded",
                format_duration(MIN_RECORDED)
            );
        };
        let recorded = format_duration(Duration::from_secs(sizing.recorded.as_secs()));
        let target = format_duration(sizing.target);
        let mut reason = format!(
            "in a replay of the {} checkouts of {recorded}, 99 % wait for less than {target} with {} connection{}",
            sizing.checkouts,
            sizing.needed,
            if sizing.needed == 1 { "" } else { "s" },
        );
        if let Some(slots) = self.available_slots().filter(|slots| *slots < sizing.needed) {
            reason.push_str(&format!("; the server has slots for {slots}"));
        }
        if sizing.excluded >= Duration::from_secs(1) {
            let excluded = format_duration(Duration::from_secs(sizing.excluded.as_secs()));
            reason.push_str(&format!("; {excluded} in which a fault inflated the demand are left out"));
        }
        if sizing.excluded_use_share >= 0.005 {
            reason.push_str(&format!(
                "; {:.0} % of the use time is left out, when connections were held without traffic or waited for a lock",
                sizing.excluded_use_share * 100.0
            ));
        }
        if sizing.resolution > FINE_RESOLUTION {
            let resolution = format_duration(Duration::from_secs(sizing.resolution.as_secs().max(1)));
            reason.push_str(&format!("; the load was read every {resolution}, so shorter bursts are not included"));
        }
        reason
    }
}

/// Returns how a fault inflates the demand.
fn inflated_by(cause: Cause) -> &'static str {
    match cause {
        Cause::CacheDown => "the pool has the load of a cache that is away",
        Cause::HeldIdle => "connections are held without queries, and more of them would be held likewise",
        Cause::IdleInTransaction => {
            "connections are held in open transactions, and more of them would be held likewise"
        }
        Cause::Leak => "connections are never returned, and more of them only last a little longer",
        Cause::LockWait => "queries wait for a lock, and more of them would wait for it",
        Cause::RetryStorm => "retries add to the checkouts",
        Cause::RuntimeStalled => "tasks are not polled in time, and hold connections meanwhile",
        Cause::SelfDeadlock => "tasks hold a connection while they wait for another",
        Cause::ServerDown => "checkouts wait for the server, not for connections of the pool",
        Cause::SlowQueries => "queries take longer than usual",
        _ => "it inflates the demand",
    }
}

//! The intervals of the last minute, and what they show.

use std::collections::VecDeque;

use super::figures::{Figures, ratio};
use super::interval::{BUCKETS, CacheActivity, HolderGroup, Interval, OperationInterval};
use super::measures::Measure;
use crate::labels::{Activity, Outcome, Phase};
use crate::telemetry::BOUNDS_SECONDS;

/// The number of intervals that are kept: a minute of one-second samples.
const MAX_INTERVALS: usize = 60;

/// The period that most measures cover: long enough for a few long queries, short enough for a verdict within 30 s.
const RECENT_SECONDS: f64 = 15.0;

/// The period that measures of repeated peaks cover.
const MINUTE_SECONDS: f64 = 60.0;

/// A wait of this length hurts: longer than most requests take in total.
const HARMFUL_WAIT_SECONDS: f64 = 0.25;

/// A share of timeouts that hurts.
const HARMFUL_TIMEOUT_SHARE: f64 = 0.01;

/// From this share of time on, a plateau of a proxy's pool counts as harmful: its clients wait, which a proxy cannot see.
const HARMFUL_PLATEAU_SHARE: f64 = 0.5;

/// A timer that is this late shows that the executor did not poll: of ten in a second, a busy machine delays one by 100 ms.
const LATE_SECONDS: f64 = 0.15;

/// From this share on, it is a peak that makes checkouts wait: a percentile of a single second rests on one or two of them.
const PEAK_WAIT_SHARE: f64 = 0.05;

/// From this share of an interval on, the pool was saturated in it.
const SATURATED_INTERVAL_SHARE: f64 = 0.2;

/// The value of an observation in the histogram's last bucket, which has no upper bound.
const BEYOND_LAST_BOUND_SECONDS: f64 = 60.0;

/// The intervals of the last minute, oldest first; more than a minute if they are long.
#[derive(Debug, Default)]
pub(super) struct Window {
    intervals: VecDeque<Interval>,
}

/// The intervals of a period that ends with the last one.
#[derive(Clone, Copy, Debug)]
struct Period<'a> {
    intervals: &'a VecDeque<Interval>,
    first: usize,
}

impl<'a> Period<'a> {
    fn iter(self) -> impl Iterator<Item = &'a Interval> + Clone {
        self.intervals.range(self.first..)
    }

    fn sum(self, of: impl Fn(&Interval) -> f64) -> f64 {
        self.iter().map(of).sum()
    }

    fn seconds(self) -> f64 {
        self.sum(|interval| interval.seconds)
    }

    /// Returns the sum per second.
    fn rate(self, of: impl Fn(&Interval) -> f64) -> f64 {
        ratio(self.sum(of), self.seconds())
    }

    /// Returns the share of intervals for which `is` holds.
    fn share(self, is: impl Fn(&Interval) -> bool) -> f64 {
        self.sum(|interval| f64::from(u8::from(is(interval)))) / self.sum(|_| 1.0).max(1.0)
    }

    fn wait_p99(self) -> f64 {
        wait_p99(&std::array::from_fn(|bucket| self.sum(|interval| interval.waits[bucket])))
    }

    fn timeout_share(self) -> f64 {
        let ended = self.sum(|interval| interval.outcomes.iter().sum());
        ratio(self.sum(|interval| interval.outcomes[Outcome::Timeout.index()]), ended)
    }

    fn wait_severity(self, p99: f64) -> f64 {
        severity(p99, self.timeout_share())
    }

    /// Returns the mean number of connections held with this activity.
    fn held(self, activity: Activity) -> f64 {
        self.rate(|interval| interval.held[activity.index()])
    }

    fn used(self) -> f64 {
        self.rate(|interval| interval.held.iter().sum())
    }
}

impl Window {
    pub(super) fn push(&mut self, interval: Interval) {
        if self.intervals.len() == MAX_INTERVALS {
            self.intervals.pop_front();
        }
        self.intervals.push_back(interval);
    }

    pub(super) fn clear(&mut self) {
        self.intervals.clear();
    }

    pub(super) fn last(&self) -> Option<&Interval> {
        self.intervals.back()
    }

    /// Returns the pool's maximum of connections. That of a proxy's pool whose size is unknown is the largest number within
    /// the last minute.
    pub(super) fn max(&self) -> f64 {
        let max = |intervals: Period<'_>| intervals.iter().map(|interval| interval.max).fold(0.0, f64::max);
        match self.intervals.back() {
            Some(last) if last.is_proxied => max(self.period(MINUTE_SECONDS)),
            last => last.map_or(0.0, |last| last.max),
        }
    }

    /// Returns whether a proxy observes the pool.
    pub(super) fn is_proxied(&self) -> bool {
        self.intervals.back().is_some_and(|last| last.is_proxied)
    }

    /// Returns the median length of the recent intervals, in seconds.
    pub(super) fn interval_seconds(&self) -> f64 {
        let mut lengths: Vec<_> = self.recent().iter().map(|interval| interval.seconds).collect();
        lengths.sort_by(f64::total_cmp);
        lengths.get(lengths.len() / 2).copied().unwrap_or(0.0)
    }

    /// Returns the last intervals that fit into this many seconds, and at least two.
    fn period(&self, seconds: f64) -> Period<'_> {
        let (mut first, mut covered) = (self.intervals.len(), 0.0);
        while first > 0 {
            covered += self.intervals[first - 1].seconds;
            // A little longer, as timers are late.
            if covered > seconds * 1.05 && self.intervals.len() - first >= 2 {
                break;
            }
            first -= 1;
        }
        Period { intervals: &self.intervals, first }
    }

    fn recent(&self) -> Period<'_> {
        self.period(RECENT_SECONDS)
    }

    /// Returns the operation for which `of` is largest over the recent intervals, with that sum, if it is positive.
    pub(super) fn top_operation(&self, of: impl Fn(&OperationInterval) -> f64) -> Option<(&OperationInterval, f64)> {
        top_operation(self.recent().iter(), of)
    }

    /// Likewise over the peaks of the last minute; over the recent intervals if there are none.
    pub(super) fn top_operation_of_peaks(
        &self,
        of: impl Fn(&OperationInterval) -> f64,
    ) -> Option<(&OperationInterval, f64)> {
        let peaks = self.period(MINUTE_SECONDS).iter().filter(|interval| is_peak(interval));
        top_operation(peaks, &of).or_else(|| self.top_operation(&of))
    }

    /// Returns the sum of a value of one operation over the recent intervals.
    pub(super) fn sum_of(&self, name: &str, of: impl Fn(&OperationInterval) -> f64) -> f64 {
        let operations = self.recent().iter().flat_map(|interval| &interval.operations);
        operations.filter(|operation| &*operation.name == name).map(of).sum()
    }

    /// Returns the sum of a value over the recent intervals.
    pub(super) fn sum(&self, of: impl Fn(&Interval) -> f64) -> f64 {
        self.recent().sum(of)
    }

    /// Forgets all but the recent intervals.
    pub(super) fn keep_recent(&mut self) {
        let first = self.recent().first;
        self.intervals.drain(..first);
    }

    /// Returns the length of the recent intervals in seconds.
    pub(super) fn recent_seconds(&self) -> f64 {
        self.recent().seconds()
    }

    /// Returns the recent interval and group of holders for which `of` is largest, if it is positive. Later ones are
    /// preferred.
    pub(super) fn top_group(&self, of: impl Fn(&HolderGroup) -> f64) -> Option<&HolderGroup> {
        for interval in self.recent().iter().collect::<Vec<_>>().into_iter().rev() {
            let groups = interval.holders.iter().map(|group| (group, of(group))).filter(|(_, value)| *value > 0.0);
            if let Some((group, _)) = groups.max_by(|(_, a), (_, b)| a.total_cmp(b)) {
                return Some(group);
            }
        }
        None
    }

    /// Returns the last recent value that `of` finds.
    pub(super) fn latest<'a, T>(&'a self, of: impl Fn(&'a Interval) -> Option<T>) -> Option<T> {
        self.recent().iter().filter_map(of).last()
    }

    /// Returns the mean time of an operation's queries, including those that have not ended, if it executed any.
    pub(super) fn query_seconds(&self, name: &str) -> f64 {
        let executing = self.sum_of(name, |operation| operation.held[Activity::Executing.index()]);
        let running = ratio(executing, self.recent_seconds());
        ratio(executing, self.sum_of(name, |operation| operation.queries) + running)
    }

    /// Computes all measures.
    pub(super) fn figures(&self) -> Figures {
        use Measure::*;
        let mut figures = Figures::default();
        let Some(last) = self.intervals.back() else { return figures };
        let recent = self.recent();
        let mut set = |measure, value| figures.set(measure, value);

        set(SampledSeconds, self.period(MINUTE_SECONDS).seconds());
        let max = self.max();
        let p99 = recent.wait_p99().max(last.oldest_wait);
        set(WaitP99, p99);
        set(TimeoutShare, recent.timeout_share());
        let saturated = if last.is_proxied { recent.share(|interval| interval.is_plateau(max)) } else { 0.0 };
        set(WaitSeverity, recent.wait_severity(p99).max(saturated / HARMFUL_PLATEAU_SHARE));
        set(CheckoutRate, recent.rate(|interval| interval.started));
        set(QueryRate, recent.rate(|interval| interval.queries));
        set(SaturatedShare, recent.rate(|interval| interval.saturated).max(saturated));

        let (used, idle, in_transaction) =
            (recent.used(), recent.held(Activity::Idle), recent.held(Activity::IdleInTransaction));
        set(UsedConnections, used);
        set(UsedShare, ratio(used, max));
        set(HeldIdleConnections, idle);
        set(HeldIdleShare, ratio(idle, max));
        set(IdleOfHeld, ratio(idle, used));
        set(InTransactionConnections, in_transaction);
        set(InTransactionShare, ratio(in_transaction, max));
        set(InTransactionOfHeld, ratio(in_transaction, used));
        set(ExecutingConnections, recent.held(Activity::Executing));
        set(SilentSeconds, last.holders.iter().map(|group| group.silent).fold(0.0, f64::max));
        set(SuspectedLeaks, last.suspected_leaks);
        let self_blocked = recent.iter().map(|interval| ratio(interval.self_blocked, interval.used));
        set(SelfBlockedShare, self_blocked.fold(0.0, f64::max));
        if let Some((top, executing)) = self.top_operation(|operation| operation.held[Activity::Executing.index()]) {
            set(QuerySeconds, self.query_seconds(&top.name));
            set(TopExecutingShare, ratio(executing, used * recent.seconds()));
        }

        set(ConnectFailures, recent.rate(|interval| interval.connect_failures));
        set(ConnectingSuspended, last.suspended);
        set(Refusals, recent.rate(|interval| interval.refused));
        if let Some(server) = &last.server {
            set(ServerUnreachable, f64::from(u8::from(server.unreachable)));
            set(SlotsLeft, server.slots_left);
            set(UnownedConnections, server.unowned.iter().sum());
        }
        let connecting = recent.sum(|interval| interval.phases[Phase::Connect.index()]);
        set(ConnectSeconds, connecting / recent.sum(|interval| interval.connecting).max(1.0));
        set(ConnectWaiters, ratio(connecting, recent.seconds()));
        let (replaced, started) = (recent.sum(Interval::replaced), recent.sum(|interval| interval.started));
        set(ReplacedShare, ratio(replaced, started.max(1.0)));
        set(ReplacedRate, ratio(replaced, recent.seconds()));
        set(ReplacedSteadiness, recent.share(|interval| interval.replaced() > 0.0));

        let retries = recent.sum(|interval| interval.retries);
        set(RetryShare, ratio(retries, started.max(1.0)));
        set(RetryRate, ratio(retries, recent.seconds()));
        set(BudgetRefusals, recent.rate(|interval| interval.budget_refusals));
        set(LockBlocked, last.blocked_on_locks);
        set(LockBlockedShare, ratio(last.blocked_on_locks, max));
        set(LockSeconds, last.first_lock.as_ref().map_or(0.0, |lock| lock.waiting));
        set(TimerDelay, ratio(recent.sum(|interval| interval.late), recent.sum(|_| 1.0)));
        // Of the time, as a stall makes samples longer, and therefore fewer.
        let late = recent.sum(|interval| if interval.late >= LATE_SECONDS { interval.seconds } else { 0.0 });
        set(LateShare, ratio(late, recent.seconds()));
        set(UnpolledShare, recent.share(Interval::has_unpolled_waiter));

        let caches = |of: fn(&CacheActivity) -> f64| recent.sum(|interval| interval.caches.as_ref().map_or(0.0, of));
        let bypassed = caches(|caches| caches.bypassed);
        set(CacheBypassedShare, ratio(bypassed, caches(|caches| caches.lookups)));
        set(CacheBypassedRate, ratio(bypassed, recent.seconds()));

        let minute = self.period(MINUTE_SECONDS);
        set(BurstEpisodes, episodes(minute.iter()));
        set(BurstSaturatedShare, minute.rate(|interval| interval.saturated));
        set(BurstUsedShare, ratio(minute.used(), max));
        figures
    }
}

/// Returns the operation for which `of` is largest over these intervals, with that sum, if it is positive.
fn top_operation<'a>(
    intervals: impl Iterator<Item = &'a Interval>,
    of: impl Fn(&OperationInterval) -> f64,
) -> Option<(&'a OperationInterval, f64)> {
    let mut sums: Vec<(&OperationInterval, f64)> = Vec::new();
    for operation in intervals.flat_map(|interval| &interval.operations) {
        match sums.iter_mut().find(|(known, _)| known.name == operation.name) {
            Some((_, sum)) => *sum += of(operation),
            None => sums.push((operation, of(operation))),
        }
    }
    sums.into_iter().filter(|(_, sum)| *sum > 0.0).max_by(|(_, a), (_, b)| a.total_cmp(b))
}

/// Returns the 99th percentile of a histogram of waits, interpolated within its bucket.
fn wait_p99(buckets: &[f64; BUCKETS]) -> f64 {
    let rank = buckets.iter().sum::<f64>() * 0.99;
    if rank <= 0.0 {
        return 0.0;
    }
    let mut below = 0.0;
    for (index, count) in buckets.iter().enumerate() {
        below += count;
        if below >= rank {
            // The first bucket holds those that did not wait.
            let Some(lower) = index.checked_sub(1).map(|index| BOUNDS_SECONDS[index]) else { return 0.0 };
            let upper = BOUNDS_SECONDS.get(index).copied().unwrap_or(BEYOND_LAST_BOUND_SECONDS);
            let share = ratio(rank - (below - count), *count).clamp(0.0, 1.0);
            return lower + (upper - lower) * share;
        }
    }
    BEYOND_LAST_BOUND_SECONDS
}

/// Returns how harmful waits are; 1 is the limit.
fn severity(p99: f64, timeout_share: f64) -> f64 {
    (p99 / HARMFUL_WAIT_SECONDS).max(timeout_share / HARMFUL_TIMEOUT_SHARE)
}

/// Returns whether the pool was saturated in an interval and checkouts waited long for that reason. Waits for connections
/// that are being opened, as at the start, are no peak.
fn is_peak(interval: &Interval) -> bool {
    let saturated = interval.saturated >= SATURATED_INTERVAL_SHARE * interval.seconds;
    let queued = interval.phases[Phase::Queue.index()];
    let is_queue = queued >= 0.5 * interval.phases.iter().sum::<f64>();
    let timeouts = ratio(interval.outcomes[Outcome::Timeout.index()], interval.outcomes.iter().sum());
    let is_long = harmful_share(&interval.waits) >= PEAK_WAIT_SHARE || severity(interval.oldest_wait, timeouts) >= 1.0;
    saturated && is_queue && is_long
}

/// Returns the share of waits in a histogram that were harmful.
fn harmful_share(buckets: &[f64; BUCKETS]) -> f64 {
    let bounds = BOUNDS_SECONDS.iter().zip(&buckets[1..]);
    let harmful = bounds.filter(|(lower, _)| **lower >= HARMFUL_WAIT_SECONDS).map(|(_, count)| count).sum();
    ratio(harmful, buckets.iter().sum())
}

/// Returns how often a peak begins: an interval that is one, after one that is not.
fn episodes<'a>(intervals: impl Iterator<Item = &'a Interval>) -> f64 {
    let (mut count, mut before) = (0.0, false);
    for interval in intervals {
        let is_peak = is_peak(interval);
        if is_peak && !before {
            count += 1.0;
        }
        before = is_peak;
    }
    count
}

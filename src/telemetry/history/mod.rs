//! What the pools of a collector did in the last 15 minutes, at a resolution of one second, in bounded memory.
//!
//! - [`point`] reduces two consecutive readings of a pool to one [`Point`] of at most some 300 bytes;
//! - this module keeps the points of all pools.
//!
//! The sampler records a point of each pool once per second, from the reading that the diagnosis uses too. Nothing here is
//! on the path of a checkout. The history exists only if an exporter does.
//!
//! Memory: a pool has at most [`MAX_POINTS`] points, and all pools together [`MAX_TOTAL_POINTS`]; with more pools, each
//! keeps a shorter time.

mod point;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;

use self::point::Totals;
pub(crate) use self::point::{MAX_ERRORS, MAX_OPERATIONS, OperationPoint, Point, Slots, quantile};
use super::ledger::PoolSnapshot;
use crate::labels::PoolKind;

/// The points of one pool: 15 minutes.
pub(crate) const MAX_POINTS: usize = 900;

/// The points of all pools together: 15 minutes of 200 pools.
pub(crate) const MAX_TOTAL_POINTS: usize = 200 * MAX_POINTS;

/// The names of operations that the points of one pool refer to. A pool has fewer; pools that replace each other under
/// one name may have more, and the uses of further ones are counted in the pool's total only.
pub(crate) const MAX_NAMES: usize = 1024;

/// A tick is skipped if the last one is younger, as when a second exporter samples the same pools.
const MIN_TICK_INTERVAL: Duration = Duration::from_millis(500);

/// The history of the pools of one collector.
#[derive(Debug)]
pub(crate) struct History {
    /// Distinguishes this history from those of other processes, and of this one before a restart.
    epoch: u64,
    state: Mutex<State>,
    /// The number of the last complete tick; zero before the first.
    latest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Tick>,
    pools: Vec<PoolHistory>,
}

/// A moment at which all pools are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick {
    /// Counts from one.
    pub(crate) number: u64,
    /// Milliseconds since the Unix epoch; greater than those of the tick before.
    unix_millis: u64,
    at: Instant,
}

/// The history of one pool.
#[derive(Clone, Debug)]
pub(crate) struct PoolHistory {
    name: Arc<str>,
    kind: PoolKind,
    /// Oldest first.
    points: VecDeque<Arc<Point>>,
    /// The names that the points refer to. Shared with what was selected; it rarely grows.
    names: Arc<Vec<Arc<str>>>,
    /// The counters of the last reading; `None` once the pool is gone.
    totals: Option<Totals>,
}

/// The points of one pool that were selected from its history.
#[derive(Clone, Debug)]
pub(crate) struct PoolPoints {
    pub(crate) name: Arc<str>,
    pub(crate) kind: PoolKind,
    /// Oldest first.
    pub(crate) points: Vec<Arc<Point>>,
    /// Whether older points were left out because of the limit.
    pub(crate) is_truncated: bool,
    names: Arc<Vec<Arc<str>>>,
}

impl PoolPoints {
    /// Returns points whose operations are indexes of `names`.
    pub(crate) fn new(name: Arc<str>, kind: PoolKind, points: Vec<Arc<Point>>, names: Vec<Arc<str>>) -> Self {
        Self { name, kind, points, is_truncated: false, names: Arc::new(names) }
    }

    /// Returns the last `limit` points that are in `range` and that `skip` does not select.
    pub(crate) fn within(&self, range: Range<usize>, skip: impl Fn(&Point) -> bool, limit: usize) -> Self {
        let points = self.points.get(range).unwrap_or_default();
        let begin = points.partition_point(|point| skip(point));
        let first = begin.max(points.len().saturating_sub(limit));
        Self {
            name: Arc::clone(&self.name),
            kind: self.kind,
            points: points[first..].to_vec(),
            is_truncated: first > begin,
            names: Arc::clone(&self.names),
        }
    }

    /// Returns the name that an operation of the points has.
    pub(crate) fn operation_name(&self, operation: &OperationPoint) -> &str {
        self.names.get(usize::from(operation.name)).map_or("", |name| name)
    }
}

impl Default for History {
    fn default() -> Self {
        Self { epoch: fastrand::u64(..), state: Mutex::default(), latest: watch::Sender::new(0) }
    }
}

impl History {
    /// Returns a number that no other history has.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the number of the last complete tick; it changes once per second while the pools are sampled.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// Returns the number of the last complete tick; zero before the first.
    pub(crate) fn latest(&self) -> u64 {
        *self.latest.borrow()
    }

    /// Begins a tick, unless the last one is too young.
    pub(crate) fn begin(&self, at: Instant, wall: SystemTime) -> Option<Tick> {
        let mut state = self.state();
        let unix_millis =
            wall.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        let tick = match state.last {
            Some(last) if at.saturating_duration_since(last.at) < MIN_TICK_INTERVAL => return None,
            // A clock that was set back must not make two points equal.
            Some(last) => Tick { number: last.number + 1, unix_millis: unix_millis.max(last.unix_millis + 1), at },
            None => Tick { number: 1, unix_millis, at },
        };
        state.last = Some(tick);
        Some(tick)
    }

    /// Adds a reading of one pool.
    pub(crate) fn record(&self, tick: Tick, snapshot: &PoolSnapshot) {
        let mut state = self.state();
        let known = state.pools.iter_mut().position(|pool| pool.name == snapshot.name);
        let index = known.unwrap_or_else(|| {
            state.pools.push(PoolHistory::new(snapshot));
            state.pools.len() - 1
        });
        state.pools[index].record(tick, snapshot);
    }

    /// Ends a tick: forgets what is too old or too much, and wakes those who subscribe.
    pub(crate) fn end(&self, tick: Tick) {
        self.state().prune(tick, MAX_TOTAL_POINTS);
        self.latest.send_replace(tick.number);
    }

    /// Returns the names of the pools that were read at a tick, in the order in which they were first read.
    pub(crate) fn pools_at(&self, tick: u64) -> Vec<Arc<str>> {
        let state = self.state();
        let live =
            state.pools.iter().filter(|pool| pool.points.binary_search_by_key(&tick, |point| point.tick).is_ok());
        live.map(|pool| Arc::clone(&pool.name)).collect()
    }

    /// Returns the points of each pool that `is_selected`, without those that `skip`, and of the rest the last `limit` of
    /// each pool. `limit` is computed from the number of pools selected.
    pub(crate) fn select(
        &self,
        is_selected: impl Fn(&str) -> bool,
        skip: impl Fn(&Point) -> bool,
        limit: impl FnOnce(usize) -> usize,
    ) -> Vec<PoolPoints> {
        let state = self.state();
        let selected = || state.pools.iter().filter(|pool| is_selected(&pool.name));
        let limit = limit(selected().count());
        let of = |pool: &PoolHistory| {
            let begin = pool.points.partition_point(|point| skip(point));
            let first = begin.max(pool.points.len().saturating_sub(limit));
            PoolPoints {
                name: Arc::clone(&pool.name),
                kind: pool.kind,
                points: pool.points.range(first..).cloned().collect(),
                is_truncated: first > begin,
                names: Arc::clone(&pool.names),
            }
        };
        selected().map(of).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic leaves at most one point missing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn prune(&mut self, tick: Tick, max_total: usize) {
        for pool in &mut self.pools {
            if pool.points.back().is_none_or(|point| point.tick != tick.number) {
                pool.totals = None;
            }
            while pool.points.front().is_some_and(|point| point.tick + MAX_POINTS as u64 <= tick.number) {
                pool.points.pop_front();
            }
        }
        self.pools.retain(|pool| !pool.points.is_empty() || pool.totals.is_some());
        let total: usize = self.pools.iter().map(|pool| pool.points.len()).sum();
        if total > max_total {
            let each = (max_total / self.pools.len()).max(1);
            for pool in &mut self.pools {
                pool.points.drain(..pool.points.len().saturating_sub(each));
            }
        }
    }
}

impl PoolHistory {
    fn new(snapshot: &PoolSnapshot) -> Self {
        let (name, kind) = (Arc::clone(&snapshot.name), snapshot.kind);
        Self { name, kind, points: VecDeque::new(), names: Arc::default(), totals: None }
    }

    fn record(&mut self, tick: Tick, snapshot: &PoolSnapshot) {
        let names = &mut self.names;
        let mut index = |name: &Arc<str>| {
            let known = names.iter().position(|known| Arc::ptr_eq(known, name) || known == name);
            known.or_else(|| {
                (names.len() < MAX_NAMES).then(|| {
                    Arc::make_mut(names).push(Arc::clone(name));
                    names.len() - 1
                })
            })
        };
        let point = match &self.totals {
            Some(before) => Point::between(before, tick, snapshot, &mut index),
            None => Point::first(tick, snapshot),
        };
        self.points.push_back(Arc::new(point));
        match &mut self.totals {
            Some(totals) => totals.update(tick.at, snapshot),
            None => self.totals = Some(Totals::of(tick.at, snapshot)),
        }
    }
}

#[cfg(test)]
mod tests;

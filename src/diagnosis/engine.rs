//! The diagnosis of one pool: its window, what is usual for it, and which causes hold.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use super::figures::Figures;
use super::interval::Interval;
use super::measures::Measure;
use super::rules::{RULES, Rule};
use super::sizing::Sizer;
use super::totals::Totals;
use super::verdict::{Responsibility, Wording, entry, evidence, word};
use super::window::Window;
use crate::labels::Cause;
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::sizing::LoadReading;
use crate::telemetry::verdict::Diagnoser;
use crate::telemetry::{Evidence, Limits, PoolSnapshot, Sizing, Verdict};

/// The time for which a pool is observed before it is diagnosed.
const MIN_OBSERVED_SECONDS: f64 = 3.0;

/// For how long the conditions of a cause have not held before it is no longer diagnosed.
const RELEASE_AFTER_SECONDS: f64 = 10.0;

/// For how much longer a cause is not yet diagnosed while another one that explains it is about to be.
pub(super) const AWAIT_EXPLANATION_SECONDS: f64 = 8.0;

/// A pause between samples of this length is a gap, if the samples before were closer: the process was suspended, or the
/// clock jumped. What was counted within it is not comparable.
const GAP_SECONDS: f64 = 10.0;
const GAP_FACTOR: f64 = 4.0;

/// The age at which figures become part of what is usual: the conditions of a problem that begins hold by then, so that
/// its beginning does not count as usual.
const USUAL_DELAY_SECONDS: f64 = 8.0;

/// The time that the usual values average over.
const USUAL_SECONDS: f64 = 600.0;

/// The number of operations whose usual query time is kept, as many as a pool has names.
const MAX_USUAL_OPERATIONS: usize = 256;

/// An operation's query time is usual after this many queries in the window.
const MIN_USUAL_QUERIES: f64 = 3.0;

/// The diagnosis of one pool.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    /// When the last snapshot was used, in nanoseconds; zero before the first.
    last: AtomicU64,
    state: Mutex<State>,
    verdict: Mutex<Option<Arc<Verdict>>>,
    sizer: Sizer,
    /// Whether no size is recommended, since the load is not seen.
    is_unsized: bool,
}

impl Diagnoser for Engine {
    fn is_due(&self, now: Nanos, interval: Duration) -> bool {
        let last = self.last.load(Relaxed);
        last == 0 || now.since(Nanos::from_nanos(last)) >= nanos(interval)
    }

    fn observe(&self, now: Nanos, late: Duration, snapshot: &PoolSnapshot) {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another reading of the same moment is being used.
            Err(TryLockError::WouldBlock) => return,
        };
        self.last.store(now.as_nanos().max(1), Relaxed);
        if let Some(verdict) = state.observe(now, late, snapshot) {
            *self.published() = Some(Arc::new(verdict));
        }
        if !self.is_unsized {
            self.sizer.observe(now, snapshot, self.verdict().as_deref());
        }
    }

    fn verdict(&self) -> Option<Arc<Verdict>> {
        self.published().clone()
    }

    fn record(&self, reading: &LoadReading) {
        if !self.is_unsized {
            self.sizer.record(reading);
        }
    }

    fn is_size_due(&self, now: Nanos) -> bool {
        !self.is_unsized && self.sizer.is_due(now)
    }

    fn size(&self, now: Nanos, limits: &Limits) {
        if !self.is_unsized {
            self.sizer.size(now, limits);
        }
    }

    fn sizing(&self) -> Option<Arc<Sizing>> {
        self.sizer.sizing()
    }
}

impl Engine {
    /// Returns the diagnosis of a pool that a proxy observes. It does not see the arrivals that a size depends on.
    #[cfg(feature = "proxy")]
    pub(crate) fn of_proxy() -> Self {
        Self { is_unsized: true, ..Self::default() }
    }

    fn published(&self) -> MutexGuard<'_, Option<Arc<Verdict>>> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a cause holds, in seconds of observed time.
#[derive(Clone, Copy, Debug, Default)]
struct CauseState {
    /// For how long its conditions have held; counts on while it is diagnosed.
    held: f64,
    /// For how long its conditions have not held while it is diagnosed.
    absent: f64,
    active: bool,
}

impl CauseState {
    fn update(&mut self, holds: bool, seconds: f64, adopt_after: f64) {
        if !self.active {
            self.held = if holds { self.held + seconds } else { 0.0 };
            self.active = holds && self.held >= adopt_after;
            self.absent = 0.0;
            return;
        }
        self.held += seconds;
        self.absent = if holds { 0.0 } else { self.absent + seconds };
        if self.absent >= RELEASE_AFTER_SECONDS {
            *self = Self::default();
        }
    }
}

/// Everything but the verdict itself.
#[derive(Debug, Default)]
pub(super) struct State {
    totals: Option<Totals>,
    window: Window,
    usual: Usual,
    /// In the order of [`RULES`].
    causes: Vec<CauseState>,
    /// For how long no cause has held, in seconds.
    healthy: f64,
}

/// What is usual for the pool while it is healthy.
#[derive(Debug, Default)]
struct Usual {
    figures: Option<Figures>,
    /// The mean time of queries by operation.
    queries: HashMap<Arc<str>, f64>,
    /// The seconds that the averages cover.
    covered: f64,
    /// Recent ones, oldest first.
    pending: VecDeque<PendingFigures>,
    pending_seconds: f64,
}

/// The length of an interval in seconds, the figures at its end, and the mean time of queries by operation.
type PendingFigures = (f64, Figures, Vec<(Arc<str>, f64)>);

impl State {
    /// Adds a snapshot and returns the verdict; `None` if the last one remains: after a gap, or for a second snapshot of
    /// the same moment.
    pub(super) fn observe(&mut self, now: Nanos, late: Duration, snapshot: &PoolSnapshot) -> Option<Verdict> {
        let totals = Totals::of(now, snapshot);
        let Some(before) = self.totals.replace(totals) else {
            return Some(self.first_verdict());
        };
        let totals = self.totals.as_ref()?;
        if now <= before.at() {
            return None;
        }
        let interval = Interval::between(&before, totals, late, snapshot);
        self.add(interval)
    }

    /// Returns the verdict before the first interval.
    pub(super) fn first_verdict(&self) -> Verdict {
        self.verdict(&Figures::default(), false, None)
    }

    /// Adds an interval and returns the verdict; `None` if the last one remains because the interval is a gap.
    pub(super) fn add(&mut self, interval: Interval) -> Option<Verdict> {
        let previous = self.window.interval_seconds();
        if previous > 0.0 && interval.seconds > GAP_SECONDS && interval.seconds > GAP_FACTOR * previous {
            self.window.clear();
            self.usual.forget_pending();
            return None;
        }
        Some(self.push(interval))
    }

    /// Adds an interval and returns the verdict.
    pub(super) fn push(&mut self, interval: Interval) -> Verdict {
        let seconds = interval.seconds;
        self.window.push(interval);
        let figures = self.window.figures();
        let usual_query = self.usual_query();
        self.causes.resize(RULES.len(), CauseState::default());
        let enough = figures[Measure::SampledSeconds] >= MIN_OBSERVED_SECONDS;
        let mut holding = false;
        let mut released = Vec::new();
        let usual = self.usual.reader(usual_query);
        // Windows fill gradually, so that a consequence may show before its cause.
        let is_near = |(rule, state): &(&Rule, &CauseState)| {
            enough && !state.active && rule.matching(&figures, usual, true).is_some()
        };
        let near = RULES.iter().zip(&self.causes).filter(is_near);
        let awaited: Vec<Cause> = near.flat_map(|(rule, _)| rule.explains).copied().collect();
        for (rule, state) in RULES.iter().zip(&mut self.causes) {
            let holds = enough && rule.matching(&figures, usual, state.active).is_some();
            let was_active = state.active;
            let delay = if awaited.contains(&rule.cause) { AWAIT_EXPLANATION_SECONDS } else { 0.0 };
            state.update(holds, seconds, rule.adopt_after + delay);
            holding |= holds || state.active;
            if was_active && !state.active {
                released.extend(rule.explains);
            }
        }
        // The consequences end with their cause, or hold for a reason of their own, which has to show again.
        for (rule, state) in RULES.iter().zip(&mut self.causes) {
            if released.contains(&rule.cause) {
                *state = CauseState::default();
            }
        }
        let verdict = self.verdict(&figures, enough, usual_query);
        self.healthy = if holding { 0.0 } else { self.healthy + seconds };
        if holding {
            self.usual.forget_pending();
        } else if enough {
            let queries = query_times(&self.window);
            self.usual.learn(seconds, figures, queries);
        }
        if released.contains(&Cause::Burst) {
            // The peaks of the last minute were those of another cause.
            self.window.keep_recent();
        }
        verdict
    }

    /// Returns the usual query time of the operation that executes most.
    fn usual_query(&self) -> Option<f64> {
        let executing = crate::labels::Activity::Executing.index();
        let (top, _) = self.window.top_operation(|operation| operation.held[executing])?;
        self.usual.queries.get(&top.name).copied()
    }

    fn verdict(&self, figures: &Figures, enough: bool, usual_query: Option<f64>) -> Verdict {
        let usual = self.usual.reader(usual_query);
        let active = || RULES.iter().zip(&self.causes).filter(|(_, state)| state.active);
        let sample_interval = Duration::try_from_secs_f64(self.window.interval_seconds()).unwrap_or_default();
        let lasting = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let Some((rule, state)) = active().next() else {
            let cause = if enough { Cause::Healthy } else { Cause::NotEnoughData };
            let Wording { finding, advice } = word(cause, &Responsibility::default(), figures, None, &self.window);
            let shown: &[Measure] = if enough && self.window.is_proxied() {
                &[Measure::UsedConnections, Measure::QueryRate, Measure::QuerySeconds]
            } else if enough {
                &[Measure::WaitP99, Measure::UsedConnections, Measure::CheckoutRate, Measure::QuerySeconds]
            } else {
                &[Measure::SampledSeconds]
            };
            return Verdict {
                cause,
                lasting: lasting(self.healthy),
                operation: None,
                call_site: None,
                finding,
                evidence: shown.iter().map(|measure| entry(*measure, figures, usual)).collect(),
                advice,
                consequences: Vec::new(),
                sample_interval,
            };
        };
        let by = Responsibility::find(rule.responsible, &self.window);
        let Wording { finding, advice } = word(rule.cause, &by, figures, usual_query, &self.window);
        let explained = active().skip(1).map(|(other, _)| other.cause).filter(|cause| rule.explains.contains(cause));
        Verdict {
            cause: rule.cause,
            lasting: lasting(state.held),
            call_site: by.call_site_text(),
            operation: by.operation,
            finding,
            evidence: self.evidence(rule, figures, usual),
            advice,
            consequences: explained.collect(),
            sample_interval,
        }
    }

    fn evidence(
        &self,
        rule: &'static Rule,
        figures: &Figures,
        usual: impl Fn(Measure) -> Option<f64>,
    ) -> Vec<Evidence> {
        // While a cause is being released, its conditions may not hold any more.
        let conditions = rule.matching(figures, &usual, true).or_else(|| rule.alternatives.first().copied());
        evidence(rule, conditions.unwrap_or_default(), figures, usual, self.window.is_proxied())
    }
}

/// Returns the mean query time of each operation in the window that executed enough queries.
fn query_times(window: &Window) -> Vec<(Arc<str>, f64)> {
    let Some(last) = window.last() else { return Vec::new() };
    let names = last.operations.iter().map(|operation| &operation.name);
    let usual = names.filter(|name| window.sum_of(name, |operation| operation.queries) >= MIN_USUAL_QUERIES);
    usual.map(|name| (Arc::clone(name), window.query_seconds(name))).collect()
}

impl Usual {
    fn forget_pending(&mut self) {
        self.pending.clear();
        self.pending_seconds = 0.0;
    }

    /// Adds figures of a healthy pool. They count once they are old enough.
    fn learn(&mut self, seconds: f64, figures: Figures, queries: Vec<(Arc<str>, f64)>) {
        self.pending.push_back((seconds, figures, queries));
        self.pending_seconds += seconds;
        while self.pending_seconds > USUAL_DELAY_SECONDS {
            let Some((seconds, figures, queries)) = self.pending.pop_front() else { break };
            self.pending_seconds -= seconds;
            self.covered = (self.covered + seconds).min(USUAL_SECONDS);
            let share = (seconds / self.covered).clamp(0.0, 1.0);
            self.figures.get_or_insert_with(|| figures.clone()).approach(&figures, share);
            for (name, time) in queries {
                if self.queries.len() < MAX_USUAL_OPERATIONS || self.queries.contains_key(&name) {
                    let usual = self.queries.entry(name).or_insert(time);
                    *usual += (time - *usual) * share;
                }
            }
        }
    }

    /// Returns a function from a measure to its usual value. The usual query time is that of the operation in question.
    fn reader(&self, query: Option<f64>) -> impl Fn(Measure) -> Option<f64> + Copy {
        let figures = self.figures.as_ref();
        move |measure| match measure {
            Measure::QuerySeconds => query,
            Measure::SampledSeconds => None,
            // A pool that did not connect while it was healthy has no usual time.
            Measure::ConnectSeconds => figures.map(|figures| figures[measure]).filter(|usual| *usual > 0.0),
            measure => figures.map(|figures| figures[measure]),
        }
    }
}

//! Records a pool: keeps the lines of its last minutes.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::super::interval::Interval;
use super::super::totals::Totals;
use super::format::{Header, RecordedVerdict, SecondLine, interval_json};
use crate::telemetry::clock::Nanos;
use crate::telemetry::verdict::SampleObserver;
use crate::telemetry::{Collector, PoolSnapshot, Verdict};

/// The time after which the verdict about a problem is recorded again, with its present evidence.
const VERDICT_INTERVAL_SECONDS: f64 = 15.0;

/// Records what the diagnosis of a pool uses and concludes, from the time of its creation.
///
/// The pool has to be sampled, by an exporter or by [`Pool::watch`](crate::Pool::watch). A second takes about 1 KB of
/// memory, some more with many operations. Clones are handles to the same recording; it ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Recorder {
    lines: Arc<Lines>,
}

#[derive(Debug)]
struct Lines {
    header: Header,
    keep_seconds: f64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    first: Option<Nanos>,
    totals: Option<Totals>,
    lines: VecDeque<Line>,
    /// The wall time of the last line.
    last_at: Option<SystemTime>,
    /// The verdict that was recorded last in a line that is no longer kept.
    earlier: Option<Arc<str>>,
    last: Option<(f64, Arc<Verdict>)>,
}

/// A line, encoded, which takes less memory than its values.
#[derive(Clone, Debug)]
struct Line {
    at_seconds: f64,
    /// The line without the verdict.
    second: Arc<str>,
    verdict: Option<Arc<str>>,
}

impl Recorder {
    /// Records the pool of this name; `None` if the collector has none. Only the last `keep` are kept.
    #[must_use]
    pub fn start(collector: &Collector, pool: &str, keep: Duration) -> Option<Self> {
        let mut ledgers = Vec::new();
        collector.ledgers(&mut ledgers);
        let ledger = ledgers.into_iter().find(|ledger| **ledger.name() == *pool)?;
        let header = Header::new(&ledger);
        let lines = Arc::new(Lines { header, keep_seconds: keep.as_secs_f64(), state: Mutex::default() });
        let observer: Weak<Lines> = Arc::downgrade(&lines);
        ledger.add_observer(observer);
        Some(Self { lines })
    }

    /// Writes the recording as it is now.
    ///
    /// # Errors
    ///
    /// Returns an error if `output` does.
    pub fn write(&self, output: &mut impl Write) -> io::Result<()> {
        // Not under the lock: the output may be slow.
        output.write_all(self.encode().as_bytes())
    }

    fn encode(&self) -> String {
        // Under the lock only references are copied: a sample waits for it.
        let (lines, last_at, mut earlier) = {
            let state = self.lines.state();
            (state.lines.clone(), state.last_at, state.earlier.clone())
        };
        let header = match (lines.back(), last_at) {
            (Some(line), Some(at)) => self.lines.header.lasting(line.at_seconds, at),
            _ => self.lines.header.clone(),
        };
        let end = serde_json::json!({ "end": { "seconds": lines.len() } });
        let mut encoded = json(&header) + "\n";
        for Line { second, verdict, .. } in &lines {
            let earlier = earlier.take();
            let (open, close) = second.split_at(second.len() - 1);
            encoded.push_str(open);
            if let Some(verdict) = verdict.as_ref().or(earlier.as_ref()) {
                encoded.push_str(",\"verdict\":");
                encoded.push_str(verdict);
            }
            encoded.push_str(close);
            encoded.push('\n');
        }
        encoded + &end.to_string() + "\n"
    }
}

/// Returns an object as JSON.
fn json(object: &impl Serialize) -> String {
    // An object without maps of other keys than strings can be encoded.
    serde_json::to_string(object).unwrap_or_else(|_| "{}".to_owned())
}

impl Lines {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SampleObserver for Lines {
    fn observe(&self, now: Nanos, late: Duration, snapshot: &PoolSnapshot) {
        let mut state = self.state();
        let totals = Totals::of(now, snapshot);
        let first = *state.first.get_or_insert(now);
        let Some(before) = state.totals.replace(totals) else { return };
        let Some(totals) = state.totals.as_ref().filter(|_| now > before.at()) else { return };
        let interval = interval_json(&Interval::between(&before, totals, late, snapshot));
        let at_seconds = Duration::from_nanos(now.since(first)).as_secs_f64();
        let verdict = snapshot.diagnosis.as_ref().filter(|verdict| state.is_due(at_seconds, verdict)).cloned();
        if let Some(verdict) = &verdict {
            state.last = Some((at_seconds, Arc::clone(verdict)));
        }
        let verdict = verdict.as_deref().map(|verdict| json(&RecordedVerdict::from(verdict)).into());
        let second = json(&SecondLine { t: at_seconds, interval: &interval, verdict: None }).into();
        state.lines.push_back(Line { at_seconds, second, verdict });
        state.last_at = Some(SystemTime::now());
        while state.lines.front().is_some_and(|line| line.at_seconds + self.keep_seconds < at_seconds) {
            let removed = state.lines.pop_front().and_then(|line| line.verdict);
            state.earlier = removed.or_else(|| state.earlier.take());
        }
    }
}

impl State {
    /// Returns whether this verdict is to be recorded.
    fn is_due(&self, at_seconds: f64, verdict: &Verdict) -> bool {
        self.last.as_ref().is_none_or(|(recorded_at, last)| {
            let key = |verdict: &Verdict| {
                (verdict.cause, verdict.operation.clone(), verdict.call_site.clone(), verdict.consequences.clone())
            };
            key(last) != key(verdict) || verdict.is_problem() && at_seconds >= recorded_at + VERDICT_INTERVAL_SECONDS
        })
    }
}

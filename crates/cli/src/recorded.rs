//! Recordings of pools as the commands show them.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, SystemTime};

use poolscope::recording::{ReadError, Recording};
use serde_json::{Value, json};

/// The beginning of the year 10000, which RFC 3339 cannot express, since the Unix epoch.
const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);

/// The seconds of history before a moment: as many as a sparkline shows.
const HISTORY: usize = 600;

/// A recording.
#[derive(Debug)]
pub(crate) struct Recorded {
    recording: Recording,
    started: SystemTime,
    /// The state at each second, as in `/api/v1/pools`.
    states: Vec<Value>,
}

/// What is shown of a recording.
#[derive(Debug, Default)]
pub(crate) struct Playback {
    position: AtomicUsize,
    is_paused: AtomicBool,
}

impl Playback {
    pub(crate) fn new(position: usize) -> Self {
        Self { position: AtomicUsize::new(position), is_paused: AtomicBool::new(false) }
    }

    pub(crate) fn pause(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Relaxed);
    }

    /// Moves by this many seconds.
    pub(crate) fn seek(&self, seconds: isize) {
        let moved = |position: usize| Some(position.saturating_add_signed(seconds));
        // The closure always returns a position.
        let _ = self.position.fetch_update(Relaxed, Relaxed, moved);
    }

    /// Returns the position in a recording of this length, and moves on by a second.
    fn next(&self, length: usize) -> usize {
        let position = self.position.load(Relaxed).min(length.saturating_sub(1));
        let step = usize::from(!self.is_paused.load(Relaxed));
        self.position.store(position + step, Relaxed);
        position
    }
}

/// A verdict and when it was first reached.
#[derive(Debug)]
pub(crate) struct RecordedChange {
    /// In UTC, as in RFC 3339.
    pub(crate) time: String,
    /// As `diagnosis` in `/api/v1/pools`.
    pub(crate) diagnosis: Value,
}

impl Recorded {
    /// Reads a file.
    pub(crate) fn open(path: &Path) -> Result<Self, ReadError> {
        Ok(Self::new(Recording::open(path)?))
    }

    fn new(recording: Recording) -> Self {
        let started = humantime::parse_rfc3339_weak(&recording.header.started).unwrap_or(SystemTime::UNIX_EPOCH);
        let state = |json: &str| {
            let line: Value = serde_json::from_str(json).unwrap_or_default();
            let count = |name: &str| line["interval"][name].as_f64().unwrap_or_default().round();
            let fields = ["used", "idle", "creating", "closing", "max"];
            let mut state: serde_json::Map<_, _> =
                fields.iter().map(|name| ((*name).to_owned(), count_json(count(name)))).collect();
            state.insert("waiting".to_owned(), count_json(count("queued")));
            Value::Object(state)
        };
        let states = recording.seconds.iter().map(|second| state(&second.json)).collect();
        Self { recording, started, states }
    }

    /// Returns the pool's name.
    pub(crate) fn pool(&self) -> &str {
        &self.recording.header.pool
    }

    /// Returns the version of the library that wrote it.
    pub(crate) fn library_version(&self) -> &str {
        &self.recording.header.library_version
    }

    /// Returns how far the recording is readable, if it is truncated or has no second at all.
    pub(crate) fn problem(&self) -> Option<String> {
        match &self.recording.truncation {
            Some(truncation) => Some(truncation.to_string()),
            None if self.states.is_empty() => Some("the recording has no seconds".to_owned()),
            None => None,
        }
    }

    /// Returns the time at a number of seconds since the start.
    fn time(&self, at_seconds: f64) -> String {
        let since = Duration::try_from_secs_f64(at_seconds).unwrap_or_default();
        // Formatting a later time would panic. A damaged recording may have any.
        let is_valid = |time: &SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|it| it < YEAR_10000);
        let time = self.started.checked_add(since).filter(is_valid).unwrap_or(self.started);
        humantime::format_rfc3339_seconds(time).to_string()
    }

    /// Returns the verdicts, one for each change of the cause, with the last evidence for it.
    pub(crate) fn changes(&self) -> Vec<RecordedChange> {
        let mut changes: Vec<RecordedChange> = Vec::new();
        for second in &self.recording.seconds {
            let Some(verdict) = &second.verdict else { continue };
            let diagnosis = serde_json::to_value(verdict).unwrap_or_default();
            match changes.last_mut() {
                Some(last) if last.diagnosis["cause"] == diagnosis["cause"] => last.diagnosis = diagnosis,
                _ => changes.push(RecordedChange { time: self.time(second.at_seconds), diagnosis }),
            }
        }
        changes
    }

    /// Returns the position at which the file was begun: that of the problem.
    pub(crate) fn begin(&self) -> usize {
        self.recording.incident_second()
    }

    /// Returns the position of the worst moment: the one with the most waiters that are listed, or at which most waited.
    pub(crate) fn worst(&self) -> usize {
        let listed = |at: f64| self.recording.listings.iter().any(|(listed, _)| (listed - at).abs() < 0.5);
        let waiting = |index: usize| self.states[index]["waiting"].as_u64();
        let at = |index: usize| self.recording.seconds[index].at_seconds;
        (0..self.states.len()).max_by_key(|index| (listed(at(*index)), waiting(*index))).unwrap_or(0)
    }

    /// Returns the pool at the next position of a playback, as an element of the list in `/api/v1/pools`, with the time
    /// as `recorded_at` and the states before as `history`.
    pub(crate) fn next(&self, playback: &Playback) -> Option<Value> {
        let index = playback.next(self.states.len());
        let at = self.recording.seconds.get(index)?.at_seconds;
        let mut pool: Value = serde_json::from_str(&self.recording.pool_json(index)?).ok()?;
        pool["recorded_at"] = json!(self.time(at));
        pool["history"] = json!(self.states[(index + 1).saturating_sub(HISTORY)..=index]);
        Some(pool)
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
fn count_json(count: f64) -> Value {
    Value::from(count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> Recorded {
        let verdict = |cause: &str| json!({"cause": cause, "since_seconds": 1.0});
        let holders = json!([{"operation": "report", "call_site": "a.rs:1", "connections": 3, "oldest": 9.0,
            "activities": {"idle": 2, "executing": 1}, "suspected_leaks": 3}]);
        let lines = [
            json!({"format": "poolscope-recording", "version": {"major": 1}, "pool": "shop",
                "started": "2026-12-01T21:00:00Z", "incident": {"cause": "leak", "at_seconds": 3.0}}),
            json!({"t": 1.0, "interval": {"seconds": 1, "max": 10, "used": 2}, "verdict": verdict("healthy")}),
            json!({"t": 2.0, "interval": {"seconds": 1, "max": 10, "used": 9}}),
            json!({"t": 3.0, "interval": {"seconds": 1, "max": 10, "used": 10, "queued": 4, "holders": holders},
                "verdict": verdict("leak")}),
            json!({"t": 3.0, "listing": {"waiters": [{"operation": "pay"}], "holders": [{"operation": "report"}]}}),
            json!({"t": 4.0, "interval": {"seconds": 1, "max": 10, "used": 10, "queued": 1}}),
            json!({"t": 6.0, "interval": {"seconds": 1, "max": 10, "used": 10, "queued": 9, "holders": holders},
                "verdict": verdict("leak")}),
        ];
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        Recorded::new(Recording::read(text.as_bytes()).unwrap())
    }

    #[test]
    fn changes_are_those_of_the_cause() {
        let changes = recorded().changes();
        let shown: Vec<_> = changes.iter().map(|change| (&*change.time, change.diagnosis["cause"].as_str())).collect();
        assert_eq!(shown, [("2026-12-01T21:00:01Z", Some("healthy")), ("2026-12-01T21:00:03Z", Some("leak"))]);
    }

    #[test]
    fn absurd_times_are_shown() {
        let header = json!({"format": "poolscope-recording", "version": {"major": 1}, "pool": "shop",
            "started": "9999-12-31T23:59:59Z"});
        let shown = "9999-12-31T23:59:59Z";
        for at in [0.0, 1.0, 1e12, 1e300, -1e300] {
            let line =
                json!({"t": at, "interval": {"seconds": 1}, "verdict": {"cause": "leak", "since_seconds": 1e300}});
            let recorded = Recorded::new(Recording::read(format!("{header}\n{line}\n").as_bytes()).unwrap());
            assert_eq!(recorded.changes()[0].time, shown);
            assert_eq!(recorded.next(&Playback::default()).unwrap()["recorded_at"], shown);
        }
    }

    #[test]
    fn truncation_says_how_far_it_is_readable() {
        let problem = recorded().problem().unwrap();
        assert!(problem.starts_with("the recording is readable for 6 s, up to line 7: "), "{problem}");
    }

    #[test]
    fn playback_moves_seeks_and_pauses() {
        let recorded = recorded();
        assert_eq!((recorded.begin(), recorded.worst()), (2, 2));
        let playback = Playback::new(recorded.begin());
        let pool = recorded.next(&playback).unwrap();
        assert_eq!((&pool["state"]["used"], &pool["state"]["waiting"]), (&json!(10), &json!(4)));
        assert_eq!(
            (&pool["waiters"][0]["operation"], &pool["recorded_at"]),
            (&json!("pay"), &json!("2026-12-01T21:00:03Z"))
        );
        assert_eq!(pool["history"].as_array().unwrap().len(), 3);
        let pool = recorded.next(&playback).unwrap();
        assert_eq!((&pool["state"]["waiting"], &pool["diagnosis"]["since_seconds"]), (&json!(1), &json!(2.0)));
        playback.pause(true);
        let pool = recorded.next(&playback).unwrap();
        assert_eq!(pool["holders"][0]["operation"], "report (3 connections)");
        assert_eq!(
            (&pool["holders"][0]["activity"], &pool["holders"][0]["suspected_leak"]),
            (&json!("idle"), &json!(true))
        );
        assert_eq!(recorded.next(&playback).unwrap(), pool, "paused");
        playback.seek(-99);
        assert_eq!(recorded.next(&playback).unwrap()["state"]["used"], 2);
        playback.seek(isize::MAX);
        playback.pause(false);
        assert_eq!(recorded.next(&playback).unwrap(), pool, "the last second");
        assert_eq!(recorded.next(&playback).unwrap(), pool);
    }
}

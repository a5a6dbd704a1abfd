//! The pools of an exporter as they are shown: every text is printable.

use poolscope::text::printable;
use serde_json::Value;

use super::history::MAX_SAMPLES;
use crate::pool_listing::{cause, consequences, evidence, list, size, text};

/// The pools, holders and waiters that are read of an answer at most: as many holders and waiters as an exporter lists.
pub(super) const MAX_POOLS: usize = 1000;
const MAX_LISTED: usize = 1000;

/// What is known about one pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pool {
    pub(crate) name: String,
    /// Whether a proxy observes it, which sees neither checkouts nor what waits for a connection.
    pub(crate) is_proxied: bool,
    pub(crate) state: State,
    pub(crate) verdict: Verdict,
    /// What is recommended about its size; may be empty.
    pub(crate) size: String,
    pub(crate) holders: Vec<Holder>,
    pub(crate) waiters: Vec<Waiter>,
    /// How many more there are than are listed.
    pub(crate) holders_omitted: u64,
    pub(crate) waiters_omitted: u64,
    /// The time in a recording; empty unless it is one.
    pub(crate) recorded_at: String,
    /// The states up to then.
    pub(crate) history: Vec<State>,
}

/// The number of connections in each state, and of waiting checkouts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) used: u64,
    pub(crate) idle: u64,
    pub(crate) creating: u64,
    pub(crate) closing: u64,
    pub(crate) waiting: u64,
    pub(crate) max: u64,
}

/// The verdict of the diagnosis. Texts may be empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) cause: String,
    pub(crate) since: Option<f64>,
    pub(crate) finding: String,
    pub(crate) call_site: String,
    pub(crate) evidence: String,
    pub(crate) consequences: String,
    pub(crate) advice: String,
}

/// How bad a verdict is. Worse ones are less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Problem,
    Unknown,
    Healthy,
}

impl Verdict {
    pub(crate) fn severity(&self) -> Severity {
        match &*self.cause {
            "healthy" => Severity::Healthy,
            "not_enough_data" | "unknown" => Severity::Unknown,
            _ => Severity::Problem,
        }
    }
}

/// A checked-out connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Holder {
    pub(crate) operation: String,
    pub(crate) call_site: String,
    pub(crate) age: f64,
    pub(crate) activity: String,
    pub(crate) silent: f64,
    pub(crate) queries: u64,
    pub(crate) backend_pid: Option<i64>,
    pub(crate) trace: String,
    /// `L` for a suspected leak, `W` if its task waits for the same pool, `M` for maintenance by the pool.
    pub(crate) flags: String,
}

/// A checkout in flight.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Waiter {
    pub(crate) operation: String,
    pub(crate) call_site: String,
    pub(crate) age: f64,
    pub(crate) phase: String,
    /// The operation as which the same task already holds a connection.
    pub(crate) holds: String,
    pub(crate) trace: String,
}

fn shown(value: &Value, key: &str) -> String {
    printable(text(value, key)).into_owned()
}

fn seconds(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_default()
}

fn count(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

impl Pool {
    /// Reads an element of the list in `/api/v1/pools`.
    pub(crate) fn new(pool: &Value) -> Self {
        let (holders, waiters, history) = (list(pool, "holders"), list(pool, "waiters"), list(pool, "history"));
        let beyond =
            |listed: &[Value], key| count(pool, key).saturating_add(listed.len().saturating_sub(MAX_LISTED) as u64);
        Self {
            name: shown(pool, "name"),
            is_proxied: pool["kind"] == "proxy",
            state: State::new(&pool["state"]),
            verdict: Verdict::new(pool),
            size: printable(&size(pool)).into_owned(),
            holders: holders.iter().take(MAX_LISTED).map(Holder::new).collect(),
            waiters: waiters.iter().take(MAX_LISTED).map(Waiter::new).collect(),
            holders_omitted: beyond(holders, "holders_omitted"),
            waiters_omitted: beyond(waiters, "waiters_omitted"),
            recorded_at: shown(pool, "recorded_at"),
            history: history[history.len().saturating_sub(MAX_SAMPLES)..].iter().map(State::new).collect(),
        }
    }
}

impl Pool {
    /// Returns the number of waiting checkouts, if it is known.
    pub(crate) fn waiting(&self) -> String {
        if self.is_proxied { "-".to_owned() } else { self.state.waiting.to_string() }
    }
}

impl State {
    fn new(state: &Value) -> Self {
        Self {
            used: count(state, "used"),
            idle: count(state, "idle"),
            creating: count(state, "creating"),
            closing: count(state, "closing"),
            waiting: count(state, "waiting"),
            max: count(state, "max"),
        }
    }
}

impl Verdict {
    fn new(pool: &Value) -> Self {
        let diagnosis = &pool["diagnosis"];
        Self {
            cause: printable(cause(pool)).into_owned(),
            since: diagnosis["since_seconds"].as_f64(),
            finding: shown(diagnosis, "finding"),
            call_site: shown(diagnosis, "call_site"),
            evidence: printable(&evidence(diagnosis)).into_owned(),
            consequences: printable(&consequences(diagnosis)).into_owned(),
            advice: shown(diagnosis, "advice"),
        }
    }
}

impl Holder {
    fn new(holder: &Value) -> Self {
        let flags = [("suspected_leak", 'L'), ("waits_for_own_pool", 'W'), ("maintenance", 'M')];
        Self {
            operation: shown(holder, "operation"),
            call_site: shown(holder, "call_site"),
            age: seconds(holder, "age_seconds"),
            activity: shown(holder, "activity"),
            silent: seconds(holder, "silent_seconds"),
            queries: count(holder, "queries"),
            backend_pid: holder["backend_pid"].as_i64(),
            trace: shown(holder, "trace_id"),
            flags: flags.iter().filter(|(key, _)| holder[key] == true).map(|(_, flag)| flag).collect(),
        }
    }
}

impl Waiter {
    fn new(waiter: &Value) -> Self {
        Self {
            operation: shown(waiter, "operation"),
            call_site: shown(waiter, "call_site"),
            age: seconds(waiter, "age_seconds"),
            phase: shown(waiter, "phase"),
            holds: shown(&waiter["own"], "operation"),
            trace: shown(waiter, "trace_id"),
        }
    }
}

/// Returns a duration in seven columns at most, as in `0.25s`, `12.3s`, `1m14s`, `2h05m` or `3d04h`.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.2}s");
    }
    if seconds < 60.0 {
        return format!("{seconds:.1}s");
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is positive")]
    let whole = seconds as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86400);
    match (hours, days) {
        (0, _) => format!("{minutes}m{:02}s", whole % 60),
        (_, 0) => format!("{hours}h{:02}m", minutes % 60),
        (_, 1..1000) => format!("{days}d{:02}h", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_fit_their_column() {
        for (seconds, shown) in [
            (0.0, "0.00s"),
            (9.994, "9.99s"),
            (59.94, "59.9s"),
            (74.2, "1m14s"),
            (3599.0, "59m59s"),
            (7500.0, "2h05m"),
            (90_000.0, "1d01h"),
            (86_400e3, "1000d"),
        ] {
            assert_eq!(duration(seconds), shown);
        }
    }

    #[test]
    fn missing_fields_of_another_version_are_no_error() {
        let pool = Pool::new(&json!({"name": "old"}));
        assert_eq!((&*pool.name, &*pool.verdict.cause, pool.state), ("old", "unknown", State::default()));
        assert_eq!(Pool::new(&json!(7)).name, "");
    }

    #[test]
    fn foreign_text_is_printable() {
        let hostile = "a\nb\u{1b}[2J\u{202e}";
        let pool = Pool::new(&json!({
            "name": hostile, "diagnosis": {"cause": hostile, "finding": hostile, "advice": hostile,
                "consequences": [hostile], "evidence": [{"name": hostile, "unit": hostile, "value": 1.0}]},
            "sizing": {"withheld_by": hostile},
            "holders": [{"operation": hostile, "call_site": hostile, "activity": hostile, "trace_id": hostile}],
            "waiters": [{"operation": hostile, "phase": hostile, "own": {"operation": hostile}}],
        }));
        let shown = format!("{pool:?}");
        assert!(shown.contains(r"a\\nb\\u{1b}[2J\\u{202e}"), "{shown}");
        for hidden in [r"a\nb", r"b\u{1b}", r"J\u{202e}"] {
            assert!(!shown.contains(hidden), "{hidden} in {shown}");
        }
    }
}

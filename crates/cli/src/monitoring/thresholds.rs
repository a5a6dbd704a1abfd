//! The thresholds of `alerts/thresholds.toml`: each with its unit and the reason for it.
//!
//! Which there are, and in what unit, is said here once more, by a field each: what the file lacks, and what nobody
//! knows of, is an error when it is read, and never a rule that says nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use thiserror::Error;
use toml::de::{DeTable, DeValue};

/// What is committed.
const COMMITTED: &str = include_str!("../../../../alerts/thresholds.toml");

/// What the value of a threshold counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// A share; 1 is all.
    Ratio,
    /// A time that is compared with a measured one.
    Seconds,
    /// A number of things, or of times.
    Count,
    /// So many a second.
    PerSecond,
    /// The length of a range, of a wait or between two evaluations.
    Duration,
}

impl Unit {
    /// The unit as the file writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ratio => "ratio",
            Self::Seconds => "seconds",
            Self::Count => "count",
            Self::PerSecond => "per_second",
            Self::Duration => "duration",
        }
    }
}

/// One threshold. It is displayed as PromQL writes it: `0.1`, `5m`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Threshold {
    /// Its name in the file.
    pub name: &'static str,
    /// Its value; of a duration, in seconds.
    pub value: f64,
    /// What the value counts.
    pub unit: Unit,
    /// Why it is what it is, in a sentence.
    pub reason: String,
}

impl Threshold {
    /// The value as a person reads it: `10 %`, `1 s`, `0.1 a second`.
    #[must_use]
    pub fn human(&self) -> String {
        match self.unit {
            // Two digits more than the value has are written, and those that say nothing are cut off.
            Unit::Ratio => {
                let percent = format!("{:.4}", self.value * 100.0);
                format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
            }
            Unit::Seconds => format!("{} s", self.value),
            Unit::PerSecond => format!("{} a second", self.value),
            Unit::Count | Unit::Duration => self.to_string(),
        }
    }
}

impl Threshold {
    /// What an objective leaves: of 99.9 % that must be well, 0.1 % that may be ill.
    #[must_use]
    pub fn allowance(&self) -> Self {
        // Rounded, or of 0.999 it would be 0.0010000000000000009.
        Self { value: ((1.0 - self.value) * 1e9).round() / 1e9, ..self.clone() }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unit != Unit::Duration {
            return write!(f, "{}", self.value);
        }
        let milliseconds = Duration::from_secs_f64(self.value).as_millis();
        for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if milliseconds.is_multiple_of(length) {
                return write!(f, "{}{unit}", milliseconds / length);
            }
        }
        Ok(())
    }
}

/// Why a file of thresholds cannot be used.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum ThresholdsError {
    /// It is no TOML.
    #[error("not valid TOML: {problem}")]
    Toml {
        /// What the parser says.
        problem: String,
    },
    /// A threshold that the rules need is not there.
    #[error("the threshold `{name}` is missing")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// No rule knows a threshold of this name.
    #[error("there is no threshold `{name}`")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// A threshold says something that it must not, or says too little.
    #[error("the threshold `{name}` needs {needs}")]
    Wrong {
        /// Its name.
        name: &'static str,
        /// What would do.
        needs: String,
    },
}

/// Defines [`Thresholds`] with a field for each threshold.
macro_rules! thresholds {
    ($($name:ident: $unit:ident,)+) => {
        /// All thresholds.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "the file says of each what it is for")]
        #[non_exhaustive]
        pub struct Thresholds { $(pub $name: Threshold,)+ }

        impl Thresholds {
            /// Reads them from TOML.
            ///
            /// # Errors
            ///
            /// When one is missing, unknown, of another unit, without a reason, or no positive number.
            pub fn parse(text: &str) -> Result<Self, ThresholdsError> {
                let document = DeTable::parse(text)
                    .map_err(|error| ThresholdsError::Toml { problem: error.message().to_owned() })?;
                let mut table = entries(document.get_ref());
                let thresholds = Self { $($name: take(&mut table, stringify!($name), Unit::$unit)?,)+ };
                match table.into_keys().next() {
                    None => Ok(thresholds),
                    Some(name) => Err(ThresholdsError::Unknown { name: name.to_owned() }),
                }
            }

            /// Each of them, as the file has them in order.
            #[must_use]
            pub fn all(&self) -> Vec<&Threshold> {
                vec![$(&self.$name,)+]
            }

            fn each(&mut self) -> Vec<&mut Threshold> {
                vec![$(&mut self.$name,)+]
            }
        }
    };
}

thresholds! {
    scrape_interval: Duration,
    window: Duration,
    window_now: Duration,
    window_rare: Duration,
    window_known: Duration,
    slow_evaluation: Duration,
    for_event: Duration,
    for_page: Duration,
    for_ticket: Duration,
    wait_objective: Ratio,
    wait_objective_seconds: Seconds,
    timeout_objective: Ratio,
    traffic_floor: PerSecond,
    burn_page_fast: Count,
    burn_page_slow: Count,
    burn_ticket_fast: Count,
    burn_ticket_slow: Count,
    saturated_share: Ratio,
    exhausted_share: Ratio,
    waiters: Count,
    wait_p99_seconds: Seconds,
    held_idle_share: Ratio,
    idle_in_transaction_share: Ratio,
    suspected_leaks: Count,
    dirty_share: Ratio,
    churn_share: Ratio,
    churn_floor: PerSecond,
    shed_share: Ratio,
    many_checkouts_share: Ratio,
    many_checkouts_floor: PerSecond,
    connect_failures: PerSecond,
    server_connections: Count,
    server_reserved: Count,
    server_share: Ratio,
    slots_left_share: Ratio,
    slow_query_seconds: Seconds,
    slow_query_share: Ratio,
    query_floor: PerSecond,
    retry_share: Ratio,
    retry_floor: PerSecond,
    span_loss_share: Ratio,
}

impl Thresholds {
    /// Those that are committed.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse); a test holds that it does not fail.
    pub fn committed() -> Result<Self, ThresholdsError> {
        Self::parse(COMMITTED)
    }

    /// The same for a Prometheus that scrapes so often: every duration is changed in proportion. So a test, or whoever
    /// wants to watch, need not wait.
    #[must_use]
    pub fn paced(mut self, scrape_interval: Duration) -> Self {
        let factor = scrape_interval.as_secs_f64() / self.scrape_interval.value;
        for threshold in self.each().into_iter().filter(|threshold| threshold.unit == Unit::Duration) {
            threshold.value *= factor;
        }
        self
    }
}

type Entries<'a> = BTreeMap<&'a str, &'a DeValue<'a>>;

fn entries<'a>(table: &'a DeTable<'a>) -> Entries<'a> {
    table.iter().map(|(key, value)| (&**key.get_ref(), value.get_ref())).collect()
}

/// Takes a threshold out of the table.
fn take(table: &mut Entries<'_>, name: &'static str, unit: Unit) -> Result<Threshold, ThresholdsError> {
    let wrong = |needs: &str| ThresholdsError::Wrong { name, needs: needs.to_owned() };
    let entry = table.remove(name).ok_or(ThresholdsError::Missing { name })?;
    let DeValue::Table(entry) = entry else { return Err(wrong("a table with value, unit and reason")) };
    let mut entry = entries(entry);
    let said = entry.remove("unit").and_then(DeValue::as_str);
    if said != Some(unit.as_str()) {
        return Err(wrong(&format!("unit = \"{}\"", unit.as_str())));
    }
    let reason = entry.remove("reason").and_then(DeValue::as_str).unwrap_or_default();
    if !reason.ends_with(['.', ')']) {
        return Err(wrong("a reason that is a sentence"));
    }
    let value = match (unit, entry.remove("value")) {
        (Unit::Duration, Some(DeValue::String(text))) => {
            humantime::parse_duration(text).ok().map(|duration| duration.as_secs_f64())
        }
        (Unit::Duration, _) => None,
        (_, Some(DeValue::Float(number))) => number.as_str().parse().ok(),
        (_, Some(DeValue::Integer(number))) => number.as_str().parse().ok(),
        _ => None,
    };
    let value = value.filter(|value: &f64| value.is_finite() && *value > 0.0);
    let value = value.ok_or_else(|| match unit {
        Unit::Duration => wrong("a value with its unit, above zero, such as \"5m\""),
        _ => wrong("a value above zero"),
    })?;
    match entry.into_keys().next() {
        None => Ok(Threshold { name, value, unit, reason: reason.to_owned() }),
        Some(key) => Err(wrong(&format!("no `{key}`"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use poolscope::telemetry::BOUNDS_SECONDS;

    #[test]
    fn what_is_committed_can_be_read_and_stands_in_the_same_order() {
        let thresholds = Thresholds::committed().unwrap();
        let written: Vec<_> = COMMITTED.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']')).collect();
        let read: Vec<_> = thresholds.all().iter().map(|threshold| threshold.name).collect();
        assert_eq!(written, read);
        assert!(BOUNDS_SECONDS.contains(&thresholds.wait_objective_seconds.value));
        assert!(BOUNDS_SECONDS.contains(&thresholds.wait_p99_seconds.value));
        assert!(BOUNDS_SECONDS.contains(&thresholds.slow_query_seconds.value));
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        let error = |from: &str, to: &str| {
            assert!(COMMITTED.contains(from), "{from}");
            Thresholds::parse(&COMMITTED.replacen(from, to, 1)).unwrap_err().to_string()
        };
        assert_eq!(error("[waiters]", "[waiter]"), "the threshold `waiters` is missing");
        assert_eq!(error("[waiters]", "[more]\n\n[waiters]"), "there is no threshold `more`");
        let share = "[saturated_share]\nvalue = 0.1\nunit = \"ratio\"";
        let needs = |to: &str, needs: &str| {
            let said = error(share, &format!("[saturated_share]\n{to}"));
            assert_eq!(said, format!("the threshold `saturated_share` needs {needs}"));
        };
        needs("value = 0.1\nunit = \"seconds\"", "unit = \"ratio\"");
        needs("value = 0.1", "unit = \"ratio\"");
        needs("value = \"10 %\"\nunit = \"ratio\"", "a value above zero");
        needs("value = 0.0\nunit = \"ratio\"", "a value above zero");
        needs("value = nan\nunit = \"ratio\"", "a value above zero");
        needs("unit = \"ratio\"", "a value above zero");
        needs("value = 0.1\nunit = \"ratio\"\nsince = 1", "no `since`");
        let duration = "the threshold `window` needs a value with its unit, above zero, such as \"5m\"";
        assert_eq!(error("[window]\nvalue = \"5m\"", "[window]\nvalue = 5"), duration);
        assert!(error("[waiters]", "waiters").starts_with("not valid TOML: "));
    }

    #[test]
    fn a_threshold_is_written_as_promql_and_as_people_do() {
        let thresholds = Thresholds::committed().unwrap();
        let shown = |threshold: &Threshold| (threshold.to_string(), threshold.human());
        let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        assert_eq!(shown(&thresholds.saturated_share), pair("0.1", "10 %"));
        assert_eq!(shown(&thresholds.wait_objective), pair("0.999", "99.9 %"));
        assert_eq!(shown(&thresholds.wait_p99_seconds), pair("0.25", "0.25 s"));
        assert_eq!(shown(&thresholds.server_connections), pair("100", "100"));
        assert_eq!(shown(&thresholds.traffic_floor), pair("0.1", "0.1 a second"));
        assert_eq!(shown(&thresholds.window), pair("5m", "5m"));
        assert_eq!(thresholds.window_known.to_string(), "1d");
    }

    #[test]
    fn a_faster_pace_shortens_every_duration_and_nothing_else() {
        let thresholds = Thresholds::committed().unwrap();
        let paced = thresholds.clone().paced(Duration::from_secs(1));
        assert_eq!(paced.scrape_interval.to_string(), "1s");
        assert_eq!(paced.window.to_string(), "20s");
        assert_eq!(paced.for_page.to_string(), "8s");
        assert_eq!(paced.wait_objective_seconds, thresholds.wait_objective_seconds);
    }
}

//! The thresholds of `alerts/thresholds.toml`, each with its unit and its reason.
//!
//! [`Thresholds`] repeats the names and units, one field each: a missing or unknown threshold is a parse error and never a
//! rule without a limit.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use poolscope::text::Printable;
use thiserror::Error;
use toml::de::{DeTable, DeValue};

/// The committed file.
const COMMITTED: &str = include_str!("../../../../alerts/thresholds.toml");

/// The unit of a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// A share of a whole, from 0 to 1.
    Ratio,
    /// A time that a measured one is compared with.
    Seconds,
    /// A number or a factor.
    Count,
    /// A rate per second.
    PerSecond,
    /// A rate's range, an alert's `for` or an interval.
    Duration,
}

impl Unit {
    /// Returns the unit as written in the file.
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

    /// Returns a value of this unit, in seconds for a duration; `None` if it is invalid.
    pub(super) fn value_of(self, value: &DeValue<'_>) -> Option<f64> {
        let value: f64 = match (self, value) {
            (Self::Duration, DeValue::String(text)) => humantime::parse_duration(text).ok()?.as_secs_f64(),
            (Self::Duration, _) => return None,
            (_, DeValue::Float(number)) => number.as_str().parse().ok()?,
            (_, DeValue::Integer(number)) => number.as_str().parse().ok()?,
            _ => return None,
        };
        let limit = if self == Self::Ratio { 1.0 } else { f64::MAX };
        (value > 0.0 && value <= limit).then_some(value)
    }
}

/// A threshold. It displays as in PromQL: `0.1`, `5m`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Threshold {
    /// The name in the file.
    pub name: &'static str,
    /// The value; a duration is in seconds.
    pub value: f64,
    /// The unit of the value.
    pub unit: Unit,
    /// The reason for the value, as a sentence.
    pub reason: String,
}

impl Threshold {
    /// Returns the value with its unit: `10 %`, `1 s`, `0.1 per second`.
    #[must_use]
    pub fn human(&self) -> String {
        match self.unit {
            // Rounds to four decimals, and trims trailing zeros.
            Unit::Ratio => {
                let percent = format!("{:.4}", self.value * 100.0);
                format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
            }
            Unit::Seconds => format!("{} s", self.value),
            Unit::PerSecond => format!("{} per second", self.value),
            Unit::Count | Unit::Duration => self.to_string(),
        }
    }

    /// Returns the complement of a ratio: the error budget of 0.1 % for an objective of 99.9 %.
    #[must_use]
    pub fn complement(&self) -> Self {
        // Without rounding, 1 - 0.999 is 0.0010000000000000009.
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

/// An error in a thresholds file.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum ThresholdsError {
    /// The file is not valid TOML.
    #[error("not valid TOML: {}", Printable(problem))]
    Toml {
        /// The parser's message.
        problem: String,
    },
    /// A required threshold is missing.
    #[error("missing threshold `{name}`")]
    Missing {
        /// The name.
        name: &'static str,
    },
    /// The file has a threshold of an unknown name.
    #[error("unknown threshold `{}`", Printable(name))]
    Unknown {
        /// The name.
        name: String,
    },
    /// A threshold has an invalid, missing or unknown key.
    #[error("invalid threshold `{name}`: expected {expected}")]
    Invalid {
        /// The name.
        name: &'static str,
        /// What the threshold must have.
        expected: String,
    },
}

/// Defines [`Thresholds`] with a field for each threshold.
macro_rules! thresholds {
    ($($name:ident: $unit:ident,)+) => {
        /// All thresholds.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "the file documents each of them")]
        #[non_exhaustive]
        pub struct Thresholds { $(pub $name: Threshold,)+ }

        impl Thresholds {
            /// Parses a thresholds file.
            ///
            /// # Errors
            ///
            /// Returns an error if a threshold is missing or unknown, or if its value, unit or reason is invalid.
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

            /// Returns all thresholds, in the order of the file.
            #[must_use]
            pub fn all(&self) -> Vec<&Threshold> {
                vec![$(&self.$name,)+]
            }

            pub(super) fn all_mut(&mut self) -> Vec<&mut Threshold> {
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
    for_diagnosis: Duration,
    keep_diagnosis: Duration,
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
    cache_bypassed_share: Ratio,
    cache_hit_share: Ratio,
    cache_floor: PerSecond,
    connect_failures: PerSecond,
    error_share: Ratio,
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
    /// Returns the committed thresholds.
    ///
    /// # Errors
    ///
    /// Returns an error as [`parse`](Self::parse) does. A test ensures that the committed file is valid.
    pub fn committed() -> Result<Self, ThresholdsError> {
        Self::parse(COMMITTED)
    }

    /// Scales every duration to a Prometheus server that scrapes at `scrape_interval`, so that tests and demonstrations
    /// need not wait.
    #[must_use]
    pub fn paced(mut self, scrape_interval: Duration) -> Self {
        let factor = scrape_interval.as_secs_f64() / self.scrape_interval.value;
        for threshold in self.all_mut().into_iter().filter(|threshold| threshold.unit == Unit::Duration) {
            threshold.value *= factor;
        }
        self
    }
}

type Entries<'a> = BTreeMap<&'a str, &'a DeValue<'a>>;

fn entries<'a>(table: &'a DeTable<'a>) -> Entries<'a> {
    table.iter().map(|(key, value)| (&**key.get_ref(), value.get_ref())).collect()
}

/// Removes a threshold from the table and validates it.
fn take(table: &mut Entries<'_>, name: &'static str, unit: Unit) -> Result<Threshold, ThresholdsError> {
    let invalid = |expected: &str| ThresholdsError::Invalid { name, expected: expected.to_owned() };
    let entry = table.remove(name).ok_or(ThresholdsError::Missing { name })?;
    let DeValue::Table(entry) = entry else { return Err(invalid("a table with value, unit and reason")) };
    let mut entry = entries(entry);
    let actual = entry.remove("unit").and_then(DeValue::as_str);
    if actual != Some(unit.as_str()) {
        return Err(invalid(&format!("unit = \"{}\"", unit.as_str())));
    }
    let reason = entry.remove("reason").and_then(DeValue::as_str).unwrap_or_default();
    if !reason.ends_with(['.', ')']) {
        return Err(invalid("a reason, as a sentence with a full stop"));
    }
    let value = entry.remove("value").and_then(|value| unit.value_of(value));
    let value = value.ok_or_else(|| match unit {
        Unit::Duration => invalid("a positive duration such as \"5m\""),
        _ => invalid("a positive number"),
    })?;
    match entry.into_keys().next() {
        None => Ok(Threshold { name, value, unit, reason: reason.to_owned() }),
        Some(key) => Err(invalid(&format!("no `{key}`"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use poolscope::telemetry::BOUNDS_SECONDS;

    #[test]
    fn committed_file_is_valid_and_in_order() {
        let thresholds = Thresholds::committed().unwrap();
        let written: Vec<_> = COMMITTED.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']')).collect();
        let parsed: Vec<_> = thresholds.all().iter().map(|threshold| threshold.name).collect();
        assert_eq!(written, parsed);
        assert!(BOUNDS_SECONDS.contains(&thresholds.wait_objective_seconds.value));
        assert!(BOUNDS_SECONDS.contains(&thresholds.wait_p99_seconds.value));
        assert!(BOUNDS_SECONDS.contains(&thresholds.slow_query_seconds.value));
    }

    #[test]
    fn invalid_files_are_rejected() {
        let error = |from: &str, to: &str| {
            assert!(COMMITTED.contains(from), "{from}");
            Thresholds::parse(&COMMITTED.replacen(from, to, 1)).unwrap_err().to_string()
        };
        assert_eq!(error("[waiters]", "[waiter]"), "missing threshold `waiters`");
        assert_eq!(error("[waiters]", "[more]\n\n[waiters]"), "unknown threshold `more`");
        let share = "[saturated_share]\nvalue = 0.1\nunit = \"ratio\"";
        let expects = |to: &str, expected: &str| {
            let error = error(share, &format!("[saturated_share]\n{to}"));
            assert_eq!(error, format!("invalid threshold `saturated_share`: expected {expected}"));
        };
        expects("value = 0.1\nunit = \"seconds\"", "unit = \"ratio\"");
        expects("value = 0.1", "unit = \"ratio\"");
        expects("value = \"10 %\"\nunit = \"ratio\"", "a positive number");
        expects("value = 0.0\nunit = \"ratio\"", "a positive number");
        expects("value = nan\nunit = \"ratio\"", "a positive number");
        expects("unit = \"ratio\"", "a positive number");
        expects("value = 0.1\nunit = \"ratio\"\nsince = 1", "no `since`");
        let duration = "invalid threshold `window`: expected a positive duration such as \"5m\"";
        assert_eq!(error("[window]\nvalue = \"5m\"", "[window]\nvalue = 5"), duration);
        assert!(error("[waiters]", "waiters").starts_with("not valid TOML: "));
    }

    #[test]
    fn thresholds_display_in_promql_and_in_words() {
        let thresholds = Thresholds::committed().unwrap();
        let shown = |threshold: &Threshold| (threshold.to_string(), threshold.human());
        let pair = |promql: &str, human: &str| (promql.to_owned(), human.to_owned());
        assert_eq!(shown(&thresholds.saturated_share), pair("0.1", "10 %"));
        assert_eq!(shown(&thresholds.wait_objective), pair("0.999", "99.9 %"));
        assert_eq!(shown(&thresholds.wait_p99_seconds), pair("0.25", "0.25 s"));
        assert_eq!(shown(&thresholds.server_connections), pair("100", "100"));
        assert_eq!(shown(&thresholds.traffic_floor), pair("0.1", "0.1 per second"));
        assert_eq!(shown(&thresholds.window), pair("5m", "5m"));
        assert_eq!(thresholds.window_known.to_string(), "1d");
    }

    #[test]
    fn pace_scales_durations_only() {
        let thresholds = Thresholds::committed().unwrap();
        let paced = thresholds.clone().paced(Duration::from_secs(1));
        assert_eq!(paced.scrape_interval.to_string(), "1s");
        assert_eq!(paced.window.to_string(), "20s");
        assert_eq!(paced.for_page.to_string(), "8s");
        assert_eq!(paced.wait_objective_seconds, thresholds.wait_objective_seconds);
    }
}

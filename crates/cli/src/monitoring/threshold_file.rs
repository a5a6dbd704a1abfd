//! A user's thresholds, which replace some of the committed ones.

use std::collections::BTreeMap;
use std::ops::Range;

use poolscope::telemetry::BOUNDS_SECONDS;
use poolscope::text::Printable;
use thiserror::Error;
use toml::de::{DeTable, DeValue};

use super::thresholds::{Threshold, Thresholds, Unit};

/// The largest edit distance at which an unknown name is taken for a misspelt one.
const MAX_DISTANCE: usize = 3;

/// An error in a user's file of thresholds.
#[derive(Debug, Error, PartialEq)]
#[error("line {line}: {}", Printable(problem))]
#[non_exhaustive]
pub struct ThresholdFileError {
    /// The line of the file, from 1.
    pub line: usize,
    /// What is wrong, and how to correct it.
    pub problem: String,
}

impl Thresholds {
    /// Replaces the thresholds that a file has: tables as in `alerts/thresholds.toml`, of which only `value` is required.
    ///
    /// # Errors
    ///
    /// Returns an error if the file is not TOML, has an unknown threshold or key, or a value is invalid by itself or
    /// beside the others.
    pub fn replaced_by(mut self, file: &str) -> Result<Self, ThresholdFileError> {
        let at = |span: Range<usize>| file.get(..span.start).unwrap_or(file).matches('\n').count() + 1;
        let error = |span: Range<usize>, problem: String| ThresholdFileError { line: at(span), problem };
        let document = DeTable::parse(file).map_err(|problem| {
            error(problem.span().unwrap_or(0..0), format!("not valid TOML: {}", problem.message()))
        })?;
        let mut lines = BTreeMap::new();
        for (name, entry) in document.get_ref() {
            let known: Vec<_> = self.all().iter().map(|threshold| threshold.name).collect();
            let (key, span) = (&**name.get_ref(), name.span());
            let mut all = self.all_mut();
            let Some(threshold) = all.iter_mut().find(|threshold| threshold.name == key) else {
                return Err(error(span, format!("unknown threshold `{key}`{}", hint(key, &known))));
            };
            let DeValue::Table(keys) = entry.get_ref() else {
                return Err(error(span, format!("threshold `{key}`: expected a table, `[{key}]` with a `value`")));
            };
            replace(threshold, keys, span.clone()).map_err(|(span, problem)| error(span, problem))?;
            lines.insert(threshold.name, at(span));
        }
        match self.inconsistency() {
            None => Ok(self),
            Some((names, problem)) => {
                let line = names.iter().find_map(|name| lines.get(name)).copied().unwrap_or(1);
                Err(ThresholdFileError { line, problem })
            }
        }
    }

    /// Replaces the server's `max_connections` that is assumed where no process polls the server.
    ///
    /// # Errors
    ///
    /// Returns a description if no slots are left after the reserved ones.
    pub fn with_server_connections(mut self, connections: u32) -> Result<Self, String> {
        self.server_connections.value = f64::from(connections);
        match self.inconsistency() {
            None => Ok(self),
            Some((_, problem)) => Err(problem),
        }
    }

    /// Returns thresholds that contradict each other, with a description; `None` if all are consistent.
    fn inconsistency(&self) -> Option<(Vec<&'static str>, String)> {
        // These select a bucket of a histogram by its bound.
        for threshold in [&self.wait_objective_seconds, &self.slow_query_seconds] {
            if !BOUNDS_SECONDS.contains(&threshold.value) {
                let bounds: Vec<_> = BOUNDS_SECONDS.iter().map(f64::to_string).collect();
                let (name, bounds) = (threshold.name, bounds.join(", "));
                return Some((vec![name], format!("threshold `{name}`: expected a bound of the histogram: {bounds}")));
            }
        }
        let interval = &self.scrape_interval;
        for (threshold, factor) in [
            (&self.window, 4.0),
            (&self.window_now, 4.0),
            (&self.window_rare, 4.0),
            (&self.for_event, 2.0),
            (&self.for_diagnosis, 2.0),
            (&self.keep_diagnosis, 2.0),
            (&self.for_page, 2.0),
            (&self.for_ticket, 2.0),
        ] {
            if threshold.value < factor * interval.value {
                let name = threshold.name;
                let problem = format!(
                    "threshold `{name}`: {threshold} is shorter than {factor} × `scrape_interval` ({interval})"
                );
                return Some((vec![name, interval.name], problem));
            }
        }
        if self.server_connections.value <= self.server_reserved.value {
            let (connections, reserved) = (&self.server_connections, &self.server_reserved);
            let problem =
                format!("`server_connections` ({connections}) must be larger than `server_reserved` ({reserved})");
            return Some((vec![connections.name, reserved.name], problem));
        }
        None
    }
}

/// Replaces value and reason of a threshold by those of a table.
fn replace(threshold: &mut Threshold, keys: &DeTable<'_>, table: Range<usize>) -> Result<(), (Range<usize>, String)> {
    let (name, unit) = (threshold.name, threshold.unit);
    let problem = |span: Range<usize>, expected: &str| Err((span, format!("threshold `{name}`: expected {expected}")));
    let mut value = None;
    for (key, entry) in keys {
        let span = key.span();
        match (&**key.get_ref(), entry.get_ref()) {
            ("value", entry) => match unit.value_of(entry) {
                Some(number) => value = Some(number),
                None => return problem(span, &format!("value = {}", unit.example())),
            },
            ("unit", DeValue::String(text)) if text == unit.as_str() => {}
            ("unit", _) => return problem(span, &format!("unit = \"{}\", or none", unit.as_str())),
            ("reason", DeValue::String(text)) => threshold.reason = text.to_string(),
            ("reason", _) => return problem(span, "a text as reason"),
            (key, _) => return problem(span, &format!("`value`, `unit` or `reason` instead of `{key}`")),
        }
    }
    match value {
        Some(value) => threshold.value = value,
        None => return problem(table, &format!("value = {}", unit.example())),
    }
    Ok(())
}

fn hint(name: &str, known: &[&str]) -> String {
    let distances = known.iter().map(|known| (strsim::levenshtein(name, known), known));
    match distances.min().filter(|(distance, _)| *distance <= MAX_DISTANCE) {
        Some((_, nearest)) => format!(": did you mean `{nearest}`?"),
        None => "; docs/alerts.md lists all thresholds".to_owned(),
    }
}

impl Unit {
    /// Returns a valid value of this unit, for error messages.
    const fn example(self) -> &'static str {
        match self {
            Self::Ratio => "a number above 0 and at most 1",
            Self::Duration => "a positive duration such as \"5m\"",
            Self::Seconds | Self::Count | Self::PerSecond => "a positive number",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn replaced(file: &str) -> Result<Thresholds, String> {
        Thresholds::committed().unwrap().replaced_by(file).map_err(|error| error.to_string())
    }

    #[test]
    fn file_replaces_what_it_has() {
        let committed = Thresholds::committed().unwrap();
        assert_eq!(replaced(""), Ok(committed.clone()));
        let file = "[waiters]\nvalue = 7\n[for_page]\nvalue = \"3m\"\nunit = \"duration\"\nreason = \"Ours.\"\n";
        let thresholds = replaced(file).unwrap();
        assert_eq!((thresholds.waiters.value, &thresholds.waiters.reason), (7.0, &committed.waiters.reason));
        assert_eq!((thresholds.for_page.to_string(), &*thresholds.for_page.reason), ("3m".to_owned(), "Ours."));
        assert_eq!(thresholds.window, committed.window);
        // A copy of the whole file is one too.
        let whole = include_str!("../../../../alerts/thresholds.toml");
        assert_eq!(replaced(whole), Ok(committed));
    }

    #[test]
    fn invalid_values_name_line_and_remedy() {
        for (file, error) in [
            ("\n[waitrs]\nvalue = 1", "line 2: unknown threshold `waitrs`: did you mean `waiters`?"),
            ("[no_such_limit]\nvalue = 1", "line 1: unknown threshold `no_such_limit`; docs/alerts.md lists"),
            ("waiters = 5", "line 1: threshold `waiters`: expected a table, `[waiters]` with a `value`"),
            (
                "[waiters]\nvalues = 5",
                "line 2: threshold `waiters`: expected `value`, `unit` or `reason` instead of `values`",
            ),
            ("[waiters]\nunit = \"count\"", "line 1: threshold `waiters`: expected value = a positive number"),
            ("[waiters]\nvalue = -1", "line 2: threshold `waiters`: expected value = a positive number"),
            (
                "[waiters]\nvalue = 1\nunit = \"ratio\"",
                "line 3: threshold `waiters`: expected unit = \"count\", or none",
            ),
            ("[dirty_share]\nvalue = 5", "expected value = a number above 0 and at most 1"),
            ("[window]\nvalue = 5", "expected value = a positive duration such as \"5m\""),
            (
                "[window_now]\nvalue = \"30s\"",
                "line 1: threshold `window_now`: 30s is shorter than 4 × `scrape_interval` (15s)",
            ),
            ("\n[scrape_interval]\nvalue = \"1m\"", "line 2: threshold `window_now`: 1m is shorter than 4 ×"),
            ("[slow_query_seconds]\nvalue = 3", "expected a bound of the histogram: "),
            ("[server_connections]\nvalue = 3", "`server_connections` (3) must be larger than `server_reserved` (3)"),
            ("[waiters]\nvalue = ", "line 2: not valid TOML"),
        ] {
            let actual = replaced(file).unwrap_err();
            assert!(actual.contains(error), "{file:?}: {actual}");
        }
    }

    #[test]
    fn server_connections_leave_slots() {
        let committed = Thresholds::committed().unwrap();
        assert_eq!(committed.clone().with_server_connections(500).unwrap().server_connections.value, 500.0);
        assert!(committed.with_server_connections(3).is_err());
    }
}

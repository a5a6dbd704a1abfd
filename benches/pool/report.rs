//! Results as a table and as JSON.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;

/// The target of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {limit}"),
            Self::AtLeast(limit) => format!("≥ {limit}"),
        }
    }
}

/// The format of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Ratio,
    /// An absolute number.
    Count,
}

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    key: &'static str,
    what: &'static str,
    /// The figure, or why it is missing.
    value: Result<f64, String>,
    unit: Unit,
    control: Option<f64>,
    target: Option<Target>,
}

impl Row {
    pub(crate) fn ratio(key: &'static str, what: &'static str, value: f64) -> Self {
        Self { key, what, value: Ok(value), unit: Unit::Ratio, control: None, target: None }
    }

    pub(crate) fn count(key: &'static str, what: &'static str, value: f64) -> Self {
        Self { unit: Unit::Count, ..Self::ratio(key, what, value) }
    }

    pub(crate) fn missing(key: &'static str, what: &'static str, why: String) -> Self {
        Self { value: Err(why), ..Self::ratio(key, what, f64::NAN) }
    }

    /// Sets the same figure of the baseline against itself; its distance from 1 is noise.
    pub(crate) fn control(mut self, control: f64) -> Self {
        self.control = Some(control);
        self
    }

    pub(crate) fn at_most(mut self, limit: f64) -> Self {
        self.target = Some(Target::AtMost(limit));
        self
    }

    pub(crate) fn at_least(mut self, limit: f64) -> Self {
        self.target = Some(Target::AtLeast(limit));
        self
    }

    fn line(&self) -> String {
        let value = match (&self.value, self.unit) {
            (Ok(value), Unit::Ratio) if value.abs() < 10.0 => format!("{value:.4}"),
            (Ok(value), Unit::Ratio) => format!("{value:.1}"),
            (Ok(value), Unit::Count) => format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
            (Err(_), _) => "-".to_owned(),
        };
        let control = self.control.map_or_else(String::new, |control| format!("{control:.4}"));
        let target = self.target.map_or_else(String::new, Target::text);
        let met = match (&self.value, self.target) {
            (Err(why), _) => why.as_str(),
            (Ok(_), None) => "",
            (Ok(value), Some(target)) if target.is_met(*value) => "met",
            (Ok(_), Some(_)) => "NOT MET",
        };
        let Self { key, what, .. } = self;
        format!("{key:<33} {value:>8} {control:>8} {target:>8}  {met:<8} {what}").trim_end().to_owned()
    }

    fn json(&self) -> Option<String> {
        let value = self.value.as_ref().ok().filter(|value| value.is_finite())?;
        let mut entry = match self.unit {
            Unit::Ratio => format!("\"ratio\": {value:.6}"),
            Unit::Count => format!("\"value\": {value}, \"ratio\": {value}"),
        };
        if let Some(control) = self.control {
            let _ = write!(entry, ", \"control\": {control:.6}");
        }
        Some(format!("  \"{}\": {{{entry}}}", self.key))
    }
}

/// Formats the table.
pub(crate) fn table(rows: &[Row]) -> String {
    let head = format!("{:<33} {:>8} {:>8} {:>8}", "", "figure", "control", "target");
    std::iter::once(head).chain(rows.iter().map(Row::line)).collect::<Vec<_>>().join("\n")
}

/// Writes the JSON, and returns its path. A quick run writes another file, so that its figures are not taken for
/// results.
pub(crate) fn write(rows: &[Row], quick: bool) -> io::Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    // Cargo runs benches in the package's directory, so a relative target directory is relative to it.
    let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(target);
    let path = target.join(if quick { "bench-quick.json" } else { "bench.json" });
    let entries: Vec<String> = rows.iter().filter_map(Row::json).collect();
    fs::create_dir_all(&target)?;
    fs::write(&path, format!("{{\n{}\n}}\n", entries.join(",\n")))?;
    Ok(path)
}

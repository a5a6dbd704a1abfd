//! The objects of a recording's lines.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::super::call_site::CallSite;
use super::super::interval::Interval;
use super::listing::Listing;
use super::lists::at_most;
use crate::telemetry::Verdict;
use crate::telemetry::ledger::Ledger;
use crate::text::prefix;

/// The value of [`Header::format`].
pub(super) const FORMAT: &str = "poolscope-recording";

/// The version of the format that this library writes.
pub const FORMAT_VERSION: FormatVersion = FormatVersion { major: 1, minor: 2 };

/// The largest number that is read. Larger ones are no measurements, and their sums would overflow.
const MAX_NUMBER: f64 = 1e15;

/// The shortest interval that is read, in seconds.
const MIN_INTERVAL_SECONDS: f64 = 1e-3;

/// The longest text of an interval that is read, in bytes. Names that poolscope records are shorter.
const MAX_TEXT_BYTES: usize = 1000;

/// The measured values, and the consequences, of a verdict that are read.
const MAX_EVIDENCE: usize = 32;

/// A version of the format. A reader of another minor version ignores what it does not know; a reader of an older major
/// version refuses the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatVersion {
    /// Increased by a change that an older reader would misunderstand.
    pub major: u32,
    /// Increased by an addition.
    #[serde(default)]
    pub minor: u32,
}

impl fmt::Display for FormatVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The first line of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Header {
    /// Always `poolscope-recording`.
    pub(super) format: String,
    /// The version of the format.
    pub version: FormatVersion,
    /// The version of the library that wrote the recording.
    #[serde(default)]
    pub library_version: String,
    /// The pool's name.
    #[serde(default)]
    pub pool: String,
    /// The time (UTC, RFC 3339) from which the seconds of the recording count.
    #[serde(default)]
    pub started: String,
    /// The pool's settings by name, without the database's URL and the paths of password files.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// The problem for which an incident file was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentHeader>,
}

/// Why and when an incident file was begun.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct IncidentHeader {
    /// The cause of the verdict, or `requested`.
    pub cause: String,
    /// When it was diagnosed, in seconds since the recording's start.
    pub at_seconds: f64,
}

impl Header {
    /// Returns the header of a recording of this pool; see [`Self::lasting`] for its start.
    pub(super) fn new(ledger: &Ledger) -> Self {
        let settings = ledger.settings().iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Self {
            format: FORMAT.to_owned(),
            version: FORMAT_VERSION,
            library_version: env!("CARGO_PKG_VERSION").to_owned(),
            pool: ledger.name().to_string(),
            started: timestamp(SystemTime::now()),
            settings: settings.collect(),
            incident: None,
        }
    }

    /// Returns the header of a recording that has lasted for so many seconds at this time. Computed from a recent time, as
    /// the wall clock and the pool's clock drift apart.
    pub(super) fn lasting(&self, seconds: f64, at: SystemTime) -> Self {
        let lasted = Duration::try_from_secs_f64(seconds).ok();
        let started = lasted.and_then(|lasted| at.checked_sub(lasted)).unwrap_or(at);
        Self { started: timestamp(started), ..self.clone() }
    }
}

fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// A line for one second.
#[derive(Debug, Serialize)]
pub(super) struct SecondLine<'a> {
    pub(super) t: f64,
    pub(super) interval: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) verdict: Option<&'a RecordedVerdict>,
}

/// A line with the holders and waiters at one moment.
#[derive(Debug, Serialize)]
pub(super) struct ListingLine<'a> {
    pub(super) t: f64,
    pub(super) listing: &'a Listing,
}

/// What is read from a line for one second.
#[derive(Debug, Deserialize)]
pub(super) struct ReadLine {
    pub(super) t: Option<f64>,
    pub(super) interval: Option<Value>,
    pub(super) verdict: Option<RecordedVerdict>,
    pub(super) listing: Option<Listing>,
    /// The last line.
    pub(super) end: Option<Value>,
}

/// A verdict as it was when it was recorded, with the members of `diagnosis` in `/api/v1/pools`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RecordedVerdict {
    /// The cause, as in the label of `poolscope_diagnosis`.
    pub cause: String,
    /// For how long it had held, in seconds.
    pub since_seconds: f64,
    /// The operation responsible, if the cause has one.
    pub operation: Option<String>,
    /// The call site responsible, if known.
    pub call_site: Option<String>,
    /// The finding in one sentence, without a full stop.
    pub finding: String,
    /// The measured values that it rests on.
    #[serde(deserialize_with = "at_most::<_, _, MAX_EVIDENCE>")]
    pub evidence: Vec<RecordedEvidence>,
    /// What to do; empty if the pool was healthy.
    pub advice: String,
    /// Other causes that held as a consequence.
    #[serde(deserialize_with = "at_most::<_, _, MAX_EVIDENCE>")]
    pub consequences: Vec<String>,
}

/// A measured value that supports a recorded verdict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RecordedEvidence {
    /// What was measured.
    pub name: String,
    /// The value.
    pub value: f64,
    /// The unit.
    pub unit: String,
    /// The mean of the value while the pool was healthy, if known.
    pub usual: Option<f64>,
}

impl From<&Verdict> for RecordedVerdict {
    fn from(verdict: &Verdict) -> Self {
        let Verdict { cause, lasting, operation, call_site, finding, evidence, advice, consequences, .. } = verdict;
        let evidence = evidence.iter().map(|evidence| RecordedEvidence {
            name: evidence.name.to_owned(),
            value: evidence.value,
            unit: evidence.unit.to_owned(),
            usual: evidence.usual,
        });
        Self {
            cause: cause.as_str().to_owned(),
            since_seconds: lasting.as_secs_f64(),
            operation: operation.as_deref().map(str::to_owned),
            call_site: call_site.as_deref().map(str::to_owned),
            finding: finding.clone(),
            evidence: evidence.collect(),
            advice: advice.clone(),
            consequences: consequences.iter().map(|cause| cause.as_str().to_owned()).collect(),
        }
    }
}

impl Serialize for CallSite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CallSite {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::Recorded(String::deserialize(deserializer)?.into()))
    }
}

/// Returns an interval as JSON without the members that are 0, empty or absent.
pub(super) fn interval_json(interval: &Interval) -> Value {
    let mut value = serde_json::to_value(interval).unwrap_or_default();
    prune(&mut value);
    value
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(prune);
            members.retain(|_, member| !is_blank(member));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::String(_) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(items) => items.is_empty(),
        // An empty object in the place of a state means that the state is known.
        Value::Object(_) => false,
    }
}

/// Returns the interval that JSON describes. Numbers that are no measurements are brought into range, and texts and lists
/// are cut, as the file may have been written by anybody.
pub(super) fn interval_from(mut json: Value) -> Result<Interval, serde_json::Error> {
    bound(&mut json);
    let mut interval: Interval = serde_json::from_value(json)?;
    interval.seconds = interval.seconds.max(MIN_INTERVAL_SECONDS);
    Ok(interval)
}

fn bound(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(bound),
        Value::Array(items) => items.iter_mut().for_each(bound),
        Value::String(text) => {
            text.truncate(prefix(text, MAX_TEXT_BYTES).len());
        }
        Value::Number(number) => {
            let is_number = number.as_f64().is_some_and(|number| (0.0..=MAX_NUMBER).contains(&number));
            if !is_number {
                let bounded = number.as_f64().unwrap_or_default().clamp(0.0, MAX_NUMBER);
                *value = Value::from(bounded);
            }
        }
        _ => {}
    }
}

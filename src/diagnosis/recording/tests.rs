//! Recordings that are written, damaged and read again.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::engine::State;
use super::super::interval::Interval;
use super::super::tests::intervals::{exhausted, full_interval, healthy};
use super::super::tests::properties::any_interval;
use super::format::{interval_from, interval_json};
use super::{FORMAT_VERSION, Listing, ReadError, RecordedVerdict, Recorder, Recording};
use crate::labels::Cause;
use crate::telemetry::clock::Clock;
use crate::telemetry::ledger::{Ledger, Limits};
use crate::telemetry::{Collector, Verdict};

const DOCUMENTATION: &str = include_str!("../../../docs/recording.md");

fn header(major: u32) -> Value {
    json!({"format": "poolscope-recording", "version": {"major": major, "minor": 7}, "pool": "shop"})
}

/// Returns a recording of these intervals, and the verdicts of the diagnosis that saw them.
fn recorded(intervals: &[Interval]) -> (String, Vec<Verdict>) {
    let mut state = State::default();
    let mut lines = vec![header(FORMAT_VERSION.major)];
    let mut verdicts = Vec::new();
    for (index, interval) in intervals.iter().enumerate() {
        let verdict = state.add(interval.clone()).or_else(|| verdicts.last().cloned());
        let verdict = verdict.unwrap_or_else(|| state.first_verdict());
        let recorded = RecordedVerdict::from(&verdict);
        lines.push(json!({"t": index + 1, "interval": interval_json(interval), "verdict": recorded}));
        verdicts.push(verdict);
    }
    lines.push(json!({"end": {"seconds": intervals.len()}}));
    (lines.iter().map(|line| format!("{line}\n")).collect(), verdicts)
}

fn held_idle() -> Vec<Interval> {
    let healthy = std::iter::repeat_with(healthy).take(20);
    healthy.chain(std::iter::repeat_with(|| exhausted("export_report", [1.0, 9.0, 0.0])).take(20)).collect()
}

#[test]
fn replay_yields_the_verdicts_of_the_live_diagnosis() {
    let (text, verdicts) = recorded(&held_idle());
    let recording = Recording::read(text.as_bytes()).unwrap();
    assert!(recording.truncation.is_none() && recording.header.pool == "shop");
    let replayed: Vec<_> = recording.replay().map(|(_, verdict)| verdict).collect();
    assert_eq!(replayed, verdicts);
    let last = recording.replay().last().unwrap();
    assert_eq!(last.1.cause, Cause::HeldIdle);
    assert_eq!(last.0.verdict.as_ref().unwrap(), &RecordedVerdict::from(&last.1));
    assert!(last.1.call_site.unwrap().starts_with("src/diagnosis/"));
}

#[test]
fn unknown_members_and_lines_are_ignored() {
    let (text, verdicts) = recorded(&held_idle());
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        line["later"] = json!({"a": [1, 2]});
    }
    lines[1]["interval"]["later"] = json!("b");
    lines[1]["interval"]["holders"][0]["later"] = json!(-1);
    lines.insert(2, json!({"of_another_kind": true}));
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let recording = Recording::read(text.as_bytes()).unwrap();
    assert_eq!(recording.truncation, None);
    assert_eq!(recording.replay().map(|(_, verdict)| verdict).collect::<Vec<_>>(), verdicts);
    assert!(recording.seconds[0].json.contains("later"));
}

#[test]
fn other_files_and_newer_formats_are_refused() {
    for other in ["", "\n", "{}\n", "[1]\n", "no JSON\n", "{\"format\":\"other\",\"version\":{\"major\":1}}\n"] {
        assert!(matches!(Recording::read(other.as_bytes()), Err(ReadError::NotARecording)), "{other}");
    }
    let newer = format!("{}\n", header(FORMAT_VERSION.major + 1));
    let error = Recording::read(newer.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "the recording has format 2.7; this version reads up to 1.x");
}

#[test]
fn truncated_recording_is_readable_up_to_there() {
    let (text, _) = recorded(&held_idle()[..4]);
    let header = text.lines().next().unwrap().len() + 1;
    for length in 0..text.len() {
        let cut = Recording::read(&text.as_bytes()[..length]);
        if length < header {
            assert!(matches!(cut, Err(ReadError::NotARecording)), "{length}");
            continue;
        }
        let cut = cut.unwrap();
        let complete = text[..length].matches('\n').count() - 1;
        assert_eq!(cut.seconds.len(), complete.min(4), "{length}");
        let truncation = cut.truncation.unwrap();
        assert_eq!((truncation.line, truncation.readable_seconds), (complete + 2, complete.min(4) as f64), "{length}");
    }
    let cut = Recording::read(&text.as_bytes()[..text.len() - 40]).unwrap().truncation.unwrap();
    assert!(cut.to_string().starts_with("the recording is readable for 3 s, up to line 4: the line is "), "{cut}");
}

#[test]
fn compressed_recording_is_read_and_may_be_truncated() {
    let (text, verdicts) = recorded(&held_idle());
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    let compressed = encoder.finish().unwrap();
    let recording = Recording::read(&*compressed).unwrap();
    assert_eq!((recording.seconds.len(), recording.truncation), (verdicts.len(), None));
    let cut = Recording::read(&compressed[..compressed.len() / 2]).unwrap();
    assert!(cut.seconds.len() < verdicts.len() && cut.truncation.is_some());
}

#[test]
fn damaged_line_ends_the_recording() {
    let (text, _) = recorded(&held_idle());
    let damaged = text.replacen("\"t\":3", "\"t\":\"three\"", 1);
    assert_ne!(damaged, text);
    let recording = Recording::read(damaged.as_bytes()).unwrap();
    assert_eq!((recording.seconds.len(), recording.truncation.unwrap().line), (2, 4));
}

#[test]
fn seconds_and_listings_beyond_the_maximum_are_not_read() {
    let (text, _) = recorded(&held_idle()[..5]);
    let recording = Recording::read_seconds(text.as_bytes(), 3).unwrap();
    let truncation = recording.truncation.unwrap();
    assert_eq!((recording.seconds.len(), truncation.line, truncation.readable_seconds), (3, 5, 3.0));
    assert_eq!(truncation.reason, "the recording has more than 3 seconds");
    assert_eq!(Recording::read_seconds(text.as_bytes(), 5).unwrap().truncation, None);
    let text = format!("{}\n{}", header(1), "{\"t\":1,\"listing\":{}}\n".repeat(1001));
    let recording = Recording::read(text.as_bytes()).unwrap();
    assert_eq!((recording.listings.len(), recording.truncation.unwrap().line), (1000, 1002));
}

/// A file of some megabytes may otherwise take gigabytes of memory, or minutes of a replay.
#[test]
fn lists_and_texts_of_a_line_are_cut() {
    let name = "é".repeat(5000);
    let operations = vec![json!({"name": name}); 1000];
    let holders = vec![json!({"operation": name, "call_site": name}); 1000];
    let errors: serde_json::Map<_, _> = (0..1000).map(|code| (format!("{code:05}"), json!(code))).collect();
    let json = json!({"seconds": 1, "operations": operations, "holders": holders, "errors": errors});
    let interval = interval_from(json).unwrap();
    assert_eq!((interval.operations.len(), interval.holders.len(), interval.errors.len()), (16, 16, 8));
    assert_eq!((interval.errors[0].0.as_str(), interval.errors[0].1), ("00999", 999.0));
    assert_eq!((interval.operations[0].name.len(), interval.holders[0].operation.len()), (1000, 1000));
    let verdict = json!({"evidence": vec![json!({}); 1000], "consequences": vec!["burst"; 1000], "cause": "leak"});
    let verdict: RecordedVerdict = serde_json::from_value(verdict).unwrap();
    assert_eq!((verdict.evidence.len(), verdict.consequences.len(), &*verdict.cause), (32, 32, "leak"));
    let listing = json!({"holders": vec![json!({}); 1000], "waiters": vec![json!({}); 1000], "waiters_omitted": 3});
    let listing: Listing = serde_json::from_value(listing).unwrap();
    assert_eq!(listing.counts(), (200, 200));
    assert!(listing.json().contains("\"waiters_omitted\":3"));
}

/// Collects the names of all members, except those whose names are labels or bounds.
fn members(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, member) in object {
                names.insert(name.clone());
                let is_by_label = ["waits", "outcomes", "held", "activities", "phases", "closed", "errors", "settings"];
                if !is_by_label.contains(&&**name) {
                    members(member, names);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| members(item, names)),
        _ => {}
    }
}

#[test]
fn every_member_is_documented() {
    let (text, _) = recorded(&[full_interval()]);
    let mut names = BTreeSet::new();
    for line in text.lines() {
        members(&serde_json::from_str(line).unwrap(), &mut names);
    }
    assert!(names.len() > 60, "{names:?}");
    for name in names {
        assert!(DOCUMENTATION.contains(&format!("`{name}`")), "docs/recording.md does not describe {name}");
    }
}

/// The names are part of the format: a renamed field of an interval has to keep its name in the file.
#[test]
fn recording_of_format_1_is_understood() {
    let interval = full_interval();
    let json = interval_json(&interval);
    let expected = include_str!("format_1.json");
    assert_eq!(json, serde_json::from_str::<Value>(expected).unwrap());
}

#[test]
fn recorder_keeps_the_last_seconds_and_their_verdict() {
    let collector = Collector::new();
    let (clock, mock) = Clock::mock();
    let limits = Limits::for_tests();
    let ledger = collector.join("shop", None, |name| Ledger::new(name, limits, clock));
    ledger.set_diagnoser(Box::new(crate::diagnosis::Engine::default()));
    ledger.set_settings(vec![("pool_size", "1".to_owned())]);
    assert!(Recorder::start(&collector, "other", Duration::from_secs(5)).is_none());
    let recorder = Recorder::start(&collector, "shop", Duration::from_secs(5)).unwrap();
    let mut buffer = crate::telemetry::ledger::SnapshotBuffer::new();
    for _ in 0..20 {
        mock.increment(Duration::from_secs(1));
        ledger.sample(&mut buffer, Duration::ZERO, Duration::ZERO);
    }
    let mut written = Vec::new();
    recorder.write(&mut written).unwrap();
    let recording = Recording::read(&*written).unwrap();
    assert_eq!((recording.header.settings["pool_size"].as_str(), recording.truncation), ("1", None));
    let seconds: Vec<_> = recording.seconds.iter().map(|second| second.at_seconds).collect();
    assert_eq!(seconds, [14.0, 15.0, 16.0, 17.0, 18.0, 19.0]);
    let verdict = recording.seconds[0].verdict.as_ref().unwrap();
    assert_eq!(verdict.cause, "healthy", "the verdict of an earlier second still applies");
    assert!(recording.seconds[1..].iter().all(|second| second.verdict.is_none()));
    // The pool's clock is ahead of the wall clock here. The last line is from now.
    let started = humantime::parse_rfc3339(&recording.header.started).unwrap();
    assert!(started.elapsed().unwrap() >= Duration::from_millis(18_900), "{started:?}");
    drop(recorder);
    mock.increment(Duration::from_secs(1));
    ledger.sample(&mut buffer, Duration::ZERO, Duration::ZERO);
}

proptest! {
    #[test]
    fn every_interval_is_read_as_it_was_written(interval in any_interval()) {
        let json = interval_json(&interval);
        let text = json.to_string();
        let read = interval_from(serde_json::from_str(&text).unwrap()).unwrap();
        let bounded = interval_json(&read);
        prop_assert_eq!(interval_json(&interval_from(bounded.clone()).unwrap()), bounded);
    }

    /// Any JSON in the place of an interval is an error or an interval that yields a verdict with evidence.
    #[test]
    fn hostile_intervals_yield_sound_verdicts(numbers in prop::collection::vec(any::<f64>(), 80)) {
        let mut numbers = numbers.into_iter().filter(|number| number.is_finite()).cycle();
        let mut json = interval_json(&full_interval());
        replace_numbers(&mut json, &mut || numbers.next().unwrap_or(-1.0));
        let interval = interval_from(json).unwrap();
        let mut state = State::default();
        for _ in 0..20 {
            let verdict = state.push(interval.clone());
            prop_assert!(verdict.evidence.iter().all(|evidence| evidence.value.is_finite() && evidence.value >= 0.0));
            prop_assert!(!verdict.evidence.is_empty());
        }
    }
}

fn replace_numbers(value: &mut Value, next: &mut impl FnMut() -> f64) {
    match value {
        Value::Object(members) => {
            members.iter_mut().filter(|(name, _)| *name != "pid").for_each(|(_, member)| replace_numbers(member, next));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace_numbers(item, next)),
        Value::Number(_) => *value = json!(next()),
        _ => {}
    }
}

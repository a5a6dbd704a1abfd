//! The recordings of cases: small files that are diagnosed again without a server.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use poolscope::recording::Recording;
use serde_json::{Value, json};

use crate::evaluation::{Diagnosed, changes, diagnose};

/// Under which a case ran. Kept in the header of its recording, whose readers ignore it.
#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    pub(crate) case: String,
    /// When the fault began, in seconds since the recording's start.
    pub(crate) fault_at: f64,
    /// The machine's load average before and after.
    pub(crate) load: [f64; 2],
}

/// A recorded case.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) conditions: Conditions,
    pub(crate) verdicts: Vec<Diagnosed>,
}

pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnosis/recordings")
}

/// Compresses a recording, without its verdicts and with numbers of five digits.
pub(crate) fn pack(lines: &[u8], conditions: &Conditions) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    for (index, line) in std::str::from_utf8(lines).unwrap().lines().enumerate() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if index == 0 {
            let Conditions { case, fault_at, load } = conditions;
            line["case"] = json!({"name": case, "fault_at": fault_at, "load_average": load});
        } else {
            line.as_object_mut().unwrap().remove("verdict");
        }
        round(&mut line);
        writeln!(encoder, "{line}").unwrap();
    }
    encoder.finish().unwrap()
}

fn round(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(round),
        Value::Array(items) => items.iter_mut().for_each(round),
        Value::Number(number) if number.is_f64() => {
            let exact = number.as_f64().unwrap();
            let rounded: f64 = format!("{exact:.4e}").parse().unwrap();
            let is_whole = rounded.fract() == 0.0 && rounded.abs() < 1e15;
            *value = if is_whole { json!(rounded as i64) } else { json!(rounded) };
        }
        _ => {}
    }
}

/// Reads a recording and diagnoses it again.
pub(crate) fn read(file: &Path) -> Recorded {
    let compressed = fs::read(file).unwrap();
    let mut text = String::new();
    GzDecoder::new(&*compressed).read_to_string(&mut text).unwrap();
    let header: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let case = &header["case"];
    let conditions = Conditions {
        case: case["name"].as_str().unwrap().to_owned(),
        fault_at: number(&case["fault_at"]),
        load: [number(&case["load_average"][0]), number(&case["load_average"][1])],
    };
    let recording = Recording::read(&*compressed).unwrap();
    assert_eq!(recording.truncation, None, "{}", file.display());
    Recorded { conditions, verdicts: diagnose(&recording) }
}

/// Returns all committed recordings, by case.
pub(crate) fn committed() -> &'static BTreeMap<String, Recorded> {
    static COMMITTED: LazyLock<BTreeMap<String, Recorded>> = LazyLock::new(read_all);
    &COMMITTED
}

pub(crate) fn read_all() -> BTreeMap<String, Recorded> {
    let files = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let recorded = files.filter(|file| file.extension().is_some_and(|extension| extension == "gz"));
    recorded.map(|file| read(&file)).map(|recorded| (recorded.conditions.case.clone(), recorded)).collect()
}

/// Each line has a case, and the verdicts with the second of the recording in which each of them began.
#[test]
fn verdicts_of_recordings_are_those_committed() {
    let mut text = String::from(
        "# The verdicts of the recordings: `POOLSCOPE_BLESS=1 cargo test -p poolscope --all-features --test diagnosis recordings`\n\
         # writes this file. The number is the second of the recording.\n",
    );
    for (name, recorded) in committed() {
        let _ = writeln!(text, "{name}: {}", changes(&recorded.verdicts));
    }
    assert_current("tests/diagnosis/verdicts.txt", &text);
}

/// Compares a file of the repository with `generated`, or writes it when `POOLSCOPE_BLESS` is set.
pub(crate) fn assert_current(file: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("POOLSCOPE_BLESS").is_some() {
        fs::write(&path, generated).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differing = written.lines().zip(generated.lines()).filter(|(a, b)| a != b);
    let differing: Vec<_> = differing.take(10).map(|(a, b)| format!("- {a}\n+ {b}")).collect();
    assert!(
        written == generated,
        "{file} differs; see that the changes are intended, and write it with POOLSCOPE_BLESS=1:\n{}",
        differing.join("\n")
    );
}

//! Runs checkers, and reads files of the repository.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use serde_json::Value;

pub(crate) use crate::programs::{at, run};

/// Returns the text of a file in the repository.
#[track_caller]
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns a command for a program that `scripts/setup test` installs in target/checks.
pub(crate) fn checker(name: &str) -> Command {
    Command::new(at("target/checks/bin").join(name))
}

/// Runs a program, checks that it succeeds, and returns its output.
#[track_caller]
pub(crate) fn run_successfully(command: &mut Command) -> String {
    let (success, output) = run(command);
    assert!(success, "{command:?}: {output}");
    output
}

/// Returns the documents of YAML files.
#[track_caller]
pub(crate) fn yaml<P: AsRef<OsStr>>(paths: impl IntoIterator<Item = P>) -> Vec<Value> {
    let mut command = checker("python");
    command.arg(at("crates/cli/tests/deploy/yaml_to_json.py")).args(paths);
    serde_json::from_str(&run_successfully(&mut command)).unwrap()
}

/// Returns the only document of a YAML file in the repository.
#[track_caller]
pub(crate) fn document(path: &str) -> Value {
    let mut documents = yaml([at(path)]);
    assert_eq!(documents.len(), 1, "{path}");
    documents.remove(0)
}

/// Checks a file against a schema that check-jsonschema contains.
#[track_caller]
pub(crate) fn check_schema(name: &str, path: &str) {
    run_successfully(checker("check-jsonschema").args(["--builtin-schema", name]).arg(at(path)));
}

/// Returns the strings of a JSON list.
pub(crate) fn texts(list: &Value) -> Vec<&str> {
    list.as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str).collect()
}

/// Returns the members of a JSON object.
#[track_caller]
pub(crate) fn members(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    object
        .as_object()
        .unwrap_or_else(|| panic!("no object: {object}"))
        .iter()
        .map(|(name, value)| (name.as_str(), value))
}

/// Adds each value with this name, at any depth, to `found`.
pub(crate) fn collect_values<'a>(name: &str, within: &'a Value, found: &mut Vec<&'a Value>) {
    match within {
        Value::Array(list) => list.iter().for_each(|value| collect_values(name, value, found)),
        Value::Object(object) => {
            found.extend(object.get(name));
            object.values().for_each(|value| collect_values(name, value, found));
        }
        _ => {}
    }
}

/// Returns the paths of all files below a directory of the repository.
pub(crate) fn files(directory: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(at(directory)).unwrap_or_else(|error| panic!("{directory}: {error}")) {
        let entry = entry.unwrap();
        let path = format!("{directory}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

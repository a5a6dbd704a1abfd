//! The programs that check what is committed, and how they see it.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use serde_json::Value;

pub(crate) use crate::programs::{at, run};

/// What stands in a file of the repository.
#[track_caller]
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A program of those that `scripts/setup test` puts into target/checks.
pub(crate) fn checker(name: &str) -> Command {
    Command::new(at("target/checks/bin").join(name))
}

/// Holds that a program is content.
#[track_caller]
pub(crate) fn content(command: &mut Command) -> String {
    let (good, said) = run(command);
    assert!(good, "{command:?}: {said}");
    said
}

/// The documents of YAML files.
#[track_caller]
pub(crate) fn yaml<P: AsRef<OsStr>>(paths: impl IntoIterator<Item = P>) -> Vec<Value> {
    let mut command = checker("python");
    command.arg(at("crates/cli/tests/deploy/yaml_to_json.py")).args(paths);
    serde_json::from_str(&content(&mut command)).unwrap()
}

/// The one document of a file in the repository.
#[track_caller]
pub(crate) fn document(path: &str) -> Value {
    let mut documents = yaml([at(path)]);
    assert_eq!(documents.len(), 1, "{path}");
    documents.remove(0)
}

/// Holds files to a schema that check-jsonschema brings along.
#[track_caller]
pub(crate) fn schema(name: &str, path: &str) {
    content(checker("check-jsonschema").args(["--builtin-schema", name]).arg(at(path)));
}

/// The texts of a JSON list.
pub(crate) fn texts(list: &Value) -> Vec<&str> {
    list.as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str).collect()
}

/// The members of a JSON object.
#[track_caller]
pub(crate) fn members(of: &Value) -> impl Iterator<Item = (&str, &Value)> {
    of.as_object().unwrap_or_else(|| panic!("no object: {of}")).iter().map(|(name, value)| (name.as_str(), value))
}

/// Every value with this name, wherever it stands.
pub(crate) fn everywhere<'a>(name: &str, within: &'a Value, found: &mut Vec<&'a Value>) {
    match within {
        Value::Array(list) => list.iter().for_each(|value| everywhere(name, value, found)),
        Value::Object(object) => {
            found.extend(object.get(name));
            object.values().for_each(|value| everywhere(name, value, found));
        }
        _ => {}
    }
}

/// All files beneath a directory of the repository, by their paths in it.
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

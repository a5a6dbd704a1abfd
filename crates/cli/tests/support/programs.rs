//! The programs that check what is committed.

use std::path::PathBuf;
use std::process::Command;

/// The path of something in the repository.
pub(crate) fn at(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}

/// Runs a program to its end: whether it was content, and all it said.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> (bool, String) {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().unwrap_or_else(|error| {
        panic!("{program} cannot be run (`scripts/setup test` installs it): {error}");
    });
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

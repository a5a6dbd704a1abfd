//! Runs programs that check files of the repository.

use std::path::PathBuf;
use std::process::Command;

/// Returns the path of a file in the repository.
pub(crate) fn at(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}

/// Runs a program, and returns whether it succeeded and its output.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> (bool, String) {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().unwrap_or_else(|error| {
        panic!("{program} cannot be run (`scripts/setup test` installs it): {error}");
    });
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

//! External programs and files of the repository.

use std::path::PathBuf;

pub(crate) use crate::programs::{at, run};

/// Returns the files of a directory in the repository with this ending, sorted.
pub(crate) fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(at(directory)).expect(directory);
    let paths = entries.map(|entry| entry.expect(directory).path());
    let mut files: Vec<_> = paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

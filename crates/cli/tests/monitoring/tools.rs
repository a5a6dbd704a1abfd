//! The programs that check what is committed.

use std::path::PathBuf;

pub(crate) use crate::programs::{at, run};

/// The files of a directory of the repository that end so, in order.
pub(crate) fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(at(directory)).expect(directory);
    let paths = entries.map(|entry| entry.expect(directory).path());
    let mut files: Vec<_> = paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

//! Generated files: where they are, and the tests that keep them current.

use std::path::{Path, PathBuf};

/// The command that regenerates all of them.
pub(super) const COMMAND: &str = "POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --lib monitoring";

/// Returns the path of a file in the repository.
pub(super) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(relative)
}

/// Compares the committed file with `generated`, or writes it when `POOLSCOPE_BLESS` is set.
#[cfg(test)]
pub(super) fn assert_current(relative: &str, generated: &str) {
    let path = path(relative);
    if std::env::var_os("POOLSCOPE_BLESS").is_some() {
        std::fs::write(&path, generated).expect("the file is writable");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "{relative} is outdated; regenerate it with `{COMMAND}`");
}

//! What Unix tells about a file.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use super::read::SecretKind;

pub(super) fn is_fifo(metadata: &Metadata) -> bool {
    metadata.file_type().is_fifo()
}

/// Returns the inode, which differs after a rename as mounted secrets use it, and the time of the last status change.
pub(super) fn version(metadata: &Metadata) -> (u64, i64, i64) {
    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

/// Returns whether others than the owner may read a file of secrets, by libpq's rules: for others it has no permissions,
/// and for the group none either, except to read a key of root.
pub(super) fn readable_by_others(metadata: &Metadata, kind: SecretKind) -> bool {
    let forbidden = if kind == SecretKind::Key && metadata.uid() == 0 { 0o037 } else { 0o077 };
    // The permissions of a FIFO say nothing about its content.
    metadata.is_file() && metadata.mode() & forbidden != 0
}

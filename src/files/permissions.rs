//! What Unix tells about a file.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

pub(super) fn is_fifo(metadata: &Metadata) -> bool {
    metadata.file_type().is_fifo()
}

/// Returns the inode, which differs after a rename as mounted secrets use it, and the time of the last status change.
pub(super) fn version(metadata: &Metadata) -> (u64, i64, i64) {
    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

/// Returns whether others than the owner may read the file at `path`, by libpq's rule for password files and keys: for
/// others it has no permissions, and for the group none either, except to read a file of root.
///
/// # Errors
///
/// Returns an error if the file has no metadata.
pub(crate) fn readable_by_others(path: &Path) -> io::Result<bool> {
    let metadata = fs::metadata(path)?;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    // The permissions of a FIFO say nothing about its content.
    Ok(metadata.is_file() && metadata.mode() & forbidden != 0)
}

//! Reads files, and detects that they have changed since.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The largest file that is read. No valid one is as large; a mistaken path must not exhaust memory.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The files that were read for one configuration.
#[derive(Debug)]
pub(super) struct Files {
    main: PathBuf,
    read: Vec<(PathBuf, Stamp)>,
}

/// The metadata of a file, taken before it is read, so that a change while reading is detected later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamp {
    Missing,
    Present { modified: Option<SystemTime>, length: u64, system: (u64, i64, i64) },
}

impl Files {
    /// Creates an empty set. Other paths are relative to the directory of `main`.
    pub(super) fn new(main: &Path) -> Self {
        Self { main: main.to_owned(), read: Vec::new() }
    }

    pub(super) fn read_main(&mut self) -> io::Result<Vec<u8>> {
        let main = self.main.clone();
        self.read(&main)
    }

    /// Reads a file that the main file refers to by `name`, and returns its path.
    pub(super) fn read_referenced(&mut self, name: &str) -> (PathBuf, io::Result<Vec<u8>>) {
        let path = self.main.parent().unwrap_or(Path::new("")).join(name);
        let read = self.read(&path);
        (path, read)
    }

    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        self.read.push((path.to_owned(), Stamp::of(path)));
        // Opening a pipe would block until something writes to it.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut content = Vec::new();
        File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut content)?;
        if content.len() as u64 > MAX_FILE_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
        }
        Ok(content)
    }

    /// Returns whether any of the files has changed since it was read.
    pub(super) fn have_changed(&self) -> bool {
        self.read.iter().any(|(path, stamp)| Stamp::of(path) != *stamp)
    }
}

impl Stamp {
    fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Err(_) => Self::Missing,
            Ok(metadata) => {
                Self::Present { modified: metadata.modified().ok(), length: metadata.len(), system: system(&metadata) }
            }
        }
    }
}

/// Returns the inode, which differs after a rename as mounted secrets use it, and the time of the last status change.
#[cfg(unix)]
fn system(metadata: &Metadata) -> (u64, i64, i64) {
    use std::os::unix::fs::MetadataExt as _;

    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn system(_: &Metadata) -> (u64, i64, i64) {
    (0, 0, 0)
}

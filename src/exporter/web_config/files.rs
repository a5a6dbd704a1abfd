//! Files that are read, and what tells that they are no longer what was read.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// No file that is read here is as large as this: it would be a mistake that costs memory.
const MAX_BYTES: u64 = 1 << 20;

/// The files of one reading.
#[derive(Debug)]
pub(super) struct Files {
    main: PathBuf,
    read: Vec<(PathBuf, Stamp)>,
}

/// What changes when a file does. It is taken before the file is read, so that a change in the meantime shows later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamp {
    Missing,
    There { modified: Option<SystemTime>, length: u64, system: (u64, i64, i64) },
}

impl Files {
    /// None read yet; names within `main` will be relative to its directory.
    pub(super) fn of(main: &Path) -> Self {
        Self { main: main.to_owned(), read: Vec::new() }
    }

    pub(super) fn read_main(&mut self) -> io::Result<Vec<u8>> {
        let main = self.main.clone();
        self.read(&main)
    }

    /// Reads the file that is called `name` in the main one.
    pub(super) fn read_named(&mut self, name: &str) -> (PathBuf, io::Result<Vec<u8>>) {
        let path = self.main.parent().unwrap_or(Path::new("")).join(name);
        let read = self.read(&path);
        (path, read)
    }

    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        self.read.push((path.to_owned(), Stamp::of(path)));
        // To open a pipe would be to wait for who writes to it.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let mut content = Vec::new();
        File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut content)?;
        if content.len() as u64 > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
        }
        Ok(content)
    }

    /// Whether any of them is no longer what was read.
    pub(super) fn changed(&self) -> bool {
        self.read.iter().any(|(path, stamp)| Stamp::of(path) != *stamp)
    }
}

impl Stamp {
    fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Err(_) => Self::Missing,
            Ok(metadata) => {
                Self::There { modified: metadata.modified().ok(), length: metadata.len(), system: system(&metadata) }
            }
        }
    }
}

/// A file that took another's place, as a mounted secret does, has another number; and who may read it has a time of its own.
#[cfg(unix)]
fn system(metadata: &Metadata) -> (u64, i64, i64) {
    use std::os::unix::fs::MetadataExt as _;

    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn system(_: &Metadata) -> (u64, i64, i64) {
    (0, 0, 0)
}

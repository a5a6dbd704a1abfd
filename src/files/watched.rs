//! Detects that files have changed since they were read.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::permissions::{is_fifo, version};
use super::read::{SecretKind, Secrets, read, read_regular, read_secrets};

/// The files that were read together, for one value.
#[derive(Debug)]
pub(crate) struct Files {
    read: Vec<(PathBuf, Stamp)>,
    /// Whether a FIFO is accepted.
    fifo: bool,
}

/// The metadata of a file, taken before it is read, so that a change while reading is detected later.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stamp {
    Missing,
    Fifo,
    File { modified: Option<SystemTime>, length: u64, version: (u64, i64, i64) },
    Directory(Vec<(OsString, Self)>),
}

impl Files {
    /// Creates an empty set for the first reading, which accepts FIFOs.
    pub(crate) fn first() -> Self {
        Self { read: Vec::new(), fifo: true }
    }

    /// Creates an empty set for reading again. A FIFO is then an error: opening one could wait forever.
    pub(crate) fn again() -> Self {
        Self { read: Vec::new(), fifo: false }
    }

    /// Reads the file at `path`; see [`read`].
    pub(crate) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        self.watch(path.to_owned());
        if self.fifo { read(path) } else { read_regular(path) }
    }

    /// Reads a file of secrets; see [`read_secrets`].
    pub(crate) fn read_secrets(&mut self, path: &Path, kind: SecretKind) -> io::Result<Secrets> {
        self.watch(path.to_owned());
        read_secrets(path, kind, self.fifo)
    }

    /// Adds a file or directory that something else reads.
    pub(crate) fn watch(&mut self, path: PathBuf) {
        let stamp = Stamp::of(&path);
        self.read.push((path, stamp));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.read.is_empty()
    }

    /// Returns whether any of the files has changed since it was read. Never with a FIFO among them, which cannot be
    /// read again.
    pub(super) fn have_changed(&self) -> bool {
        self.read.iter().all(|(_, stamp)| *stamp != Stamp::Fifo)
            && self.read.iter().any(|(path, stamp)| Stamp::of(path) != *stamp)
    }
}

impl Stamp {
    fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Err(_) => Self::Missing,
            Ok(metadata) if is_fifo(&metadata) => Self::Fifo,
            Ok(metadata) if metadata.is_dir() => Self::of_directory(path),
            Ok(metadata) => Self::of_file(&metadata),
        }
    }

    fn of_file(metadata: &Metadata) -> Self {
        Self::File { modified: metadata.modified().ok(), length: metadata.len(), version: version(metadata) }
    }

    /// Stamps the files in a directory, without those in directories below.
    fn of_directory(path: &Path) -> Self {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut stamps: Vec<_> = entries
            .filter_map(|entry| match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_file() => Some((entry.file_name(), Self::of_file(&metadata))),
                _ => None,
            })
            .collect();
        stamps.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self::Directory(stamps)
    }
}

//! The files of a web configuration.

use std::io;
use std::path::{Path, PathBuf};

use crate::files;

/// The main file, and those that it refers to.
pub(super) struct Files<'a> {
    main: &'a Path,
    read: &'a mut files::Files,
}

impl<'a> Files<'a> {
    /// Adds the files that are read to `read`. Other paths are relative to the directory of `main`.
    pub(super) fn new(main: &'a Path, read: &'a mut files::Files) -> Self {
        Self { main, read }
    }

    pub(super) fn read_main(&mut self) -> io::Result<Vec<u8>> {
        self.read.read(self.main)
    }

    /// Reads a file that the main file refers to by `name`, and returns its path.
    pub(super) fn read_referenced(&mut self, name: &str) -> (PathBuf, io::Result<Vec<u8>>) {
        let path = self.main.parent().unwrap_or(Path::new("")).join(name);
        let read = self.read.read(&path);
        (path, read)
    }
}

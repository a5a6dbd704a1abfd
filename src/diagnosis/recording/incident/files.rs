//! The files of a directory: names, atomic completion, and the bounds of their number, size and age.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::IncidentSettings;

/// The beginning and the end of the names of files.
const PREFIX: &str = "poolscope-";
const SUFFIX: &str = ".jsonl.gz";

/// What the name of a file that is being written ends with, after [`SUFFIX`].
const PARTIAL: &str = ".partial";

/// A file that was not written for so long is that of a process that was killed.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// The length of a pool's name in the name of a file, in characters.
const MAX_NAME: usize = 60;

/// The number of files that begin in the same second for pools whose names look alike.
const MAX_ALIKE: usize = 100;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct IncidentFile {
    file: File,
    partial: PathBuf,
    complete: PathBuf,
    /// The length of what was written completely.
    length: u64,
}

/// Returns the name of a file without its suffix, as in `poolscope-shop-20261201T214530Z-leak`.
fn stem(pool: &str, begun: SystemTime, cause: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let pool: String = pool.chars().take(MAX_NAME).map(|c| if is_plain(c) { c } else { '_' }).collect();
    let time = humantime::format_rfc3339_seconds(begun).to_string().replace(['-', ':'], "");
    format!("{PREFIX}{pool}-{time}-{cause}")
}

impl IncidentFile {
    /// Creates a file that only its owner can read, with a name that no other has.
    pub(super) fn create(directory: &Path, pool: &str, begun: SystemTime, cause: &str) -> io::Result<Self> {
        create_directory(directory)?;
        let stem = stem(pool, begun, cause);
        for number in 1..=MAX_ALIKE {
            let stem = if number == 1 { stem.clone() } else { format!("{stem}-{number}") };
            let complete = directory.join(format!("{stem}{SUFFIX}"));
            let partial = directory.join(format!("{stem}{SUFFIX}{PARTIAL}"));
            if complete.exists() {
                continue;
            }
            match options().open(&partial) {
                Ok(file) => return Ok(Self { file, partial, complete, length: 0 }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Appends bytes, completely or not at all.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            // A full disk may have taken a part of it.
            Err(error) => self.truncate().and(Err(error)),
        }
    }

    /// Removes what was not written completely.
    pub(super) fn truncate(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length)).map(drop)
    }

    /// Makes the file durable, and gives it its final name.
    pub(super) fn complete(self) -> io::Result<PathBuf> {
        self.file.sync_all()?;
        match fs::rename(&self.partial, &self.complete) {
            // Another process took it for abandoned, as after a suspension or a jump of the clock.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.complete.exists() => {}
            renamed => renamed?,
        }
        let directory = self.complete.parent().map(File::open);
        if let Some(Err(error)) = directory.map(|directory| directory?.sync_all()) {
            // The file is complete, and some file systems cannot sync a directory.
            tracing::debug!(file = %self.complete.display(), %error, "the name of an incident file may not be durable");
        }
        Ok(self.complete)
    }

    /// Returns the path at which the file is while it is written.
    pub(super) fn partial(&self) -> &Path {
        &self.partial
    }

    /// Deletes the file, which has nothing of use.
    pub(super) fn discard(self) {
        // It will be found as abandoned.
        let _ = fs::remove_file(&self.partial);
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn create_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// A complete file.
struct Kept {
    path: PathBuf,
    modified: SystemTime,
    bytes: u64,
}

/// Keeps the first error, unless a file is gone: another process may share the directory.
fn note(first: &mut io::Result<()>, result: io::Result<()>) -> bool {
    match result {
        Ok(()) => return true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        error => *first = std::mem::replace(first, Ok(())).and(error),
    }
    false
}

/// Completes the files of processes that were killed, and deletes those beyond the bounds, oldest first. `open` are the
/// files that this process is writing.
///
/// # Errors
///
/// Returns the first error. The other files were taken care of.
pub(super) fn tidy(settings: &IncidentSettings, now: SystemTime, open: &[&Path]) -> io::Result<()> {
    create_directory(&settings.directory)?;
    let (mut kept, mut first_error) = (Vec::new(), Ok(()));
    for entry in fs::read_dir(&settings.directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        // Without following a link. A file may be gone by now.
        let Ok(metadata) = entry.metadata() else { continue };
        let Ok(modified) = metadata.modified() else { continue };
        let age = now.duration_since(modified).unwrap_or_default();
        let mut path = entry.path();
        if let Some(complete) = name.strip_suffix(PARTIAL).filter(|name| name.ends_with(SUFFIX)) {
            if !metadata.is_file() || age < ABANDONED_AFTER || open.contains(&&*path) {
                continue;
            }
            let complete = settings.directory.join(complete);
            if !note(&mut first_error, fs::rename(&path, &complete)) {
                continue;
            }
            path = complete;
        } else if !name.ends_with(SUFFIX) || !metadata.is_file() {
            continue;
        }
        kept.push(Kept { path, modified, bytes: metadata.len() });
    }
    kept.sort_by_key(|file| std::cmp::Reverse(file.modified));
    let mut bytes = 0;
    for (index, file) in kept.iter().enumerate() {
        bytes += file.bytes;
        let is_old = now.duration_since(file.modified).unwrap_or_default() > settings.max_age;
        if is_old || index >= settings.max_files || bytes > settings.max_bytes {
            note(&mut first_error, fs::remove_file(&file.path));
        }
    }
    first_error
}

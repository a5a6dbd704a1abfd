use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::text::{ErrorChain, Printable};

/// An error in a web configuration file.
///
/// No message contains a password, a hash or a key.
#[derive(Debug)]
#[non_exhaustive]
pub enum WebConfigError {
    /// The file cannot be read.
    Unreadable {
        /// The web configuration file.
        file: PathBuf,
        /// The error of the system.
        source: io::Error,
    },

    /// The content of the file is invalid.
    Invalid {
        /// The web configuration file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong, and how to correct it.
        problem: String,
    },

    /// A file that the file refers to cannot be read.
    ReferencedUnreadable {
        /// The web configuration file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The key whose value is the path.
        key: &'static str,
        /// The path of the referenced file.
        referenced: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl fmt::Display for WebConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, source } => {
                write!(f, "{} cannot be read: {}", Printable(file.display()), ErrorChain(source))
            }
            Self::Invalid { file, line, problem } => {
                write!(f, "{}, line {line}: {}", Printable(file.display()), Printable(problem))
            }
            Self::ReferencedUnreadable { file, line, key, referenced, source } => write!(
                f,
                "{}, line {line}: {key} `{}` cannot be read: {}",
                Printable(file.display()),
                Printable(referenced.display()),
                ErrorChain(source)
            ),
        }
    }
}

/// The message contains the cause, so there is no source; the variants' fields have the errors underneath.
impl StdError for WebConfigError {}

/// An error at a line, before the name of the file is known.
#[derive(Debug)]
pub(super) enum LineError {
    Invalid { line: usize, problem: String },
    Unreadable { line: usize, key: &'static str, referenced: PathBuf, source: io::Error },
}

impl LineError {
    pub(super) fn new(line: usize, problem: impl Into<String>) -> Self {
        Self::Invalid { line, problem: problem.into() }
    }

    /// Adds the name of the file.
    pub(super) fn in_file(self, file: &Path) -> WebConfigError {
        let file = file.to_owned();
        match self {
            Self::Invalid { line, problem } => WebConfigError::Invalid { file, line, problem },
            Self::Unreadable { line, key, referenced, source } => {
                WebConfigError::ReferencedUnreadable { file, line, key, referenced, source }
            }
        }
    }
}

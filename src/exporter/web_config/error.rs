use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a web configuration file cannot be used.
///
/// No message has a password, a hash or a key in it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WebConfigError {
    /// The file cannot be read.
    #[error("{} cannot be read", file.display())]
    Unreadable {
        /// The web configuration file.
        file: PathBuf,
        /// The system's answer.
        source: io::Error,
    },

    /// Something in it cannot be.
    #[error("{}, line {line}: {problem}", file.display())]
    Wrong {
        /// The web configuration file.
        file: PathBuf,
        /// Where in it, counted from 1.
        line: usize,
        /// What is wrong, and what would do.
        problem: String,
    },

    /// A file that it names cannot be read.
    #[error("{}, line {line}: {key} `{}` cannot be read", file.display(), named.display())]
    NamedUnreadable {
        /// The web configuration file.
        file: PathBuf,
        /// Where in it, counted from 1.
        line: usize,
        /// Under which key.
        key: &'static str,
        /// The file that is named there.
        named: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// What is wrong with a part of the file.
#[derive(Debug)]
pub(super) enum Problem {
    Wrong { line: usize, text: String },
    Unreadable { line: usize, key: &'static str, named: PathBuf, source: io::Error },
}

impl Problem {
    pub(super) fn at(line: usize, text: impl Into<String>) -> Self {
        Self::Wrong { line, text: text.into() }
    }

    /// The same, with the file it is about.
    pub(super) fn of(self, file: &Path) -> WebConfigError {
        let file = file.to_owned();
        match self {
            Self::Wrong { line, text: problem } => WebConfigError::Wrong { file, line, problem },
            Self::Unreadable { line, key, named, source } => {
                WebConfigError::NamedUnreadable { file, line, key, named, source }
            }
        }
    }
}

/// Without the name of the file, which nobody knows yet.
#[cfg(test)]
impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wrong { line, text } => write!(f, "line {line}: {text}"),
            Self::Unreadable { line, key, named, .. } => write!(f, "line {line}: {key} `{}`", named.display()),
        }
    }
}

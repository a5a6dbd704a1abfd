//! An exporter's URL, or a recording's file.

use std::path::PathBuf;
use std::str::FromStr;

use super::client::Target;

/// What a command examines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Exporter(Target),
    Recording(PathBuf),
}

impl FromStr for Subject {
    type Err = &'static str;

    /// Parses a URL or a listen address, unless there is a file of that name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = PathBuf::from(text);
        if path.is_file() { Ok(Self::Recording(path)) } else { text.parse().map(Self::Exporter) }
    }
}

/// Returns the exporters and the recordings.
pub(super) fn split(subjects: Vec<Subject>) -> (Vec<Target>, Vec<PathBuf>) {
    let (mut targets, mut files) = (Vec::new(), Vec::new());
    for subject in subjects {
        match subject {
            Subject::Exporter(target) => targets.push(target),
            Subject::Recording(file) => files.push(file),
        }
    }
    (targets, files)
}

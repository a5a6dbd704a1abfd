//! From the file to what it says.

use std::path::Path;

use super::error::Problem;
use super::files::Files;
use super::section::Section;
use super::{Loaded, http, tls, users, yaml};

/// What may stand in the file.
pub(super) const KEYS: &[&str] = &[tls::NAME, http::NAME, users::NAME];

/// Reads the main file and those that it names.
pub(super) fn read(files: &mut Files) -> Result<Loaded, Unread> {
    let content = files.read_main().map_err(Unread::Io)?;
    parse(&content, files).map_err(Unread::Problem)
}

/// Why the file could not be read.
#[derive(Debug)]
pub(super) enum Unread {
    Io(std::io::Error),
    Problem(Problem),
}

impl Unread {
    /// The same, with the file it is about.
    pub(super) fn of(self, file: &Path) -> super::WebConfigError {
        match self {
            Self::Io(source) => super::WebConfigError::Unreadable { file: file.to_owned(), source },
            Self::Problem(problem) => problem.of(file),
        }
    }
}

fn parse(content: &[u8], files: &mut Files) -> Result<Loaded, Problem> {
    let text = str::from_utf8(content).map_err(|error| {
        let line = content.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count() + 1;
        Problem::at(line, "this is not UTF-8")
    })?;
    let root = yaml::parse(text)?;
    // Known, and so no slip; and it would be worse to pass over it than to say no.
    if let Some(yaml::Node { value: yaml::Value::Map(entries), .. }) = &root
        && let Some(entry) = entries.iter().find(|entry| entry.key == "rate_limit")
    {
        let problem =
            "rate_limit cannot be had; what scrapes and clients may cost is bounded in other ways, so leave it out";
        return Err(Problem::at(entry.line, problem));
    }
    let section = Section::read(root.as_ref(), "the file", KEYS)?;
    Ok(Loaded {
        headers: http::read(section.node(http::NAME))?,
        users: users::read(section.node(users::NAME))?,
        tls: tls::read(section.node(tls::NAME), files)?,
    })
}

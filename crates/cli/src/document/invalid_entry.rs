//! Errors in the configuration, with line and column.

use poolscope::text::Printable;
use toml::Spanned;
use toml::de::DeString;

use crate::service::masked;

/// An invalid key or value in the configuration.
#[derive(Debug, thiserror::Error)]
#[error("line {line}, column {column}: {}", Printable(problem))]
pub(crate) struct InvalidEntry {
    line: usize,
    column: usize,
    problem: String,
}

impl InvalidEntry {
    /// Returns the error for the byte at `offset` in `text`.
    pub(crate) fn at(text: &str, offset: usize, problem: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Self { line, column, problem: problem.into() }
    }

    /// Returns the error for a value that a key does not accept.
    pub(crate) fn value<T>(
        text: &str,
        value: &Spanned<T>,
        key: &str,
        found: impl AsRef<str>,
        expected: impl AsRef<str>,
    ) -> Self {
        let problem = format!("invalid {key}: {}, expected {}", found.as_ref(), expected.as_ref());
        Self::at(text, value.span().start, problem)
    }

    /// Returns the error for a key that is not among `known`.
    pub(crate) fn unknown<'a>(
        text: &str,
        key: &Spanned<DeString<'_>>,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let name = &**key.get_ref();
        let hint = nearest(name, known).map_or_else(String::new, |nearest| format!(": did you mean `{nearest}`?"));
        let problem = format!("unknown setting `{}`{hint}", masked(name).escape_debug());
        Self::at(text, key.span().start, problem)
    }
}

const MAX_NAME_BYTES: usize = 100;

/// Returns the candidate most similar to `name`, ignoring case, if at most a third of its characters differ.
fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No name is as long, and the comparison takes time in proportion to the length.
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    let name = name.to_lowercase();
    let distances = candidates.into_iter().map(|candidate| (strsim::levenshtein(&name, candidate), candidate));
    let similar = distances.filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1));
    similar.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

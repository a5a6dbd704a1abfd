//! Reads the values of a mapping whose keys are known.

use super::error::LineError;
use super::yaml::{Entry, Node, Value};
use crate::suggest::nearest;

/// A value and its line.
#[derive(Clone, Copy)]
pub(super) struct Located<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

/// A mapping without unknown keys.
pub(super) struct Section<'a> {
    entries: &'a [Entry],
}

impl<'a> Section<'a> {
    /// Reads the mapping `node`, which errors call `name`, with the known `keys`.
    pub(super) fn read(node: Option<&'a Node>, name: &str, keys: &[&str]) -> Result<Self, LineError> {
        let entries = entries(node, name)?;
        for entry in entries {
            if !keys.contains(&entry.key.as_str()) {
                return Err(LineError::new(entry.line, unknown_key(&entry.key, name, keys)));
            }
        }
        Ok(Self { entries })
    }

    /// Returns the value of `key`, unless it is absent or null.
    pub(super) fn node(&self, key: &str) -> Option<&'a Node> {
        let node = self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)?;
        if let Value::Null = node.value { None } else { Some(node) }
    }

    /// Returns the text of `key`, unless it is absent or empty.
    pub(super) fn text(&self, key: &str) -> Result<Option<Located<&'a str>>, LineError> {
        match self.node(key) {
            None => Ok(None),
            Some(Node { line, value: Value::Text(text) }) => {
                Ok(Some(Located { line: *line, value: text.as_str() }).filter(|located| !located.value.is_empty()))
            }
            Some(node) => Err(wrong_kind(node, key, "a single value")),
        }
    }

    /// Returns the boolean of `key`.
    pub(super) fn flag(&self, key: &str) -> Result<Option<Located<bool>>, LineError> {
        let Some(Located { line, value }) = self.text(key)? else { return Ok(None) };
        match value {
            "true" | "True" | "TRUE" => Ok(Some(Located { line, value: true })),
            "false" | "False" | "FALSE" => Ok(Some(Located { line, value: false })),
            _ => Err(LineError::new(line, format!("{key} must be true or false"))),
        }
    }

    /// Returns the texts in the list of `key`.
    pub(super) fn list(&self, key: &str) -> Result<Vec<Located<&'a str>>, LineError> {
        match self.node(key) {
            None => Ok(Vec::new()),
            Some(Node { value: Value::List(nodes), .. }) => nodes
                .iter()
                .map(|node| match &node.value {
                    Value::Text(text) => Ok(Located { line: node.line, value: text.as_str() }),
                    _ => Err(wrong_kind(node, key, "a list of single values")),
                })
                .collect(),
            Some(node) => Err(wrong_kind(node, key, "a list")),
        }
    }
}

/// Returns the entries of the mapping `node`, whatever their keys.
pub(super) fn entries<'a>(node: Option<&'a Node>, name: &str) -> Result<&'a [Entry], LineError> {
    match node {
        None | Some(Node { value: Value::Null, .. }) => Ok(&[]),
        Some(Node { value: Value::Map(entries), .. }) => Ok(entries),
        Some(node) => Err(wrong_kind(node, name, "a mapping")),
    }
}

/// Returns the error for a value of the wrong kind.
pub(super) fn wrong_kind(node: &Node, name: &str, expected: &str) -> LineError {
    LineError::new(node.line, format!("{name} must be {expected}, not {}", node.value.kind()))
}

fn unknown_key(key: &str, name: &str, keys: &[&str]) -> String {
    // A key that resembles none may be anything, including a secret: it is not repeated.
    match nearest(key, keys.iter().copied()) {
        Some(near) => format!("unknown key `{key}` in {name}; did you mean `{near}`?"),
        None => format!("unknown key in {name}; known keys: {}", keys.join(", ")),
    }
}

//! A part of the file that has keys: which there may be, and what stands under them.

use super::error::Problem;
use super::yaml::{Entry, Node, Value};
use crate::suggest::nearest;

/// A value, and the line it stands in.
#[derive(Clone, Copy)]
pub(super) struct Found<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

/// Keys with what stands under them, none of which is unknown.
pub(super) struct Section<'a> {
    entries: &'a [Entry],
}

impl<'a> Section<'a> {
    /// What `node` has, which is called `name` in the file and may have these keys.
    pub(super) fn read(node: Option<&'a Node>, name: &str, keys: &[&str]) -> Result<Self, Problem> {
        let entries = entries(node, name)?;
        for entry in entries {
            if !keys.contains(&entry.key.as_str()) {
                return Err(Problem::at(entry.line, unknown(&entry.key, name, keys)));
            }
        }
        Ok(Self { entries })
    }

    /// What stands under `key`; `None` if it does not stand there, or without a value.
    pub(super) fn node(&self, key: &str) -> Option<&'a Node> {
        let node = self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)?;
        if let Value::Null = node.value { None } else { Some(node) }
    }

    /// The text under `key`; `None` for none, and for an empty one.
    pub(super) fn text(&self, key: &str) -> Result<Option<Found<&'a str>>, Problem> {
        match self.node(key) {
            None => Ok(None),
            Some(Node { line, value: Value::Text(text) }) => {
                Ok(Some(Found { line: *line, value: text.as_str() }).filter(|found| !found.value.is_empty()))
            }
            Some(node) => Err(wants(node, key, "a single value")),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<Found<bool>>, Problem> {
        let Some(Found { line, value }) = self.text(key)? else { return Ok(None) };
        match value {
            "true" | "True" | "TRUE" => Ok(Some(Found { line, value: true })),
            "false" | "False" | "FALSE" => Ok(Some(Found { line, value: false })),
            _ => Err(Problem::at(line, format!("{key} is true or false"))),
        }
    }

    /// The texts that are listed under `key`.
    pub(super) fn list(&self, key: &str) -> Result<Vec<Found<&'a str>>, Problem> {
        match self.node(key) {
            None => Ok(Vec::new()),
            Some(Node { value: Value::List(nodes), .. }) => nodes
                .iter()
                .map(|node| match &node.value {
                    Value::Text(text) => Ok(Found { line: node.line, value: text.as_str() }),
                    _ => Err(wants(node, key, "a list of single values")),
                })
                .collect(),
            Some(node) => Err(wants(node, key, "a list")),
        }
    }
}

/// The keys under `name`, whatever they are.
pub(super) fn entries<'a>(node: Option<&'a Node>, name: &str) -> Result<&'a [Entry], Problem> {
    match node {
        None | Some(Node { value: Value::Null, .. }) => Ok(&[]),
        Some(Node { value: Value::Map(entries), .. }) => Ok(entries),
        Some(node) => Err(wants(node, name, "keys with values")),
    }
}

/// That something else should stand here.
pub(super) fn wants(node: &Node, name: &str, what: &str) -> Problem {
    Problem::at(node.line, format!("{name} wants {what}, and here is {}", node.value.kind()))
}

fn unknown(key: &str, name: &str, keys: &[&str]) -> String {
    // What is like no key may be anything, a secret too.
    match nearest(key, keys.iter().copied()) {
        Some(near) => format!("{name} has no key `{key}`: did you mean `{near}`?"),
        None => format!("{name} has no such key; there is {}", keys.join(", ")),
    }
}

//! Parses YAML into a tree whose nodes have line numbers.
//!
//! It is built on the parser's events, and not on a document API such as `saphyr::MarkedYaml`, for the errors: that one
//! accepts anchors and expands aliases, reports no line of a first duplicate key, and has no limit of depth. Tags,
//! anchors, aliases and further documents are rejected, so that the tree cannot become larger than the file.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::error::LineError;

/// The allowed depth of nested lists and mappings. The configuration needs three.
const MAX_DEPTH: usize = 16;

/// A node of the tree. It has no `Debug`, because it may be a secret.
pub(super) struct Node {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

pub(super) enum Value {
    /// An absent value: `key:`, `~` or `null`.
    Null,
    /// A scalar, unquoted and unescaped.
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// An entry of a mapping.
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) node: Node,
}

impl Value {
    /// Returns what kind of value it is, for errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Text(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// A list or a mapping whose end has not been parsed yet.
enum Open {
    List { line: usize, nodes: Vec<Node> },
    Map { line: usize, entries: Vec<Entry>, lines: HashMap<String, usize>, key: Option<(usize, String)> },
}

/// Parses the document in `text`; returns `None` if there is none.
pub(super) fn parse(text: &str) -> Result<Option<Node>, LineError> {
    let mut root = None;
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            // The parser's messages repeat no more than one character of the file.
            LineError::new(error.marker().line(), format!("invalid YAML: {}", error.info()))
        })?;
        let line = span.start.line();
        let node = match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
            Event::DocumentStart(_) if root.is_some() => {
                return Err(LineError::new(line, "the file has a second document; use a single document"));
            }
            Event::DocumentStart(_) => continue,
            Event::Alias(_) => {
                return Err(LineError::new(line, "aliases (`*name`) are not supported; repeat the value"));
            }
            Event::Scalar(text, style, anchor, tag) => {
                reject_properties(line, anchor, tag.is_some())?;
                let is_null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if is_null { Value::Null } else { Value::Text(text.into_owned()) };
                Node { line, value }
            }
            Event::SequenceStart(anchor, tag) => {
                reject_properties(line, anchor, tag.is_some())?;
                open.push(Open::List { line, nodes: Vec::new() });
                check_depth(line, open.len())?;
                continue;
            }
            Event::MappingStart(anchor, tag) => {
                reject_properties(line, anchor, tag.is_some())?;
                open.push(Open::Map { line, entries: Vec::new(), lines: HashMap::new(), key: None });
                check_depth(line, open.len())?;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List { line, nodes }) => Node { line, value: Value::List(nodes) },
                Some(Open::Map { line, entries, .. }) => Node { line, value: Value::Map(entries) },
                // The parser ends only what it has started.
                None => continue,
            },
        };
        match open.last_mut() {
            None => root = Some(node),
            Some(Open::List { nodes, .. }) => nodes.push(node),
            Some(Open::Map { entries, lines, key, .. }) => match key.take() {
                None => *key = Some(unique_key(node, lines)?),
                Some((line, key)) => entries.push(Entry { line, key, node }),
            },
        }
    }
    Ok(root)
}

/// Returns the line and text of a key that is not among the keys in `lines`, and adds it.
fn unique_key(node: Node, lines: &mut HashMap<String, usize>) -> Result<(usize, String), LineError> {
    let Value::Text(key) = node.value else {
        return Err(LineError::new(node.line, format!("a key must be a single value, not {}", node.value.kind())));
    };
    match lines.insert(key.clone(), node.line) {
        None => Ok((node.line, key)),
        Some(first) => Err(LineError::new(node.line, format!("duplicate key; first used in line {first}"))),
    }
}

fn reject_properties(line: usize, anchor: usize, is_tagged: bool) -> Result<(), LineError> {
    match (anchor, is_tagged) {
        (0, false) => Ok(()),
        (_, true) => Err(LineError::new(line, "tags (`!name`) are not supported; remove the tag")),
        _ => Err(LineError::new(line, "anchors (`&name`) are not supported; remove the anchor")),
    }
}

fn check_depth(line: usize, depth: usize) -> Result<(), LineError> {
    if depth <= MAX_DEPTH { Ok(()) } else { Err(LineError::new(line, "lists and mappings are nested too deeply")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Formats a tree as one line.
    fn formatted(node: &Node) -> String {
        let value = match &node.value {
            Value::Null => "-".to_owned(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(nodes) => format!("[{}]", nodes.iter().map(formatted).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                let entries =
                    entries.iter().map(|entry| format!("{}:{}={}", entry.line, entry.key, formatted(&entry.node)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
            }
        };
        format!("{}:{value}", node.line)
    }

    fn error(text: &str) -> (usize, String) {
        match parse(text) {
            Err(LineError::Invalid { line, problem }) => (line, problem),
            _ => panic!("{text} is accepted"),
        }
    }

    #[test]
    fn nodes_have_line_numbers() {
        let tree = parse("# first\na:\n  b: 'x # y'\n  c: [1, ~]\nd:\n- \"\\u0041\"\n- null\n").unwrap().unwrap();
        assert_eq!(formatted(&tree), r#"2:{2:a=3:{3:b=3:"x # y" 4:c=4:[4:"1" 4:-]} 5:d=6:[6:"A" 7:-]}"#);
    }

    #[test]
    fn empty_files_are_accepted() {
        for text in ["", "\n", "# nothing\n", "---\n", "---\n# nothing\n...\n"] {
            let tree = parse(text).unwrap();
            assert!(tree.is_none_or(|node| matches!(node.value, Value::Null)), "{text:?}");
        }
    }

    #[test]
    fn unsupported_yaml_is_rejected_with_its_line() {
        for (text, line, message) in [
            ("a: 1\nb: *x\n", None, "invalid YAML"),
            ("a: &x 1\nb: *x\n", Some(1), "anchors"),
            ("a: 1\nb: !!int 2\n", Some(2), "tags"),
            ("a: 1\n---\nb: 2\n", Some(2), "the file has a second document"),
            ("a: 1\nb: 2\na: 3\n", Some(3), "duplicate key; first used in line 1"),
            ("a: 1\n? [b]\n: 2\n", Some(2), "a key must be a single value, not a list"),
            ("a: 'x\n", None, "invalid YAML"),
            (&"[".repeat(40), Some(1), "nested too deeply"),
        ] {
            let (found, problem) = error(text);
            assert!(line.is_none_or(|line| line == found), "{text:?}: line {found}");
            assert!(problem.contains(message), "{text:?}: {problem}");
        }
    }

    #[test]
    fn depth_does_not_overflow_the_stack() {
        for deep in ["[", "- ", "{a: ", "? "] {
            let (_, problem) = error(&deep.repeat(500_000));
            assert!(problem.contains("nested too deeply") || problem.contains("invalid YAML"), "{deep:?}: {problem}");
        }
    }
}

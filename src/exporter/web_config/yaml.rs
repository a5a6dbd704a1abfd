//! YAML as a tree whose every part knows its line.
//!
//! What a file of settings has no use for is refused: tags, anchors and aliases, several documents. So nothing that is
//! written here can grow larger than it is in the file.

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::error::Problem;

/// How deep lists and mappings may lie in each other. The settings need three.
const MAX_DEPTH: usize = 16;

/// A part of the file.
///
/// It may be a secret, so that it has no `Debug`.
pub(super) struct Node {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

pub(super) enum Value {
    /// Nothing: `key:`, `~` or `null`.
    Null,
    /// The text as it is meant, quotes and escapes being undone.
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and what stands under it.
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) node: Node,
}

impl Value {
    /// What it is, for whoever finds it where something else should be.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "keys with values",
        }
    }
}

/// A list or a mapping that has not ended yet.
enum Open {
    List { line: usize, nodes: Vec<Node> },
    Map { line: usize, entries: Vec<Entry>, key: Option<(usize, String)> },
}

/// The tree of the one document in `text`; `None` for a text without any.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Problem> {
    let mut root = None;
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            // The parser's own words: they repeat no more of the file than one character.
            Problem::at(error.marker().line(), format!("this is not YAML: {}", error.info()))
        })?;
        let line = span.start.line();
        let done = match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
            Event::DocumentStart(_) if root.is_some() => {
                return Err(Problem::at(line, "a second document begins here; all settings stand in one"));
            }
            Event::DocumentStart(_) => continue,
            Event::Alias(_) => {
                return Err(Problem::at(line, "aliases (`*name`) are not understood; write out what is meant"));
            }
            Event::Scalar(text, style, anchor, tag) => {
                plain(line, anchor, tag.is_some())?;
                let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if null { Value::Null } else { Value::Text(text.into_owned()) };
                Node { line, value }
            }
            Event::SequenceStart(anchor, tag) => {
                plain(line, anchor, tag.is_some())?;
                open.push(Open::List { line, nodes: Vec::new() });
                deep(line, open.len())?;
                continue;
            }
            Event::MappingStart(anchor, tag) => {
                plain(line, anchor, tag.is_some())?;
                open.push(Open::Map { line, entries: Vec::new(), key: None });
                deep(line, open.len())?;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List { line, nodes }) => Node { line, value: Value::List(nodes) },
                Some(Open::Map { line, entries, .. }) => Node { line, value: Value::Map(entries) },
                // The parser closes only what it opened.
                None => continue,
            },
        };
        match open.last_mut() {
            None => root = Some(done),
            Some(Open::List { nodes, .. }) => nodes.push(done),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                None => *key = Some(name(done, entries)?),
                Some((line, key)) => entries.push(Entry { line, key, node: done }),
            },
        }
    }
    Ok(root)
}

/// The name that a key is, among those before it.
fn name(node: Node, entries: &[Entry]) -> Result<(usize, String), Problem> {
    let Value::Text(key) = node.value else {
        return Err(Problem::at(node.line, format!("a key is a name, and here is {}", node.value.kind())));
    };
    match entries.iter().find(|entry| entry.key == key) {
        None => Ok((node.line, key)),
        Some(first) => Err(Problem::at(node.line, format!("this key stands in line {} already", first.line))),
    }
}

fn plain(line: usize, anchor: usize, tagged: bool) -> Result<(), Problem> {
    match (anchor, tagged) {
        (0, false) => Ok(()),
        (_, true) => Err(Problem::at(line, "tags (`!name`) are not understood; write the value without")),
        _ => Err(Problem::at(line, "anchors (`&name`) are not understood; write the value without")),
    }
}

fn deep(line: usize, depth: usize) -> Result<(), Problem> {
    if depth <= MAX_DEPTH { Ok(()) } else { Err(Problem::at(line, "this lies deeper than any setting does")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The tree as a line of text.
    fn shown(node: &Node) -> String {
        let inner = match &node.value {
            Value::Null => "-".to_owned(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(nodes) => format!("[{}]", nodes.iter().map(shown).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                let entries =
                    entries.iter().map(|entry| format!("{}:{}={}", entry.line, entry.key, shown(&entry.node)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
            }
        };
        format!("{}:{inner}", node.line)
    }

    fn refused(text: &str) -> String {
        let Err(problem) = parse(text) else { panic!("{text} is taken") };
        problem.to_string()
    }

    #[test]
    fn every_part_knows_its_line() {
        let tree = parse("# first\na:\n  b: 'x # y'\n  c: [1, ~]\nd:\n- \"\\u0041\"\n- null\n").unwrap().unwrap();
        assert_eq!(shown(&tree), r#"2:{2:a=3:{3:b=3:"x # y" 4:c=4:[4:"1" 4:-]} 5:d=6:[6:"A" 7:-]}"#);
    }

    #[test]
    fn a_file_without_anything_is_one() {
        for text in ["", "\n", "# nothing\n", "---\n", "---\n# nothing\n...\n"] {
            let tree = parse(text).unwrap_or_else(|problem| panic!("{problem}"));
            assert!(tree.is_none_or(|node| matches!(node.value, Value::Null)), "{text:?}");
        }
    }

    #[test]
    fn what_settings_have_no_use_for_is_refused_with_its_line() {
        for (text, said) in [
            ("a: 1\nb: *x\n", "this is not YAML"),
            ("a: &x 1\nb: *x\n", "line 1: anchors"),
            ("a: 1\nb: !!int 2\n", "line 2: tags"),
            ("a: 1\n---\nb: 2\n", "line 2: a second document"),
            ("a: 1\nb: 2\na: 3\n", "line 3: this key stands in line 1 already"),
            ("a: 1\n? [b]\n: 2\n", "line 2: a key is a name, and here is a list"),
            ("a: 'x\n", "this is not YAML"),
            (&"[".repeat(40), "deeper than any setting"),
        ] {
            let problem = refused(text);
            assert!(problem.contains(said), "{text:?}: {problem}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        for deep in ["[", "- ", "{a: ", "? "] {
            let problem = refused(&deep.repeat(500_000));
            assert!(problem.contains("deeper") || problem.contains("not YAML"), "{deep:?}: {problem}");
        }
    }
}

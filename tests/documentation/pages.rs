//! The pages, and the code blocks in them.

use std::fs;
use std::path::{Path, PathBuf};

/// A page of the documentation.
#[derive(Debug)]
pub(crate) struct Page {
    /// The path in the repository.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A code block.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    /// The line of its first line of code, from 1.
    pub(crate) line: usize,
    /// The language, with what follows it.
    pub(crate) language: &'a str,
    pub(crate) code: String,
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Returns README.md and the pages in docs/.
pub(crate) fn all() -> Vec<Page> {
    let entries = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| format!("docs/{}", name.to_string_lossy())).collect();
    names.retain(|name| name.ends_with(".md"));
    names.push("README.md".to_owned());
    names.sort();
    let read = |name: String| Page { text: fs::read_to_string(root().join(&name)).unwrap(), name };
    names.into_iter().map(read).collect()
}

/// Returns the code blocks of a page that are not indented.
pub(crate) fn blocks(text: &str) -> impl Iterator<Item = Block<'_>> {
    let mut lines = text.lines().enumerate();
    std::iter::from_fn(move || {
        let (opened, fence) = lines.by_ref().find(|(_, line)| line.starts_with("```"))?;
        let code: Vec<_> = lines.by_ref().map(|(_, line)| line).take_while(|line| !line.starts_with("```")).collect();
        Some(Block { line: opened + 2, language: &fence[3..], code: code.join("\n") + "\n" })
    })
}

//! The committed counts, `counts.toml`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use crate::{BoxError, tolerance_percent};

const COMPILER: &str = env!("POOLSCOPE_COMPILER");
const TARGET: &str = env!("POOLSCOPE_TARGET");

const HEAD: &str = "\
# Instructions per operation of poolscope's hot paths, and why each count changed; the last count of a path is valid.
# `make test` fails if a path is more than 2 % dearer (a scrape 5 %). After an intended change: make instructions REASON='why'
";

/// A count of a path, and why it differs from the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Count {
    instructions: u64,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    compiler: String,
    target: String,
    /// The counts of each path, the latest last.
    paths: BTreeMap<String, Vec<Count>>,
}

/// How a path differs from its committed count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    Dearer { path: String, committed: u64, counted: u64 },
    Cheaper { path: String, committed: u64, counted: u64 },
    NotCommitted { path: String },
    NotCounted { path: String },
}

fn file() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/counts.toml"))
}

fn string(table: &DeTable<'_>, key: &str) -> Result<String, BoxError> {
    match table.get(key).map(|value| value.get_ref()) {
        Some(DeValue::String(value)) if !value.trim().is_empty() => Ok(value.trim().to_owned()),
        _ => Err(format!("counts.toml: {key} must be a text that is not empty").into()),
    }
}

impl Counts {
    pub(crate) fn read() -> Result<Self, BoxError> {
        Self::parse(&fs::read_to_string(file())?)
    }

    fn parse(text: &str) -> Result<Self, BoxError> {
        let document = DeTable::parse(text)?;
        let document = document.get_ref();
        let mut paths = BTreeMap::new();
        for (path, counts) in document {
            let DeValue::Array(counts) = counts.get_ref() else { continue };
            let path = path.get_ref().to_string();
            let counts: Vec<Count> =
                counts.iter().map(|count| Count::parse(count.get_ref())).collect::<Result<_, _>>()?;
            if counts.windows(2).any(|pair| pair[0].reason == pair[1].reason) {
                return Err(format!("counts.toml: two counts of {path} in succession have the same reason").into());
            }
            paths.insert(path, counts);
        }
        Ok(Self { compiler: string(document, "compiler")?, target: string(document, "target")?, paths })
    }

    fn print(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let mut text = HEAD.to_owned();
        let _ = writeln!(text, "compiler = {}\ntarget = {}", quoted(&self.compiler), quoted(&self.target));
        for (path, counts) in &self.paths {
            for Count { instructions, reason } in counts {
                let _ = write!(text, "\n[[{path}]]\ninstructions = {instructions}\nreason = {}\n", quoted(reason));
            }
        }
        text
    }

    pub(crate) fn compiler(&self) -> &str {
        &self.compiler
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    pub(crate) fn is_same_compiler(&self) -> bool {
        self.compiler == COMPILER
    }

    pub(crate) fn is_same_target(&self) -> bool {
        self.target == TARGET
    }

    /// Returns the committed count of a path.
    pub(crate) fn of(&self, path: &str) -> Option<u64> {
        Some(self.paths.get(path)?.last()?.instructions)
    }

    /// Returns the paths that differ by more than the tolerance.
    pub(crate) fn compare(&self, counted: &[(&str, u64)]) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (path, counted) in counted {
            let tolerance_percent = tolerance_percent(path, self.is_same_compiler());
            let (path, counted) = ((*path).to_owned(), *counted);
            let Some(committed) = self.of(&path) else {
                differences.push(Difference::NotCommitted { path });
                continue;
            };
            if exceeds(counted, committed, tolerance_percent) {
                differences.push(Difference::Dearer { path, committed, counted });
            } else if exceeds(committed, counted, tolerance_percent) {
                differences.push(Difference::Cheaper { path, committed, counted });
            }
        }
        let removed = self.paths.keys().filter(|path| counted.iter().all(|(counted, _)| counted != path));
        differences.extend(removed.map(|path| Difference::NotCounted { path: path.clone() }));
        differences
    }

    /// Writes the counts that differ by more than the tolerance, with the reason, and returns their number. With another
    /// compiler or target all are written.
    ///
    /// # Errors
    ///
    /// Returns an error if a path has this reason already.
    pub(crate) fn update(mut self, counted: &[(&str, u64)], reason: &str) -> Result<usize, BoxError> {
        let changed = self.apply(counted, reason);
        let text = self.print();
        Self::parse(&text)?;
        fs::write(file(), text)?;
        Ok(changed)
    }

    fn apply(&mut self, counted: &[(&str, u64)], reason: &str) -> usize {
        let all = !self.is_same_compiler() || !self.is_same_target();
        (self.compiler, self.target) = (COMPILER.to_owned(), TARGET.to_owned());
        self.paths.retain(|path, _| counted.iter().any(|(counted, _)| counted == path));
        let mut changed = 0;
        for (path, counted) in counted {
            let known = self.of(path);
            let differs = known.is_none_or(|known| {
                let tolerance_percent = tolerance_percent(path, true);
                exceeds(*counted, known, tolerance_percent) || exceeds(known, *counted, tolerance_percent)
            });
            if differs || all {
                let count = Count { instructions: *counted, reason: reason.to_owned() };
                self.paths.entry((*path).to_owned()).or_default().push(count);
                changed += 1;
            }
        }
        changed
    }
}

impl Count {
    fn parse(value: &DeValue<'_>) -> Result<Self, BoxError> {
        let DeValue::Table(table) = value else { return Err("counts.toml: a count must be a table".into()) };
        let instructions = match table.get("instructions").map(|value| value.get_ref()) {
            Some(DeValue::Integer(instructions)) => instructions.as_str().parse()?,
            _ => return Err("counts.toml: instructions must be an integer".into()),
        };
        Ok(Self { instructions, reason: string(table, "reason")? })
    }
}

/// Returns whether `count` is more than the tolerance above `base`.
#[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
fn exceeds(count: u64, base: u64, tolerance_percent: f64) -> bool {
    count as f64 > base as f64 * (1.0 + tolerance_percent / 100.0)
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dearer { path, committed, counted } => {
                write!(f, "{path} is dearer: {counted} instructions instead of {committed}")
            }
            Self::Cheaper { path, committed, counted } => write!(
                f,
                "{path} is cheaper: {counted} instructions instead of {committed}; keep it so with: \
                 make instructions REASON='why'"
            ),
            Self::NotCommitted { path } => write!(f, "{path} has no committed count"),
            Self::NotCounted { path } => write!(f, "{path} has a committed count, but does not exist"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn counts(text: &str) -> Counts {
        Counts::parse(&format!("compiler = \"{COMPILER}\"\ntarget = \"{TARGET}\"\n{text}")).unwrap()
    }

    fn two() -> Counts {
        counts(
            "[[checkout]]\ninstructions = 1000\nreason = \"first\"\n[[wire]]\ninstructions = 700\nreason = \"first\"",
        )
    }

    #[test]
    fn dearer_new_and_removed_paths_are_reported() {
        let differences = two().compare(&[("checkout", 1021), ("scrape", 1)]);
        assert_eq!(
            differences,
            [
                Difference::Dearer { path: "checkout".into(), committed: 1000, counted: 1021 },
                Difference::NotCommitted { path: "scrape".into() },
                Difference::NotCounted { path: "wire".into() },
            ]
        );
    }

    #[test]
    fn small_differences_are_tolerated() {
        assert_eq!(two().compare(&[("checkout", 1020), ("wire", 690)]), []);
        let cheaper = Difference::Cheaper { path: "wire".into(), committed: 700, counted: 600 };
        assert_eq!(two().compare(&[("checkout", 990), ("wire", 600)]), [cheaper]);
    }

    #[test]
    fn update_keeps_earlier_counts_and_their_reasons() {
        let mut updated = two();
        assert_eq!(updated.apply(&[("checkout", 1100), ("wire", 701)], "a \"new\" label"), 1);
        assert_eq!((updated.of("checkout"), updated.of("wire")), (Some(1100), Some(700)));
        assert_eq!(updated.paths["checkout"].len(), 2);
        assert_eq!(Counts::parse(&updated.print()).unwrap(), updated);
    }

    #[test]
    fn each_count_needs_a_reason_of_its_own() {
        let mut updated = two();
        updated.apply(&[("checkout", 1100), ("wire", 700)], "first");
        assert!(Counts::parse(&updated.print()).is_err());
        let without = "compiler = \"a\"\ntarget = \"b\"\n[[checkout]]\ninstructions = 1";
        assert!(Counts::parse(without).is_err());
    }

    #[test]
    fn committed_counts_are_as_written() {
        let text = fs::read_to_string(file()).unwrap();
        assert_eq!(Counts::parse(&text).unwrap().print(), text);
    }
}

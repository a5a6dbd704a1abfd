//! Fresh crates with the code blocks of the pages.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::pages::{Page, all, blocks, root};

/// One crate for each list of dependencies: the blocks that follow it on its page, up to the next list.
#[derive(Debug)]
pub(crate) struct Crates {
    directory: PathBuf,
    /// The lists of dependencies, by the name of their crate.
    dependencies: BTreeMap<String, String>,
    /// The programs, by their name.
    programs: BTreeMap<String, String>,
}

impl Crates {
    /// Creates a workspace without crates, in a directory of this name.
    pub(crate) fn new(name: &str) -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        // Sources of blocks that no longer exist; what was compiled is elsewhere.
        let _ = fs::remove_dir_all(&directory);
        Self { directory, dependencies: BTreeMap::new(), programs: BTreeMap::new() }
    }

    /// Writes the crates, with the code of programs changed by `change`.
    pub(crate) fn write(change: impl Fn(&str) -> String) -> Self {
        let mut crates = Self::new("documentation");
        for Page { name, text } in all() {
            let stem = name.trim_start_matches("docs/").trim_end_matches(".md").to_lowercase();
            let mut current: Option<String> = None;
            for block in blocks(&text) {
                if block.language == "toml" && block.code.starts_with("[dependencies]\n") {
                    let own = format!("{stem}-{}", block.line);
                    crates.dependencies.insert(own.clone(), block.code);
                    current = Some(own);
                } else if block.language.starts_with("rust") {
                    let own = current.as_deref();
                    let own =
                        own.unwrap_or_else(|| panic!("{name}:{}: no [dependencies] before this block", block.line));
                    let unit = format!("{}_line_{}", stem.replace('-', "_"), block.line);
                    if block.code.contains("fn main()") {
                        crates.programs.insert(format!("{own}/{unit}"), own.to_owned());
                        crates.source(&format!("{own}/src/bin/{unit}.rs"), &change(&block.code));
                    } else {
                        crates.source(&format!("{own}/src/{unit}.rs"), &block.code);
                    }
                }
            }
        }
        crates.manifests();
        crates
    }

    fn source(&self, path: &str, code: &str) {
        let path = self.directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, code).unwrap();
    }

    /// Writes a manifest for each crate, whose library has a module for each block without a `main`, and the workspace.
    fn manifests(&self) {
        let mut members = String::new();
        for (name, dependencies) in &self.dependencies {
            let sources = self.directory.join(name).join("src");
            // A list of dependencies without code is part of the text only.
            if !sources.is_dir() {
                continue;
            }
            let mut library = "#![allow(dead_code, unused_imports)]\n".to_owned();
            for entry in fs::read_dir(&sources).unwrap() {
                let file = entry.unwrap().file_name().to_string_lossy().into_owned();
                if let Some(module) = file.strip_suffix(".rs").filter(|module| *module != "lib") {
                    let _ = writeln!(library, "mod {module};");
                }
            }
            fs::write(sources.join("lib.rs"), library).unwrap();
            let package =
                format!("[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n");
            fs::write(self.directory.join(name).join("Cargo.toml"), package + dependencies).unwrap();
            let _ = write!(members, "\"{name}\", ");
        }
        let workspace = format!(
            "[workspace]\nresolver = \"3\"\nmembers = [{members}]\n\n[patch.crates-io]\npoolscope = {{ path = {:?} }}\n\n\
             [profile.dev]\ndebug = \"line-tables-only\"\n",
            root()
        );
        fs::write(self.directory.join("Cargo.toml"), workspace).unwrap();
        // The same versions as everywhere else.
        fs::copy(root().join("Cargo.lock"), self.directory.join("Cargo.lock")).unwrap();
    }

    /// Adds a crate with one program of the same name to those that were written.
    pub(crate) fn add(&mut self, name: &str, dependencies: &str, code: &str) {
        self.dependencies.insert(name.to_owned(), format!("[dependencies]\n{dependencies}"));
        self.source(&format!("{name}/src/bin/{name}.rs"), code);
        self.manifests();
    }

    /// Returns the names of the crates that have code.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.dependencies.keys().map(String::as_str);
        names.filter(|name| self.directory.join(name).is_dir())
    }

    /// Returns the programs of the README: the name of the crate and that of the binary.
    pub(crate) fn programs(&self) -> impl Iterator<Item = (&str, &str)> {
        let programs = self.programs.keys().filter_map(|name| name.split_once('/'));
        programs.filter(|(name, _)| name.starts_with("readme-"))
    }

    /// Returns the source of a program.
    pub(crate) fn code(&self, name: &str, program: &str) -> String {
        fs::read_to_string(self.directory.join(name).join("src/bin").join(format!("{program}.rs"))).unwrap()
    }

    /// Returns the path of a built program.
    pub(crate) fn executable(&self, program: &str) -> PathBuf {
        Self::target().join("debug").join(program)
    }

    /// The target directory of this test: dependencies that have the same features there are not compiled again.
    fn target() -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
    }

    /// Runs cargo without a network, or with one if a package is missing here. Returns its output if it fails.
    ///
    /// Only the named package's features count: a crate does not compile thanks to the dependencies of another.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Result<(), String> {
        let run = |offline: &[&str]| {
            let mut command = Command::new(env!("CARGO"));
            command.current_dir(&self.directory).args(arguments).args(offline).args(["--quiet", "--color", "never"]);
            command.env("CARGO_TARGET_DIR", Self::target());
            let output = command.output().unwrap();
            if output.status.success() {
                Ok(())
            } else {
                let (directory, text) =
                    (self.directory.display(), String::from_utf8_lossy(&output.stderr).into_owned());
                Err(format!("in {directory}: cargo {}\n{text}", arguments.join(" ")))
            }
        };
        match run(&["--offline"]) {
            Err(output) if output.contains("--offline") => run(&[]),
            result => result,
        }
    }
}

//! Finds PostgreSQL's server programs, which most packages install outside the `PATH`.

use std::cmp::Reverse;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::ServerError;

/// The variable with the directory of the programs. If it is set, no other directory is searched.
const BIN_VARIABLE: &str = "POOLSCOPE_PG_BIN";

/// Where packages install a directory for each version: the parent, and the prefix of the name.
const VERSIONED: [(&str, &str); 4] = [
    ("usr/lib/postgresql", ""),          // Debian
    ("usr", "pgsql-"),                   // PostgreSQL's own RPMs
    ("opt/homebrew/opt", "postgresql@"), // Homebrew on Apple silicon
    ("usr/local/opt", "postgresql@"),    // Homebrew on Intel
];

/// Returns the directory that contains both `initdb` and `postgres`.
///
/// # Errors
/// [`ServerError::NotInstalled`] if there is none.
pub(super) fn find() -> Result<PathBuf, ServerError> {
    search(env::var_os(BIN_VARIABLE).as_deref(), env::var_os("PATH").as_deref(), Path::new("/"))
}

fn search(chosen: Option<&OsStr>, path: Option<&OsStr>, root: &Path) -> Result<PathBuf, ServerError> {
    if let Some(chosen) = chosen.filter(|chosen| !chosen.is_empty()) {
        let bin = PathBuf::from(chosen);
        return with_programs(&bin).ok_or_else(|| ServerError::NotInstalled {
            searched: vec![format!("{} (from {BIN_VARIABLE})", bin.display())],
        });
    }
    let on_path = env::split_paths(path.unwrap_or_default()).find_map(|bin| with_programs(&bin));
    if let Some(bin) = on_path {
        return Ok(bin);
    }
    VERSIONED
        .iter()
        .find_map(|(parent, prefix)| newest(&root.join(parent), prefix))
        .ok_or_else(|| ServerError::NotInstalled { searched: searched_directories(root) })
}

/// Returns the `bin` of the highest version below `parent` that has both programs.
fn newest(parent: &Path, prefix: &str) -> Option<PathBuf> {
    let mut versions: Vec<(Vec<u32>, PathBuf)> = fs::read_dir(parent)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?.split('.').map(|part| part.parse().ok());
            Some((version.collect::<Option<_>>()?, entry.path().join("bin")))
        })
        .collect();
    versions.sort_unstable_by(|a, b| Reverse(a).cmp(&Reverse(b)));
    versions.into_iter().find_map(|(_, bin)| with_programs(&bin))
}

/// Returns `bin` as an absolute path, if it contains both programs.
fn with_programs(bin: &Path) -> Option<PathBuf> {
    let executable = |name: &str| {
        fs::metadata(bin.join(name)).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    (executable("initdb") && executable("postgres")).then(|| std::path::absolute(bin).ok())?
}

fn searched_directories(root: &Path) -> Vec<String> {
    let versioned = VERSIONED.iter().map(|(parent, prefix)| format!("{}/{prefix}*/bin", root.join(parent).display()));
    ["the directories of PATH".to_owned()].into_iter().chain(versioned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(root: &Path, bin: &str, programs: &[&str]) -> PathBuf {
        let bin = root.join(bin);
        fs::create_dir_all(&bin).expect("a directory");
        for program in programs {
            let file = bin.join(program);
            fs::write(&file, "").expect("a file");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        bin
    }

    fn message(found: Result<PathBuf, ServerError>) -> String {
        found.expect_err("an error").to_string()
    }

    #[test]
    fn newest_complete_version_is_found() {
        let root = tempfile::tempdir().expect("a directory");
        let both = ["initdb", "postgres"];
        install(root.path(), "usr/lib/postgresql/9.6/bin", &both);
        let wanted = install(root.path(), "usr/lib/postgresql/15/bin", &both);
        install(root.path(), "usr/lib/postgresql/17/bin", &["initdb"]);
        install(root.path(), "usr/lib/postgresql/common/bin", &both);
        assert_eq!(search(None, None, root.path()).expect("a server"), wanted);
    }

    #[test]
    fn variable_precedes_path_and_path_precedes_packages() {
        let root = tempfile::tempdir().expect("a directory");
        let both = ["initdb", "postgres"];
        install(root.path(), "opt/homebrew/opt/postgresql@17/bin", &both);
        let path = install(root.path(), "bin", &both);
        let chosen = install(root.path(), "mine", &both);
        let find = |chosen| search(chosen, Some(path.as_os_str()), root.path()).expect("a server");
        assert_eq!(find(None), path);
        assert_eq!(find(Some(OsStr::new(""))), path);
        assert_eq!(find(Some(chosen.as_os_str())), chosen);
    }

    #[test]
    fn error_lists_searched_directories_and_remedy() {
        let root = tempfile::tempdir().expect("a directory");
        let nothing = message(search(None, None, root.path()));
        for part in ["`initdb` and `postgres`", "PATH", "usr/lib/postgresql/*/bin", "apt-get install postgresql"] {
            assert!(nothing.contains(part), "{part} is not in: {nothing}");
        }
        let chosen = message(search(Some(OsStr::new("/nowhere")), None, root.path()));
        assert!(chosen.contains("searched /nowhere (from POOLSCOPE_PG_BIN)"), "{chosen}");
    }
}

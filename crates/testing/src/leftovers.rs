//! What a private server may leave behind: temporary files and processes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Creates a temporary directory that the server's user can write to.
pub fn temp_home() -> TempDir {
    let home = tempfile::Builder::new().prefix("ps-").tempdir_in("/tmp").expect("a directory");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).expect("its mode");
    home
}

/// Returns the entries of a directory, as paths.
pub fn entries(home: &Path) -> Vec<String> {
    let entries = fs::read_dir(home).expect("the directory").flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}

/// Returns the processes whose command line or working directory is below `home`.
pub fn processes(home: &Path) -> Vec<String> {
    let home = home.to_str().expect("a path");
    let Ok(proc) = fs::read_dir("/proc") else {
        let listed = Command::new("ps").args(["-A", "-o", "args="]).output().expect("ps");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        return listed.lines().filter(|line| line.contains(home)).map(str::to_owned).collect();
    };
    let described = proc.flatten().filter_map(|process| {
        let command = fs::read(process.path().join("cmdline")).ok()?;
        let directory = fs::read_link(process.path().join("cwd")).unwrap_or_default();
        Some(format!("{} in {}", String::from_utf8_lossy(&command), directory.display()))
    });
    described.filter(|process| process.contains(home)).collect()
}

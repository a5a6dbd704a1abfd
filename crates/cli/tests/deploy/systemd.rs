//! The units, as systemd's own tool sees them, where there is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::tools::{at, content, run, text};

const DEMO: &str = "poolscope-demo.service";
const SERVE: &str = "poolscope.service";
const SOCKET: &str = "poolscope.socket";

/// How exposed they may be, of 100. A service without any confinement has 96.
const EXPOSURE: &str = "15";

/// A unit with our own binary in it, as a file beside the others; `None` on a system that has no systemd.
fn unit(name: &str, change: impl Fn(String) -> String) -> Option<(TempDir, PathBuf)> {
    let has = Command::new("systemd-analyze").arg("--version").output();
    // Where it is missing there is no systemd either, nor anybody who would use the units.
    has.ok()?;
    let scratch = TempDir::new().unwrap();
    for other in [DEMO, SERVE, SOCKET] {
        let text = text(&format!("deploy/systemd/{other}"));
        let text = text.replace("/usr/local/bin/poolscope", env!("CARGO_BIN_EXE_poolscope"));
        fs::write(scratch.path().join(other), if other == name { change(text) } else { text }).unwrap();
    }
    let path = scratch.path().join(name);
    Some((scratch, path))
}

#[test]
fn systemd_takes_the_units() {
    for name in [DEMO, SERVE, SOCKET] {
        let Some((_scratch, path)) = unit(name, |unit| unit) else { return };
        let said = content(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
        assert!(!said.contains("poolscope"), "{said}");
        let (known, unknown) = if name == SOCKET { ("NoDelay=", "NoDelai=") } else { ("WatchdogSec=", "WatchdocSec=") };
        let (_scratch, path) = unit(name, |unit| unit.replace(known, unknown)).unwrap();
        let (_, said) = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
        assert!(said.contains(unknown.trim_end_matches('=')), "{said}");
    }
}

#[test]
fn the_units_are_exposed_to_little() {
    let exposed = |path: &Path| {
        run(Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold", EXPOSURE]).arg(path))
    };
    for name in [DEMO, SERVE] {
        let Some((_scratch, path)) = unit(name, |unit| unit) else { return };
        let (good, said) = exposed(&path);
        assert!(good, "{said}");
        let (_scratch, path) =
            unit(name, |unit| unit.replace("ProtectSystem=strict", "").replace("DynamicUser=yes", "")).unwrap();
        assert!(!exposed(&path).0);
    }
}

/// Whether a unit has this line.
#[track_caller]
fn says(name: &str, line: &str) {
    let unit = text(&format!("deploy/systemd/{name}"));
    assert!(unit.lines().any(|own| own == line), "{name} has not {line}");
}

#[test]
fn they_are_told_of_readiness_and_life_and_bind_what_they_are_told_to() {
    for name in [DEMO, SERVE] {
        for line in ["Type=notify", "WatchdogSec=30s", "SocketBindDeny=any"] {
            says(name, line);
        }
    }
    says(DEMO, "LoadCredential=database_url:/etc/poolscope/database_url");
    for line in text("deploy/systemd/demo.env").lines().filter(|line| line.contains("_LISTEN_ADDRESS=")) {
        let (host, port) = line.split_once('=').unwrap().1.rsplit_once(':').unwrap();
        assert_eq!(host, "127.0.0.1");
        says(DEMO, &format!("SocketBindAllow=tcp:{port}"));
    }
    // What is handed its socket needs no right to bind one.
    assert!(!text("deploy/systemd/poolscope.service").contains("SocketBindAllow"));
    says(SERVE, "Requires=poolscope.socket");
    says(SOCKET, "ListenStream=127.0.0.1:9719");
}

#[test]
fn each_database_of_the_example_has_a_credential() {
    let config = text("deploy/systemd/poolscope.toml");
    let files: Vec<_> = config.lines().filter_map(|line| line.strip_prefix("database_url_file = \"")).collect();
    assert!(!files.is_empty());
    for file in files {
        let name = file.trim_end_matches('"').strip_prefix("/run/credentials/poolscope.service/").unwrap();
        says(SERVE, &format!("LoadCredential={name}:/etc/poolscope/credentials/{name}"));
    }
    // Where the head of the unit puts them is where they are looked for.
    let unit = text("deploy/systemd/poolscope.service");
    for file in ["poolscope.toml", "poolscope.env"] {
        assert!(at(&format!("deploy/systemd/{file}")).exists());
        assert!(unit.split_whitespace().any(|word| word.ends_with(&format!("/etc/poolscope/{file}"))), "{file}");
    }
}

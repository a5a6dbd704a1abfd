//! The unit, as systemd's own tool sees it, where there is one.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::tools::{content, run, text};

const UNIT: &str = "deploy/systemd/poolscope-demo.service";

/// How exposed it may be, of 100. A service without any confinement has 96.
const EXPOSURE: &str = "15";

/// The unit with our own binary in it, as a file; `None` on a system that has no systemd.
fn unit(change: impl Fn(String) -> String) -> Option<(TempDir, std::path::PathBuf)> {
    let has = Command::new("systemd-analyze").arg("--version").output();
    // Where it is missing there is no systemd either, nor anybody who would use the unit.
    has.ok()?;
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("poolscope-demo.service");
    let unit = text(UNIT).replace("/usr/local/bin/poolscope", env!("CARGO_BIN_EXE_poolscope"));
    fs::write(&path, change(unit)).unwrap();
    Some((scratch, path))
}

#[test]
fn systemd_takes_the_unit() {
    let Some((_scratch, path)) = unit(|unit| unit) else { return };
    let said = content(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
    assert!(!said.contains("poolscope-demo"), "{said}");
    let (_scratch, path) = unit(|unit| unit.replace("WatchdogSec=30s", "WatchdocSec=30s")).unwrap();
    let (_, said) = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
    assert!(said.contains("WatchdocSec"), "{said}");
}

#[test]
fn the_unit_is_exposed_to_little() {
    let exposed = |path| {
        run(Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold", EXPOSURE]).arg(path))
    };
    let Some((_scratch, path)) = unit(|unit| unit) else { return };
    let (good, said) = exposed(&path);
    assert!(good, "{said}");
    let (_scratch, path) =
        unit(|unit| unit.replace("ProtectSystem=strict", "").replace("DynamicUser=yes", "")).unwrap();
    assert!(!exposed(&path).0);
}

#[test]
fn it_is_told_of_readiness_and_life_and_binds_what_it_is_told_to() {
    let unit = text(UNIT);
    for line in ["Type=notify", "WatchdogSec=30s", "LoadCredential=database_url:/etc/poolscope/database_url"] {
        assert!(unit.lines().any(|own| own == line), "{line}");
    }
    for line in text("deploy/systemd/demo.env").lines().filter(|line| line.contains("_LISTEN_ADDRESS=")) {
        let (host, port) = line.split_once('=').unwrap().1.rsplit_once(':').unwrap();
        assert_eq!(host, "127.0.0.1");
        assert!(unit.contains(&format!("SocketBindAllow=tcp:{port}\n")), "{line}");
    }
}

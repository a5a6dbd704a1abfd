//! The systemd units, checked with systemd-analyze if it is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::tools::{at, run, run_successfully, text};

const DEMO: &str = "poolscope-demo.service";
const SERVE: &str = "poolscope.service";
const PROXY: &str = "poolscope-proxy.service";
const SOCKET: &str = "poolscope.socket";

/// The maximum exposure of a unit, of 100; a unit without confinement has 96.
const MAX_EXPOSURE: &str = "15";

/// Writes the units with the tested binary, and this one with a change. Returns its path; `None` without systemd.
fn unit(name: &str, change: impl Fn(String) -> String) -> Option<(TempDir, PathBuf)> {
    Command::new("systemd-analyze").arg("--version").output().ok()?;
    let scratch = TempDir::new().unwrap();
    for other in [DEMO, PROXY, SERVE, SOCKET] {
        let text = text(&format!("deploy/systemd/{other}"));
        let text = text.replace("/usr/local/bin/poolscope", env!("CARGO_BIN_EXE_poolscope"));
        fs::write(scratch.path().join(other), if other == name { change(text) } else { text }).unwrap();
    }
    let path = scratch.path().join(name);
    Some((scratch, path))
}

#[test]
fn systemd_accepts_units() {
    for name in [DEMO, PROXY, SERVE, SOCKET] {
        let Some((_scratch, path)) = unit(name, |unit| unit) else { return };
        let output = run_successfully(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
        assert!(!output.contains("poolscope"), "{output}");
        let (known, unknown) = if name == SOCKET { ("NoDelay=", "NoDelai=") } else { ("WatchdogSec=", "WatchdocSec=") };
        let (_scratch, path) = unit(name, |unit| unit.replace(known, unknown)).unwrap();
        let (_, output) = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
        assert!(output.contains(unknown.trim_end_matches('=')), "{output}");
    }
}

#[test]
fn units_have_low_exposure() {
    let check_exposure = |path: &Path| {
        run(Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold", MAX_EXPOSURE]).arg(path))
    };
    for name in [DEMO, PROXY, SERVE] {
        let Some((_scratch, path)) = unit(name, |unit| unit) else { return };
        let (success, output) = check_exposure(&path);
        assert!(success, "{output}");
        let (_scratch, path) =
            unit(name, |unit| unit.replace("ProtectSystem=strict", "").replace("DynamicUser=yes", "")).unwrap();
        assert!(!check_exposure(&path).0);
    }
}

/// Checks that a unit contains a line.
#[track_caller]
fn assert_line(name: &str, line: &str) {
    let unit = text(&format!("deploy/systemd/{name}"));
    assert!(unit.lines().any(|other| other == line), "{name} does not contain {line}");
}

#[test]
fn units_notify_and_bind_only_configured_ports() {
    for name in [DEMO, SERVE] {
        for line in ["Type=notify", "WatchdogSec=30s", "SocketBindDeny=any"] {
            assert_line(name, line);
        }
    }
    assert_line(DEMO, "LoadCredential=database_url:/etc/poolscope/database_url");
    for line in text("deploy/systemd/demo.env").lines().filter(|line| line.contains("_LISTEN_ADDRESS=")) {
        let (host, port) = line.split_once('=').unwrap().1.rsplit_once(':').unwrap();
        assert_eq!(host, "127.0.0.1");
        assert_line(DEMO, &format!("SocketBindAllow=tcp:{port}"));
    }
    // A service with a passed socket needs no permission to bind.
    assert!(!text("deploy/systemd/poolscope.service").contains("SocketBindAllow"));
    assert_line(SERVE, "Requires=poolscope.socket");
    assert_line(SOCKET, "ListenStream=127.0.0.1:9719");
}

#[test]
fn example_databases_have_credentials() {
    let config = text("deploy/systemd/poolscope.toml");
    let files: Vec<_> = config.lines().filter_map(|line| line.strip_prefix("database_url_file = \"")).collect();
    assert!(!files.is_empty());
    for file in files {
        let name = file.trim_end_matches('"').strip_prefix("/run/credentials/poolscope.service/").unwrap();
        assert_line(SERVE, &format!("LoadCredential={name}:/etc/poolscope/credentials/{name}"));
    }
    // The installation commands in the unit's header use the configured paths.
    let unit = text("deploy/systemd/poolscope.service");
    for file in ["poolscope.toml", "poolscope.env"] {
        assert!(at(&format!("deploy/systemd/{file}")).exists());
        assert!(unit.split_whitespace().any(|word| word.ends_with(&format!("/etc/poolscope/{file}"))), "{file}");
    }
}

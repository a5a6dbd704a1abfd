//! The status line of the demo on a terminal.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use nix::pty::{Winsize, openpty};

use crate::run::{demo, wait};

/// Returns what a short demo writes to a terminal of this width.
fn run_on_terminal(columns: u16, variables: &[(&str, &str)]) -> String {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).expect("a terminal");
    let mut command = demo(&["--duration", "2500ms"]);
    command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8").envs(variables.iter().copied());
    let slave = || Stdio::from(terminal.slave.try_clone().expect("a handle"));
    let mut child = command.stdout(slave()).stderr(slave()).spawn().expect("the binary");
    // Closes the last other handles, so that reading ends with the child.
    drop((command, terminal.slave));
    let (mut master, mut written, mut buffer) = (File::from(terminal.master), Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        written.extend_from_slice(&buffer[..length]);
    }
    assert_eq!(wait(&mut child).code(), Some(0));
    String::from_utf8(written).expect("text")
}

/// Returns the status lines, which begin with a carriage return and end with an erase sequence.
fn statuses(written: &str) -> Vec<&str> {
    written
        .split('\r')
        .filter_map(|line| line.strip_suffix("\x1b[K"))
        .filter(|line| line.contains("/10 used"))
        .collect()
}

fn visible(line: &str) -> String {
    anstream::adapter::strip_str(line).to_string()
}

#[test]
fn status_line_is_colored_and_rewritten_in_place() {
    let written = run_on_terminal(120, &[]);
    let statuses = statuses(&written);
    assert!(statuses.len() >= 2, "{written:?}");
    let line = visible(statuses.last().expect("a status"));
    for part in [" 0:0", " idle  ", " waiting  ", "/s  ", " timeouts  ", " error"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    // The last one may have no free connection.
    assert!(statuses.iter().any(|line| line.contains('·')), "{written:?}");
    assert!(statuses.iter().all(|line| line.contains("\x1b[2m")), "{written:?}");
    assert!(written.contains("\r\nDuration elapsed"), "{written:?}");
}

#[test]
fn width_locale_and_no_color_are_respected() {
    let written = run_on_terminal(40, &[("NO_COLOR", "1"), ("LC_ALL", "C")]);
    let statuses = statuses(&written);
    assert!(statuses.len() >= 2, "{written:?}");
    for line in statuses {
        assert!(!line.contains('\x1b') && line.is_ascii() && line.len() < 40, "{line:?}");
    }
}

#[test]
fn dumb_terminal_has_no_escapes() {
    let written = run_on_terminal(120, &[("TERM", "dumb")]);
    assert!(!written.contains('\x1b'), "{written:?}");
    assert!(written.contains("checkouts from pool shop"), "{written:?}");
}

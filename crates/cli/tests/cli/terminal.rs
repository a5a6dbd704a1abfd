//! The demo on a terminal: a status line that is rewritten in place.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use nix::pty::{Winsize, openpty};

use crate::run::{demo, wait};

/// What a demo of two seconds writes to a terminal of this width.
fn on_a_terminal(columns: u16, variables: &[(&str, &str)]) -> String {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).expect("a terminal");
    let mut command = demo(&["--duration", "2500ms"]);
    command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8").envs(variables.iter().copied());
    let slave = || Stdio::from(terminal.slave.try_clone().expect("a handle"));
    let mut child = command.stdout(slave()).stderr(slave()).spawn().expect("the binary");
    // Only the child has it now, so that its end is the end of what can be read.
    drop((command, terminal.slave));
    let (mut master, mut written, mut buffer) = (File::from(terminal.master), Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        written.extend_from_slice(&buffer[..length]);
    }
    assert_eq!(wait(&mut child).code(), Some(0));
    String::from_utf8(written).expect("text")
}

/// The status lines, each from the carriage return that begins it to the escape that ends it.
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
fn a_terminal_has_a_status_line_in_colours_that_is_rewritten_in_place() {
    let written = on_a_terminal(120, &[]);
    let statuses = statuses(&written);
    assert!(statuses.len() >= 2, "{written:?}");
    let line = visible(statuses.last().expect("a status"));
    for part in [" 0:0", " idle  ", " waiting  ", "/s  ", " timeouts  ", " error"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    // Not in the last one, if the machine is so busy that all connections are.
    assert!(statuses.iter().any(|line| line.contains('·')), "{written:?}");
    assert!(statuses.iter().all(|line| line.contains("\x1b[2m")), "{written:?}");
    assert!(written.contains("\r\nTime is up"), "{written:?}");
}

#[test]
fn a_narrow_terminal_and_one_without_colours_are_respected() {
    let written = on_a_terminal(40, &[("NO_COLOR", "1"), ("LC_ALL", "C")]);
    let statuses = statuses(&written);
    assert!(statuses.len() >= 2, "{written:?}");
    for line in statuses {
        assert!(!line.contains('\x1b') && line.is_ascii() && line.len() < 40, "{line:?}");
    }
}

#[test]
fn a_dumb_terminal_has_lines_only() {
    let written = on_a_terminal(120, &[("TERM", "dumb")]);
    assert!(!written.contains('\x1b'), "{written:?}");
    assert!(written.contains("checkouts from pool shop"), "{written:?}");
}

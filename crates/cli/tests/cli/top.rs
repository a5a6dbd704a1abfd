//! `poolscope top`: on terminals of several sizes, and without one.

use std::net::TcpListener;

use nix::sys::signal::Signal;

use crate::pseudo_terminal::PseudoTerminal;
use crate::run::{demo, poolscope, run_to_end, start};

const QUIT: &str = "q";
const CTRL_Z: &str = "\x1a";

fn top(arguments: &[&str], columns: u16, rows: u16, variables: &[(&str, &str)]) -> PseudoTerminal {
    let mut command = poolscope(&[&["top"], arguments].concat());
    command.env("LC_ALL", "C.UTF-8").envs(variables.iter().copied());
    // The terminal is its standard input.
    command.stdin(std::process::Stdio::inherit());
    PseudoTerminal::start(command, columns, rows)
}

#[test]
fn leak_is_shown_at_three_sizes_and_after_resizing() {
    let demo = start(&mut demo(&["--scenario", "leak", "--scenario-after", "1s"]));
    let url = format!("http://{}", demo.address);
    for ((columns, rows), next) in [((80, 24), (132, 43)), ((132, 43), (200, 60)), ((200, 60), (80, 24))] {
        let top = top(&[&url], columns, rows, &[]);
        top.wait_for_text("`GET /customers/count` does not return its connections");
        for (columns, rows) in [(columns, rows), next] {
            top.resize(columns, rows);
            let parts = ["shop: leak for ", "advice: ", " L  idle ", "Holders: ", "Waiters: ", "of 10 "];
            // A frame may have arrived in part.
            let is_drawn = |shown: &[String]| {
                let (text, first) = (shown.join("\n"), shown.first().map_or("", String::as_str));
                first.starts_with("poolscope top  1 pool, 1 with a problem")
                    && first.ends_with(" UTC")
                    && first.chars().count() == usize::from(columns)
                    && shown.len() == usize::from(rows)
                    && shown.last().is_some_and(|row| row.starts_with("? help  Tab list"))
                    && parts.iter().all(|part| text.contains(part))
                    && text.contains("QUERIES") == (columns >= 110)
            };
            top.wait_for(&format!("{columns}x{rows}"), is_drawn);
        }
        top.write(QUIT);
        let (status, ended) = top.end();
        assert!(status.success() && ended.is_restored, "{:?}", ended.text);
        assert!(ended.text.contains("\x1b[38;5;") || ended.text.contains("\x1b[31"), "no color in {:?}", ended.text);
    }
}

#[test]
fn keys_signals_and_no_color_are_respected() {
    let demo = start(&mut demo(&["--scenario", "healthy"]));
    let url = format!("http://{}", demo.address);
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let gone = format!("http://{free}");

    let screen = top(&[&url, &gone], 100, 24, &[("NO_COLOR", "1"), ("LC_ALL", "C")]);
    screen.wait_for_text("no answer: ");
    let shown = screen.wait_for_text("1 pool, 0 with a problem, 1 of 2 exporters answering");
    assert!(shown[1].starts_with(&url) && shown[1].contains(&gone), "{}", shown.join("\n"));
    screen.write("?");
    screen.wait_for_text("Keys of poolscope top");
    screen.write("x");
    screen.wait_for("the lists", |rows| rows[0].starts_with("poolscope top"));
    screen.write("/zz\r");
    screen.wait_for_text("filter \"zz\"");
    screen.write("\x1b[C");
    screen.wait_for("the second exporter", |rows| rows[1].find("filter") > rows[1].find(&gone));
    // A process whose parent is in another session is not stopped: it continues at once.
    screen.write(CTRL_Z);
    screen.write("Z");
    screen.wait_for_text("FROZEN");
    screen.signal(Signal::SIGTERM);
    let (status, ended) = screen.end();
    assert!(status.success() && ended.is_restored, "{:?}", ended.text);
    let is_color = |sequence: &str| {
        let parameters = sequence.split('m').next().unwrap_or_default();
        parameters.bytes().all(|byte| byte.is_ascii_digit() || byte == b';')
            && parameters.split(';').any(|code| matches!(code.parse(), Ok(30..=38 | 40..=48 | 90..=107)))
    };
    assert!(ended.text.is_ascii() && !ended.text.split("\x1b[").skip(1).any(is_color), "{:?}", ended.text);

    let screen = top(&["-n", "2", "-d", "200ms", &url], 80, 24, &[]);
    let (status, ended) = screen.end();
    assert!(status.success() && ended.is_restored, "{:?}", ended.text);
    let screen = top(&[&url], 80, 24, &[]);
    screen.wait_for_text("Holders: ");
    screen.signal(Signal::SIGHUP);
    let (status, ended) = screen.end();
    assert!(status.success() && ended.is_restored, "{:?}", ended.text);
}

#[test]
fn pipe_gets_one_plain_block() {
    let demo = start(&mut demo(&["--scenario", "healthy"]));
    let url = format!("http://{}", demo.address);
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let gone = format!("http://{free}");

    let ended = run_to_end(poolscope(&["top", &url, &gone]));
    assert_eq!((ended.code, &*ended.err), (Some(0), ""));
    assert!(!ended.out.contains('\x1b'), "{}", ended.out);
    let head = ended.out.lines().next().expect("a line");
    assert!(head.ends_with("exporters answering: 1 of 2, pools: 1, with a problem: 0"), "{head}");
    for part in [&format!("\n{url}\nPOOL "), "\nshop ", &format!("\n{gone}\nno answer: ")] {
        assert!(ended.out.contains(part), "{part} in {}", ended.out);
    }
    let ended = run_to_end(poolscope(&["top", "-n", "3", "--delay", "100ms", &url]));
    assert_eq!(ended.out.matches("poolscope top - ").count(), 3, "{}", ended.out);
    let ended = run_to_end(poolscope(&["top", "--batch", &gone]));
    assert_eq!((ended.code, ended.err.contains("no exporter answered")), (Some(1), true), "{}", ended.err);
}

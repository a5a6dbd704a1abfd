//! `poolscope top`: on terminals of several sizes, and without one, and with exporters that misbehave.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use nix::sys::signal::Signal;
use poolscope_testing::ports::ReservedPort;
use poolscope_testing::process::status_kb;
use serde_json::json;

use crate::pseudo_terminal::PseudoTerminal;
use crate::run::{Run, demo, poolscope, run_to_end, start, wait_until};

const QUIT: &str = "q";
const CTRL_Z: &str = "\x1a";

fn top(arguments: &[&str], columns: u16, rows: u16, variables: &[(&str, &str)]) -> PseudoTerminal {
    let mut command = poolscope(&[&["top"], arguments].concat());
    command.env("LC_ALL", "C.UTF-8").envs(variables.iter().copied());
    // The terminal is its standard input.
    command.stdin(std::process::Stdio::inherit());
    PseudoTerminal::start(command, columns, rows)
}

/// Whether this process, and so those that it starts, ignores SIGHUP.
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0");
    u64::from_str_radix(ignored.trim(), 16).is_ok_and(|mask| mask & 1 != 0)
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
    let closed = ReservedPort::new().expect("a port");
    let gone = format!("http://{}", closed.address());

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
    // A process that was started with SIGHUP ignored, as by nohup, goes on ignoring it.
    let hang_up = if is_hang_up_ignored() { Signal::SIGTERM } else { Signal::SIGHUP };
    screen.signal(hang_up);
    let (status, ended) = screen.end();
    assert!(status.success() && ended.is_restored, "{:?}", ended.text);
}

#[test]
fn pipe_gets_one_plain_block() {
    let demo = start(&mut demo(&["--scenario", "healthy"]));
    let url = format!("http://{}", demo.address);
    let closed = ReservedPort::new().expect("a port");
    let gone = format!("http://{}", closed.address());

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

/// A server that answers each request with `answer`. Returns its host and port.
fn answering(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("its address");
    let answer = std::sync::Arc::new(answer);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answer = std::sync::Arc::clone(&answer);
            thread::spawn(move || {
                let mut request = [0; 4096];
                if stream.read(&mut request).is_ok_and(|len| len > 0) {
                    // Fails once the client has closed.
                    let _ = answer(&mut stream);
                }
            });
        }
    });
    address.to_string()
}

fn text(text: impl Into<String>) -> impl Fn(&mut TcpStream) -> std::io::Result<()> {
    let text = text.into();
    move |stream| stream.write_all(text.as_bytes())
}

/// A server that sends `head`, and then `body` without end.
fn endless(head: &'static str, body: &'static str) -> String {
    let body = body.repeat(4096);
    answering(move |stream| {
        stream.write_all(head.as_bytes())?;
        loop {
            stream.write_all(body.as_bytes())?;
        }
    })
}

/// Waits for longer than any test.
#[allow(clippy::unnecessary_wraps, reason = "an answer may fail")]
fn stall() -> std::io::Result<()> {
    thread::sleep(std::time::Duration::from_secs(600));
    Ok(())
}

fn json_answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A name that sets the terminal's title, erases the screen, and reverses what follows it.
const HOSTILE: &str = "a\n\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\u{202e}z";

fn hostile_pools() -> String {
    let holder = json!({"operation": HOSTILE, "call_site": HOSTILE, "activity": HOSTILE, "trace_id": HOSTILE,
        "age_seconds": 1e308, "silent_seconds": -1e308, "queries": u64::MAX, "backend_pid": i64::MIN});
    let waiter = json!({"operation": HOSTILE, "call_site": HOSTILE, "phase": HOSTILE, "own": {"operation": HOSTILE}});
    let state = json!({"used": u64::MAX, "idle": u64::MAX, "waiting": u64::MAX, "max": u64::MAX, "creating": -1});
    let evidence = json!([{"name": HOSTILE, "unit": HOSTILE, "value": 1e308, "usual": -1e308}]);
    let diagnosis = json!({"cause": HOSTILE, "since_seconds": 1e308, "finding": HOSTILE, "advice": HOSTILE, "call_site": HOSTILE,
        "evidence": evidence, "consequences": [HOSTILE]});
    let pool = json!({"name": HOSTILE, "state": state, "diagnosis": diagnosis, "sizing": {"withheld_by": HOSTILE},
        "holders": [holder], "waiters": [waiter], "holders_omitted": u64::MAX, "waiters_omitted": u64::MAX,
        "history": [state], "recorded_at": HOSTILE});
    json!({"pools": [pool, 7, null, {"name": 7, "holders": {}, "state": []}]}).to_string()
}

#[test]
fn exporters_that_misbehave_are_reported_in_bounded_memory() {
    let ok = "HTTP/1.1 200 OK\r\n\r\n";
    let elsewhere = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    let line = format!("HTTP/1.1 500 Error\r\nContent-Length: {}\r\n\r\n{HOSTILE}", HOSTILE.len());
    let cases = [
        (endless(ok, "a"), "too large"),
        (endless(ok, "[1,"), "too large"),
        (endless("HTTP/1.1 200 OK\r\n", "a: b\r\n"), "invalid HTTP response"),
        (endless("", "HTTP/1.1 100 Continue\r\n\r\n"), "no answer: "),
        (answering(text(json_answer(&format!("{{\"pools\":[{}1]}}", "1,".repeat(3_000_000))))), "too large"),
        (answering(text(json_answer(&"[".repeat(100_000)))), "not JSON"),
        (answering(text(json_answer("{\"pools\": {}}"))), "has no pools"),
        (answering(text(ok)), "not JSON"),
        (answering(text(elsewhere)), "it responded 302"),
        (answering(text(line)), "it responded 500: a"),
        (answering(text("SSH-2.0-OpenSSH\r\n")), "invalid HTTP response"),
        (answering(|_| stall()), "timed out"),
        (
            answering(|stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")?;
                stall()
            }),
            "timed out",
        ),
    ];
    let plain = answering(text("HTTP/1.1 400 Bad Request\r\n\r\n"));
    let mut urls: Vec<_> = cases.iter().map(|(address, _)| format!("http://{address}")).collect();
    urls.push(format!("https://{plain}"));
    urls.push(format!("http://{}", answering(text(json_answer(&hostile_pools())))));
    let arguments: Vec<_> =
        ["top", "--batch", "--timeout", "15s"].into_iter().chain(urls.iter().map(String::as_str)).collect();
    let mut run = Run::start(&mut poolscope(&arguments));
    let mut peak = 0;
    wait_until("the end", || {
        let now = status_kb(run.pid(), "VmHWM");
        peak = peak.max(now.unwrap_or_default());
        now.is_none()
    });
    assert_eq!(run.wait().code(), Some(0), "{}", run.stderr());
    let out = run.remaining_output();
    assert!((1..600_000).contains(&peak), "{peak} kB");
    let is_shown = |c: char| c == '\n' || !c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c);
    assert!(out.chars().all(is_shown), "{out:?}");
    assert!(out.contains(r"a\n\u{1b}]0;title"), "{out}");
    let answer = |url: &str| {
        let part = out.split(&format!("\n{url}\n")).nth(1).unwrap_or_else(|| panic!("{url} in {out}"));
        part.lines().next().unwrap_or_default().to_owned()
    };
    for ((address, expected), url) in cases.iter().zip(&urls) {
        let shown = answer(url);
        // On a machine that is busy, the time may end first.
        let is_expected = shown.contains(expected) || *expected == "too large" && shown.contains("timed out");
        assert!(shown.starts_with("no answer: ") && is_expected, "{address}: {expected}: {shown}");
    }
    let shown = answer(&format!("https://{plain}"));
    assert!(shown.starts_with("no answer: "), "{shown}");
}

#[test]
fn hostile_names_cannot_control_the_terminal() {
    let url = format!("http://{}", answering(text(json_answer(&hostile_pools()))));
    let top = top(&[&url], 120, 40, &[]);
    top.wait_for_text(r"a\n\u{1b}]0;title");
    top.write("jjGNTUWPI<\t>\tI?");
    top.wait_for_text("Keys of poolscope top");
    top.write("x");
    top.wait_for_text("Holders: ");
    top.write(QUIT);
    let (status, ended) = top.end();
    assert!(status.success() && ended.is_restored, "{:?}", ended.text);
    assert!(
        !ended.text.contains("\x1b]0;") && !ended.text.contains(['\u{7}', '\u{9b}', '\u{202e}']),
        "{:?}",
        ended.text
    );
}

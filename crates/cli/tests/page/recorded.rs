//! The page with a recording: `poolscope replay`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use poolscope_testing::http;
use serde_json::{Value, json};

use crate::accessibility::check;
use crate::browser::{Browser, DESKTOP, PHONE};
use crate::run::{Run, poolscope};
use crate::scenarios::validate;

/// 2026-12-01T21:00:00Z.
const STARTED: u32 = 1_796_158_800;

/// A minute whose problem begins with second 30, of a process that was killed.
fn recording() -> String {
    let verdict = |cause: &str| {
        json!({"cause": cause, "since_seconds": 1.0, "finding": "`report` does not return its connections",
            "operation": "report", "call_site": "src/report.rs:7", "advice": "Return the connections of `report`.",
            "evidence": [{"name": "wait_severity", "value": 20.0, "unit": "ratio", "usual": 0.25},
                {"name": "used_share", "value": 0.5, "unit": "ratio"}]})
    };
    let mut lines = vec![json!({"format": "poolscope-recording", "version": {"major": 1, "minor": 2}, "pool": "shop",
            "library_version": "0.1.0", "started": "2026-12-01T21:00:00Z", "incident": {"cause": "leak", "at_seconds": 30}})];
    for second in 1..=60 {
        let holders = json!([{"operation": "report", "call_site": "src/report.rs:7", "connections": second, "oldest": second,
            "activities": {"idle": second}}]);
        let interval = json!({"seconds": 1, "max": 100, "used": second, "in_flight": 2, "queued": u8::from(second >= 30),
            "outcomes": {"ok": 5}, "held": {"idle": second}, "operations": [{"name": "report", "held": {"idle": second}}],
            "waits": {"0.001": 5}, "holders": holders, "server": {"slots": 100, "slots_left": 40}});
        let mut line = json!({"t": second, "interval": interval});
        match second {
            1 => line["verdict"] = verdict("healthy"),
            30 => line["verdict"] = verdict("leak"),
            _ => {}
        }
        lines.push(line);
        if second == 30 {
            let holder = json!({"operation": "report", "age_seconds": 20.0, "request": "GET /reports/{id}",
                "trace_id": "0af7651916cd43dd8448eb211c80319c"});
            let waiter =
                json!({"operation": "pay", "call_site": "src/pay.rs:3", "phase": "queue", "request": "POST /pay"});
            lines.push(json!({"t": 30, "listing": {"holders": [holder], "waiters": [waiter]}}));
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// A running `poolscope replay` of a file, and its address.
pub(crate) fn replay(file: &Path) -> (Run, SocketAddr) {
    let run = Run::start(&mut poolscope(&["replay", file.to_str().unwrap()]));
    let line = run.line_containing("Live page: http://");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
    let address = address.parse().unwrap();
    (run, address)
}

#[test]
fn recording_is_shown_at_any_of_its_moments() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("leak.jsonl");
    fs::write(&file, recording()).unwrap();
    let (_run, address) = replay(&file);
    let origin = format!("http://{address}/");
    let mut browser = Browser::start();
    let used = |number: u32| format!("document.getElementById('now-used')?.textContent === '{number} / 100'");
    browser.open(&origin);
    // It begins with the problem, and stands still.
    browser.wait(&used(30));
    browser.wait("document.getElementById('status').textContent === 'recording'");
    assert_eq!(browser.text("#cause"), "leak");
    assert_eq!(browser.text("#finding code"), "report");
    assert_eq!(
        browser.eval("document.getElementById('advice').textContent"),
        json!("Return the connections of report.")
    );
    let evidence = browser.eval("[...document.querySelectorAll('#evidence dd')].map(value => value.textContent)");
    assert_eq!(evidence, json!(["20 (usual 0.25)", "50 %"]));
    let row = "[...document.querySelector('#holders tbody tr').children].map(cell => cell.textContent)";
    let row = browser.eval(row);
    assert!(row.as_array().unwrap().contains(&json!("GET /reports/{id}")), "{row}");
    let truncation = browser.text("#replay-truncation");
    assert!(truncation.contains("readable for 60 s, up to line 62"), "{truncation}");
    assert_eq!(browser.eval("document.getElementById('sizing').hidden"), json!(true));
    assert_eq!(browser.eval("document.getElementById('replay-time').value"), json!("29"));
    for (scheme, screen) in [("light", DESKTOP), ("dark", PHONE)] {
        check(&mut browser, scheme, screen, &[("prefers-color-scheme", scheme)]);
    }
    browser.screen(DESKTOP);

    // The keyboard moves the slider, the address keeps the moment.
    browser.tab_to("focused.id === 'replay-time'");
    browser.key("ArrowRight");
    browser.wait(&used(31));
    let text = browser.eval("document.getElementById('replay-time').getAttribute('aria-valuetext')");
    assert!(text.as_str().unwrap().ends_with("30 s after the start"), "{text}");
    browser.key("End");
    browser.wait(&used(60));
    browser.key("Home");
    browser.wait(&used(1));
    browser.wait("document.getElementById('cause').textContent === 'healthy'");
    assert_eq!(browser.text("#holders td"), "report");
    browser.wait(&format!("new URLSearchParams(location.search).get('at') === '{}'", STARTED + 1));
    browser.eval("document.querySelectorAll('#replay-changes button')[1].click()");
    browser.wait(&used(30));
    assert_eq!(browser.text("#replay-changes [aria-current]").split(' ').next_back(), Some("leak"));

    // It is played, and pauses.
    browser.eval("document.getElementById('replay-play').focus()");
    browser.key(" ");
    browser.wait("Number(document.getElementById('now-used').textContent.split(' ')[0]) >= 32");
    assert_eq!(browser.text("#replay-play"), "Pause");
    browser.key(" ");
    browser.wait("document.getElementById('replay-play').textContent === 'Play'");
    browser.wait("document.getElementById('status').textContent === 'recording'");
    // At its end it pauses by itself, and begins again.
    browser.open(&format!("{origin}?pool=shop&at={}", STARTED + 58));
    browser.wait(&used(58));
    browser.eval("document.getElementById('replay-play').click()");
    browser.wait(&used(60));
    browser.wait("document.getElementById('replay-play').textContent === 'Play'");
    assert_eq!(browser.eval("document.getElementById('status').className"), json!("replay"));
    browser.eval("document.getElementById('replay-play').click()");
    browser.wait(&used(3));
    browser.assert_clean(&origin);
    drop(browser);

    let answers = directory.path().join("answers");
    fs::create_dir(&answers).unwrap();
    let write = |schema: &str, json: &str| fs::write(answers.join(format!("{schema}.replay.json")), json).unwrap();
    write("Pools", &http::get(address, "/api/v1/pools").unwrap().1);
    write("History", &http::get(address, "/api/v1/history").unwrap().1);
    // The stream ends with the recording.
    let (status, events) = http::get(address, &format!("/api/v1/stream?pool=shop&at={}", STARTED + 59)).unwrap();
    assert_eq!(status, 200);
    for (event, schema) in [("snapshot", "SnapshotEvent"), ("pool", "PoolEvent"), ("delta", "DeltaEvent")] {
        let event = events.split("\n\n").find(|text| text.contains(&format!("event: {event}\n"))).unwrap();
        write(schema, event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap());
    }
    validate(&answers);
}

/// A file of which nothing can be shown is an error that says why.
#[test]
fn file_without_a_second_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let header = recording().lines().next().unwrap().to_owned();
    let cases = [
        (String::new(), "not a recording"),
        ("text".to_owned(), "not a recording"),
        (header[..40].to_owned(), "not a recording"),
        (format!("{header}\n{{"), "readable for 0 s, up to line 1: the line is incomplete"),
        (format!("{header}\n{}\n", json!({"end": {}})), "the recording has no seconds"),
    ];
    for (text, message) in cases {
        fs::write(&file, &text).unwrap();
        let ended = crate::run::run_to_end(poolscope(&["replay", file.to_str().unwrap()]));
        assert_eq!(ended.code, Some(1), "{text}: {}", ended.err);
        assert!(ended.err.contains(message) && ended.out.is_empty(), "{text}: {}{}", ended.out, ended.err);
    }
    let missing: Value = json!(directory.path().join("none"));
    let ended = crate::run::run_to_end(poolscope(&["replay", missing.as_str().unwrap()]));
    assert!(ended.code == Some(1) && ended.err.contains("No such file"), "{}", ended.err);
    let ended = crate::run::run_to_end(poolscope(&["replay", "http://127.0.0.1:9719"]));
    assert!(ended.code == Some(2) && ended.err.contains("not a URL"), "{}", ended.err);
}

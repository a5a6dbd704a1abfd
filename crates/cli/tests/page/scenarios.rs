//! For each scenario of the demo, the page shows the values that the API reports, and the API answers as `docs/api.yaml` says.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use poolscope_cli::demo::Scenario;
use poolscope_testing::http;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::programs::{at, run};
use crate::run::{demo, start};

/// The scenarios that run at once.
const AT_ONCE: usize = 3;

/// The time for all scenarios. Each takes seconds, also on a busy machine.
const TIME: Duration = Duration::from_secs(480);

/// Copies the streams that the page reads: the last one is `window.stream`.
const COPY: &str = r#"{
  const load = window.fetch;
  window.fetch = async (...request) => {
    const response = await load(...request);
    if (!response.ok || !String(request[0]).startsWith("api/v1/stream")) return response;
    const [page, copy] = response.body.tee();
    window.stream = copy;
    return new Response(page, response);
  };
}"#;

/// Reads the copy of the page's stream, and compares the page with the second that it shows. Returns
/// whether some seconds were compared, what was seen, the differences, and the events.
const COMPARE: &str = r##"(async () => {
  const name = document.getElementById("pool-name").textContent;
  const pause = (time) => new Promise((next) => setTimeout(next, time));
  const [app, charts] = [document.getElementById("app"), document.getElementById("charts")];
  const text = (id) => document.getElementById(id).textContent;
  const rows = (id) => [...document.querySelectorAll(`#${id} tbody tr`)].map((row) => row.children[0].textContent);
  const legend = (id) => [...document.querySelectorAll(`#${id} .legend b`)].map((value) => Number(value.textContent));
  const [events, seconds, compared, drawn, wrong, errors] = [{}, new Map(), new Set(), new Set(), [], []];
  let isDone = false;
  const read = async (stream) => {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    let [rest, pool] = ["", null];
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const fields = Object.fromEntries(part.split("\n").map((line) => [line.slice(0, line.indexOf(": ")), line.slice(line.indexOf(": ") + 2)]));
        if (!fields.data) continue;
        const data = JSON.parse(fields.data);
        events[fields.event] = data;
        if (fields.event === "pool") pool = data;
        if (fields.event !== "delta") continue;
        const row = data.pools.find((row) => row.name === name);
        if (!row) throw new Error("no pool in a delta");
        seconds.set(row.time, { row, pool });
        // Deltas that were missed have none.
        pool = null;
      }
    }
  };
  (async () => {
    while (!isDone) {
      // The page begins another stream when one ends, or is silent.
      if (window.stream) read(window.stream).catch((error) => errors.push(String(error)));
      window.stream = null;
      await pause(20);
    }
  })();
  const expect = (what, shown, expected) => {
    if (JSON.stringify(shown) !== JSON.stringify(expected)) wrong.push(`${what}: ${JSON.stringify(shown)} instead of ${JSON.stringify(expected)}`);
  };
  const deadline = performance.now() + 90000;
  while ((compared.size < 2 || drawn.size < 2) && performance.now() < deadline) {
    await pause(20);
    const time = Number(app.dataset.time);
    const pool = seconds.get(time)?.pool;
    if (pool && !compared.has(time)) {
      const { state, diagnosis } = pool;
      expect("used", text("now-used"), `${state.used} / ${state.max}`);
      expect("idle", text("now-idle"), String(state.idle));
      expect("waiting", text("now-waiting"), String(state.waiting));
      expect("suspected leaks", text("now-leaks"), String(pool.suspected_leaks));
      if (diagnosis.cause !== "not_enough_data") expect("cause", text("cause"), diagnosis.cause.replaceAll("_", " "));
      // Code is between backticks.
      expect("finding", text("finding"), `${diagnosis.finding[0].toUpperCase()}${diagnosis.finding.slice(1)}.`.replaceAll("`", ""));
      expect("advice", text("advice"), diagnosis.advice.replaceAll("`", ""));
      expect("evidence", document.querySelectorAll("#evidence dt").length, diagnosis.evidence.length);
      expect("holders", rows("holders"), pool.holders.map((holder) => holder.operation));
      expect("waiters", rows("waiting"), pool.waiters.map((waiter) => waiter.operation));
      compared.add(time);
    }
    // The charts are drawn with the next frame.
    const drawing = Number(charts.dataset.time);
    const row = seconds.get(drawing)?.row;
    if (row && !drawn.has(drawing)) {
      expect("connections", legend("connections"), [row.used, row.creating, row.closing, row.idle, row.max]);
      expect("waiting checkouts", legend("waiters"), [row.waiting, row.in_flight]);
      drawn.add(drawing);
    }
  }
  isDone = true;
  const seen = `compared ${compared.size}, drawn ${drawn.size} of ${seconds.size}; ${text("status")}; ${errors}`;
  return { isCompared: compared.size > 1 && drawn.size > 1, seen, wrong, events };
})()"##;

#[test]
fn page_shows_what_the_api_reports() {
    let answers = tempfile::tempdir().unwrap();
    let names: Vec<_> = Scenario::all().iter().map(Scenario::name).collect();
    assert!(names.contains(&"leak"), "{names:?}");
    let scenarios = Mutex::new(names.into_iter());
    let scenarios = || scenarios.lock().unwrap().next();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let mut browser = Browser::start_for(TIME);
                browser.call("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": COPY }));
                while let Some(name) = scenarios() {
                    check(name, &mut browser, answers.path());
                }
            });
        }
    });
    validate(answers.path());
}

/// Validates answers in files named `SCHEMA.NUMBER.json`.
pub(crate) fn validate(answers: &Path) {
    let mut validator = Command::new(at("target/checks/bin/python"));
    validator.arg(at("crates/cli/tests/page/validate_api.py")).arg(at("docs/api.yaml")).arg(answers);
    let (is_valid, output) = run(&mut validator);
    assert!(is_valid, "{output}");
}

/// Compares the page with the API, and writes the API's answers to files: `SCHEMA.SCENARIO.json`.
fn check(name: &str, browser: &mut Browser, answers: &Path) {
    let incidents = tempfile::tempdir().unwrap();
    let record_dir = incidents.path().to_str().unwrap();
    let running = start(&mut demo(&[
        "--scenario",
        name,
        "--scenario-after",
        "1s",
        "--web.enable-record",
        "--record-dir",
        record_dir,
    ]));
    let write = |schema: &str, answer: &Value| {
        fs::write(answers.join(format!("{schema}.{name}.json")), answer.to_string()).unwrap();
    };
    let origin = format!("http://{}/", running.address);
    // The scenarios of the cache have a second pool.
    browser.open(&format!("{origin}?pool=shop"));
    browser.wait("document.querySelectorAll('#evidence dt').length > 0");
    let result = browser.eval(COMPARE);
    assert_eq!(result["wrong"], json!([]), "{name}");
    assert_eq!(result["isCompared"], json!(true), "{name}: {}", result["seen"]);
    let events = result["events"].as_object().unwrap();
    let expected = ["snapshot", "delta", "pool"];
    assert!(expected.iter().all(|event| events.contains_key(*event)), "{name}: {:?}", events.keys());
    for (event, data) in events {
        write(&format!("{}Event", capitalized(event)), data);
    }
    for (path, schema) in [("/api/v1/pools", "Pools"), ("/api/v1/history", "History")] {
        let (status, body) = http::get(running.address, path).unwrap();
        assert_eq!(status, 200, "{name} {path}");
        write(schema, &serde_json::from_str(&body).unwrap());
    }
    let (status, body) = http::request(running.address, "POST", "/api/v1/record").unwrap();
    assert_eq!(status, 202, "{name}");
    write("Recorded", &serde_json::from_str(&body).unwrap());
    let (status, body) = http::get(running.address, "/api/v1/pools?wrong").unwrap();
    assert_eq!(status, 400, "{name}");
    write("Error", &serde_json::from_str(&body).unwrap());
    browser.assert_clean(&origin);
    // The page would look for its server again after the end of the demo.
    browser.open("about:blank");
    browser.requests.clear();
}

fn capitalized(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

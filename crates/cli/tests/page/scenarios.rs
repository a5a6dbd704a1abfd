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
const TIME: Duration = Duration::from_secs(240);

/// Reads the stream that the page reads too, and compares the page with each event once it shows that second. Returns
/// whether some seconds were compared, the differences, and the events.
const COMPARE: &str = r##"(async () => {
  const name = document.getElementById("pool-name").textContent;
  const response = await fetch(`api/v1/stream?pool=${encodeURIComponent(name)}`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const app = document.getElementById("app");
  const text = (id) => document.getElementById(id).textContent;
  const rows = (id) => [...document.querySelectorAll(`#${id} tbody tr`)].map((row) => row.children[0].textContent);
  const legend = (id) => [...document.querySelectorAll(`#${id} .legend b`)].map((value) => value.textContent);
  let [rest, pool, compared, drawn] = ["", null, 0, 0];
  const [events, wrong] = [{}, []];
  const deadline = performance.now() + 60000;
  while ((compared < 3 || drawn < 1) && performance.now() < deadline) {
    rest += (await reader.read()).value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => [line.slice(0, line.indexOf(": ")), line.slice(line.indexOf(": ") + 2)]));
      if (!fields.data) continue;
      const data = JSON.parse(fields.data);
      events[fields.event] = data;
      if (fields.event === "pool") pool = data;
      if (fields.event !== "delta" || pool === null) continue;
      const row = data.pools.find((row) => row.name === name);
      const until = performance.now() + 900;
      while (Number(app.dataset.time) < row.time && performance.now() < until) await new Promise((next) => setTimeout(next, 5));
      // The machine is busy, and the page shows another second.
      if (Number(app.dataset.time) !== row.time) continue;
      const expect = (what, shown, expected) => {
        if (JSON.stringify(shown) !== JSON.stringify(expected)) wrong.push(`${what}: ${JSON.stringify(shown)} instead of ${JSON.stringify(expected)}`);
      };
      const { state, diagnosis } = pool;
      expect("used", text("now-used"), `${state.used} / ${state.max}`);
      expect("idle", text("now-idle"), String(state.idle));
      expect("waiting", text("now-waiting"), String(state.waiting));
      expect("suspected leaks", text("now-leaks"), String(pool.suspected_leaks));
      if (diagnosis.cause !== "not_enough_data") expect("cause", text("cause"), diagnosis.cause.replaceAll("_", " "));
      expect("finding", text("finding"), `${diagnosis.finding}.`);
      expect("advice", text("advice"), diagnosis.advice);
      expect("evidence", document.querySelectorAll("#evidence dt").length, diagnosis.evidence.length);
      expect("holders", rows("holders"), pool.holders.map((holder) => holder.operation));
      expect("waiters", rows("waiting"), pool.waiters.map((waiter) => waiter.operation));
      compared += 1;
      // The charts are drawn with the next frame, which may be that of another second.
      await new Promise((next) => requestAnimationFrame(() => setTimeout(next, 0)));
      if (Number(app.dataset.time) !== row.time) continue;
      drawn += 1;
      expect("connections", legend("connections").map(Number), [row.used, row.creating, row.closing, row.idle, row.max]);
      expect("waiting checkouts", legend("waiters").map(Number), [row.waiting, row.in_flight]);
    }
  }
  await reader.cancel();
  return { isCompared: compared >= 3 && drawn >= 1, wrong, events };
})()"##;

#[test]
fn page_shows_what_the_api_reports() {
    let answers = tempfile::tempdir().unwrap();
    let scenarios = Mutex::new(Scenario::all().iter().map(Scenario::name));
    let scenarios = || scenarios.lock().unwrap().next();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let mut browser = Browser::start_for(TIME);
                while let Some(name) = scenarios() {
                    check(name, &mut browser, answers.path());
                }
            });
        }
    });
    let mut validator = Command::new(at("target/checks/bin/python"));
    validator.arg(at("crates/cli/tests/page/validate_api.py")).arg(at("docs/api.yaml")).arg(answers.path());
    let (is_valid, output) = run(&mut validator);
    assert!(is_valid, "{output}");
}

/// Compares the page with the API, and writes the API's answers to files: `SCHEMA.SCENARIO.json`.
fn check(name: &str, browser: &mut Browser, answers: &Path) {
    let running = start(&mut demo(&["--scenario", name, "--scenario-after", "1s"]));
    let write = |schema: &str, answer: &Value| {
        fs::write(answers.join(format!("{schema}.{name}.json")), answer.to_string()).unwrap();
    };
    let origin = format!("http://{}/", running.address);
    browser.open(&origin);
    browser.wait("document.querySelectorAll('#evidence dt').length > 0");
    let result = browser.eval(COMPARE);
    assert_eq!(result["wrong"], json!([]), "{name}");
    assert_eq!(result["isCompared"], json!(true), "{name}");
    for (event, data) in result["events"].as_object().unwrap() {
        write(&format!("{}Event", capitalized(event)), data);
    }
    for (path, schema) in [("/api/v1/pools", "Pools"), ("/api/v1/history", "History")] {
        let (status, body) = http::get(running.address, path).unwrap();
        assert_eq!(status, 200, "{name} {path}");
        write(schema, &serde_json::from_str(&body).unwrap());
    }
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

//! A client of Chromium's DevTools protocol, over a pipe.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The time of a test from the start of its browser. Long enough for a busy machine; only failing tests need it.
const TEST_TIME: Duration = Duration::from_secs(120);

/// The time for one condition to become true.
const CONDITION_TIME: Duration = Duration::from_secs(60);

/// Chromium with one page, until this is dropped.
pub(crate) struct Browser {
    child: Arc<Mutex<Child>>,
    /// The moment at which the test has failed.
    deadline: Instant,
    /// Dropped with the browser, which ends the thread that waits for the deadline.
    _watched: Sender<()>,
    commands: ChildStdin,
    messages: Receiver<Value>,
    last_id: u64,
    session: String,
    /// The URLs that pages requested.
    pub(crate) requests: Vec<String>,
    /// Exceptions, and violations of the content security policy.
    pub(crate) problems: Vec<String>,
    _profile: TempDir,
}

/// The size of a window, and how many pixels of the screen a pixel of CSS has.
#[derive(Clone, Copy)]
pub(crate) struct Screen {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) scale: f64,
    pub(crate) is_phone: bool,
}

pub(crate) const DESKTOP: Screen = Screen { width: 1280, height: 900, scale: 1.0, is_phone: false };

/// The same window at 200 % zoom.
pub(crate) const ZOOMED: Screen = Screen { width: 640, height: 450, scale: 2.0, is_phone: false };

pub(crate) const PHONE: Screen = Screen { width: 390, height: 844, scale: 2.0, is_phone: true };

fn chromium() -> PathBuf {
    let named = std::env::var_os("POOLSCOPE_CHROMIUM").map(PathBuf::from);
    named.unwrap_or_else(|| PathBuf::from("chromium"))
}

impl Browser {
    /// Starts a browser. The test fails if it still uses it after [`TEST_TIME`].
    pub(crate) fn start() -> Self {
        Self::start_for(TEST_TIME)
    }

    /// Starts a browser for a test that needs another time.
    pub(crate) fn start_for(time: Duration) -> Self {
        let profile = tempfile::tempdir().unwrap();
        // Chromium reads commands from descriptor 3 and writes to descriptor 4.
        let script = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"#;
        let mut child = Command::new("sh")
            .args(["-c", script])
            .arg(chromium())
            .args(["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check"])
            .args(["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync"])
            .args([
                "--disable-component-update",
                "--disable-extensions",
                "--hide-scrollbars",
                "--font-render-hinting=none",
            ])
            // Containers have neither the namespaces nor the users that the sandbox needs. Only pages of the tests are shown.
            .arg("--no-sandbox")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (commands, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|len| len > 0) {
                message.pop();
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let child = Arc::new(Mutex::new(child));
        let (watched, ended) = mpsc::channel();
        let watching = Arc::clone(&child);
        thread::spawn(move || {
            // A call that writes to a browser that does not read any more fails too.
            if ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                let _ = watching.lock().unwrap_or_else(PoisonError::into_inner).kill();
            }
        });
        let mut browser = Self {
            child,
            deadline: Instant::now() + time,
            _watched: watched,
            commands,
            messages,
            last_id: 0,
            session: String::new(),
            requests: Vec::new(),
            problems: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attached =
            browser.call("Target.attachToTarget", &json!({ "targetId": target["targetId"], "flatten": true }));
        attached["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        for domain in ["Page.enable", "Runtime.enable", "Network.enable", "Log.enable", "Performance.enable"] {
            browser.call(domain, &json!({}));
        }
        browser.screen(DESKTOP);
        browser
    }

    /// Calls a method, and returns its result.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last_id += 1;
        let mut command = json!({ "id": self.last_id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let bytes = [serde_json::to_vec(&command).unwrap(), vec![0]].concat();
        let deadline = self.deadline;
        let fail = |error: &dyn std::fmt::Display| -> ! {
            let called: String = parameters.to_string().chars().take(300).collect();
            assert!(Instant::now() < deadline, "the test takes too long, and last called {method} {called}");
            panic!("{method}: chromium (`scripts/setup test` installs it): {error}");
        };
        self.commands.write_all(&bytes).unwrap_or_else(|error| fail(&error));
        loop {
            // Events may arrive without an end, so that this is the time left, and not that for a message.
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left).unwrap_or_else(|error| fail(&error));
            if message["id"] == json!(self.last_id) {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.record(&message);
        }
    }

    fn record(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                self.requests.push(parameters["request"]["url"].as_str().unwrap_or_default().to_owned());
            }
            Some("Runtime.exceptionThrown") => self.problems.push(parameters.to_string()),
            Some("Log.entryAdded") if parameters["entry"]["source"] == "security" => {
                self.problems.push(parameters["entry"]["text"].to_string());
            }
            _ => {}
        }
    }

    /// Opens a page, and waits until its script runs.
    pub(crate) fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({ "url": url }));
        self.wait("document.readyState === 'complete'");
    }

    /// Returns the value of an expression in the page, which may be a promise.
    #[track_caller]
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.call("Runtime.evaluate", &parameters);
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn wait(&mut self, expression: &str) {
        let until = Instant::now() + CONDITION_TIME;
        while self.eval(&format!("Boolean({expression})")) != json!(true) {
            if Instant::now() > until {
                let text = self.eval("document.body.innerText");
                panic!("{expression} did not become true; {:?}; {text}", self.problems);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the text of an element.
    #[track_caller]
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let text = self.eval(&format!("document.querySelector({})?.textContent ?? null", json!(selector)));
        text.as_str().unwrap_or_else(|| panic!("no {selector}")).to_owned()
    }

    /// Presses a key.
    pub(crate) fn key(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            " " => (32, " "),
            "ArrowLeft" => (37, ""),
            "ArrowDown" => (40, ""),
            "Home" => (36, ""),
            letter => (u32::from(letter.to_uppercase().as_bytes()[0]), letter),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// Presses Tab until an element that `condition` describes has the focus, as in `focused.id === "freeze"`.
    #[track_caller]
    pub(crate) fn tab_to(&mut self, condition: &str) {
        for _ in 0..200 {
            self.key("Tab");
            let test = format!("(focused => Boolean({condition}))(document.activeElement)");
            if self.eval(&test) == json!(true) {
                return;
            }
        }
        panic!("Tab does not lead to {condition}");
    }

    pub(crate) fn screen(&mut self, screen: Screen) {
        let Screen { width, height, scale, is_phone } = screen;
        let parameters = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone });
        self.call("Emulation.setDeviceMetricsOverride", &parameters);
    }

    /// Sets media features, such as `prefers-color-scheme`.
    pub(crate) fn media(&mut self, features: &[(&str, &str)]) {
        let features: Vec<_> = features.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.call("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// Returns a picture of the window as PNG, encoded with base64.
    pub(crate) fn picture(&mut self) -> String {
        let picture = self.call("Page.captureScreenshot", &json!({ "format": "png", "optimizeForSpeed": false }));
        picture["data"].as_str().unwrap().to_owned()
    }

    /// Checks that pages caused no exception and no violation, and requested nothing of others.
    #[track_caller]
    pub(crate) fn assert_clean(&mut self, origin: &str) {
        self.eval("1");
        assert!(self.problems.is_empty(), "{:?}", self.problems);
        let foreign: Vec<_> = self.requests.iter().filter(|url| !url.starts_with(origin) && *url != "data:,").collect();
        assert!(foreign.is_empty(), "{foreign:?}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

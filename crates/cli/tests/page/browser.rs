//! A client of Chromium's DevTools protocol, over a pipe.
//!
//! The tests of a process share one Chromium, since starting one takes seconds. Each has a window and a profile of its own.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The time of a test from the start of its browser. Long enough for a busy machine; only failing tests need it.
const TEST_TIME: Duration = Duration::from_secs(240);

/// The time for one condition to become true.
const CONDITION_TIME: Duration = Duration::from_secs(120);

/// A window of Chromium with one page, until this is dropped.
pub(crate) struct Browser {
    chromium: Arc<Chromium>,
    /// The moment at which the test has failed.
    deadline: Instant,
    /// Dropped with the browser, which ends the thread that waits for the deadline.
    _watched: Sender<()>,
    messages: Receiver<Value>,
    profile: String,
    session: String,
    /// The URLs that pages requested.
    pub(crate) requests: Vec<String>,
    /// Exceptions, and violations of the content security policy.
    pub(crate) problems: Vec<String>,
}

/// The process, until the last window is dropped.
struct Chromium {
    child: Mutex<Child>,
    commands: Mutex<ChildStdin>,
    last_id: AtomicU64,
    receivers: Arc<Mutex<Receivers>>,
    _profile: TempDir,
}

/// Who receives the messages of a session, and the answers to calls outside of one.
#[derive(Default)]
struct Receivers {
    sessions: HashMap<String, Sender<Value>>,
    calls: HashMap<u64, Sender<Value>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Chromium {
    /// Returns the process that runs, or starts it.
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Chromium>> = Mutex::new(Weak::new());
        let mut shared = locked(&SHARED);
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(Self::start());
        *shared = Arc::downgrade(&started);
        started
    }

    fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // Chromium reads commands from descriptor 3 and writes to descriptor 4.
        let script = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"#;
        let mut child = Command::new("sh")
            .args(["-c", script])
            .arg(chromium())
            .args(["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check"])
            .args(["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync"])
            .args(["--disable-component-update", "--disable-extensions", "--hide-scrollbars"])
            // Each window is drawn, whichever is in front.
            .args(["--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding"])
            .args(["--disable-background-timer-throttling", "--font-render-hinting=none"])
            // Containers have neither the namespaces nor the users that the sandbox needs. Only pages of the tests are shown.
            .arg("--no-sandbox")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (commands, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let receivers: Arc<Mutex<Receivers>> = Arc::default();
        let routed = Arc::clone(&receivers);
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|len| len > 0) {
                message.pop();
                let value: Value = serde_json::from_slice(&message).unwrap();
                message.clear();
                let mut receivers = locked(&routed);
                let receiver = match value["sessionId"].as_str() {
                    Some(session) => receivers.sessions.get(session).cloned(),
                    None => value["id"].as_u64().and_then(|id| receivers.calls.remove(&id)),
                };
                drop(receivers);
                // That of a window that is closed has ended.
                let _ = receiver.map(|receiver| receiver.send(value));
            }
            // Calls fail from now on, instead of waiting.
            *locked(&routed) = Receivers::default();
        });
        Self {
            child: Mutex::new(child),
            commands: Mutex::new(commands),
            last_id: AtomicU64::new(0),
            receivers,
            _profile: profile,
        }
    }

    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn send(&self, command: &Value) -> std::io::Result<()> {
        let bytes = [serde_json::to_vec(command).unwrap(), vec![0]].concat();
        locked(&self.commands).write_all(&bytes)
    }

    /// Calls a method outside of a session.
    fn call(&self, method: &str, parameters: &Value, deadline: Instant) -> Value {
        let id = self.next_id();
        let (sender, receiver) = mpsc::channel();
        locked(&self.receivers).calls.insert(id, sender);
        self.send(&json!({ "id": id, "method": method, "params": parameters })).unwrap_or_else(|error| {
            panic!("{method}: chromium (`scripts/setup test` installs it): {error}");
        });
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = receiver.recv_timeout(left).unwrap_or_else(|error| {
            panic!("{method}: chromium (`scripts/setup test` installs it): {error}");
        });
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let mut child = locked(&self.child);
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Browser {
    /// Opens a window. The test fails if it still uses it after [`TEST_TIME`].
    pub(crate) fn start() -> Self {
        Self::start_for(TEST_TIME)
    }

    /// Opens a window for a test that needs another time.
    pub(crate) fn start_for(time: Duration) -> Self {
        let (chromium, deadline) = (Chromium::shared(), Instant::now() + time);
        let (watched, ended) = mpsc::channel();
        let watching = Arc::downgrade(&chromium);
        thread::spawn(move || {
            // A call that writes to a browser that does not read any more fails too.
            if ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
                && let Some(chromium) = watching.upgrade()
            {
                let _ = locked(&chromium.child).kill();
            }
        });
        let profile = chromium.call("Target.createBrowserContext", &json!({ "disposeOnDetach": true }), deadline);
        let profile = profile["browserContextId"].as_str().unwrap().to_owned();
        let target = json!({ "url": "about:blank", "browserContextId": profile, "newWindow": true });
        let target = chromium.call("Target.createTarget", &target, deadline);
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = chromium.call("Target.attachToTarget", &attach, deadline);
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        let (sender, messages) = mpsc::channel();
        locked(&chromium.receivers).sessions.insert(session.clone(), sender);
        let mut browser = Self {
            chromium,
            deadline,
            _watched: watched,
            messages,
            profile,
            session,
            requests: Vec::new(),
            problems: Vec::new(),
        };
        for domain in ["Page.enable", "Runtime.enable", "Network.enable", "Log.enable", "Performance.enable"] {
            browser.call(domain, &json!({}));
        }
        // As if the window were in front, so that it has the focus.
        browser.call("Emulation.setFocusEmulationEnabled", &json!({ "enabled": true }));
        browser.screen(DESKTOP);
        browser
    }

    /// Calls a method, and returns its result.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Value {
        let id = self.chromium.next_id();
        let command = json!({ "id": id, "method": method, "params": parameters, "sessionId": self.session });
        let deadline = self.deadline;
        let fail = |error: &dyn std::fmt::Display| -> ! {
            let called: String = parameters.to_string().chars().take(300).collect();
            assert!(Instant::now() < deadline, "the test takes too long, and last called {method} {called}");
            panic!("{method}: chromium (`scripts/setup test` installs it): {error}");
        };
        self.chromium.send(&command).unwrap_or_else(|error| fail(&error));
        loop {
            // Events may arrive without an end, so that this is the time left, and not that for a message.
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left).unwrap_or_else(|error| fail(&error));
            if message["id"] == json!(id) {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.record(&message);
        }
    }

    /// Records events for some time, without a call, which would fail while one page replaces another.
    pub(crate) fn listen(&mut self, time: Duration) {
        let until = Instant::now() + time;
        assert!(until < self.deadline, "the test takes too long");
        while let Ok(message) = self.messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
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
            "ArrowRight" => (39, ""),
            "End" => (35, ""),
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
        locked(&self.chromium.receivers).sessions.remove(&self.session);
        let id = self.chromium.next_id();
        let parameters = json!({ "browserContextId": self.profile });
        let close = json!({ "id": id, "method": "Target.disposeBrowserContext", "params": parameters });
        // Fails if the process has ended.
        let _ = self.chromium.send(&close);
    }
}

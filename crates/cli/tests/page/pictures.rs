//! The pictures of the documentation: `make page` takes them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use poolscope_cli::demo::Scenario;

use crate::browser::{Browser, PHONE, Screen};
use crate::programs::at;
use crate::recorded::replay;
use crate::run::{demo, start};

/// Runs the demo for half a minute with and half a minute without its fault, so that it is run on request only.
#[test]
#[ignore = "takes the pictures of the documentation: make page"]
fn pictures_of_the_documentation() {
    let directory = tempfile::tempdir().unwrap();
    let record_dir = directory.path().to_str().unwrap();
    let arguments = ["--scenario", "held_idle", "--scenario-after", "45s", "--record-dir", record_dir];
    let mut running = start(&mut demo(&arguments));
    let mut browser = Browser::start_for(Duration::from_secs(600));
    let desktop = Screen { width: 1280, height: 1000, scale: 1.0, is_phone: false };
    for (name, screen, scheme) in
        [("live-light", desktop, "light"), ("live-dark", desktop, "dark"), ("live-phone", PHONE, "light")]
    {
        browser.screen(screen);
        browser.media(&[("prefers-color-scheme", scheme)]);
        browser.open(&format!("http://{}/?range=300", running.address));
        // On a busy machine, the verdict may be another one for some seconds.
        browser.wait("document.getElementById('cause')?.textContent === 'held idle'");
        if name == "live-light" {
            std::thread::sleep(Duration::from_secs(40));
        }
        browser.wait("document.getElementById('app').dataset.time");
        take(&mut browser, name);
    }
    running.run.signal(Signal::SIGTERM);
    assert!(running.run.wait().success());
    let file = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    let (_replay, address) = replay(&file);
    browser.screen(desktop);
    browser.open(&format!("http://{address}/?range=60"));
    browser.wait("document.getElementById('verdict')?.className === 'bad'");
    browser.wait("document.getElementById('charts').dataset.time");
    take(&mut browser, "replay");
}

fn take(browser: &mut Browser, name: &str) {
    // What was changed is drawn with the next frame.
    browser.eval("new Promise(next => requestAnimationFrame(() => requestAnimationFrame(next))).then(() => 1)");
    save(browser, at(&format!("docs/images/{name}.png")));
}

pub(crate) fn save(browser: &mut Browser, file: impl AsRef<Path>) {
    fs::write(file, STANDARD.decode(browser.picture()).unwrap()).unwrap();
}

/// For looking at the page in each scenario: `POOLSCOPE_PICTURES=DIR`.
#[test]
#[ignore = "takes pictures of each scenario on request, to look at them"]
fn pictures_of_each_scenario() {
    let Some(directory) = std::env::var_os("POOLSCOPE_PICTURES").map(std::path::PathBuf::from) else { return };
    let mut browser = Browser::start_for(Duration::from_secs(3600));
    for (number, name) in Scenario::all().iter().map(Scenario::name).enumerate() {
        let running = start(&mut demo(&["--scenario", name, "--scenario-after", "10s"]));
        browser.screen(if number % 3 == 2 {
            PHONE
        } else {
            Screen { width: 1280, height: 2000, scale: 1.0, is_phone: false }
        });
        browser.media(&[("prefers-color-scheme", if number % 2 == 1 { "dark" } else { "light" })]);
        browser.open(&format!("http://{}/?range=60", running.address));
        std::thread::sleep(Duration::from_secs(40));
        browser.eval("scrollTo(0, 0)");
        save(&mut browser, directory.join(format!("{name}.png")));
        browser.open("about:blank");
    }
}

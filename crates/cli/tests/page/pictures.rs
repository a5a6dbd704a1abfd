//! The pictures of the documentation: `make page` takes them.

use std::fs;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::browser::{Browser, PHONE, Screen};
use crate::programs::at;
use crate::run::{demo, start};

/// Runs the demo for half a minute with and half a minute without its fault, so that it is run on request only.
#[test]
#[ignore = "takes the pictures of the documentation: make page"]
fn pictures_of_the_documentation() {
    let running = start(&mut demo(&["--scenario", "held_idle", "--scenario-after", "45s"]));
    let mut browser = Browser::start();
    let desktop = Screen { width: 1280, height: 1000, scale: 1.0, is_phone: false };
    for (name, screen, scheme) in
        [("live-light", desktop, "light"), ("live-dark", desktop, "dark"), ("live-phone", PHONE, "light")]
    {
        browser.screen(screen);
        browser.media(&[("prefers-color-scheme", scheme)]);
        browser.open(&format!("http://{}/?range=300", running.address));
        browser.wait("document.getElementById('verdict')?.className === 'bad'");
        if name == "live-light" {
            std::thread::sleep(Duration::from_secs(40));
        }
        browser.wait("document.getElementById('app').dataset.time");
        let png = STANDARD.decode(browser.picture()).unwrap();
        fs::write(at(&format!("docs/images/{name}.png")), png).unwrap();
    }
}

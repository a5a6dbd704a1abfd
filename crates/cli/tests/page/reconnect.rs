//! The page finds the server again.

use std::io::Read as _;

use poolscope_testing::http;

use crate::browser::Browser;
use crate::site::Site;

#[test]
fn page_recovers_after_a_restart_of_the_server() {
    let mut site = Site::start();
    site.exhausted_pool("shop", 2, "list_orders");
    let mut browser = Browser::start();
    browser.open(&site.url());
    browser.wait("document.getElementById('now-used')?.textContent === '2 / 2'");
    assert_eq!(browser.text("#status"), "live");

    site.stop();
    browser.wait("document.body.classList.contains('stale')");
    assert_eq!(browser.text("#status"), "connection lost, reconnecting");
    // The last values stay, and are marked as old.
    assert_eq!(browser.text("#now-used"), "2 / 2");

    site.forget();
    site.exhausted_pool("shop", 3, "list_orders");
    site.serve();
    browser.wait("document.getElementById('now-used').textContent === '3 / 3'");
    browser.wait("!document.body.classList.contains('stale')");
    assert_eq!(browser.text("#status"), "live");
    browser.assert_clean(&site.url());
}

/// The history of the seconds in between is sent again, so that the charts have no gap.
#[test]
fn page_has_no_gap_after_a_short_interruption() {
    let mut site = Site::start();
    site.exhausted_pool("shop", 1, "list_orders");
    let mut browser = Browser::start();
    browser.open(&site.url());
    browser.wait("document.getElementById('now-used')?.textContent === '1 / 1'");
    let offline = |browser: &mut Browser, is_offline: bool| {
        let conditions = serde_json::json!({
            "offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1
        });
        browser.call("Network.emulateNetworkConditions", &conditions);
    };
    // Requests fail while the page is offline; the open stream is ended by the server's shutdown of this exporter only.
    offline(&mut browser, true);
    site.stop();
    browser.wait("document.body.classList.contains('stale')");
    site.serve();
    offline(&mut browser, false);
    browser.wait("!document.body.classList.contains('stale')");
    // The collector and its history are the same, and so is the page.
    browser.wait("document.getElementById('status').textContent === 'live'");
    assert_eq!(browser.text("#now-used"), "1 / 1");
}

#[test]
fn page_explains_that_there_are_too_many_viewers() {
    let site = Site::start();
    let stream = || {
        let mut stream = http::send_request(site.address, "GET", "/api/v1/stream").unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (stream, status)
    };
    let streams: Vec<_> = (0..16).map(|_| stream()).collect();
    assert!(streams.iter().all(|(_, status)| status == b"HTTP/1.1 200"));
    assert_eq!(stream().1, *b"HTTP/1.1 503");
    let mut browser = Browser::start();
    browser.open(&site.url());
    browser.wait("document.getElementById('status').className === 'refused'");
    let status = browser.text("#status");
    assert!(status.contains("too many viewers: 16 streams are open"), "{status}");
    drop(streams);
    browser.wait("document.getElementById('status').className === 'live'");
}

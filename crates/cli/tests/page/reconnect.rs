//! The page finds the server again.

use std::io::Read as _;

use poolscope_testing::http;
use serde_json::json;

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

/// The server ends each stream after ten minutes, and a page that continues it has lost nothing.
#[test]
fn stream_that_ends_is_continued_without_a_status() {
    let site = Site::start();
    let mut browser = Browser::start();
    browser.open(&site.url());
    let seen = browser.eval(
        "import(new URL('assets/source.js', document.baseURI)).then(({ LiveSource }) => new Promise(resolve => {
            const seen = [];
            const body = () => new ReadableStream({ start(controller) {
                controller.enqueue(new TextEncoder().encode('event: delta\\nid: 1-7\\ndata: {\"pools\":[]}\\n\\n'));
                controller.close();
            } });
            const original = window.fetch;
            let calls = 0;
            window.fetch = async (url, { headers }) => {
                calls += 1;
                seen.push(`request ${headers['Last-Event-ID'] ?? ''}`);
                if (calls < 3) return new Response(body());
                window.fetch = original;
                source.close();
                resolve(seen);
                return new Response('', { status: 503 });
            };
            const handler = name => value => seen.push(name === 'status' ? value.state : name);
            const source = new LiveSource({ snapshot: handler('snapshot'), delta: handler('delta'), pool: handler('pool'), status: handler('status') });
            source.open(null);
        }))",
    );
    assert_eq!(seen, json!(["request ", "delta", "live", "request 1-7", "delta", "live", "request 1-7"]));
}

/// Of several processes behind one address, the page and the stream may have different versions each time.
#[test]
fn page_of_another_version_is_reloaded_once() {
    let mut site = Site::start();
    site.exhausted_pool("shop", 2, "list_orders");
    let mut browser = Browser::start();
    let script = "document.addEventListener('readystatechange', () => {
        if (document.readyState !== 'interactive') return;
        document.documentElement.dataset.version = '0.0.0';
        sessionStorage.setItem('loads', Number(sessionStorage.getItem('loads')) + 1);
    })";
    browser.call("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": script }));
    browser.call("Page.navigate", &json!({ "url": site.url() }));
    // The page that is left must not be called meanwhile.
    while browser.requests.iter().filter(|url| url.ends_with("/assets/main.js")).count() < 2 {
        browser.listen(std::time::Duration::from_millis(50));
    }
    browser.wait("document.getElementById('now-used')?.textContent === '2 / 2'");
    browser.wait("document.getElementById('status').textContent.includes('of another version: reload it')");
    assert_eq!(browser.eval("sessionStorage.getItem('loads')"), json!("2"));
}

/// Viewers are limited, and a browser opens few connections to a server.
#[test]
fn page_opened_in_the_background_ends_its_stream() {
    let site = Site::start();
    let mut browser = Browser::start();
    // The minute passes at once.
    let script = "Object.defineProperty(document, 'hidden', { get: () => window.isHidden ?? true });
        const later = window.setTimeout;
        window.setTimeout = (call, time) => later(call, time === 60000 ? 0 : time);
        const request = window.fetch;
        window.signals = [];
        window.fetch = (url, options) => { window.signals.push(options.signal); return request(url, options); };";
    browser.call("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": script }));
    browser.call("Page.navigate", &json!({ "url": site.url() }));
    browser.wait("window.signals?.length === 1 && window.signals[0].aborted");
    browser.eval("window.isHidden = false; document.dispatchEvent(new Event('visibilitychange')); 1");
    browser.wait("document.getElementById('status').textContent === 'live'");
    browser.assert_clean(&site.url());
}

//! The page with the keyboard only, its address, and its lists.

use poolscope_testing::http;
use poolscope_testing::run::wait_until;
use serde_json::json;

use crate::browser::{Browser, PHONE, ZOOMED};
use crate::site::Site;

fn site() -> Site {
    let mut site = Site::start();
    site.exhausted_pool("shop", 3, "list_orders");
    site.pool_with_holders("jobs", 5, 1);
    // Otherwise a page may begin with a second in which only the first existed.
    wait_until("a sample of both pools", || {
        http::get(site.address, "/api/v1/history").is_ok_and(|(_, history)| history.contains("\"jobs\""))
    });
    site
}

#[test]
fn everything_works_with_the_keyboard() {
    let site = site();
    let mut browser = Browser::start();
    browser.open(&site.url());
    browser.wait("document.querySelectorAll('#pool-rows tr').length === 2");
    // The pool whose checkouts wait is first.
    browser.wait("document.querySelector('#pool-rows a').textContent === 'shop'");
    browser.tab_to("focused.dataset.pool === 'shop'");
    browser.key("Enter");
    browser.wait("document.getElementById('now-used').textContent === '3 / 3'");
    assert_eq!(browser.eval("document.activeElement.id"), json!("pool-name"));
    browser.wait("document.querySelectorAll('#holders tbody tr').length === 3");

    browser.tab_to("focused.id === 'range'");
    browser.key("1");
    browser.wait("location.search.includes('range=60')");
    browser.tab_to("focused.id === 'moment'");
    browser.key("ArrowLeft");
    browser.wait("/ ago$/.test(document.querySelector('#moments output').textContent)");

    browser.tab_to("focused.id === 'filter'");
    for letter in ["n", "o", "n", "e"] {
        browser.key(letter);
    }
    browser.wait("document.querySelectorAll('#holders tbody tr').length === 0");
    assert_eq!(browser.text("#holders caption"), "Holders: 3 (3 hidden by the filter)");
    browser.wait("location.search.includes('filter=none')");
    browser.eval("document.getElementById('filter').select()");
    browser.key("l");
    browser.wait("document.querySelectorAll('#holders tbody tr').length === 3");

    browser.tab_to("focused.id === 'freeze'");
    browser.key(" ");
    browser.wait("document.getElementById('freeze').getAttribute('aria-pressed') === 'true'");
    let frozen = browser.text("#holders tbody");
    let shown = browser.eval("document.getElementById('app').dataset.time");
    browser.wait(&format!("document.getElementById('app').dataset.time > {shown} + 2"));
    assert_eq!(browser.text("#holders tbody"), frozen);
    browser.key(" ");
    browser.wait(&format!("document.querySelector('#holders tbody').textContent !== {}", json!(frozen)));

    browser.tab_to("focused.closest('th')?.textContent === 'Call site'");
    browser.key("Enter");
    browser.wait("document.querySelectorAll('#holders th')[1].getAttribute('aria-sort') === 'ascending'");
    browser.key("Enter");
    browser.wait("document.querySelectorAll('#holders th')[1].getAttribute('aria-sort') === 'descending'");
    browser.assert_clean(&site.url());
}

#[test]
fn pool_of_a_proxy_has_no_checkouts() {
    let mut site = site();
    site.proxied_pool();
    let mut browser = Browser::start();
    browser.open(&format!("{}?pool=api+app%40shop", site.url()));
    browser.wait("document.querySelector('#holders tbody td')?.textContent === '/orders'");
    browser.wait("document.getElementById('charts').dataset.time > 0");
    let visible = "[...document.querySelectorAll('#now dt, figcaption, th button, caption, h3')]\
                   .filter(shown => shown.checkVisibility()).map(shown => shown.textContent)";
    let labels = ["Used of maximum", "Idle", "Suspected leaks"];
    let charts = [
        "Connections by state",
        "Connections held by activity",
        "Connections held by operation",
        "Errors by SQLSTATE per second",
    ];
    let lists =
        ["Holders now", "Holders: 1", "Operation", "Held for", "Activity", "Silent for", "Queries", "Backend", "Trace"];
    assert_eq!(browser.eval(visible), json!([&labels[..], &charts, &lists].concat()));
    let legend = "[...document.querySelectorAll('#errors .legend span')].map(label => label.textContent)";
    assert_eq!(browser.eval(legend), json!([]));
    let waiting =
        |pool: &str| format!("document.querySelector('a[data-pool=\"{pool}\"]').closest('tr').children[3].textContent");
    assert_eq!(browser.eval(&waiting("api app@shop")), json!("–"));
    assert_eq!(browser.eval(&waiting("jobs")), json!("0"));
    if let Some(directory) = std::env::var_os("POOLSCOPE_PICTURES") {
        crate::pictures::save(&mut browser, std::path::Path::new(&directory).join("proxied.png"));
    }
    browser.eval("document.querySelector('a[data-pool=shop]').click()");
    browser.wait("document.getElementById('now-used').textContent === '3 / 3'");
    browser.wait("document.getElementById('waits').checkVisibility()");
    assert_eq!(browser.text("#lists-title"), "Holders and waiters now");
    assert_eq!(browser.text("#errors-title"), "Errors by SQLSTATE, and retries, per second");
    browser.assert_clean(&site.url());
}

#[test]
fn address_keeps_pool_range_and_filter() {
    let site = site();
    let mut browser = Browser::start();
    browser.open(&format!("{}?pool=shop&range=300&filter=list", site.url()));
    browser.wait("document.getElementById('now-used')?.textContent === '3 / 3'");
    assert_eq!(browser.eval("[range.value, filter.value]"), json!(["300", "list"]));
    browser.eval("document.querySelector('a[data-pool=jobs]').click()");
    browser.wait("document.getElementById('now-used').textContent === '1 / 5'");
    assert_eq!(browser.eval("location.search"), json!("?pool=jobs&range=300&filter=list"));
    browser.eval("history.back()");
    browser.wait("document.getElementById('now-used').textContent === '3 / 3'");
    assert_eq!(browser.eval("location.search"), json!("?pool=shop&range=300&filter=list"));

    browser.open(&format!("{}?pool=none", site.url()));
    browser.wait("!document.getElementById('gone').hidden");
}

#[test]
fn page_fits_a_phone_and_zoom() {
    let site = site();
    let mut browser = Browser::start();
    for screen in [PHONE, ZOOMED] {
        browser.screen(screen);
        browser.open(&format!("{}?pool=shop", site.url()));
        browser.wait("document.getElementById('now-used')?.textContent === '3 / 3'");
        browser.wait("document.querySelector('#connections canvas').width > 0");
        let overflow = browser.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(overflow, json!(0), "{} px wide", screen.width);
    }
}

/// What changes each second must not move what is below it.
#[test]
fn values_do_not_shift_the_layout() {
    let site = site();
    let mut browser = Browser::start();
    browser.open(&format!("{}?pool=shop", site.url()));
    browser.wait("document.querySelectorAll('#holders tbody tr').length === 3");
    browser.wait("document.getElementById('cause').textContent !== 'not enough data yet'");
    browser.eval(
        "window.shift = 0; new PerformanceObserver(list => { for (const entry of list.getEntries()) window.shift += entry.value; })
            .observe({ type: 'layout-shift' }); 1",
    );
    let shown = browser.eval("document.getElementById('app').dataset.time");
    browser.wait(&format!("document.getElementById('app').dataset.time > {shown} + 4"));
    let shift = browser.eval("window.shift").as_f64().unwrap();
    assert!(shift < 0.02, "{shift}");
}

#[test]
fn page_without_a_script_has_the_links() {
    let site = site();
    let mut browser = Browser::start();
    browser.call("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));
    browser.call("Page.navigate", &json!({ "url": site.url() }));
    // Evaluating is not affected.
    browser.wait("document.querySelector('a[href=\"/metrics\"]')");
    assert_eq!(browser.eval("document.getElementById('app').hidden"), json!(true));
    assert_eq!(browser.eval("getComputedStyle(document.getElementById('app')).display"), json!("none"));
}

/// While the stream of another pool does not begin, nothing of the one before is shown under its name.
#[test]
fn values_of_one_pool_are_not_shown_for_another() {
    let site = site();
    let mut browser = Browser::start();
    browser.open(&format!("{}?pool=shop", site.url()));
    browser.wait("document.getElementById('now-used')?.textContent === '3 / 3'");
    let block = |browser: &mut Browser, urls: &[&str]| {
        browser.call("Network.setBlockedURLs", &json!({ "urls": urls }));
    };
    block(&mut browser, &["*api/v1/stream*"]);
    browser.eval("document.querySelector('a[data-pool=jobs]').click()");
    browser.wait("document.body.classList.contains('stale')");
    assert_eq!(browser.text("#pool-name"), "jobs");
    let hidden = "['verdict', 'now', 'sizing'].map(id => document.getElementById(id).hidden)";
    assert_eq!(browser.eval(hidden), json!([true, true, true]));
    assert_eq!(browser.eval("document.title"), json!("jobs · poolscope"));
    browser.wait("document.getElementById('charts').dataset.time === ''");
    block(&mut browser, &[]);
    browser.wait("document.getElementById('now-used').textContent === '1 / 5'");
    assert_eq!(browser.eval(hidden), json!([false, false, false]));
    browser.eval("history.back(); 1");
    browser.wait("document.getElementById('now-used').textContent === '3 / 3'");
    assert!(browser.eval("document.title").as_str().unwrap().contains("shop"));
}

/// Typing in the filter changes the rows also while the pointer rests on them.
#[test]
fn filter_of_pools_applies_under_the_pointer() {
    let site = site();
    let mut browser = Browser::start();
    browser.open(&site.url());
    browser.wait("document.querySelectorAll('#pool-rows tr').length === 2");
    let filter = |browser: &mut Browser, text: &str| {
        let input = "document.getElementById('pool-filter')";
        browser.eval(&format!("{input}.value = '{text}'; {input}.dispatchEvent(new Event('input')); 1"));
    };
    filter(&mut browser, "shop");
    browser.wait("document.querySelector('#pool-rows').textContent.startsWith('shop')");
    browser.eval("document.querySelector('#pool-rows a').focus(); 1");
    filter(&mut browser, "jobs");
    browser.wait("document.querySelector('#pool-rows').textContent.startsWith('jobs')");
    assert_eq!(browser.eval("document.querySelectorAll('#pool-rows tr').length"), json!(1));
}

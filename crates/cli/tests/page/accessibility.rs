//! axe-core, the live region, and reduced motion.

use std::fs;

use serde_json::{Value, json};

use crate::browser::{Browser, DESKTOP, PHONE, Screen};
use crate::programs::at;
use crate::site::Site;

/// Runs axe-core in the page, and returns the violations.
pub(crate) fn violations(browser: &mut Browser) -> Vec<String> {
    let path = at("target/page/node_modules/axe-core/axe.min.js");
    let axe = fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{} (`scripts/setup test` installs it): {error}", path.display());
    });
    browser.eval(&format!("{axe}; 1"));
    let tags = json!(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]);
    let result = browser.eval(&format!("axe.run(document, {{ runOnly: {tags} }}).then(result => result.violations)"));
    let nodes = |violation: &Value| violation["nodes"].to_string().chars().take(2000).collect::<String>();
    let found = result.as_array().unwrap().iter();
    found.map(|violation| format!("{}: {}\n{}", violation["id"], violation["help"], nodes(violation))).collect()
}

pub(crate) fn check(browser: &mut Browser, name: &str, screen: Screen, features: &[(&str, &str)]) {
    browser.screen(screen);
    browser.media(features);
    let found = violations(browser);
    assert!(found.is_empty(), "{name}: {}", found.join("\n"));
}

#[test]
fn axe_finds_no_violation() {
    let mut site = Site::start();
    site.exhausted_pool("shop", 3, "list_orders");
    site.pool_with_holders("jobs", 5, 1);
    let mut browser = Browser::start();
    browser.open(&format!("{}?pool=shop", site.url()));
    browser.wait("document.querySelectorAll('#holders tbody tr').length === 3");
    browser.wait("document.getElementById('cause').textContent !== 'not enough data yet'");
    for (scheme, screen) in [("light", DESKTOP), ("dark", DESKTOP), ("light", PHONE), ("dark", PHONE)] {
        check(&mut browser, scheme, screen, &[("prefers-color-scheme", scheme)]);
    }
    site.stop();
    browser.wait("document.body.classList.contains('stale')");
    assert_eq!(violations(&mut browser), Vec::<String>::new(), "without a server");
    site.serve();
    browser.open(&format!("{}runbooks/", site.url()));
    check(&mut browser, "runbooks", DESKTOP, &[("prefers-color-scheme", "light")]);
}

#[test]
fn new_verdict_is_announced_once() {
    let mut site = Site::start();
    site.exhausted_pool("shop", 2, "list_orders");
    let mut browser = Browser::start();
    browser.open(&site.url());
    browser.wait("document.getElementById('announcement')?.textContent.startsWith('Pool shop: ')");
    assert_eq!(browser.eval("document.getElementById('announcement').getAttribute('role')"), json!("status"));
    browser.wait("document.getElementById('verdict').className === 'bad'");
    browser.eval(
        "window.announced = 0; new MutationObserver(() => { window.announced += 1; })
            .observe(document.getElementById('announcement'), { childList: true, characterData: true, subtree: true }); 1",
    );
    let finding = browser.eval("document.getElementById('announcement').textContent");
    assert!(finding.as_str().unwrap().len() > 30, "{finding}");
    let before = browser.eval("document.getElementById('cause').textContent");
    let shown = browser.eval("document.getElementById('app').dataset.time");
    browser.wait(&format!("document.getElementById('app').dataset.time > {shown} + 3"));
    // The durations in the verdict change each second, and are not read out.
    if browser.eval("document.getElementById('cause').textContent") == before {
        assert_eq!(browser.eval("window.announced"), json!(0));
    }
}

#[test]
fn reduced_motion_is_respected() {
    let site = Site::start();
    let mut browser = Browser::start();
    browser.media(&[("prefers-reduced-motion", "reduce")]);
    browser.open(&site.url());
    browser.wait("!document.getElementById('app').hidden");
    let animated = browser.eval(
        "[...document.querySelectorAll('*')].filter(element => { const style = getComputedStyle(element);
            return style.animationName !== 'none' || style.transitionDuration !== '0s'; }).length",
    );
    assert_eq!(animated, json!(0));
}

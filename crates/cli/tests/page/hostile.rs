//! Names can never become markup.

use serde_json::json;

use crate::browser::Browser;
use crate::site::Site;

const HOSTILE: &str = r#""><img src=x onerror=alert(1)><script>alert('&')</script>{{x}}${1}"#;

#[test]
fn hostile_names_are_shown_as_text() {
    let mut site = Site::start();
    site.exhausted_pool(HOSTILE, 1, HOSTILE);
    site.exhausted_pool("__proto__", 1, "constructor");
    site.exhausted_pool("javascript:alert(1)", 1, "toString");
    let mut browser = Browser::start();
    browser.open(&site.url());
    browser.wait("document.querySelectorAll('#pool-rows tr').length === 3");
    for name in [HOSTILE, "__proto__", "javascript:alert(1)"] {
        let name = json!(name);
        browser.eval(&format!(
            "[...document.querySelectorAll('#pool-rows a')].find(link => link.textContent === {name}).click()"
        ));
        browser.wait(&format!("document.getElementById('pool-name').textContent === {name}"));
        browser.wait("document.querySelector('#holders td')?.textContent");
    }
    browser.open(&format!(
        "{}?pool={}",
        site.url(),
        percent_encoding::utf8_percent_encode(HOSTILE, percent_encoding::NON_ALPHANUMERIC)
    ));
    browser.wait("document.querySelector('#holders td')?.textContent");
    assert_eq!(browser.text("#holders td"), HOSTILE);
    assert_eq!(browser.text("#waiting td"), HOSTILE);
    assert_eq!(browser.text("#pool-name"), HOSTILE);
    browser.wait(&format!(
        "[...document.querySelectorAll('#operations .legend span')].some(label => label.textContent === {})",
        json!(HOSTILE)
    ));
    assert_eq!(browser.eval("document.querySelectorAll('img, script:not([src])').length"), json!(0));
    browser.assert_clean(&site.url());
}

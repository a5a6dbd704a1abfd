//! Checks the reference of the configuration in `docs/serve.md`.

use poolscope::Settings;
use poolscope::config::settings;

use super::config::defaults;
use super::keys::KEYS;
use crate::document::assert_keys_current;

fn keys() -> String {
    let mut table = String::from("| key | default | range | meaning |\n|---|---|---|---|\n");
    for key in KEYS {
        table += &format!("| `{}` | {} | {} | {} |\n", key.name(), key.default_text(), key.range(), key.help());
    }
    let (own, usual) = (defaults(), Settings::default());
    let changed = settings().filter(|setting| own.get(setting.name()) != usual.get(setting.name()));
    let changed: Vec<_> =
        changed.map(|setting| format!("`{}` {}", setting.name(), own.get(setting.name()).unwrap())).collect();
    table + &format!("\nThese defaults differ from those of the library: {}.\n", changed.join(", "))
}

#[test]
fn serve_page_is_up_to_date() {
    assert_keys_current("serve", &keys());
}

#[test]
fn example_of_the_page_is_valid() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/serve.md")).unwrap();
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("billing.url"), "postgres://h/billing").unwrap();
    let config = super::Config::parse(example, directory.path()).unwrap();
    let [shop, billing] = &config.databases[..] else { panic!("{config:?}") };
    assert_eq!((shop.name(), shop.server_view, billing.name(), billing.server_view), ("shop", true, "billing", false));
}

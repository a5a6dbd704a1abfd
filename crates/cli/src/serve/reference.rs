//! Holds the reference page of the configuration to what it takes.

use super::config::defaults;
use super::keys::KEYS;
use poolscope::Settings;
use poolscope::config::settings;

/// The page with what is generated written anew.
fn reference(page: &str) -> String {
    const BEGIN: &str = "<!-- keys -->\n";
    const END: &str = "<!-- /keys -->\n";
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    format!("{before}{BEGIN}{}{END}{after}", keys())
}

fn keys() -> String {
    let mut table = String::from("| key | default | range | meaning |\n|---|---|---|---|\n");
    for key in KEYS {
        table += &format!("| `{}` | {} | {} | {} |\n", key.name(), key.default_text(), key.range(), key.help());
    }
    let (own, usual) = (defaults(), Settings::default());
    let differ = settings().filter(|setting| own.get(setting.name()) != usual.get(setting.name()));
    let differ: Vec<_> =
        differ.map(|setting| format!("`{}` {}", setting.name(), own.get(setting.name()).unwrap())).collect();
    table + &format!("\nPools have other defaults here: {}.\n", differ.join(", "))
}

#[test]
fn the_page_of_serve_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/serve.md");
    let page = std::fs::read_to_string(path).unwrap();
    let wanted = reference(&page);
    if std::env::var_os("POOLSCOPE_BLESS").is_some() {
        std::fs::write(path, &wanted).unwrap();
    } else {
        assert_eq!(page, wanted, "write docs/serve.md anew with POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --lib");
    }
}

#[test]
fn the_example_of_the_page_is_one() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/serve.md")).unwrap();
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("billing.url"), "postgres://h/billing").unwrap();
    let config = super::Config::parse(example, directory.path()).unwrap();
    let [shop, billing] = &config.databases[..] else { panic!("{config:?}") };
    assert_eq!((shop.name(), shop.server_view, billing.name(), billing.server_view), ("shop", true, "billing", false));
}

//! Checks the reference of the configuration in `docs/proxy.md`.

use super::keys::KEYS;

/// Returns the page with a new table of keys.
fn reference(page: &str) -> String {
    const BEGIN: &str = "<!-- keys -->\n";
    const END: &str = "<!-- /keys -->\n";
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let mut table = String::from("| key | default | values | meaning |\n|---|---|---|---|\n");
    for key in &KEYS {
        table += &format!("| `{}` | {} | {} | {} |\n", key.name, key.default, key.range, key.help);
    }
    format!("{before}{BEGIN}{table}{END}{after}")
}

#[test]
fn proxy_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/proxy.md");
    let page = std::fs::read_to_string(path).unwrap();
    let expected = reference(&page);
    if std::env::var_os("POOLSCOPE_BLESS").is_some() {
        std::fs::write(path, &expected).unwrap();
    } else {
        assert_eq!(
            page, expected,
            "regenerate docs/proxy.md with POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --lib proxy"
        );
    }
}

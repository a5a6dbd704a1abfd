//! Checks the reference of the configuration in `docs/proxy.md`.

use super::keys::KEYS;
use crate::document::assert_keys_current;

#[test]
fn proxy_page_is_up_to_date() {
    let mut table = String::from("| key | default | values | meaning |\n|---|---|---|---|\n");
    for key in &KEYS {
        table += &format!("| `{}` | {} | {} | {} |\n", key.name, key.default, key.range, key.help);
    }
    assert_keys_current("proxy", &table);
}

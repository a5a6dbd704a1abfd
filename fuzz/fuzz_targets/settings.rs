//! Reads arbitrary URLs and settings. Whatever is printed about them is one line, and contains no password.
#![no_main]

use poolscope::Settings;

/// The password, which no other text contains.
const PASSWORD: &str = "xq7Zk0canary";

/// A URL ends with arbitrary text, which is TOML or a setting otherwise.
fn check(result: Result<Settings, poolscope::ConfigError>) {
    let (text, has_lines) = match result {
        Ok(settings) => (format!("{settings:?} {:?}", settings.validate()), true),
        Err(error) => (format!("{error} {error:?}"), false),
    };
    assert!(!text.contains(PASSWORD), "{text}");
    assert!(has_lines || !text.chars().any(char::is_control), "{text:?}");
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    check(Settings::from_url(text));
    check(Settings::from_url(&format!("postgres://app:{PASSWORD}@{text}")));
    check(Settings::from_url(&format!("postgres://app@db.example/shop?password={PASSWORD}&{text}")));
    check(Settings::from_toml(text));
    check(Settings::from_toml(&format!("database_url = \"postgres://app:{PASSWORD}@db.example/shop\"\n{text}")));
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    check(Settings::default().apply_env([
        ("POOLSCOPE_DATABASE_URL".to_owned(), format!("postgres://app:{PASSWORD}@db.example/shop")),
        (name.to_owned(), value.to_owned()),
    ]));
});

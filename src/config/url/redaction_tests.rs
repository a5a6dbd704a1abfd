#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::tests::{error, parse, tcp};
use super::*;

/// User, password and hosts as they were understood.
fn login(url: &DatabaseUrl) -> (Option<&str>, Option<&[u8]>, &[Host]) {
    let config = url.config();
    (config.get_user(), config.get_password(), config.get_hosts())
}

#[test]
fn a_password_may_hold_characters_that_should_be_encoded() {
    for (url, password) in [
        ("postgres://u:p@ss@h/d", "p@ss"),
        ("postgres://u:@@@h/d", "@@"),
        ("postgres://u:p:ss@h/d", "p:ss"),
        ("postgres://u:p#ss@h/d", "p#ss"),
        ("postgres://u:p/ss@h/d", "p/ss"),
        ("postgres://u:p?ss@h/d", "p?ss"),
        ("postgres://u:p?s=s&t@h/d", "p?s=s&t"),
        ("postgres://u:p[ss@h/d", "p[ss"),
        ("postgres://u:p%40%2Fss@h/d", "p@/ss"),
        ("postgres://u:p ss@h/d", "p ss"),
    ] {
        let url = parse(url);
        assert_eq!(login(&url), (Some("u"), Some(password.as_bytes()), &[tcp("h")][..]));
        assert_eq!(url.config().get_dbname(), Some("d"));
        assert_eq!(url.to_string(), "postgres://u:***@h/d");
        assert_eq!(format!("{url:?}"), "DatabaseUrl(\"postgres://u:***@h/d\")");
    }
}

#[test]
fn a_url_that_can_be_read_in_two_ways_is_refused() {
    for url in [
        "postgres://u:123/QX@h/d",
        "postgres://u:p@QX/YZ@h/d",
        "postgres://u:p@QX?YZ@h/d",
        "postgres://u:p@QX?YZ=1@h/d",
        "postgres://u:/QX@h/d",
        "postgres://u:QX/Y@Z@h/d",
        "postgres://h/d@QX",
        "postgres://h/d?QX=@Y",
    ] {
        let error = error(url);
        assert!(error.contains("percent-encode"), "{error}");
        assert!(!error.contains(['Q', 'X', 'Y', 'Z']), "{error}");
    }
}

#[test]
fn an_at_sign_in_the_value_of_a_known_parameter_is_no_login() {
    let url = parse("postgres://h/d?user=bob@tenant&application_name=a@b");
    assert_eq!(login(&url), (Some("bob@tenant"), None, &[tcp("h")][..]));
    let url = parse("postgres://u:p@h/d?application_name=a@b");
    assert_eq!(login(&url), (Some("u"), Some(&b"p"[..]), &[tcp("h")][..]));
}

#[test]
fn a_password_in_the_query_is_redacted_too() {
    let url = parse("postgres://u:one@h/d?password=t@wo&pool_size=5&pass%77ord=three");
    assert_eq!(url.to_string(), "postgres://u:***@h/d?password=***&pool_size=5&pass%77ord=***");
    assert_eq!(url.config().get_password(), Some(&b"three"[..]));
}

#[test]
fn what_follows_a_password_in_the_query_is_not_quoted() {
    for url in ["postgres://h/d?password=a&QX=1", "postgres://h/d?password=a&port=QX", "postgres://h/d?password=a&QX"] {
        let error = error(url);
        assert!(!error.contains(['Q', 'X']), "{error}");
    }
}

#[test]
fn hosts_that_cannot_be_read_are_refused_without_quoting_them() {
    for url in [
        "postgres://QX:99999",
        "postgres://u:QX",
        "postgres://QX:0/d",
        "postgres://[QX/d",
        "postgres://[::1]QX/d",
        "postgres://h,,QX/d",
        "postgres://h:1:2/QX",
        "postgres://%ff/QX",
        "postgres://h/%00",
    ] {
        let error = error(url);
        assert!(!error.contains(['Q', 'X']), "{error}");
        assert!(error.contains(": give"), "{error}");
    }
}

/// Passwords of letters that no message and no URL here holds, and of what takes a URL apart.
fn secret() -> impl Strategy<Value = String> {
    "[QXZ@:/?#&=%+,;\\[\\] 0-9]{0,12}[QXZ][QXZ@:/?#&=%+,;\\[\\] 0-9]{0,12}"
}

fn leaks(text: &str) -> bool {
    // Percent-decoding makes `%5` and so on of a secret; its letters stay.
    text.contains(['Q', 'X', 'Z'])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_part_of_a_password_is_ever_printed(password in secret(), shape in 0..8_usize) {
        let text = match shape {
            0 => format!("postgres://u:{password}@h/d"),
            1 => format!("postgres://u:{password}@h:5432/d?pool_size=5"),
            2 => format!("postgresql://u:{password}@a,b:1/d?nonsense=1"),
            3 => format!("postgres://u:{password}@h"),
            4 => format!("postgres://u:{password}@[::1]/d?application_name=a@b"),
            5 => format!("postgres://h/d?password={password}"),
            6 => format!("postgres://h/d?user=u&password={password}&pool_size=0"),
            _ => format!("postgres://u:{password}@h/d?sslmode=prefer&password={password}"),
        };
        let shown = match text.parse::<DatabaseUrl>() {
            Ok(url) => format!("{url} {url:?} {:?} {}", url.config(), url.default_pool_name()),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!leaks(&shown), "{text}: {shown}");

        let toml = format!("database_url = {text:?}");
        let shown = match Settings::from_toml(&toml) {
            Ok(settings) => format!("{settings:?} {settings:#?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!leaks(&shown), "{toml}: {shown}");
    }

    #[test]
    fn a_percent_encoded_password_arrives_as_it_is(password in any::<String>()) {
        let encoded = percent_encoding::utf8_percent_encode(&password, percent_encoding::NON_ALPHANUMERIC);
        let url = parse(&format!("postgres://u:{encoded}@h/d"));
        prop_assert_eq!(url.config().get_password(), Some(password.as_bytes()));
    }

    #[test]
    fn any_text_is_read_or_refused_in_one_line(text in "(postgres://)?\\PC{0,40}") {
        if let Err(error) = text.parse::<DatabaseUrl>() {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}

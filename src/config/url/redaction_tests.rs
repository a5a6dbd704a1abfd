#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::super::Settings;
use super::tests::{error, parse, tcp};
use super::*;

/// Returns the user, the password and the hosts.
fn login(url: &DatabaseUrl) -> (Option<&str>, Option<&[u8]>, &[Host]) {
    let config = url.config();
    (config.get_user(), config.get_password(), config.get_hosts())
}

#[test]
fn password_may_contain_other_special_characters() {
    for (url, password) in [
        ("postgres://u:p:ss@h/d", "p:ss"),
        ("postgres://u:p#ss@h/d", "p#ss"),
        ("postgres://u:p[ss@h/d", "p[ss"),
        ("postgres://u:p%40%2F%3Fss@h/d", "p@/?ss"),
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
fn unescaped_delimiter_in_password_is_refused() {
    for url in [
        "postgres://u:pQ@XY@h/d",
        "postgres://u:@@@h/d",
        "postgres://u@QX:Y@h/d",
        "postgres://u:Q/XY@h/d",
        "postgres://u:Q?XY@h/d",
        "postgres://u:Q?X=X&Y@h/d",
        "postgres://u:Q?application_name=XY@h/d",
        "postgres://u:Q/X?Y@h/d",
        "postgres://u:123/QX@h/d",
        "postgres://u:p@QX/YZ@h/d",
        "postgres://u:p@QX?YZ@h/d",
        "postgres://u:p@QX?YZ=1@h/d",
        "postgres://u:/QX@h/d",
        "postgres://u:QX/Y@Z@h/d",
        "postgres://h/d@QX",
        "postgres://h/d?QX=@Y",
    ] {
        assert_eq!(
            error(url),
            "database URL: unescaped `@`, `/` or `?`, most likely in the password: percent-encode them as %40, %2F and \
             %3F",
            "{url}"
        );
        let variable = [("POOLSCOPE_DATABASE_URL".to_owned(), url.to_owned())];
        let error = Settings::default().apply_env(variable).unwrap_err();
        assert!(!leaks(&format!("{error} {error:?}")), "{error:?}");
    }
}

#[test]
fn at_sign_in_known_parameter_is_accepted() {
    let url = parse("postgres://h/d?user=bob@tenant&application_name=a@b");
    assert_eq!(login(&url), (Some("bob@tenant"), None, &[tcp("h")][..]));
    let url = parse("postgres://u:p@h/d?application_name=a@b");
    assert_eq!(login(&url), (Some("u"), Some(&b"p"[..]), &[tcp("h")][..]));
}

#[test]
fn password_in_query_is_redacted() {
    let url = parse("postgres://u:one@h/d?password=t@wo&pool_size=5&pass%77ord=three");
    assert_eq!(url.to_string(), "postgres://u:***@h/d?password=***&pool_size=5&pass%77ord=***");
    assert_eq!(url.config().get_password(), Some(&b"three"[..]));
}

#[test]
fn options_of_any_characters_are_redacted() {
    for (options, shown) in [
        ("-é", "-***"),
        ("-é%20x", "-***%20***"),
        ("-cé", "-c***"),
        ("-\u{1f418}=é", "-\u{1f418}=***"),
        ("é", "***"),
        ("-", "-"),
        ("-%C3%A9", "-%***"),
    ] {
        let shown = format!("postgres://u:***@h/d?options={shown}");
        assert_eq!(parse(&format!("postgres://u:hunter2@h/d?options={options}")).to_string(), shown, "{options}");
    }
}

#[test]
fn text_after_password_in_query_is_not_quoted() {
    for url in ["postgres://h/d?password=a&QX=1", "postgres://h/d?password=a&port=QX", "postgres://h/d?password=a&QX"] {
        let error = error(url);
        assert!(!error.contains(['Q', 'X']), "{error}");
    }
}

#[test]
fn invalid_hosts_are_not_quoted() {
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

/// Generates passwords of delimiters, and of letters that no message and no other part of the URLs contains.
fn secret() -> impl Strategy<Value = String> {
    "[QXZ@:/?#&=%+,;\\[\\] 0-9]{0,12}[QXZ][QXZ@:/?#&=%+,;\\[\\] 0-9]{0,12}"
}

fn leaks(text: &str) -> bool {
    // Percent-decoding changes `%5` and so on, but keeps the letters.
    text.contains(['Q', 'X', 'Y', 'Z'])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_part_of_a_password_is_printed(password in secret(), shape in 0..8_usize) {
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
    fn url_with_any_options_is_printed_without_secrets(
        options in "([-c=é\u{1f418}\u{20ac} \\\\]|%20|%5C|%C3|%3D|%2D|[QXYZ]){0,12}",
        before in any::<bool>(),
    ) {
        // A switch may be a letter, such as `-X`: its values are secret, as is the password.
        let text = match before {
            true => format!("postgres://u:hunter2@h/d?options={options}&application_name=a"),
            false => format!("postgres://h/d?password=hunter2&options={options}"),
        };
        let shown = match text.parse::<DatabaseUrl>() {
            Ok(url) => format!("{url} {url:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn any_query_is_printed_without_the_password(query in "(options=|password=|user=|&)?\\PC{0,20}") {
        let text = format!("postgres://u:hunter2@h/d?{query}");
        let shown = match text.parse::<DatabaseUrl>() {
            Ok(url) => format!("{url} {url:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn percent_encoded_password_round_trips(password in any::<String>()) {
        let encoded = percent_encoding::utf8_percent_encode(&password, percent_encoding::NON_ALPHANUMERIC);
        let url = parse(&format!("postgres://u:{encoded}@h/d"));
        prop_assert_eq!(url.config().get_password(), Some(password.as_bytes()));
    }

    #[test]
    fn any_text_is_parsed_or_refused_in_one_line(text in "(postgres://)?\\PC{0,40}") {
        if let Err(error) = text.parse::<DatabaseUrl>() {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}

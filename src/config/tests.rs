#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;

use std::fmt;

use super::table::SETTINGS;
use super::*;

const URL: &str = "postgres://app:hunter2@db.example/shop";

pub(super) fn env(vars: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let vars = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Settings::default().apply_env(vars.collect::<Vec<_>>())
}

pub(super) fn message(result: Result<impl fmt::Debug, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn defaults_are_documented_and_valid() {
    let settings = Settings::default();
    assert!(settings.validate().is_ok());
    let values: Vec<_> = SETTINGS.iter().map(|s| (s.name(), settings.get(s.name()).unwrap())).collect();
    let expected = [
        ("name", ""),
        ("database_url", ""),
        ("password_file", ""),
        ("passfile", ""),
        ("pool_size", "10"),
        ("max_overflow", "20"),
        ("min_idle", "0"),
        ("idle_timeout", "off"),
        ("checkout_timeout", "30s"),
        ("recycle_after", "1h"),
        ("pre_ping", "on"),
        ("pre_ping_idle", "500ms"),
        ("ping_timeout", "5s"),
        ("connect_timeout", "5s"),
        ("tcp_keepalive", "30s"),
        ("tcp_user_timeout", "20s"),
        ("application_name", ""),
        ("clean_timeout", "1s"),
        ("close_timeout", "30s"),
        ("reset_session", "off"),
        ("leak_threshold", "1m"),
        ("slow_checkout_threshold", "2s"),
        ("slow_query_threshold", "off"),
        ("read_wire", "on"),
        ("max_answer_kib", "0"),
        ("cache_statements", "on"),
        ("trace_query_text", "off"),
        ("fail_fast", "on"),
        ("retry_floor", "10"),
        ("retry_percent", "20"),
        ("wait_target", "10ms"),
    ];
    assert_eq!(values, expected.map(|(name, value)| (name, value.to_owned())));
}

#[test]
fn table_has_each_field_once() {
    let mut names: Vec<_> = SETTINGS.iter().map(Setting::name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), SETTINGS.len());
    // Does not compile if a field is added to the struct only.
    let Settings {
        name: _,
        database_url: _,
        password_file: _,
        passfile: _,
        pool_size: _,
        max_overflow: _,
        min_idle: _,
        checkout_timeout: _,
        idle_timeout: _,
        recycle_after: _,
        pre_ping: _,
        pre_ping_idle: _,
        ping_timeout: _,
        connect_timeout: _,
        tcp_keepalive: _,
        tcp_user_timeout: _,
        application_name: _,
        clean_timeout: _,
        close_timeout: _,
        reset_session: _,
        leak_threshold: _,
        slow_checkout_threshold: _,
        slow_query_threshold: _,
        read_wire: _,
        max_answer_kib: _,
        cache_statements: _,
        trace_query_text: _,
        fail_fast: _,
        retry_floor: _,
        retry_percent: _,
        wait_target: _,
    } = Settings::default();
    assert_eq!(names.len(), 31);
}

/// A setting; accepted values with their canonical form; refused values.
type Bounds = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const BOUNDS: &[Bounds] = &[
    ("name", &[("orders", "orders"), ("Größe 1", "Größe 1")], &["", "a\nb", "a\0", " a", "a "]),
    ("password_file", &[("/run/secrets/db", "/run/secrets/db")], &["", "a\nb"]),
    ("passfile", &[("/home/app/.pgpass", "/home/app/.pgpass")], &["", "a\nb"]),
    (
        "pool_size",
        &[("1", "1"), ("10000", "10000")],
        &["0", "10001", "-1", "+7", " 7", "7 ", "1.5", "ten", "", "99999999999999999999"],
    ),
    ("max_overflow", &[("0", "0"), ("10000", "10000")], &["10001", "-1", "off"]),
    ("min_idle", &[("0", "0"), ("10000", "10000")], &["10001", "-1", "off"]),
    (
        "idle_timeout",
        &[("1ms", "1ms"), ("24h", "1day"), ("off", "off"), ("OFF", "off")],
        &["0s", "0", "25h", "never", "600"],
    ),
    (
        "checkout_timeout",
        &[("1ms", "1ms"), ("24h", "1day"), ("1m 30s", "1m 30s")],
        &["0s", "0", "999us", "25h", "off", "30", "30.5", "-1s", "1parsec", ""],
    ),
    (
        "recycle_after",
        &[("1ms", "1ms"), ("30days", "30days"), ("off", "off"), ("OFF", "off")],
        &["0s", "0", "31days", "never", "3600"],
    ),
    (
        "pre_ping",
        &[
            ("on", "on"),
            ("true", "on"),
            ("Yes", "on"),
            ("1", "on"),
            ("off", "off"),
            ("false", "off"),
            ("no", "off"),
            ("0", "off"),
        ],
        &["", "2", "enabled"],
    ),
    ("pre_ping_idle", &[("0s", "0s"), ("0", "0s"), ("1day", "1day")], &["2days", "off", "500"]),
    ("ping_timeout", &[("1ms", "1ms"), ("1h", "1h")], &["0s", "61m", "off"]),
    ("connect_timeout", &[("1ms", "1ms"), ("1h", "1h")], &["0s", "61m", "off", "5"]),
    ("tcp_keepalive", &[("1s", "1s"), ("2h", "2h"), ("off", "off")], &["0s", "999ms", "3h"]),
    ("tcp_user_timeout", &[("1s", "1s"), ("1h", "1h"), ("off", "off")], &["0s", "999ms", "2h"]),
    (
        "application_name",
        &[("billing", "billing")],
        &["", "a\u{7}", "0123456789012345678901234567890123456789012345678901234567890123"],
    ),
    ("clean_timeout", &[("1ms", "1ms"), ("1h", "1h")], &["0s", "61m", "off"]),
    ("close_timeout", &[("1ms", "1ms"), ("1h", "1h")], &["0s", "61m", "off"]),
    ("reset_session", &[("on", "on"), ("off", "off")], &["", "maybe"]),
    ("leak_threshold", &[("1ms", "1ms"), ("24h", "1day"), ("off", "off")], &["0s", "25h", "60"]),
    ("slow_checkout_threshold", &[("1ms", "1ms"), ("24h", "1day"), ("off", "off")], &["0s", "25h", "60"]),
    ("slow_query_threshold", &[("1ms", "1ms"), ("24h", "1day"), ("off", "off")], &["0s", "25h", "60"]),
    ("read_wire", &[("on", "on"), ("off", "off")], &["", "2"]),
    ("max_answer_kib", &[("0", "0"), ("1048576", "1048576")], &["1048577", "-1", "off"]),
    ("cache_statements", &[("on", "on"), ("off", "off")], &["", "2"]),
    ("trace_query_text", &[("on", "on"), ("off", "off")], &["", "plain"]),
    ("fail_fast", &[("on", "on"), ("off", "off")], &["", "2"]),
    ("retry_floor", &[("0", "0"), ("10000", "10000")], &["10001", "-1", "off"]),
    ("retry_percent", &[("0", "0"), ("1000", "1000")], &["1001", "-1", "20%"]),
    ("wait_target", &[("100us", "100us"), ("60s", "1m")], &["99us", "61s", "0s", "off"]),
];

#[test]
fn bounds_of_each_setting_are_enforced() {
    let tested: Vec<_> = BOUNDS.iter().map(|(name, ..)| *name).collect();
    let all: Vec<_> = SETTINGS.iter().map(Setting::name).filter(|n| *n != "database_url").collect();
    assert_eq!(tested, all);

    for (name, accepted, refused) in BOUNDS {
        for (text, canonical) in *accepted {
            let mut settings = Settings::default();
            settings.set(name, text).unwrap_or_else(|e| panic!("{name} = {text:?}: {e}"));
            assert_eq!(settings.get(name).as_deref(), Some(*canonical), "{name} = {text:?}");
            settings.set(name, canonical).unwrap();
            assert_eq!(settings.get(name).as_deref(), Some(*canonical));
        }
        for text in *refused {
            let mut settings = Settings::default();
            let error = settings.set(name, text).expect_err(&format!("{name} = {text:?}"));
            assert!(error.to_string().starts_with(&format!("settings: invalid {name}: \"")), "{error}");
            assert!(error.to_string().contains("\", expected "), "{error}");
            assert_eq!(settings.get(name), Settings::default().get(name));
        }
    }
}

#[test]
fn error_has_location_value_and_alternative() {
    assert_eq!(
        message(env(&[("POOLSCOPE_POOL_SIZE", "0")])),
        "environment variable POOLSCOPE_POOL_SIZE: invalid pool_size: \"0\", expected a whole number from 1 to 10000"
    );
    assert_eq!(
        message(Settings::from_toml("# pool\nrecycle_after = 3600\n")),
        "line 2, column 17: invalid recycle_after: 3600, expected a duration with its unit, 1ms to 30days, or off, \
         such as 1h"
    );
    assert_eq!(
        message(Settings::from_url("postgres://h/d?pre_ping=maybe")),
        "database URL, parameter `pre_ping`: invalid pre_ping: \"maybe\", expected on or off"
    );
    assert_eq!(
        message(env(&[("POOLSCOPE_DATABASE_URL", "postgres://h/d?pool_size=x")])),
        "environment variable POOLSCOPE_DATABASE_URL, parameter `pool_size`: invalid pool_size: \"x\", \
         expected a whole number from 1 to 10000"
    );
    let mut settings = Settings::default();
    assert_eq!(
        message(settings.set("pool_siz", "3")),
        "settings: unknown setting `pool_siz`: did you mean `pool_size`?"
    );
}

#[test]
fn quoted_value_is_shortened_and_escaped() {
    let text = message(Settings::default().set("pool_size", &format!("\u{1b}[31m{}", "9".repeat(500))));
    assert!(text.len() < 200, "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn validate_checks_fields_set_in_code() {
    let settings = Settings { pool_size: 0, ..Settings::default() };
    assert!(message(settings.validate()).starts_with("settings: invalid pool_size: \"0\", "));
    let settings = Settings { recycle_after: Some(Duration::ZERO), ..Settings::default() };
    assert!(message(settings.validate()).starts_with("settings: invalid recycle_after: \"0s\", "));
    let settings = Settings { application_name: Some(String::new()), ..Settings::default() };
    assert!(settings.validate().is_err());
}

#[test]
fn min_idle_above_pool_size_is_refused() {
    let settings = Settings { pool_size: 3, min_idle: 4, ..Settings::default() };
    assert_eq!(
        message(settings.validate()),
        "settings: min_idle (4) is above pool_size (3): give a smaller min_idle, since idle connections beyond pool_size are closed"
    );
    assert!(Settings { pool_size: 3, min_idle: 3, ..Settings::default() }.validate().is_ok());
}

#[test]
fn wait_target_above_checkout_timeout_is_refused() {
    let settings = Settings {
        wait_target: Duration::from_secs(2),
        checkout_timeout: Duration::from_secs(1),
        ..Settings::default()
    };
    assert_eq!(
        message(settings.validate()),
        "settings: wait_target (2s) is above checkout_timeout (1s): give a shorter wait_target"
    );
}

#[test]
fn uncached_statements_without_observer_are_refused() {
    let settings = Settings { cache_statements: false, read_wire: false, ..Settings::default() };
    let problem = "settings: cache_statements (off) needs read_wire: set read_wire to on";
    assert_eq!(message(settings.validate()), problem);
    assert!(Settings { cache_statements: false, ..Settings::default() }.validate().is_ok());
}

#[test]
fn missing_database_error_explains_how_to_set_it() {
    let error = message(Settings::default().require_database_url().map(drop));
    assert!(error.contains("POOLSCOPE_DATABASE_URL"), "{error}");
}

#[test]
fn own_value_takes_precedence_over_url_query() {
    let url = format!("{URL}?pool_size=3&max_overflow=4");
    for vars in [
        [("POOLSCOPE_POOL_SIZE", "7"), ("POOLSCOPE_DATABASE_URL", url.as_str())],
        [("POOLSCOPE_DATABASE_URL", url.as_str()), ("POOLSCOPE_POOL_SIZE", "7")],
    ] {
        let settings = env(&vars).unwrap();
        assert_eq!((settings.pool_size, settings.max_overflow), (7, 4));
    }
    for text in [format!("pool_size = 7\ndatabase_url = '{url}'"), format!("database_url = '{url}'\npool_size = 7")] {
        let settings = Settings::from_toml(&text).unwrap();
        assert_eq!((settings.pool_size, settings.max_overflow), (7, 4));
    }
}

#[test]
fn later_source_takes_precedence() {
    let toml = Settings::from_toml("pool_size = 3\nmax_overflow = 4\npre_ping = false").unwrap();
    let mut settings = toml.apply_env([("POOLSCOPE_POOL_SIZE".to_owned(), "5".to_owned())]).unwrap();
    settings.set("max_overflow", "6").unwrap();
    assert_eq!((settings.pool_size, settings.max_overflow, settings.pre_ping), (5, 6, false));
    settings.set("database_url", &format!("{URL}?pool_size=9")).unwrap();
    assert_eq!(settings.pool_size, 9);
}

#[test]
fn debug_shows_settings_without_password() {
    let settings = Settings::from_url(URL).unwrap();
    let debug = format!("{settings:?} {settings:#?}");
    assert!(debug.contains("database_url: postgres://app:***@db.example/shop"), "{debug}");
    assert!(debug.contains("checkout_timeout: 30s"), "{debug}");
    assert!(!debug.contains("hunter2"));
}

#[test]
fn error_ends_with_its_cause() {
    let error = ConfigError::Certificates {
        problem: "sslrootcert `/ca.pem` cannot be read".to_owned(),
        remedy: "give another",
        source: Some(std::io::Error::from(std::io::ErrorKind::NotFound)),
    };
    assert_eq!(error.to_string(), "sslrootcert `/ca.pem` cannot be read: give another: entity not found");
    assert!(std::error::Error::source(&error).is_none());
}

proptest! {
    #[test]
    fn any_value_is_accepted_or_refused_in_one_line(text in any::<String>(), index in 0..SETTINGS.len()) {
        let mut settings = Settings::default();
        match settings.set(SETTINGS[index].name(), &text) {
            Ok(()) => prop_assert!(settings.validate().is_ok() || SETTINGS[index].name() == "checkout_timeout"),
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
        }
    }

    #[test]
    fn any_toml_is_parsed_without_panic(text in any::<String>()) {
        let _ = Settings::from_toml(&text);
    }

    #[test]
    fn any_duration_in_range_round_trips(nanos in 1_000_000_u64..86_400_000_000_000) {
        let settings = Settings { checkout_timeout: Duration::from_nanos(nanos), ..Settings::default() };
        let mut parsed = Settings::default();
        parsed.set("checkout_timeout", &settings.get("checkout_timeout").unwrap()).unwrap();
        prop_assert_eq!(parsed.checkout_timeout, settings.checkout_timeout);
    }
}

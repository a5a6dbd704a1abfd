#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, TargetSessionAttrs};

use super::super::tls::{Roots, Verify};
use super::super::{Settings, settings as all_settings};
use super::*;

pub(super) fn parse(url: &str) -> DatabaseUrl {
    url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
}

pub(super) fn error(url: &str) -> String {
    url.parse::<DatabaseUrl>().expect_err(url).to_string()
}

fn settings(url: &str) -> Settings {
    Settings::from_url(url).unwrap_or_else(|error| panic!("{url}: {error}"))
}

pub(super) fn tcp(host: &str) -> Host {
    Host::Tcp(host.to_owned())
}

#[test]
fn parses_like_tokio_postgres() {
    for url in [
        "postgresql://user@localhost",
        "postgres://user@localhost:5433/db",
        "postgresql://user:password@%2Fvar%2Frun%2Fpostgresql/mydb",
        "postgresql://user@host1:1234,host2,host3:5678?target_session_attrs=read-write",
        "postgresql:///mydb?user=user&host=/var/run/postgresql",
        "postgresql:///mydb?user=user&host=%2Fvar%2Frun%2Fpostgresql&port=5433",
        "postgres://us%40er:p%C3%A4ss@[::1]:5433/d%20b?options=-c%20geqo%3Doff",
        "postgres://u:p:q@h/d?channel_binding=require&load_balance_hosts=random",
        "postgres://h:1?hostaddr=127.0.0.1&keepalives_interval=5&keepalives_retries=2",
        "postgres://u:@h",
        "postgres://u:100%25zz@h/",
        "postgres://h/db#1",
    ] {
        let theirs: Config = url.parse().unwrap();
        let mut ours = parse(url).config().clone();
        // tokio-postgres adds the default port of each host, and would try TLS on a socket.
        if ours.get_ports().is_empty() {
            for port in theirs.get_ports() {
                ours.port(*port);
            }
        }
        ours.ssl_mode(SslMode::Prefer);
        assert_eq!(ours, theirs, "{url}");
    }
}

#[test]
fn hosts_are_required_and_consistent() {
    assert!(error("postgres:///db").contains("no host: give one"));
    assert!(error("postgres://user:secret@/db").contains("no host: give one"));
    assert!(error("postgres://a,b/d?hostaddr=1.2.3.4").contains("the number of `hostaddr` differs"));
    assert!(error("postgres://a,b:2,c/d?port=1").contains("the number of ports differs"));
    assert!(error("host=localhost user=postgres").contains("begins with neither"));
    assert!(error("").contains("begins with neither"));
}

#[test]
fn query_may_have_several_hosts_and_ports() {
    let url = parse("postgres:///d?host=a,b&port=1,2");
    assert_eq!((url.config().get_hosts(), url.config().get_ports()), (&[tcp("a"), tcp("b")][..], &[1, 2][..]));
    assert_eq!(parse("postgres://h/d?port=6432").config().get_ports(), [6432]);
    let url = parse("postgres://:5433/d?host=/tmp");
    assert_eq!(url.default_pool_name(), "/tmp:5433/d");
}

#[test]
fn address_serves_as_missing_host_name() {
    let url = parse("postgres:///d?hostaddr=127.0.0.1,::1");
    assert_eq!(url.config().get_hosts(), [tcp("127.0.0.1"), tcp("::1")]);
}

#[test]
fn default_pool_name_is_address_port_database() {
    for (url, name) in [
        ("postgres://u@db.example/shop", "db.example:5432/shop"),
        ("postgres://u:secret@db.example:6432/shop", "db.example:6432/shop"),
        ("postgres://u@a:1,b:2/shop", "a:1/shop"),
        ("postgres://u@[::1]/shop", "[::1]:5432/shop"),
        ("postgres://u@%2Frun%2Fpg:6432/shop", "/run/pg:6432/shop"),
        ("postgres://u@h", "h:5432/u"),
        ("postgres://h", "h:5432"),
    ] {
        assert_eq!(parse(url).default_pool_name(), name);
    }
}

#[test]
fn every_setting_is_a_parameter() {
    let settings = settings(
        "postgres://h/d?name=orders&password_file=/a&passfile=/b&pool_size=5&max_overflow=0&min_idle=2&idle_timeout=10m&checkout_timeout=2s&recycle_after=off&pre_ping=off\
         &pre_ping_idle=0s&ping_timeout=1s&connect_timeout=3s&tcp_keepalive=off&tcp_user_timeout=9s\
         &application_name=billing&clean_timeout=2s&close_timeout=3s&reset_session=on&leak_threshold=5m\
         &slow_checkout_threshold=1s&slow_query_threshold=200ms\
         &read_wire=off&max_answer_kib=64&cache_statements=off&trace_query_text=on&fail_fast=off\
         &retry_floor=1&retry_percent=5&wait_target=5ms",
    );
    let values: Vec<_> = all_settings().filter(|s| !s.is_url()).map(|s| settings.get(s.name()).unwrap()).collect();
    assert_eq!(
        values,
        [
            "orders", "/a", "/b", "5", "0", "2", "10m", "2s", "off", "off", "0s", "1s", "3s", "off", "9s", "billing",
            "2s", "3s", "on", "5m", "1s", "200ms", "off", "64", "off", "on", "off", "1", "5", "5ms"
        ]
    );
    assert_eq!(settings.database_url.unwrap().config().get_application_name(), Some("billing"));
}

#[test]
fn database_url_is_no_parameter() {
    assert!(error("postgres://h/d?database_url=x").contains("unknown setting `database_url`"));
}

#[test]
fn bare_number_has_libpqs_unit_or_is_refused() {
    assert_eq!(settings("postgres://h?connect_timeout=7").connect_timeout, Duration::from_secs(7));
    assert!(error("postgres://h?connect_timeout=0").contains("invalid connect_timeout: \"0s\", expected a duration"));
    assert!(error("postgres://h?connect_timeout=-1").contains("expected a duration"));
    assert!(error("postgres://h?checkout_timeout=7").contains("expected a duration with its unit"));
    assert!(error("postgres://h?tcp_user_timeout=7").contains("expected a duration with its unit"));
    assert_eq!(settings("postgres://h?tcp_user_timeout=0").tcp_user_timeout, None);
}

#[test]
fn keepalives_set_tcp_keepalive() {
    let keepalive = |url: &str| settings(url).tcp_keepalive;
    assert_eq!(keepalive("postgres://h?keepalives=0"), None);
    assert_eq!(keepalive("postgres://h?keepalives=0&keepalives_idle=9"), None);
    assert_eq!(keepalive("postgres://h?keepalives=1&keepalives_idle=9"), Some(Duration::from_secs(9)));
    assert_eq!(keepalive("postgres://h?keepalives_idle=0"), Some(Duration::from_secs(30)));
    assert!(error("postgres://h?keepalives_idle=9s").contains("invalid keepalives_idle: \"9s\", expected a number"));
    assert!(error("postgres://h?keepalives_idle=9000").contains("invalid keepalives_idle: "));
    let url = parse("postgres://h?keepalives_interval=4&keepalives_count=2");
    assert_eq!(url.config().get_keepalives_interval(), Some(Duration::from_secs(4)));
    assert_eq!(url.config().get_keepalives_retries(), Some(2));
}

#[test]
fn unknown_parameter_has_a_suggestion() {
    assert_eq!(
        error("postgres://h/d?poolsize=5"),
        "database URL: unknown setting `poolsize`: did you mean `pool_size`?"
    );
    assert!(error("postgres://h/d?ssl_mode=require").contains("did you mean `sslmode`?"));
    let error = error("postgres://h/d?passwd=QX");
    assert!(error.contains("`passwd`") && !error.contains("QX"), "{error}");
}

#[test]
fn invalid_choice_error_lists_the_choices() {
    for (query, expected) in [
        ("sslmode=yes", "invalid sslmode: \"yes\", expected disable, allow, prefer, require, verify-ca or verify-full"),
        ("sslnegotiation=x", ", expected postgres or direct"),
        ("sslrootcert=", ", expected a file of PEM certificates, or system"),
        ("target_session_attrs=primary", ", expected any, read-write or read-only"),
        ("channel_binding=x", ", expected disable, prefer or require"),
        ("load_balance_hosts=x", ", expected disable or random"),
        ("port=70000", ", expected a port from 1 to 65535"),
        ("hostaddr=db", ", expected an IP address"),
        ("keepalives=yes", ", expected 0 or 1"),
    ] {
        let error = error(&format!("postgres://h/d?{query}"));
        assert!(error.contains(expected), "{error}");
    }
    let url = parse("postgres://h/d?target_session_attrs=read-only&channel_binding=disable&load_balance_hosts=random");
    assert_eq!(url.config().get_target_session_attrs(), TargetSessionAttrs::ReadOnly);
    assert_eq!(url.config().get_channel_binding(), ChannelBinding::Disable);
    assert_eq!(url.config().get_load_balance_hosts(), LoadBalanceHosts::Random);
}

#[test]
fn server_is_not_verified_by_default() {
    let file = || Roots::File("/ca.pem".into());
    let cases = [
        ("", TlsMode::Prefer(Verify::Nothing)),
        ("?sslmode=disable", TlsMode::Disable),
        ("?sslmode=allow", TlsMode::Prefer(Verify::Nothing)),
        ("?sslmode=prefer", TlsMode::Prefer(Verify::Nothing)),
        ("?sslrootcert=/ca.pem", TlsMode::Prefer(Verify::Chain(file()))),
    ];
    for (query, mode) in cases {
        assert_eq!(parse(&format!("postgres://h/d{query}")).tls(), &mode, "{query}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn sslmodes_match_libpq() {
    let file = || Roots::File("/ca.pem".into());
    for (query, mode, name) in [
        ("sslmode=require", TlsMode::Require(Verify::Nothing), "require"),
        ("sslmode=require&sslrootcert=/ca.pem", TlsMode::Require(Verify::Chain(file())), "verify-ca"),
        ("sslrootcert=/ca.pem&sslmode=verify-ca", TlsMode::Require(Verify::Chain(file())), "verify-ca"),
        ("sslmode=verify-full&sslrootcert=/ca.pem", TlsMode::Require(Verify::ChainAndName(file())), "verify-full"),
        ("sslmode=verify-full", TlsMode::Require(Verify::ChainAndName(Roots::System)), "verify-full"),
        ("sslrootcert=system", TlsMode::Require(Verify::ChainAndName(Roots::System)), "verify-full"),
    ] {
        let url = parse(&format!("postgres://h/d?{query}"));
        assert_eq!(url.tls(), &mode, "{query}");
        assert_eq!(url.tls().as_str(), name);
        assert_eq!(url.config().get_ssl_mode(), SslMode::Require);
    }
    let direct = parse("postgres://h/d?sslmode=require&sslnegotiation=direct");
    assert_eq!(direct.config().get_ssl_negotiation(), SslNegotiation::Direct);
}

#[cfg(feature = "tls")]
#[test]
fn sslmode_that_verifies_nothing_is_refused() {
    for query in ["sslmode=verify-ca", "sslmode=require&sslrootcert=system", "sslmode=disable&sslrootcert=system"] {
        assert!(error(&format!("postgres://h/d?{query}")).contains("sslmode=verify-full"), "{query}");
    }
    assert!(error("postgres://h/d?sslnegotiation=direct").contains("sslmode=require"));
}

#[cfg(not(feature = "tls"))]
#[test]
fn required_tls_needs_the_feature() {
    for mode in ["require", "verify-full"] {
        let error = error(&format!("postgres://h/d?sslmode={mode}"));
        assert_eq!(
            error,
            format!(
                "database URL: sslmode={mode} requires TLS, which this build lacks: enable the feature `tls` of poolscope"
            )
        );
    }
}

#[test]
fn unix_socket_is_not_encrypted() {
    let url = parse("postgres://u@%2Frun%2Fpg/d?sslmode=prefer");
    assert_eq!((url.tls(), url.config().get_ssl_mode()), (&TlsMode::Disable, SslMode::Disable));
}

#[test]
fn invalid_escape_and_space_are_refused() {
    for url in
        ["postgres://u:100%@h/d", "postgres://u:%zz@h/d", "postgres://h/d?name=a%2", "postgres://h/%\u{e9}\u{e9}"]
    {
        let error = error(url);
        assert!(error.contains("`%` without two hexadecimal digits") && !error.contains("zz"), "{url}: {error}");
    }
    for url in [
        "postgres://a, b/d",
        "postgres://h/d ",
        "postgres://u @h/d",
        "postgres://h/d?sslrootcert= /ca.pem",
        "postgres://h/d?sslrootcert=/ca.pem ",
        "postgres://h/d? name=a",
    ] {
        assert!(error(url).contains("space at a place where none is allowed"), "{url}: {}", error(url));
    }
    assert_eq!(parse("postgres://%20u@h/d?options=-c%20a%3Db -c c=d").config().get_user(), Some(" u"));
    assert!(error(" postgres://h/d").contains("begins with neither"));
    for url in
        ["postgres://h:+5/d", "postgres://h/d?port=+5", "postgres://h/d?pool_size=+5", "postgres://h/d?pool_size=%205"]
    {
        assert!(url.parse::<DatabaseUrl>().is_err(), "{url}");
    }
}

#[test]
fn values_of_options_are_not_shown() {
    for (options, shown) in [
        ("-c%20app.key%3Dhunter2", "-c%20app.key%3D***"),
        ("-c app.key=hunter2 -c geqo=off", "-c app.key=*** -c geqo=***"),
        ("-capp.key=hunter2", "-capp.key=***"),
        ("--app.key=hunter2%20--geqo%3doff", "--app.key=***%20--geqo%3d***"),
        ("-c%20app.key=hunter%5C%202=2", "-c%20app.key=***"),
        ("-c%20app.key=hunter2%09-d%205", "-c%20app.key=***%09-d%20***"),
        ("-e -c", "-e -c"),
        ("hunter2", "***"),
        ("-chunter2", "-c***"),
    ] {
        let url = format!("postgres://u:hunter2@h/d?options={options}&pool_size=2");
        assert_eq!(parse(&url).to_string(), format!("postgres://u:***@h/d?options={shown}&pool_size=2"));
    }
}

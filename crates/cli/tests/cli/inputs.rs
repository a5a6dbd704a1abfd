//! What is wrong is told in one line, with an exit code that says whose fault it is, and without a secret.

use std::net::TcpListener;

use crate::run::{demo, poolscope, run_to_end};

const URL: &str = "postgres://app:hunter2@db.example/shop";

/// Holds that these arguments and variables end with this code, and with an error that says all of `parts`.
#[track_caller]
fn refused(arguments: &[&str], variables: &[(&str, &str)], code: i32, parts: &[&str]) {
    let mut command = demo(arguments);
    command.envs(variables.iter().copied());
    let ended = run_to_end(command);
    let said = format!("{arguments:?} {variables:?}: {}", ended.err);
    assert_eq!(ended.code, Some(code), "{said}");
    assert!(ended.err.starts_with("error: "), "{said}");
    for part in parts {
        assert!(ended.err.contains(part), "{part:?} is not in {said}");
    }
    for secret in ["hunter2", "panicked", "\x1b"] {
        assert!(!ended.err.contains(secret) && !ended.out.contains(secret), "{said}");
    }
    if !ended.err.contains("\nUsage: ") && !ended.err.contains("try '--help'") {
        assert_eq!(ended.err.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_url_that_cannot_be_is_refused_without_its_password() {
    let url = |query: &str| format!("{URL}?{query}");
    let cases = [
        ("mysql://app:hunter2@db/shop".to_owned(), "begins with neither postgres:// nor postgresql://"),
        ("hunter2".to_owned(), "give postgres://user:password@host:5432/database"),
        (url("pool_siz=3"), "database URL: unknown setting `pool_siz`: did you mean `pool_size`?"),
        (
            url("pool_size=0"),
            "parameter `pool_size`: invalid pool_size: \"0\", expected a whole number from 1 to 10000",
        ),
        (url("checkout_timeout=5"), "expected a duration with its unit, 1ms to 1day"),
        (url("sslmode=on"), "expected disable, allow, prefer, require, verify-ca or verify-full"),
        ("postgres://app:hunter2@db.example:x/shop".to_owned(), "invalid host or port"),
    ];
    for (url, part) in &cases {
        refused(&["--database-url", url], &[], 2, &["error: --database-url cannot be used: ", part]);
        refused(&[], &[("POOLSCOPE_DATABASE_URL", url)], 2, &["environment variable POOLSCOPE_DATABASE_URL"]);
    }
    refused(&["--database-url", &url("sslmode=verify-full&sslrootcert=/nowhere.pem")], &[], 2, &["/nowhere.pem"]);
}

#[test]
fn a_url_may_stand_in_a_file_which_is_named_when_it_cannot_be_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("database_url");
    std::fs::write(&file, format!("{URL}?pool_size=0\n")).expect("a file");
    let file = file.to_str().expect("a path");
    let parts = ["error: --database-url-file cannot be used: ", "invalid pool_size: \"0\""];
    refused(&["--database-url-file", file], &[], 2, &parts);
    refused(&["--database-url-file", "/nowhere/url"], &[], 2, &["--database-url-file cannot be read: /nowhere/url: "]);
    refused(
        &["--database-url-file", URL],
        &[],
        2,
        &["--database-url-file takes the path of a file, and was given a URL"],
    );
    refused(&["--database-url-file", file, "--database-url", URL], &[], 2, &["cannot be used with"]);
}

#[test]
fn a_flag_that_cannot_be_is_refused_and_says_what_would_do() {
    for time in ["30", "soon", "0s", "-1s", ""] {
        let flag = format!("--duration={time}");
        refused(&[&flag], &[], 2, &["--duration <TIME>", "give a time with its unit, above zero, such as 30s"]);
    }
    refused(
        &["--scenario", "meteor"],
        &[],
        2,
        &["'meteor' for '--scenario <NAME>'", "possible values: shop, healthy,"],
    );
    refused(&["--scenario-after", "3"], &[], 2, &["--scenario-after <TIME>", "give a time with its unit"]);
    refused(&["--duratoin", "3s"], &[], 2, &["'--duratoin'", "'--duration'"]);
    refused(&["--web.listen-address", "nonsense"], &[], 2, &["cannot be used multiple times"]);
    refused(&[URL], &[], 2, &["unexpected argument '***'"]);
    refused(&["--database-uri", URL], &[], 2, &["--database-uri", "'--database-url'"]);
    refused(&["--duration", URL], &[], 2, &["invalid value '***' for '--duration <TIME>'"]);
}

#[test]
fn an_address_that_cannot_be_is_refused_and_one_in_use_is_a_failure() {
    let run = |address: &str| run_to_end(poolscope(&["demo", "--web.listen-address", address]));
    let ended = run("nonsense");
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.err.starts_with(
            "error: --web.listen-address cannot be used: invalid listen address `nonsense`; give host:port"
        ),
        "{}",
        ended.err
    );
    let taken = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = taken.local_addr().expect("an address").to_string();
    let ended = run(&address);
    assert_eq!(ended.code, Some(1));
    assert_eq!(
        ended.err,
        format!(
            "error: cannot listen on {address}: address already in use; stop the other process or choose another \
             with --web.listen-address\n"
        )
    );
    let ended = run_to_end(demo(&["--shop.listen-address", &address]));
    assert_eq!(ended.code, Some(1));
    let said = format!("error: cannot open the shop at {address}; choose another address with --shop.listen-address: ");
    assert!(ended.err.starts_with(&said) && ended.err.contains("ddress already in use"), "{}", ended.err);
    assert_eq!(run_to_end(demo(&["--shop.listen-address", "nonsense"])).code, Some(2));
    let mut command = poolscope(&["demo"]);
    command.env("POOLSCOPE_WEB_LISTEN_ADDRESS", &address);
    assert_eq!(run_to_end(command).code, Some(1));
}

#[test]
fn a_variable_that_cannot_be_is_refused_and_named() {
    for (variable, value, parts) in [
        (
            "POOLSCOPE_POOL_SIZE",
            "0",
            &["POOL_SIZE", "invalid pool_size: \"0\", expected a whole number from 1 to 10000"][..],
        ),
        ("POOLSCOPE_POOLSIZE", "5", &["unknown setting `POOLSCOPE_POOLSIZE`: did you mean `POOLSCOPE_POOL_SIZE`?"]),
        ("POOLSCOPE_CHECKOUT_TIMEOUT", "soon", &["CHECKOUT_TIMEOUT", "expected a duration with its unit"]),
        ("POOLSCOPE_WAIT_TARGET", "5s", &["wait_target (5s) is above checkout_timeout (2s)"]),
        ("RUST_LOG", "poolscope=loud", &["environment variable RUST_LOG: \"poolscope=loud\"", "poolscope=debug"]),
    ] {
        refused(&[], &[(variable, value)], 2, parts);
    }
}

#[test]
fn a_collector_that_cannot_be_is_refused_without_a_secret() {
    let (endpoint, would_do) = ("--otlp.endpoint: ", "expected http://host:port or https://host:port");
    refused(&["--otlp.endpoint", "collector:4317"], &[], 2, &[endpoint, would_do]);
    refused(&["--otlp.endpoint", "http://me:hunter2@collector"], &[], 2, &[endpoint, "OTEL_EXPORTER_OTLP_HEADERS"]);
    refused(
        &["--otlp.protocol", "http/json"],
        &[],
        2,
        &["'--otlp.protocol <PROTOCOL>'", "expected grpc or http/protobuf"],
    );
    refused(&["--log.format", "xml"], &[], 2, &["'--log.format <FORMAT>'", "text, json"]);
    for (variable, value, would_do) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2", would_do),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization hunter2", "expected key=value"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "udp", "expected grpc or http/protobuf"),
        ("OTEL_TRACES_SAMPLER", "some", "expected always_on"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1s", "expected whole milliseconds"),
    ] {
        refused(&[], &[(variable, value)], 2, &[&format!("environment variable {variable}: "), would_do]);
    }
}

#[test]
fn an_address_for_links_that_cannot_be_is_refused() {
    for flag in ["--runbooks-url", "--grafana-url"] {
        for url in ["grafana:3000", "ftp://host", URL, "http://host/{{ $labels.job }}", ""] {
            let ended = run_to_end(poolscope(&["rules", flag, url]));
            assert_eq!((ended.code, &*ended.out), (Some(2), ""), "{url}: {}", ended.err);
            let problem = format!("for '{flag} <URL>': give http://host or https://host");
            assert!(ended.err.contains(&problem) && !ended.err.contains("hunter2"), "{url}: {}", ended.err);
        }
    }
}

#[test]
fn a_server_that_cannot_be_had_is_a_failure_that_says_what_would_do() {
    refused(
        &[],
        &[("POOLSCOPE_PG_BIN", "/nowhere")],
        1,
        &["/nowhere (from POOLSCOPE_PG_BIN)", "apt-get install", "--database-url"],
    );
    let free = TcpListener::bind("127.0.0.1:0").expect("a socket").local_addr().expect("an address").port();
    let url = format!("postgres://app:hunter2@127.0.0.1:{free}/shop");
    let said = format!("error: cannot connect to postgres://app:***@127.0.0.1:{free}/shop: could not connect");
    refused(&["--database-url", &url], &[], 1, &[&said, "onnection refused"]);
}

#[test]
fn what_a_scenario_does_to_a_server_is_refused_for_ones_own() {
    let would_do = "leave out --database-url, and unset POOLSCOPE_DATABASE_URL";
    for (scenario, does) in [
        ("server_down", "stops the server"),
        ("server_full", "takes all of the server's slots"),
        ("connect_slow", "changes the server's settings"),
    ] {
        let said = format!("error: --scenario {scenario} {does}, so it needs a private one: ");
        refused(&["--scenario", scenario, "--database-url", URL], &[], 2, &[&said, would_do]);
        refused(&["--scenario", scenario], &[("POOLSCOPE_DATABASE_URL", URL)], 2, &[&said, would_do]);
    }
}

#[test]
fn the_help_and_the_version_are_there() {
    let run = |arguments: &[&str]| run_to_end(poolscope(arguments));
    let version = run(&["--version"]);
    assert_eq!((version.code, &*version.out), (Some(0), concat!("poolscope ", env!("CARGO_PKG_VERSION"), "\n")));
    let help = run(&["--help"]);
    for command in ["demo", "serve", "check", "rules", "healthy"] {
        assert!(help.code == Some(0) && help.out.contains(&format!("\n  {command:<9}")), "{command}: {}", help.out);
    }
    let help = run(&["serve", "--help"]);
    for part in
        ["--config <FILE>", "--web.config.file <FILE>", "--web.systemd-socket", "[databases.shop]", "probe_interval"]
    {
        assert!(help.code == Some(0) && help.out.contains(part), "{part} is not in {}", help.out);
    }
    let help = run(&["check", "--help"]);
    for part in ["--connect", "--web.config.file <FILE>", "Example:"] {
        assert!(help.code == Some(0) && help.out.contains(part), "{part} is not in {}", help.out);
    }
    let help = run(&["rules", "--help"]);
    for part in ["--runbooks-url", "--grafana-url", "http://localhost:3000", "/runbooks/", "Example:"] {
        assert!(help.code == Some(0) && help.out.contains(part), "{part} is not in {}", help.out);
    }
    let help = run(&["healthy", "--help"]);
    for part in ["[URL]", "--timeout", "[default: 3s]", "POOLSCOPE_WEB_LISTEN_ADDRESS", "Examples:"] {
        assert!(help.code == Some(0) && help.out.contains(part), "{part} is not in {}", help.out);
    }
    let help = run(&["demo", "--help"]);
    assert_eq!(help.code, Some(0));
    for part in [
        "--duration",
        "--database-url",
        "--web.listen-address",
        "--web.config.file <FILE>",
        "--web.systemd-socket",
        "--shop.listen-address",
        "127.0.0.1:9719",
        "POOLSCOPE_POOL_SIZE",
        "Examples:",
    ]
    .into_iter()
    .chain(["--scenario <NAME>", "--scenario-after", "--scenario-for", "\n  idle_in_transaction "])
    .chain(["--otlp.endpoint", "--otlp.protocol", "--log.format", "OTEL_EXPORTER_OTLP_ENDPOINT"])
    {
        assert!(help.out.contains(part), "{part} is not in {}", help.out);
    }
    let nothing = run(&[]);
    assert!(nothing.code == Some(2) && nothing.err.contains("Usage: poolscope <COMMAND>"), "{}", nothing.err);
}

#[test]
fn the_help_shows_no_secret_that_the_environment_has() {
    let mut command = poolscope(&["demo", "--help"]);
    let ended = run_to_end({
        command.env("POOLSCOPE_DATABASE_URL", URL);
        command
    });
    assert!(ended.code == Some(0) && !ended.out.contains("hunter2"), "{}", ended.out);
}

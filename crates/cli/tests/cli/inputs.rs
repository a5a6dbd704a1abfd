//! Errors: one line without secrets, and an exit code that distinguishes usage from failures.

use std::net::TcpListener;

use poolscope_testing::ports::ReservedPort;

use crate::run::{demo, poolscope, run_to_end};

const URL: &str = "postgres://app:hunter2@db.example/shop";

/// Checks that the demo exits with `code` and prints an error that contains all of `parts`.
#[track_caller]
fn assert_refused(arguments: &[&str], variables: &[(&str, &str)], code: i32, parts: &[&str]) {
    let mut command = demo(arguments);
    command.envs(variables.iter().copied());
    let ended = run_to_end(command);
    let context = format!("{arguments:?} {variables:?}: {}", ended.err);
    assert_eq!(ended.code, Some(code), "{context}");
    assert!(ended.err.starts_with("error: "), "{context}");
    for part in parts {
        assert!(ended.err.contains(part), "{part:?} is not in {context}");
    }
    for secret in ["hunter2", "panicked", "\x1b"] {
        assert!(!ended.err.contains(secret) && !ended.out.contains(secret), "{context}");
    }
    if !ended.err.contains("\nUsage: ") && !ended.err.contains("try '--help'") {
        assert_eq!(ended.err.lines().count(), 1, "{context}");
    }
}

#[test]
fn invalid_url_is_refused_without_its_password() {
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
        assert_refused(&["--database-url", url], &[], 2, &["error: invalid --database-url: ", part]);
        assert_refused(&[], &[("POOLSCOPE_DATABASE_URL", url)], 2, &["environment variable POOLSCOPE_DATABASE_URL"]);
    }
    assert_refused(
        &["--database-url", &url("sslmode=verify-full&sslrootcert=/nowhere.pem")],
        &[],
        2,
        &["/nowhere.pem"],
    );
}

#[test]
fn flags_of_the_page_are_checked() {
    let expected = "give an http or https URL with {trace_id}";
    for url in ["javascript:alert({trace_id})", "https://jaeger.example.com/trace", "//jaeger/{trace_id}"] {
        assert_refused(&["--trace-url", url], &[], 2, &[expected]);
    }
    assert_refused(&["--web.enable-record"], &[], 2, &["--record-dir"]);
}

#[test]
fn url_file_is_named_in_errors() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("database_url");
    std::fs::write(&file, format!("{URL}?pool_size=0\n")).expect("a file");
    let file = file.to_str().expect("a path");
    let parts = ["error: invalid --database-url-file: ", "invalid pool_size: \"0\""];
    assert_refused(&["--database-url-file", file], &[], 2, &parts);
    assert_refused(
        &["--database-url-file", "/nowhere/url"],
        &[],
        2,
        &["cannot read --database-url-file /nowhere/url: "],
    );
    assert_refused(
        &["--database-url-file", URL],
        &[],
        2,
        &["--database-url-file expects the path of a file, not a URL"],
    );
    assert_refused(&["--database-url-file", file, "--database-url", URL], &[], 2, &["cannot be used with"]);
}

#[test]
fn invalid_flag_is_refused_with_a_remedy() {
    for time in ["30", "soon", "0s", "-1s", ""] {
        let flag = format!("--duration={time}");
        assert_refused(
            &[&flag],
            &[],
            2,
            &["--duration <TIME>", "give a duration with its unit, above zero, such as 30s"],
        );
    }
    assert_refused(
        &["--scenario", "meteor"],
        &[],
        2,
        &["'meteor' for '--scenario <NAME>'", "possible values: shop, healthy,"],
    );
    assert_refused(&["--scenario-after", "3"], &[], 2, &["--scenario-after <TIME>", "give a duration with its unit"]);
    assert_refused(&["--duratoin", "3s"], &[], 2, &["'--duratoin'", "'--duration'"]);
    assert_refused(&["--web.listen-address", "nonsense"], &[], 2, &["cannot be used multiple times"]);
    assert_refused(&[URL], &[], 2, &["unexpected argument '***'"]);
    assert_refused(&["--database-uri", URL], &[], 2, &["--database-uri", "'--database-url'"]);
    assert_refused(&["--duration", URL], &[], 2, &["invalid value '***' for '--duration <TIME>'"]);
}

#[test]
fn invalid_address_is_refused_and_one_in_use_fails() {
    let run = |address: &str| run_to_end(poolscope(&["demo", "--web.listen-address", address]));
    let ended = run("nonsense");
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.err.starts_with("error: invalid --web.listen-address: invalid listen address `nonsense`; give host:port"),
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
    let error =
        format!("error: cannot serve the shop at {address}; choose another address with --shop.listen-address: ");
    assert!(ended.err.starts_with(&error) && ended.err.contains("ddress already in use"), "{}", ended.err);
    assert_eq!(run_to_end(demo(&["--shop.listen-address", "nonsense"])).code, Some(2));
    let mut command = poolscope(&["demo"]);
    command.env("POOLSCOPE_WEB_LISTEN_ADDRESS", &address);
    assert_eq!(run_to_end(command).code, Some(1));
}

#[test]
fn invalid_variable_is_refused_by_name() {
    for (variable, value, parts) in [
        (
            "POOLSCOPE_POOL_SIZE",
            "0",
            &["POOL_SIZE", "invalid pool_size: \"0\", expected a whole number from 1 to 10000"][..],
        ),
        ("POOLSCOPE_POOLSIZE", "5", &["unknown setting `POOLSCOPE_POOLSIZE`: did you mean `POOLSCOPE_POOL_SIZE`?"]),
        ("POOLSCOPE_CHECKOUT_TIMEOUT", "soon", &["CHECKOUT_TIMEOUT", "expected a duration with its unit"]),
        ("POOLSCOPE_WAIT_TARGET", "5s", &["wait_target (5s) is above checkout_timeout (2s)"]),
        (
            "RUST_LOG",
            "poolscope=loud",
            &["environment variable RUST_LOG: invalid \"poolscope=loud\"", "poolscope=debug"],
        ),
    ] {
        assert_refused(&[], &[(variable, value)], 2, parts);
    }
}

#[test]
fn invalid_collector_is_refused_without_a_secret() {
    let (endpoint, remedy) = ("--otlp.endpoint: ", "expected http://host:port or https://host:port");
    assert_refused(&["--otlp.endpoint", "collector:4317"], &[], 2, &[endpoint, remedy]);
    assert_refused(
        &["--otlp.endpoint", "http://me:hunter2@collector"],
        &[],
        2,
        &[endpoint, "OTEL_EXPORTER_OTLP_HEADERS"],
    );
    assert_refused(
        &["--otlp.protocol", "http/json"],
        &[],
        2,
        &["'--otlp.protocol <PROTOCOL>'", "expected grpc or http/protobuf"],
    );
    assert_refused(&["--log.format", "xml"], &[], 2, &["'--log.format <FORMAT>'", "text, json"]);
    for (variable, value, remedy) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2", remedy),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization hunter2", "expected key=value"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "udp", "expected grpc or http/protobuf"),
        ("OTEL_TRACES_SAMPLER", "some", "expected always_on"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1s", "expected whole milliseconds"),
    ] {
        assert_refused(&[], &[(variable, value)], 2, &[&format!("environment variable {variable}: "), remedy]);
    }
}

#[test]
fn invalid_base_url_of_links_is_refused() {
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
fn invalid_thresholds_are_refused_with_their_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mine.toml");
    std::fs::write(&file, "[waiters]\nvalue = 5\n\n[waitrs]\nvalue = 5\n").unwrap();
    let path = file.to_str().unwrap();
    let missing = directory.path().join("none.toml");
    for (arguments, problem) in [
        (
            ["--thresholds", path],
            format!("error: invalid thresholds {path}: line 4: unknown threshold `waitrs`: did you"),
        ),
        (
            ["--thresholds", missing.to_str().unwrap()],
            format!("error: cannot read the thresholds {}: ", missing.display()),
        ),
        (
            ["--server-connections", "3"],
            "error: --server-connections 3: `server_connections` (3) must be larger".to_owned(),
        ),
        (["--server-connections", "0"], "error: invalid value '0' for '--server-connections <NUMBER>'".to_owned()),
    ] {
        let ended = run_to_end(poolscope(&[&["rules"], &arguments[..]].concat()));
        assert_eq!(ended.out, "");
        assert!(ended.code == Some(2) && ended.err.starts_with(&problem), "{:?} {}", ended.code, ended.err);
    }
}

#[test]
fn unavailable_server_is_a_failure_with_a_remedy() {
    assert_refused(
        &[],
        &[("POOLSCOPE_PG_BIN", "/nowhere")],
        1,
        &["/nowhere (from POOLSCOPE_PG_BIN)", "apt-get install", "--database-url"],
    );
    let closed = ReservedPort::new().expect("a port");
    let free = closed.number();
    let url = format!("postgres://app:hunter2@127.0.0.1:{free}/shop");
    let error = format!("error: cannot connect to postgres://app:***@127.0.0.1:{free}/shop: could not connect");
    assert_refused(&["--database-url", &url], &[], 1, &[&error, "onnection refused"]);
}

#[test]
fn missing_requirements_of_a_client_are_named() {
    let python = [("POOLSCOPE_PYTHON", "/nowhere/python")];
    let remedy = "pip install sqlalchemy 'psycopg[binary]'";
    assert_refused(
        &["--client", "python"],
        &python,
        1,
        &["/nowhere/python cannot be run", remedy, "POOLSCOPE_PYTHON="],
    );
    // A program that runs, and has no package.
    assert_refused(&["--client", "python"], &[("POOLSCOPE_PYTHON", "false")], 1, &["false fails", remedy]);
    let error = "--client has no scenario self_deadlock, only shop, healthy";
    assert_refused(&["--client", "python", "--scenario", "self_deadlock"], &python, 2, &[error]);
    let error = "--client requires a private server: remove --database-url";
    assert_refused(&["--client", "python", "--database-url", URL], &python, 2, &[error]);
}

#[test]
fn disruptive_scenario_is_refused_for_existing_server() {
    let remedy = "remove --database-url and unset POOLSCOPE_DATABASE_URL";
    for (scenario, disruption) in [
        ("server_down", "stops the server"),
        ("server_full", "takes all slots of the server"),
        ("connect_slow", "changes the server's settings"),
    ] {
        let error = format!("error: --scenario {scenario} {disruption}, so it requires a private server: ");
        assert_refused(&["--scenario", scenario, "--database-url", URL], &[], 2, &[&error, remedy]);
        assert_refused(&["--scenario", scenario], &[("POOLSCOPE_DATABASE_URL", URL)], 2, &[&error, remedy]);
    }
}

#[test]
fn help_and_version_are_printed() {
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
    for part in
        ["--runbooks-url", "--grafana-url", "--thresholds <FILE>", "--server-connections", "docs.rs", "Example:"]
    {
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
    let no_command = run(&[]);
    assert!(no_command.code == Some(2) && no_command.err.contains("Usage: poolscope <COMMAND>"), "{}", no_command.err);
}

#[test]
fn help_shows_no_secret_of_the_environment() {
    let mut command = poolscope(&["demo", "--help"]);
    let ended = run_to_end({
        command.env("POOLSCOPE_DATABASE_URL", URL);
        command
    });
    assert!(ended.code == Some(0) && !ended.out.contains("hunter2"), "{}", ended.out);
}

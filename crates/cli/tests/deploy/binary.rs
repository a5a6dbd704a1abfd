//! The flags and variables in deploy/: the binary accepts them, and fails only later, as there is no database.

use std::process::Command;

use serde_json::Value;

use crate::tools::{at, document, members, text, texts, yaml};

/// The URL of a database at an unused address.
const UNREACHABLE_URL: &str = "postgres://shop:hunter2@127.0.0.1:1/shop?connect_timeout=1s";

/// Runs the binary with only these variables, and returns its exit code and standard error.
fn poolscope(arguments: &[&str], variables: &[(String, String)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_poolscope"));
    command.args(arguments).env_clear().envs(variables.iter().cloned());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Checks that the demo accepts these, with local addresses in place of others.
#[track_caller]
fn assert_demo_accepts(source: &str, arguments: &[&str], variables: &[(String, String)]) {
    let localize = |(name, value): &(String, String)| {
        let value = match name.as_str() {
            "POOLSCOPE_DATABASE_URL" => UNREACHABLE_URL.to_owned(),
            name if name.ends_with("_LISTEN_ADDRESS") => {
                assert!(value.rsplit_once(':').unwrap().1.parse::<u16>().is_ok(), "{source}: {name}={value}");
                "127.0.0.1:0".to_owned()
            }
            _ => value.clone(),
        };
        (name.clone(), value)
    };
    assert_documented(source, variables);
    let variables: Vec<_> = variables.iter().map(localize).collect();
    let (code, error) = poolscope(arguments, &variables);
    assert!(code == Some(1) && error.contains("error: cannot connect to postgres://"), "{source}: {code:?}: {error}");
}

/// Checks that the code or the documentation of settings names each variable.
#[track_caller]
fn assert_documented(source: &str, variables: &[(String, String)]) {
    let known = text("src/otlp/env.rs")
        + &text("crates/cli/src/cli/demo.rs")
        + &text("crates/cli/src/cli/outputs.rs")
        + &text("crates/cli/src/cli/web.rs")
        + &text("docs/settings.md")
        + &text("src/otlp/mod.rs");
    for (name, _) in variables {
        let mut words = known.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        assert!(words.any(|word| word == name), "{source}: unknown variable {name}");
    }
}

/// Checks that `serve` accepts these, with a test configuration in place of the installed one. It fails only because the
/// address is in use, or because systemd passed no socket.
#[track_caller]
fn assert_serve_accepts(source: &str, arguments: &[&str], variables: &[(String, String)]) {
    let scratch = tempfile::tempdir().unwrap();
    let config = scratch.path().join("poolscope.toml");
    std::fs::write(&config, format!("[databases.shop]\ndatabase_url = '{UNREACHABLE_URL}'\n")).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let localize_argument = |argument: &&str| match argument.strip_prefix("--config=") {
        Some(path) => {
            assert!(path.starts_with("/etc/poolscope/"), "{source}: {path}");
            format!("--config={}", config.display())
        }
        None => (*argument).to_owned(),
    };
    let arguments: Vec<_> = arguments.iter().map(localize_argument).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let localize = |(name, value): &(String, String)| match name.as_str() {
        "POOLSCOPE_WEB_LISTEN_ADDRESS" => (name.clone(), taken.local_addr().unwrap().to_string()),
        "POOLSCOPE_WEB_CONFIG_FILE" => {
            let file = scratch.path().join("web.yml");
            std::fs::write(&file, "").unwrap();
            (name.clone(), file.to_str().unwrap().to_owned())
        }
        _ => (name.clone(), value.clone()),
    };
    assert_documented(source, variables);
    let variables: Vec<_> = variables.iter().map(localize).collect();
    let (code, error) = poolscope(&arguments, &variables);
    let expected = if arguments.contains(&"--web.systemd-socket") { "error: --web.systemd-socket" } else { "in use" };
    assert!(code.is_some_and(|code| code > 0) && error.contains(expected), "{source}: {code:?}: {error}");
}

/// Returns the variables of a file, including those commented out.
fn read_variables(file: &str) -> Vec<(String, String)> {
    let lines = text(file);
    let pairs = lines.lines().filter_map(|line| line.trim_start_matches('#').split_once('='));
    let pairs = pairs.filter(|(name, _)| !name.contains(' '));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Returns the arguments in `ExecStart` of a unit.
fn exec_start(unit: &str) -> String {
    let unit = text(unit);
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/poolscope "));
    start.unwrap().to_owned()
}

/// Returns the arguments and variables of the only container of a Deployment.
fn container(file: &str) -> (Vec<String>, Vec<(String, String)>) {
    let files = yaml([at(file)]);
    let deployment = files.iter().find(|resource| resource["kind"] == "Deployment").unwrap();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let variable = |variable: &Value| {
        // The value may come from a Secret.
        let value = variable["value"].as_str().unwrap_or_default();
        (variable["name"].as_str().unwrap().to_owned(), value.to_owned())
    };
    let arguments = texts(&container["args"]).into_iter().map(str::to_owned).collect();
    (arguments, container["env"].as_array().unwrap().iter().map(variable).collect())
}

fn pairs(environment: &Value) -> Vec<(String, String)> {
    members(environment).map(|(name, value)| (name.to_owned(), value.as_str().unwrap().to_owned())).collect()
}

#[test]
fn compose_variables_are_accepted() {
    let shop = document("deploy/compose/compose.yaml")["services"]["shop"].clone();
    assert_demo_accepts("compose", &texts(&shop["command"]), &pairs(&shop["environment"]));
}

#[test]
fn kubernetes_arguments_are_accepted() {
    for (file, assert_accepts) in [
        ("deploy/kubernetes/demo/deployment.yaml", assert_demo_accepts as fn(&str, &[&str], &[(String, String)])),
        ("deploy/kubernetes/standalone/deployment.yaml", assert_serve_accepts),
    ] {
        let (arguments, variables) = container(file);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        assert_accepts(file, &arguments, &variables);
    }
}

#[test]
fn systemd_arguments_are_accepted() {
    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join("database_url"), format!("{UNREACHABLE_URL}\n")).unwrap();
    let start = exec_start("deploy/systemd/poolscope-demo.service").replace("%d", credentials.path().to_str().unwrap());
    let variables = read_variables("deploy/systemd/demo.env");
    assert!(variables.len() > 6);
    assert_demo_accepts("systemd demo", &start.split(' ').collect::<Vec<_>>(), &variables);

    let start = exec_start("deploy/systemd/poolscope.service");
    let variables = read_variables("deploy/systemd/poolscope.env");
    assert!(variables.len() > 4);
    assert_serve_accepts("systemd exporter", &start.split(' ').collect::<Vec<_>>(), &variables);
}

#[test]
fn example_configurations_need_only_their_secrets() {
    for (file, secret) in [
        ("deploy/systemd/poolscope.toml", "/run/credentials/poolscope.service/shop"),
        ("deploy/kubernetes/standalone/poolscope.toml", "/run/secrets/databases/shop"),
    ] {
        let (code, error) = poolscope(&["check", "--config", at(file).to_str().unwrap()], &[]);
        assert!(
            code == Some(2) && error.starts_with(&format!("error: cannot read database_url_file {secret}: ")),
            "{file}: {error}"
        );
        // With the secrets in place, the check succeeds.
        let scratch = tempfile::tempdir().unwrap();
        let url = scratch.path().join("url");
        std::fs::write(&url, format!("{UNREACHABLE_URL}\n")).unwrap();
        let config = scratch.path().join("poolscope.toml");
        std::fs::write(&config, text(file).replace(secret, url.to_str().unwrap())).unwrap();
        let (code, error) = poolscope(&["check", "--config", config.to_str().unwrap()], &[]);
        assert_eq!((code, &*error), (Some(0), ""), "{file}");
    }
}

#[test]
fn image_variables_and_health_check_are_accepted() {
    let dockerfile = text("deploy/docker/Dockerfile");
    let variable = dockerfile.lines().find_map(|line| line.strip_prefix("ENV ")).unwrap();
    let (name, value) = variable.split_once('=').unwrap();
    let variables = [(name.to_owned(), value.to_owned()), ("POOLSCOPE_DATABASE_URL".to_owned(), String::new())];
    assert_demo_accepts("image", &["demo"], &variables);
    let check = dockerfile.split("CMD [\"/usr/local/bin/poolscope\", ").nth(1).unwrap().split(']').next().unwrap();
    let arguments: Vec<_> = check.split(", ").map(|argument| argument.trim_matches('"')).collect();
    let (code, error) = poolscope(&arguments, &[(name.to_owned(), "127.0.0.1:1".to_owned())]);
    assert!(code == Some(1) && error.contains("no response from http://127.0.0.1:1/-/healthy"), "{error}");
}

#[test]
fn unknown_variable_or_flag_is_rejected() {
    let variables = [("POOLSCOPE_DATABASE_URL".to_owned(), UNREACHABLE_URL.to_owned())];
    let wrong = [variables[0].clone(), ("POOLSCOPE_POOL_SIZ".to_owned(), "5".to_owned())];
    assert_eq!(poolscope(&["demo"], &wrong).0, Some(2));
    assert_eq!(poolscope(&["demo", "--database-uri=x"], &variables).0, Some(2));
}

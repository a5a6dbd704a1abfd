//! Whatever deploy/ gives the binary, flag or variable, it takes: it comes as far as to find that there is no database.

use std::process::Command;

use serde_json::Value;

use crate::tools::{at, document, members, text, texts, yaml};

/// Nobody listens there.
const NOBODY: &str = "postgres://shop:hunter2@127.0.0.1:1/shop?connect_timeout=1s";

/// The binary in an environment that has nothing but this.
fn poolscope(arguments: &[&str], variables: &[(String, String)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_poolscope"));
    command.args(arguments).env_clear().envs(variables.iter().cloned());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Holds that it takes these, with addresses of this machine in the places of those that are elsewhere.
#[track_caller]
fn takes(who: &str, arguments: &[&str], variables: &[(String, String)]) {
    let here = |(name, value): &(String, String)| {
        let value = match name.as_str() {
            "POOLSCOPE_DATABASE_URL" => NOBODY.to_owned(),
            name if name.ends_with("_LISTEN_ADDRESS") => {
                assert!(value.rsplit_once(':').unwrap().1.parse::<u16>().is_ok(), "{who}: {name}={value}");
                "127.0.0.1:0".to_owned()
            }
            _ => value.clone(),
        };
        (name.clone(), value)
    };
    known(who, variables);
    let variables: Vec<_> = variables.iter().map(here).collect();
    let (code, said) = poolscope(arguments, &variables);
    assert!(code == Some(1) && said.contains("error: cannot connect to postgres://"), "{who}: {code:?}: {said}");
}

/// Holds that somebody reads each of these.
#[track_caller]
fn known(who: &str, variables: &[(String, String)]) {
    let known = text("src/otlp/env.rs")
        + &text("crates/cli/src/cli.rs")
        + &text("crates/cli/src/cli/outputs.rs")
        + &text("crates/cli/src/cli/web.rs")
        + &text("docs/settings.md")
        + &text("src/otlp/mod.rs");
    for (name, _) in variables {
        let mut words = known.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        assert!(words.any(|word| word == name), "{who}: who reads {name}?");
    }
}

/// Holds that `serve` takes these, with a configuration of ours in the place of theirs: it comes as far as to listen where somebody
/// else does, or to look for a socket that nobody hands it.
#[track_caller]
fn serves(who: &str, arguments: &[&str], variables: &[(String, String)]) {
    let scratch = tempfile::tempdir().unwrap();
    let config = scratch.path().join("poolscope.toml");
    std::fs::write(&config, format!("[databases.shop]\ndatabase_url = '{NOBODY}'\n")).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = |argument: &&str| match argument.strip_prefix("--config=") {
        Some(theirs) => {
            assert!(theirs.starts_with("/etc/poolscope/"), "{who}: {theirs}");
            format!("--config={}", config.display())
        }
        None => (*argument).to_owned(),
    };
    let arguments: Vec<_> = arguments.iter().map(ours).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let here = |(name, value): &(String, String)| match name.as_str() {
        "POOLSCOPE_WEB_LISTEN_ADDRESS" => (name.clone(), taken.local_addr().unwrap().to_string()),
        "POOLSCOPE_WEB_CONFIG_FILE" => {
            let file = scratch.path().join("web.yml");
            std::fs::write(&file, "").unwrap();
            (name.clone(), file.to_str().unwrap().to_owned())
        }
        _ => (name.clone(), value.clone()),
    };
    known(who, variables);
    let variables: Vec<_> = variables.iter().map(here).collect();
    let (code, said) = poolscope(&arguments, &variables);
    let reached = if arguments.contains(&"--web.systemd-socket") { "error: --web.systemd-socket" } else { "in use" };
    assert!(code.is_some_and(|code| code > 0) && said.contains(reached), "{who}: {code:?}: {said}");
}

/// What a file of variables says, with the lines that are commented out: they are to work, too.
fn variables(file: &str) -> Vec<(String, String)> {
    let lines = text(file);
    let pairs = lines.lines().filter_map(|line| line.trim_start_matches('#').split_once('='));
    let pairs = pairs.filter(|(name, _)| !name.contains(' '));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What a unit starts.
fn started(unit: &str) -> String {
    let unit = text(unit);
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/poolscope "));
    start.unwrap().to_owned()
}

/// The arguments and variables of the one container of a Deployment.
fn container(file: &str) -> (Vec<String>, Vec<(String, String)>) {
    let files = yaml([at(file)]);
    let deployment = files.iter().find(|resource| resource["kind"] == "Deployment").unwrap();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let variable = |variable: &Value| {
        // What comes out of a Secret is not here.
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
fn composes_flags_and_variables_are_taken() {
    let shop = document("deploy/compose/compose.yaml")["services"]["shop"].clone();
    takes("compose", &texts(&shop["command"]), &pairs(&shop["environment"]));
}

#[test]
fn kubernetes_flags_and_variables_are_taken() {
    for (file, take) in [
        ("deploy/kubernetes/demo/deployment.yaml", takes as fn(&str, &[&str], &[(String, String)])),
        ("deploy/kubernetes/standalone/deployment.yaml", serves),
    ] {
        let (arguments, variables) = container(file);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        take(file, &arguments, &variables);
    }
}

#[test]
fn systemds_flags_and_variables_are_taken() {
    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join("database_url"), format!("{NOBODY}\n")).unwrap();
    let start = started("deploy/systemd/poolscope-demo.service").replace("%d", credentials.path().to_str().unwrap());
    let given = variables("deploy/systemd/demo.env");
    assert!(given.len() > 6);
    takes("systemd's demo", &start.split(' ').collect::<Vec<_>>(), &given);

    let start = started("deploy/systemd/poolscope.service");
    let given = variables("deploy/systemd/poolscope.env");
    assert!(given.len() > 4);
    serves("systemd's exporter", &start.split(' ').collect::<Vec<_>>(), &given);
}

#[test]
fn the_examples_of_configurations_are_taken_as_far_as_their_secrets_are_there() {
    for (file, secret) in [
        ("deploy/systemd/poolscope.toml", "/run/credentials/poolscope.service/shop"),
        ("deploy/kubernetes/standalone/poolscope.toml", "/run/secrets/databases/shop"),
    ] {
        let (code, said) = poolscope(&["check", "--config", at(file).to_str().unwrap()], &[]);
        assert!(code == Some(2) && said.starts_with(&format!("error: {secret} cannot be read: ")), "{file}: {said}");
        // With the secrets in place all of it is.
        let scratch = tempfile::tempdir().unwrap();
        let url = scratch.path().join("url");
        std::fs::write(&url, format!("{NOBODY}\n")).unwrap();
        let config = scratch.path().join("poolscope.toml");
        std::fs::write(&config, text(file).replace(secret, url.to_str().unwrap())).unwrap();
        let (code, said) = poolscope(&["check", "--config", config.to_str().unwrap()], &[]);
        assert_eq!((code, &*said), (Some(0), ""), "{file}");
    }
}

#[test]
fn the_images_variables_and_its_health_check_are_taken() {
    let dockerfile = text("deploy/docker/Dockerfile");
    let variable = dockerfile.lines().find_map(|line| line.strip_prefix("ENV ")).unwrap();
    let (name, value) = variable.split_once('=').unwrap();
    let variables = [(name.to_owned(), value.to_owned()), ("POOLSCOPE_DATABASE_URL".to_owned(), String::new())];
    takes("image", &["demo"], &variables);
    let check = dockerfile.split("CMD [\"/usr/local/bin/poolscope\", ").nth(1).unwrap().split(']').next().unwrap();
    let arguments: Vec<_> = check.split(", ").map(|argument| argument.trim_matches('"')).collect();
    let (code, said) = poolscope(&arguments, &[(name.to_owned(), "127.0.0.1:1".to_owned())]);
    assert!(code == Some(1) && said.contains("http://127.0.0.1:1/-/healthy does not answer"), "{said}");
}

#[test]
fn a_variable_or_a_flag_that_nobody_reads_is_found() {
    let variables = [("POOLSCOPE_DATABASE_URL".to_owned(), NOBODY.to_owned())];
    let wrong = [variables[0].clone(), ("POOLSCOPE_POOL_SIZ".to_owned(), "5".to_owned())];
    assert_eq!(poolscope(&["demo"], &wrong).0, Some(2));
    assert_eq!(poolscope(&["demo", "--database-uri=x"], &variables).0, Some(2));
}

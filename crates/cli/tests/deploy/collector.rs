//! The OpenTelemetry Collector's configuration. The collector is in no registry, so these tests check consistency: between
//! its parts, with docs/traces.md, and of the scrape configuration with promtool.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::tools::{document, members, run_successfully, text, texts};

const FILE: &str = "deploy/otel/collector.yaml";

#[test]
fn components_are_defined_and_used() {
    let config = document(FILE);
    for (kind, key) in [("receivers", "receivers"), ("processors", "processors"), ("exporters", "exporters")] {
        let mut defined: Vec<_> = members(&config[kind]).map(|(name, _)| name).collect();
        let pipelines = members(&config["service"]["pipelines"]);
        let mut used: Vec<_> = pipelines.flat_map(|(_, pipeline)| texts(&pipeline[key])).collect();
        used.sort_unstable();
        used.dedup();
        defined.sort_unstable();
        assert_eq!(defined, used, "{kind}");
    }
    let extensions: Vec<_> = members(&config["extensions"]).map(|(name, _)| name).collect();
    assert_eq!(extensions, texts(&config["service"]["extensions"]));
}

#[test]
fn memory_limiter_is_first_and_batch_last() {
    let config = document(FILE);
    for (name, pipeline) in members(&config["service"]["pipelines"]) {
        let processors = texts(&pipeline["processors"]);
        assert_eq!((processors.first(), processors.last()), (Some(&"memory_limiter"), Some(&"batch")), "{name}");
    }
}

#[test]
fn sampling_policies_name_documented_attributes() {
    let page = text("docs/traces.md");
    let config = document(FILE);
    let policies = config["processors"]["tail_sampling"]["policies"].as_array().unwrap();
    let mut names: Vec<_> = policies.iter().map(|policy| policy["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["errors", "waits", "outcomes", "culprits", "slow", "rest"]);
    names.dedup();
    assert_eq!(names.len(), policies.len());
    let mut named = 0;
    for policy in policies {
        // Each policy has its settings under the name of its type.
        let kind = policy["type"].as_str().unwrap();
        let settings = members(policy).filter(|(name, _)| !["name", "type"].contains(name)).map(|(name, _)| name);
        assert_eq!(settings.collect::<Vec<_>>(), [kind]);
        let quoted = policy.to_string().replace("\\\"", "\"");
        for word in quoted.split('"').filter(|word| word.starts_with("poolscope.")) {
            assert!(page.contains(&format!("`{word}`")), "{word} is not in docs/traces.md");
            named += 1;
        }
    }
    assert!(named > 10);
    // A policy covers the duration of every step of a checkout.
    for step in page.split('`').filter(|word| word.starts_with("poolscope.") && word.ends_with("_seconds")) {
        let is_checkout_step = !["request", "held", "pause"].iter().any(|other| step.contains(other));
        assert!(!is_checkout_step || text(FILE).contains(&format!("attributes[\"{step}\"] > ")), "{step}");
    }
}

#[test]
fn variables_are_documented_with_local_defaults() {
    let file = text(FILE);
    let (comment, _) = file.split_once("\n\n").unwrap();
    let mut variables: Vec<(&str, &str)> = Vec::new();
    for part in file.split("${env:").skip(1) {
        let (variable, default) = part.split('}').next().unwrap().split_once(":-").expect(part);
        variables.push((variable, default));
    }
    variables.sort_unstable();
    variables.dedup();
    let words = |line: &str| line.trim_start_matches('#').split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let documented: Vec<_> = comment.lines().map(words).filter(|words| words.len() > 2).collect();
    for (variable, default) in &variables {
        assert!(documented.iter().any(|words| words[0] == *variable && words[1] == *default), "{variable}: {default}");
        if variable.ends_with("_HOST") || variable.ends_with("_ENDPOINT") {
            assert!(default.contains("127.0.0.1"), "{variable}: {default}");
        }
    }
    let compose = document("deploy/compose/compose.yaml");
    for (variable, _) in members(&compose["services"]["collector"]["environment"]) {
        assert!(variables.iter().any(|(known, _)| *known == variable), "{variable}");
    }
}

#[test]
fn promtool_accepts_scrape_configuration() {
    let config = document(FILE);
    let mut prometheus = config["receivers"]["prometheus"]["config"].clone();
    let files = &mut prometheus["scrape_configs"][0]["file_sd_configs"][0]["files"];
    let file = texts(files)[0].rsplit(":-").next().unwrap().trim_end_matches('}').to_owned();
    *files = Value::from(vec![file]);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("prometheus.yml");
    fs::write(&path, prometheus.to_string()).unwrap();
    let output = run_successfully(Command::new("promtool").args(["check", "config"]).arg(&path));
    assert!(output.contains("SUCCESS"), "{output}");
}

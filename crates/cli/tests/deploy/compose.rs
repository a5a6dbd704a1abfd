//! The Compose file, and the configurations of Prometheus, Alertmanager and Grafana that it mounts.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::tools::{at, check_schema, collect_values, document, members, run_successfully, texts};

const COMPOSE: &str = "deploy/compose/compose.yaml";
const SOURCES: &str = "deploy/compose/grafana/datasources/poolscope.yaml";
const PROMETHEUS: &str = "deploy/compose/prometheus/prometheus.yml";

fn services() -> Value {
    document(COMPOSE)["services"].clone()
}

#[test]
fn compose_file_matches_specification() {
    check_schema("vendor.compose-spec", COMPOSE);
}

#[test]
fn proxy_is_confined_and_listens_on_loopback_only() {
    const PROXY: &str = "deploy/compose/compose.proxy.yaml";
    check_schema("vendor.compose-spec", PROXY);
    for (name, service) in members(&document(PROXY)["services"]) {
        assert!(texts(&service["ports"]).iter().all(|port| port.starts_with("127.0.0.1:")), "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
    }
}

#[test]
fn ports_listen_on_loopback_only() {
    let services = services();
    let mut ports = 0;
    for (name, service) in members(&services) {
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
            ports += 1;
        }
        assert!(service["ports"].as_array().is_none_or(|ports| ports.iter().all(Value::is_string)), "{name}");
        assert!(service["network_mode"].is_null() && service["privileged"].is_null(), "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
    }
    assert!(ports > 6);
}

#[test]
fn services_have_health_checks_except_collector() {
    let services = services();
    let dockerfile = fs::read_to_string(at("deploy/docker/Dockerfile")).unwrap();
    let without: Vec<_> = members(&services)
        .filter(|(_, service)| service["healthcheck"]["test"].is_null())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(without, ["collector", "shop"]);
    assert!(
        services["shop"]["build"]["dockerfile"] == "deploy/docker/Dockerfile" && dockerfile.contains("HEALTHCHECK")
    );
    for (name, service) in members(&services) {
        for (dependency, options) in service["depends_on"].as_object().into_iter().flatten() {
            assert!(
                options["condition"] == "service_healthy" && !without.contains(&&**dependency),
                "{name}: {dependency}"
            );
        }
    }
}

#[test]
fn mounts_exist_and_are_read_only() {
    let services = services();
    let mut mounts = 0;
    for (name, service) in members(&services) {
        for mount in texts(&service["volumes"]) {
            let [from, to, "ro"] = mount.split(':').collect::<Vec<_>>()[..] else { panic!("{name}: {mount}") };
            assert!(at("deploy/compose").join(from).exists() && to.starts_with('/'), "{name}: {mount}");
            mounts += 1;
        }
    }
    assert!(mounts > 5);
}

#[test]
fn promtool_accepts_prometheus_configuration() {
    let directory = tempfile::tempdir().unwrap();
    fs::copy(at(PROMETHEUS), directory.path().join("prometheus.yml")).unwrap();
    std::os::unix::fs::symlink(at("alerts"), directory.path().join("rules")).unwrap();
    let output = run_successfully(
        Command::new("promtool").args(["check", "config"]).arg(directory.path().join("prometheus.yml")),
    );
    assert_eq!(output.matches("rules found").count(), 2, "{output}");
    let services = services();
    let mounted = texts(&services["prometheus"]["volumes"]);
    assert!(mounted.contains(&"../../alerts:/etc/prometheus/rules:ro"));
    assert!(texts(&services["prometheus"]["command"]).contains(&"--enable-feature=exemplar-storage"));
}

#[test]
fn amtool_accepts_alertmanager_configuration() {
    let services = services();
    let mounted = texts(&services["alertmanager"]["volumes"]);
    let file = mounted[0].split(':').next().unwrap();
    run_successfully(Command::new("amtool").arg("check-config").arg(at("deploy/compose").join(file)));
}

#[test]
fn configured_addresses_are_services_that_listen() {
    let services = services();
    // The ports on which the images listen, by default or by configuration.
    let listens = [
        ("alertmanager", "9093"),
        ("collector", "4317"),
        ("collector", "8888"),
        ("jaeger", "16686"),
        ("jaeger", "4317"),
        ("postgres", "5432"),
        ("prometheus", "9090"),
        ("shop", "9719"),
    ];
    let mut addresses = Vec::new();
    let mut found = Vec::new();
    let prometheus = document(PROMETHEUS);
    collect_values("targets", &prometheus, &mut found);
    addresses.extend(found.iter().flat_map(|targets| texts(targets)).map(str::to_owned));
    let mut found = Vec::new();
    let sources = document(SOURCES);
    collect_values("url", &sources, &mut found);
    addresses.extend(found.iter().filter_map(|url| url.as_str()).map(str::to_owned));
    let environment = |service: &str, name: &str| services[service]["environment"][name].as_str().unwrap().to_owned();
    addresses.push(environment("shop", "OTEL_EXPORTER_OTLP_ENDPOINT"));
    addresses.push(environment("collector", "TRACES_ENDPOINT"));
    addresses.push(environment("collector", "METRICS_ENDPOINT"));
    assert_eq!(addresses.len(), 5 + 3 + 3);
    for address in addresses {
        let (host, port) = address.trim_start_matches("http://").split('/').next().unwrap().split_once(':').unwrap();
        let own = host == "127.0.0.1" && port == "9090";
        assert!(own || services[host].is_object() && listens.contains(&(host, port)), "{address}");
    }
    assert!(environment("shop", "POOLSCOPE_DATABASE_URL").contains("@postgres/"));
}

#[test]
fn grafana_has_data_sources_dashboards_and_links() {
    let sources = document(SOURCES);
    let sources = sources["datasources"].as_array().unwrap();
    let source = |kind: &str| sources.iter().find(|source| source["type"] == kind).unwrap();
    let (prometheus, jaeger) = (source("prometheus"), source("jaeger"));
    let uids: Vec<_> = sources.iter().map(|source| source["uid"].as_str().unwrap()).collect();
    assert_eq!(uids, ["prometheus", "jaeger", "alertmanager"]);
    let exemplar = &prometheus["jsonData"]["exemplarTraceIdDestinations"][0];
    // The label of exemplars: see docs/metrics.md.
    assert_eq!((exemplar["name"].as_str(), &exemplar["datasourceUid"]), (Some("trace_id"), &jaeger["uid"]));
    assert_eq!(jaeger["jsonData"]["tracesToMetrics"]["datasourceUid"], prometheus["uid"]);
    assert_eq!(prometheus["jsonData"]["alertmanagerUid"], "alertmanager");
    assert_eq!(prometheus["jsonData"]["timeInterval"], document(PROMETHEUS)["global"]["scrape_interval"]);
    let services = services();
    let image = services["prometheus"]["image"].as_str().unwrap();
    assert!(image.ends_with(&format!(":v{}", prometheus["jsonData"]["prometheusVersion"].as_str().unwrap())));

    let provider = document("deploy/compose/grafana/dashboards/poolscope.yaml");
    let path = provider["providers"][0]["options"]["path"].as_str().unwrap();
    assert!(texts(&services["grafana"]["volumes"]).contains(&&*format!("../../dashboards:{path}:ro")));
    let home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().unwrap();
    assert!(at("dashboards").join(home.strip_prefix(&format!("{path}/")).unwrap()).exists());
}

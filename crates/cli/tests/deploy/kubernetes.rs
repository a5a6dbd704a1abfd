//! Kubernetes: what kustomize makes of deploy/kubernetes, held to the published schemas; and what is generated, to its source.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::tools::{at, checker, content, document, everywhere, run, text, texts, yaml};

const ROOTS: [&str; 4] =
    ["deploy/kubernetes/base", "deploy/kubernetes/demo", "deploy/kubernetes/embedded", "deploy/kubernetes/standalone"];

/// The oldest and the newest version of Kubernetes that it is held to.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// What kustomize makes of a directory.
#[track_caller]
fn built(directory: &Path) -> Vec<Value> {
    let made = content(checker("kubectl").arg("kustomize").arg(directory));
    let scratch = TempDir::new().unwrap();
    let file = scratch.path().join("made.yaml");
    fs::write(&file, made).unwrap();
    yaml([file])
}

/// Those of a kind.
fn of<'a>(kind: &str, resources: &'a [Value]) -> Vec<&'a Value> {
    resources.iter().filter(|resource| resource["kind"] == kind).collect()
}

/// Holds resources to the schemas of Kubernetes and of the Prometheus operator.
#[track_caller]
fn valid(resources: &[Value]) {
    let scratch = TempDir::new().unwrap();
    let (mut core, mut operators) = (Vec::new(), Vec::new());
    for (number, resource) in resources.iter().enumerate() {
        let file = scratch.path().join(format!("{number}.json"));
        fs::write(&file, resource.to_string()).unwrap();
        let operator = resource["apiVersion"].as_str().unwrap().starts_with("monitoring.coreos.com/");
        if operator { operators.push(file) } else { core.push(file) }
    }
    for version in VERSIONS {
        content(checker("kubernetes-validate").args(["--strict", "--kubernetes-version", version]).args(&core));
    }
    if !operators.is_empty() {
        content(checker("python").arg(at("crates/cli/tests/deploy/operator_resources.py")).args(&operators));
    }
}

#[test]
fn what_is_made_is_what_the_schemas_say() {
    for root in ROOTS {
        let resources = built(&at(root));
        assert!(resources.len() > 3, "{root}");
        valid(&resources);
    }
}

#[test]
fn what_the_schemas_do_not_know_is_found() {
    let mut resources = built(&at("deploy/kubernetes/embedded"));
    let monitor = resources.iter_mut().find(|resource| resource["kind"] == "PodMonitor").unwrap();
    monitor["spec"]["podMetricsEndpoints"][0]["intervall"] = "15s".into();
    let scratch = TempDir::new().unwrap();
    let file = scratch.path().join("monitor.json");
    fs::write(&file, monitor.to_string()).unwrap();
    let (good, said) = run(checker("python").arg(at("crates/cli/tests/deploy/operator_resources.py")).arg(&file));
    assert!(!good && said.contains("PodMonitor.spec.podMetricsEndpoints[0].intervall"), "{said}");
}

/// Holds a committed file to what is generated, or writes it.
#[track_caller]
fn current(path: &str, generated: &str) {
    if std::env::var_os("POOLSCOPE_BLESS").is_some() {
        fs::write(at(path), generated).unwrap();
    }
    let written = fs::read_to_string(at(path)).unwrap_or_default();
    assert!(
        written == generated,
        "{path} is not what is generated: POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --test deploy kubernetes writes it anew"
    );
}

/// The lines of a text, each that is not empty set in by so many spaces.
fn set_in(text: &str, by: usize) -> String {
    let line = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("{:by$}{line}\n", "") };
    text.lines().map(line).collect()
}

fn generated(from: &str) -> String {
    format!(
        "# Generated from {from}.\n\
         # `POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --test deploy kubernetes` writes it anew.\n"
    )
}

#[test]
fn the_rules_are_those_of_alerts() {
    let mut rules = generated("alerts/");
    rules +=
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: poolscope\nspec:\n  groups:\n";
    for file in ["alerts/recording.rules.yml", "alerts/alerts.rules.yml"] {
        let text = text(file);
        let (_, groups) = text.split_once("\ngroups:\n").unwrap();
        rules += &set_in(groups, 2);
    }
    current("deploy/kubernetes/base/rules.yaml", &rules);

    // And as whoever reads it sees them.
    let made = document("deploy/kubernetes/base/rules.yaml");
    let [recording, alerts] = ["alerts/recording.rules.yml", "alerts/alerts.rules.yml"].map(document);
    let groups = [&recording, &alerts].map(|file| file["groups"].as_array().unwrap().clone()).concat();
    assert_eq!(made["spec"]["groups"], Value::Array(groups));
}

#[test]
fn the_dashboards_are_those_of_dashboards() {
    for name in ["fleet", "pool", "exporter"] {
        let source = format!("dashboards/{name}.json");
        let dashboard = text(&source);
        let mut map = generated(&source);
        map += &format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: poolscope-dashboard-{name}\n  labels:\n    \
             grafana_dashboard: \"1\"\n  annotations:\n    grafana_folder: poolscope\ndata:\n  poolscope-{name}.json: |\n"
        );
        map += &set_in(&dashboard, 4);
        let path = format!("deploy/kubernetes/base/dashboard-{name}.yaml");
        current(&path, &map);
        let made = document(&path);
        assert_eq!(made["data"][format!("poolscope-{name}.json")], dashboard);
        // What `kubectl apply` writes down of a resource, unless it is told to leave that to the server, is an annotation.
        assert!(map.len() < 256 * 1024, "{path}: {}", map.len());
    }
}

/// What a pod has to be like, whoever made its template.
#[track_caller]
fn is_confined(template: &Value) {
    let pod = &template["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert!(pod["hostNetwork"].is_null() && pod["hostPID"].is_null());
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(texts(&context["capabilities"]["drop"]), ["ALL"]);
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "metrics", "{probe}");
        }
        assert!(
            container["resources"]["requests"]["memory"].is_string()
                && container["resources"]["limits"]["memory"].is_string()
        );
    }
}

/// Holds that the one Deployment of a directory is confined, that these of its ports are open to some, by its policy, and that it is
/// scraped; and answers with all resources.
#[track_caller]
fn stands_alone(directory: &str, ports: &[&str]) -> Vec<Value> {
    let resources = built(&at(directory));
    let [deployment] = of("Deployment", &resources)[..] else { panic!("one Deployment") };
    let template = &deployment["spec"]["template"];
    is_confined(template);
    let labels = &template["metadata"]["labels"];
    let selects = |selector: &Value| selector.as_object().unwrap().iter().all(|(name, value)| labels[name] == *value);

    let [policy] = of("NetworkPolicy", &resources)[..] else { panic!("one policy") };
    assert!(selects(&policy["spec"]["podSelector"]["matchLabels"]));
    assert_eq!(texts(&policy["spec"]["policyTypes"]), ["Ingress", "Egress"]);
    let mut container_ports = Vec::new();
    everywhere("containerPort", template, &mut container_ports);
    assert_eq!(container_ports.len(), ports.len());
    let mut open = Vec::new();
    for rule in policy["spec"]["ingress"].as_array().unwrap() {
        assert!(rule["from"].is_array(), "from whom: {rule}");
        open.extend(rule["ports"].as_array().unwrap().iter().map(|port| port["port"].as_str().unwrap()));
    }
    let named: Vec<_> = template["spec"]["containers"][0]["ports"].as_array().unwrap().iter().collect();
    assert!(open.iter().all(|open| named.iter().any(|port| port["name"] == *open)), "{open:?}");
    assert_eq!(open, ports);

    let [service] = of("Service", &resources)[..] else { panic!("one Service") };
    assert!(selects(&service["spec"]["selector"]) && service["spec"]["type"].is_null());
    let [monitor] = of("ServiceMonitor", &resources)[..] else { panic!("one ServiceMonitor") };
    let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    assert!(wanted.iter().all(|(name, value)| service["metadata"]["labels"][name] == *value));
    let port = &monitor["spec"]["endpoints"][0]["port"];
    assert!(service["spec"]["ports"].as_array().unwrap().iter().any(|it| it["name"] == *port));
    for resource in &resources {
        let mut host_ports = Vec::new();
        everywhere("hostPort", resource, &mut host_ports);
        assert!(host_ports.is_empty());
    }
    resources
}

#[test]
fn the_demo_is_confined_and_every_port_is_behind_a_policy() {
    stands_alone("deploy/kubernetes/demo", &["metrics", "http"]);
}

#[test]
fn the_standalone_exporter_is_confined_and_reads_its_databases_from_a_secret() {
    let resources = stands_alone("deploy/kubernetes/standalone", &["metrics"]);
    let [deployment] = of("Deployment", &resources)[..] else { panic!("one Deployment") };
    let pod = &deployment["spec"]["template"]["spec"];
    let volume = |name: &str| pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == name).unwrap();
    let mounted = |name: &str| {
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["name"] == name).unwrap();
        assert_eq!(mount["readOnly"], true);
        mount["mountPath"].as_str().unwrap().to_owned()
    };
    // The configuration's name goes with what it holds, so that a change of it is a change of the pods.
    let maps = of("ConfigMap", &resources);
    let name = &volume("configuration")["configMap"]["name"];
    let map = maps.iter().find(|map| map["metadata"]["name"] == *name).unwrap();
    assert!(name.as_str().unwrap().starts_with("poolscope-"), "{name}");
    let argument = format!("--config={}/poolscope.toml", mounted("configuration"));
    assert_eq!(texts(&pod["containers"][0]["args"]), ["serve", &argument]);

    let config = map["data"]["poolscope.toml"].as_str().unwrap();
    let files: Vec<_> = config.lines().filter(|line| line.starts_with("database_url_file = ")).collect();
    assert!(!files.is_empty() && !config.contains("database_url ="), "{config}");
    let secrets = format!("\"{}/", mounted("databases"));
    assert!(files.iter().all(|file| file.contains(&secrets)), "{files:?}");
    assert_eq!(volume("databases")["secret"]["secretName"], "databases");
}

#[test]
fn a_service_with_the_library_in_it_gets_all_that_it_needs_from_the_component() {
    // Kustomize takes directories from elsewhere by relative paths only.
    let scratch = TempDir::with_prefix_in("embedded-", at("target")).unwrap();
    let write = |name: &str, text: &str| fs::write(scratch.path().join(name), text).unwrap();
    write(
        "kustomization.yaml",
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [orders.yaml]\n\
         components: [../../deploy/kubernetes/embedded/component]\n",
    );
    write(
        "orders.yaml",
        "apiVersion: apps/v1\nkind: Deployment\n\
         metadata: {name: orders, labels: {poolscope: embedded, app.kubernetes.io/name: orders}}\n\
         spec:\n  selector: {matchLabels: {app.kubernetes.io/name: orders}}\n  template:\n\
        \x20   metadata: {labels: {app.kubernetes.io/name: orders}}\n\
        \x20   spec: {containers: [{name: orders, image: 'orders:1.0.0', ports: [{name: http, containerPort: 80}]}]}\n\
         ---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: other}\n\
         spec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n\
        \x20   spec: {containers: [{name: other, image: 'other:1.0.0', ports: []}]}\n",
    );
    let resources = built(scratch.path());
    valid(&resources);
    let [one, other] = of("Deployment", &resources)[..] else { panic!("two Deployments") };
    let (orders, other) = if one["metadata"]["name"] == "orders" { (one, other) } else { (other, one) };
    assert!(!other.to_string().contains("metrics"), "{other}");

    let template = &orders["spec"]["template"];
    let container = &template["spec"]["containers"][0];
    let metrics = container["ports"].as_array().unwrap().iter().find(|port| port["name"] == "metrics").unwrap();
    let annotations = &template["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/scrape"], "true");
    assert_eq!(annotations["prometheus.io/port"], metrics["containerPort"].to_string());
    assert_eq!(container["livenessProbe"]["httpGet"]["port"], "metrics");
    assert_eq!(container["ports"].as_array().unwrap().len(), 2);

    // And the PodMonitor and the policy find it by that.
    let monitor = document("deploy/kubernetes/embedded/podmonitor.yaml");
    let [policy] = of("NetworkPolicy", &resources)[..] else { panic!("one policy") };
    for selector in [&monitor["spec"]["selector"]["matchLabels"], &policy["spec"]["podSelector"]["matchLabels"]] {
        assert_eq!(selector["poolscope"], template["metadata"]["labels"]["poolscope"]);
    }
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], "metrics");
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["path"], annotations["prometheus.io/path"]);
}

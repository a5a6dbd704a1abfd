//! deploy/kubernetes: the output of kustomize against published schemas, and generated files against their sources.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::tools::{at, checker, collect_values, document, run, run_successfully, text, texts, yaml};

const ROOTS: [&str; 4] =
    ["deploy/kubernetes/base", "deploy/kubernetes/demo", "deploy/kubernetes/embedded", "deploy/kubernetes/standalone"];

/// The oldest and the newest version of Kubernetes to check against.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// Returns the resources that kustomize builds from a directory.
#[track_caller]
fn build(directory: &Path) -> Vec<Value> {
    let output = run_successfully(checker("kubectl").arg("kustomize").arg(directory));
    let scratch = TempDir::new().unwrap();
    let file = scratch.path().join("resources.yaml");
    fs::write(&file, output).unwrap();
    yaml([file])
}

/// Returns the resources of a kind.
fn of_kind<'a>(kind: &str, resources: &'a [Value]) -> Vec<&'a Value> {
    resources.iter().filter(|resource| resource["kind"] == kind).collect()
}

/// Checks resources against the schemas of Kubernetes and of the Prometheus operator.
#[track_caller]
fn assert_valid(resources: &[Value]) {
    let scratch = TempDir::new().unwrap();
    let (mut core, mut operator) = (Vec::new(), Vec::new());
    for (number, resource) in resources.iter().enumerate() {
        let file = scratch.path().join(format!("{number}.json"));
        fs::write(&file, resource.to_string()).unwrap();
        let is_operator = resource["apiVersion"].as_str().unwrap().starts_with("monitoring.coreos.com/");
        if is_operator { operator.push(file) } else { core.push(file) }
    }
    for version in VERSIONS {
        run_successfully(
            checker("kubernetes-validate").args(["--strict", "--kubernetes-version", version]).args(&core),
        );
    }
    if !operator.is_empty() {
        run_successfully(checker("python").arg(at("crates/cli/tests/deploy/operator_resources.py")).args(&operator));
    }
}

#[test]
fn resources_match_schemas() {
    for root in ROOTS {
        let resources = build(&at(root));
        assert!(resources.len() > 3, "{root}");
        assert_valid(&resources);
    }
}

#[test]
fn sidecar_matches_schemas_and_is_confined() {
    let resources = yaml([at("deploy/kubernetes/proxy/sidecar.yaml")]);
    assert_valid(&resources);
    let mut template = resources[0]["spec"]["template"].clone();
    let sidecar = template["spec"]["initContainers"][0].clone();
    assert_eq!(sidecar["restartPolicy"], "Always");
    template["spec"]["containers"] = Value::Array(vec![sidecar]);
    assert_confined(&template);
}

#[test]
fn unknown_field_is_rejected() {
    let mut resources = build(&at("deploy/kubernetes/embedded"));
    let monitor = resources.iter_mut().find(|resource| resource["kind"] == "PodMonitor").unwrap();
    monitor["spec"]["podMetricsEndpoints"][0]["scrapeEvery"] = "15s".into();
    let scratch = TempDir::new().unwrap();
    let file = scratch.path().join("monitor.json");
    fs::write(&file, monitor.to_string()).unwrap();
    let (success, output) = run(checker("python").arg(at("crates/cli/tests/deploy/operator_resources.py")).arg(&file));
    assert!(!success && output.contains("PodMonitor.spec.podMetricsEndpoints[0].scrapeEvery"), "{output}");
}

/// Checks that a committed file equals the generated text, or writes it.
#[track_caller]
fn assert_current(path: &str, generated: &str) {
    if std::env::var_os("POOLSCOPE_BLESS").is_some() {
        fs::write(at(path), generated).unwrap();
    }
    let committed = fs::read_to_string(at(path)).unwrap_or_default();
    assert!(
        committed == generated,
        "{path} is outdated: regenerate it with POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --test deploy kubernetes"
    );
}

/// Indents the lines that are not empty by `by` spaces.
fn indent(text: &str, by: usize) -> String {
    let line = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("{:by$}{line}\n", "") };
    text.lines().map(line).collect()
}

fn header(source: &str) -> String {
    format!(
        "# Generated from {source}.\n\
         # Regenerate with `POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --test deploy kubernetes`.\n"
    )
}

#[test]
fn rules_equal_alerts_directory() {
    let mut rules = header("alerts/, without links to dashboards: `poolscope rules --grafana-url` prints them");
    rules +=
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: poolscope\nspec:\n  groups:\n";
    for file in ["alerts/recording.rules.yml", "alerts/alerts.rules.yml"] {
        let text = text(file);
        let (_, groups) = text.split_once("\ngroups:\n").unwrap();
        // The address of Grafana is not known.
        let groups: Vec<_> = groups.lines().filter(|line| !line.trim().starts_with("dashboard_url: ")).collect();
        rules += &indent(&groups.join("\n"), 2);
    }
    assert_current("deploy/kubernetes/base/rules.yaml", &rules);

    // The parsed YAML is equal, too.
    let resource = document("deploy/kubernetes/base/rules.yaml");
    let [recording, alerts] = ["alerts/recording.rules.yml", "alerts/alerts.rules.yml"].map(document);
    let mut groups = [&recording, &alerts].map(|file| file["groups"].as_array().unwrap().clone()).concat();
    for rule in groups.iter_mut().flat_map(|group| group["rules"].as_array_mut().unwrap()) {
        if let Some(annotations) = rule.get_mut("annotations") {
            annotations.as_object_mut().unwrap().remove("dashboard_url").unwrap();
        }
    }
    assert_eq!(resource["spec"]["groups"], Value::Array(groups));
}

#[test]
fn config_maps_equal_dashboards() {
    for name in ["fleet", "pool", "exporter"] {
        let source = format!("dashboards/{name}.json");
        let dashboard = text(&source);
        let mut map = header(&source);
        map += &format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: poolscope-dashboard-{name}\n  labels:\n    \
             grafana_dashboard: \"1\"\n  annotations:\n    grafana_folder: poolscope\ndata:\n  poolscope-{name}.json: |\n"
        );
        // Without indentation, which is a quarter of the text.
        let compact: String = dashboard.lines().map(|line| format!("{}\n", line.trim_start())).collect();
        map += &indent(&compact, 4);
        let path = format!("deploy/kubernetes/base/dashboard-{name}.yaml");
        assert_current(&path, &map);
        let resource = document(&path);
        assert_eq!(resource["data"][format!("poolscope-{name}.json")], compact);
        // The limit of annotations: without --server-side, `kubectl apply` stores the resource in one.
        assert!(map.len() < 256 * 1024, "{path}: {}", map.len());
    }
}

/// Checks the security settings, probes and limits of a pod template.
#[track_caller]
fn assert_confined(template: &Value) {
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

/// Checks that the only Deployment of a directory is confined, that its policy opens exactly these ports to selected peers,
/// and that it is scraped. Returns all resources.
#[track_caller]
fn check_deployment(directory: &str, ports: &[&str]) -> Vec<Value> {
    let resources = build(&at(directory));
    let [deployment] = of_kind("Deployment", &resources)[..] else { panic!("one Deployment") };
    let template = &deployment["spec"]["template"];
    assert_confined(template);
    let labels = &template["metadata"]["labels"];
    let selects = |selector: &Value| selector.as_object().unwrap().iter().all(|(name, value)| labels[name] == *value);

    let [policy] = of_kind("NetworkPolicy", &resources)[..] else { panic!("one policy") };
    assert!(selects(&policy["spec"]["podSelector"]["matchLabels"]));
    assert_eq!(texts(&policy["spec"]["policyTypes"]), ["Ingress", "Egress"]);
    let mut container_ports = Vec::new();
    collect_values("containerPort", template, &mut container_ports);
    assert_eq!(container_ports.len(), ports.len());
    let mut open = Vec::new();
    for rule in policy["spec"]["ingress"].as_array().unwrap() {
        assert!(rule["from"].is_array(), "no peers: {rule}");
        open.extend(rule["ports"].as_array().unwrap().iter().map(|port| port["port"].as_str().unwrap()));
    }
    let named: Vec<_> = template["spec"]["containers"][0]["ports"].as_array().unwrap().iter().collect();
    assert!(open.iter().all(|open| named.iter().any(|port| port["name"] == *open)), "{open:?}");
    assert_eq!(open, ports);

    let [service] = of_kind("Service", &resources)[..] else { panic!("one Service") };
    assert!(selects(&service["spec"]["selector"]) && service["spec"]["type"].is_null());
    let [monitor] = of_kind("ServiceMonitor", &resources)[..] else { panic!("one ServiceMonitor") };
    let selector = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    assert!(selector.iter().all(|(name, value)| service["metadata"]["labels"][name] == *value));
    let port = &monitor["spec"]["endpoints"][0]["port"];
    assert!(service["spec"]["ports"].as_array().unwrap().iter().any(|it| it["name"] == *port));
    for resource in &resources {
        let mut host_ports = Vec::new();
        collect_values("hostPort", resource, &mut host_ports);
        assert!(host_ports.is_empty());
    }
    resources
}

#[test]
fn demo_is_confined_with_policy_for_its_ports() {
    check_deployment("deploy/kubernetes/demo", &["metrics", "http"]);
}

#[test]
fn exporter_is_confined_and_reads_urls_from_secret() {
    let resources = check_deployment("deploy/kubernetes/standalone", &["metrics"]);
    let [deployment] = of_kind("Deployment", &resources)[..] else { panic!("one Deployment") };
    let pod = &deployment["spec"]["template"]["spec"];
    let volume = |name: &str| pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == name).unwrap();
    let mounted = |name: &str| {
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["name"] == name).unwrap();
        assert_eq!(mount["readOnly"], true);
        mount["mountPath"].as_str().unwrap().to_owned()
    };
    // The ConfigMap's name contains a hash of its content, so that a change restarts the pods.
    let maps = of_kind("ConfigMap", &resources);
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
fn component_adds_port_probes_and_scraping() {
    // Kustomize accepts other directories only by relative paths.
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
    let resources = build(scratch.path());
    assert_valid(&resources);
    let [one, other] = of_kind("Deployment", &resources)[..] else { panic!("two Deployments") };
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

    // The PodMonitor and the policy select it.
    let monitor = document("deploy/kubernetes/embedded/podmonitor.yaml");
    let [policy] = of_kind("NetworkPolicy", &resources)[..] else { panic!("one policy") };
    for selector in [&monitor["spec"]["selector"]["matchLabels"], &policy["spec"]["podSelector"]["matchLabels"]] {
        assert_eq!(selector["poolscope"], template["metadata"]["labels"]["poolscope"]);
    }
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], "metrics");
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["path"], annotations["prometheus.io/path"]);
}

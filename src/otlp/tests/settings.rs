//! Settings from the environment.

use std::collections::HashMap;

use super::super::OtlpError;
use super::super::env::read;
use super::super::settings::Signal;
use super::*;

fn settings_with(
    variables: &[(&str, &str)],
    endpoint: Option<&str>,
    protocol: Option<Protocol>,
) -> Result<Settings, OtlpError> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    read(Settings::new("shop"), Signal::Traces, endpoint, protocol, |name| variables.get(name).map(Into::into))
}

fn env(variables: &[(&str, &str)]) -> Settings {
    settings_with(variables, None, None).unwrap()
}

#[track_caller]
fn refused(variables: &[(&str, &str)], message: &str) {
    let error = settings_with(variables, None, None).unwrap_err();
    assert!(error.is_usage());
    assert_eq!(error.to_string(), message);
}

#[test]
fn metrics_have_their_own_variables() {
    let metrics = |variables: &[(&str, &str)]| {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        read(Settings::new("shop"), Signal::Metrics, None, None, |name| variables.get(name).map(Into::into)).unwrap()
    };
    let settings = metrics(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318/")]);
    assert_eq!(settings.endpoint.unwrap(), "http://a:4318/v1/metrics");
    assert_eq!(settings.delay, Duration::from_secs(60));
    let settings = metrics(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://b:1/own"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:1"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "3000"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1500"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "2000"),
        ("OTEL_BSP_SCHEDULE_DELAY", "invalid"),
    ]);
    assert_eq!(settings.endpoint.unwrap(), "http://b:1/own");
    assert_eq!((settings.delay, settings.timeout), (Duration::from_millis(1500), Duration::from_secs(2)));
    let none = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318"), ("OTEL_METRICS_EXPORTER", "none")];
    assert_eq!(metrics(&none).endpoint, None);
    let local = metrics(&[("OTEL_METRICS_EXPORTER", "otlp")]);
    assert_eq!(local.endpoint.unwrap(), "http://localhost:4318/v1/metrics");
}

#[test]
fn nothing_is_exported_by_default() {
    assert_eq!(env(&[]).endpoint, None);
    assert_eq!(env(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).endpoint, None);
    assert_eq!(env(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).endpoint, None);
    let none = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"), ("OTEL_TRACES_EXPORTER", "none")];
    assert_eq!(env(&none).endpoint, None);
    let local = env(&[("OTEL_TRACES_EXPORTER", "otlp")]);
    assert_eq!(local.endpoint.unwrap(), "http://localhost:4318/v1/traces");
    let local = env(&[("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    assert_eq!(local.endpoint.unwrap(), "http://localhost:4317");
    // The flag overrides the environment.
    assert!(settings_with(&none, Some("http://b:2"), None).unwrap().endpoint.is_some());
}

#[test]
fn protocol_and_url_of_the_endpoint() {
    let endpoint = |variable: &str, url: &str| {
        let settings = env(&[(variable, url)]);
        (settings.protocol, settings.endpoint.unwrap())
    };
    let (base, traces) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    assert_eq!(endpoint(base, "http://c:4318"), (Protocol::HttpProtobuf, "http://c:4318/v1/traces".to_owned()));
    assert_eq!(endpoint(base, "https://c/otlp/").1, "https://c/otlp/v1/traces");
    assert_eq!(endpoint(traces, "https://c/spans").1, "https://c/spans");
    assert_eq!(endpoint(base, "http://c:4317").0, Protocol::Grpc);
    let both = env(&[(base, "http://a:1"), (traces, "http://b:2/x"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")]);
    assert_eq!((both.protocol, both.endpoint.as_deref()), (Protocol::Grpc, Some("http://b:2/x")));
    let flags = settings_with(&[(traces, "http://b:2/x")], Some("http://f:3"), Some(Protocol::HttpProtobuf)).unwrap();
    assert_eq!(flags.endpoint.as_deref(), Some("http://f:3/v1/traces"));
    assert_eq!(flags.destination().as_deref(), Some("http://f:3"));
}

#[test]
fn all_variables_are_read() {
    let settings = env(&[
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20t0ken, x-a = b"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "7000"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "3000"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=overridden,team=a%2Cb"),
        ("OTEL_SERVICE_NAME", "orders"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_SCHEDULE_DELAY", "250"),
        ("OTEL_SDK_DISABLED", "TRUE"),
    ]);
    let pair = |(key, value): &(String, String)| format!("{key}: {value}");
    assert_eq!(settings.headers.iter().map(pair).collect::<Vec<_>>(), ["authorization: Bearer t0ken", "x-a: b"]);
    assert_eq!((settings.timeout, settings.gzip), (Duration::from_secs(3), true));
    assert_eq!(settings.resource.iter().map(pair).collect::<Vec<_>>(), ["team: a,b"]);
    assert_eq!(
        (&*settings.service_name, settings.sampling.ratio, settings.sampling.parent_based),
        ("orders", 0.25, false)
    );
    assert_eq!((settings.queue_size, settings.batch_size), (100, 100));
    assert_eq!((settings.delay, settings.disabled), (Duration::from_millis(250), true));
    assert!(!format!("{settings:?}").contains("t0ken"), "{settings:?}");
}

#[test]
fn invalid_values_are_errors() {
    for (variable, value, problem) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "invalid value \"http/json\", expected grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "invalid value \"10s\", expected whole milliseconds, above zero"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "invalid value \"zstd\", expected gzip or none"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "invalid value \"zipkin\", expected otlp or none"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "invalid value \"0\", expected a whole number from 1 to 1000000"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096", "4096 is above OTEL_BSP_MAX_QUEUE_SIZE (2048)"),
        ("OTEL_SDK_DISABLED", "yes", "invalid value \"yes\", expected true or false"),
        (
            "OTEL_TRACES_SAMPLER",
            "jaeger_remote",
            "invalid value \"jaeger_remote\", expected always_on, always_off, traceidratio, or one of them with the prefix \
             parentbased_",
        ),
        ("OTEL_RESOURCE_ATTRIBUTES", "team", "entry 1 is invalid, expected key=value,key=value, percent-encoded"),
    ] {
        refused(&[(variable, value)], &format!("environment variable {variable}: {problem}"));
    }
    refused(
        &[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")],
        "environment variable OTEL_TRACES_SAMPLER_ARG: invalid value \"2\", expected the ratio of sampled traces, from 0.0 to 1.0",
    );
}

#[test]
fn errors_do_not_contain_headers_or_endpoints() {
    for (variable, value) in [
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,hunter2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,x y=hunter2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=hunter2%0d%0ax"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hunter2@collector"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://collector/hunter2"),
    ] {
        let error = settings_with(&[(variable, value)], None, None).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(variable) && !text.contains("hunter2"), "{text}");
        assert!(text.contains("expected ") || text.contains("instead"), "{text}");
    }
    let error = settings_with(&[], Some("collector:4317"), None).unwrap_err();
    assert_eq!(error.to_string(), "--otlp.endpoint: invalid URL, expected http://host:port or https://host:port");
}

#[test]
fn invalid_files_are_errors() {
    let wrong = tempfile::NamedTempFile::new().unwrap();
    let path = wrong.path().to_str().unwrap();
    refused(
        &[("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", path)],
        &format!(
            "environment variable OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE: invalid file {path}, expected certificates in PEM \
             format"
        ),
    );
    let error = settings_with(&[("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem")], None, None).unwrap_err();
    assert!(
        error.to_string().contains("OTEL_EXPORTER_OTLP_CERTIFICATE: cannot read /nowhere.pem: No such file"),
        "{error}"
    );
    let signed = rcgen::generate_simple_self_signed(["here".to_owned()]).unwrap();
    std::fs::write(path, signed.cert.pem()).unwrap();
    assert!(env(&[("OTEL_EXPORTER_OTLP_CERTIFICATE", path)]).certificate.is_some());
    let error = settings_with(&[("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", path)], None, None).unwrap_err();
    assert!(error.to_string().ends_with("set both or neither"), "{error}");
    std::fs::write(path, signed.cert.pem() + &signed.signing_key.serialize_pem()).unwrap();
    let both = env(&[("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", path), ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", path)]);
    assert!(both.client_certificate.is_some() && !format!("{both:?}").contains("45, 45, 45"), "{both:?}");
}

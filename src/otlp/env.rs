//! Reads settings from OpenTelemetry's environment variables.
//!
//! The SDK and its exporter would read most of these themselves, and ignore invalid values. Here, those are errors.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::OtlpError;
use super::settings::{Protocol, Sampling, Settings, Signal};

/// The flag of the endpoint.
const ENDPOINT_FLAG: &str = "--otlp.endpoint";

/// The time between two exports of metrics, as in OpenTelemetry's specification.
const METRICS_INTERVAL: Duration = Duration::from_secs(60);

/// The largest queue.
const MAX_QUEUE_SIZE: usize = 1_000_000;

impl Settings {
    /// Creates settings from the environment of the process, with the variables of [the module](super), and with the
    /// [defaults](Self::new) for absent ones. `service_name` is the default name of the service.
    ///
    /// # Errors
    ///
    /// Returns an error with the name of the variable and the expected value, if a value is invalid.
    pub fn from_env(service_name: impl Into<String>) -> Result<Self, OtlpError> {
        Self::from_env_with(service_name, None, None)
    }

    /// Like [`from_env`](Self::from_env), with a base URL and a protocol that override the environment.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env), and if the URL is invalid. That error calls it `--otlp.endpoint`.
    pub fn from_env_with(
        service_name: impl Into<String>,
        endpoint: Option<&str>,
        protocol: Option<Protocol>,
    ) -> Result<Self, OtlpError> {
        read(Self::new(service_name), Signal::Traces, endpoint, protocol, |name| std::env::var_os(name))
    }

    /// Creates the settings of [`MetricsExport`](super::MetricsExport) from the environment of the process: like
    /// [`from_env`](Self::from_env), with the variables of metrics instead of those of traces.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    pub fn metrics_from_env(service_name: impl Into<String>) -> Result<Self, OtlpError> {
        read(Self::new(service_name), Signal::Metrics, None, None, |name| std::env::var_os(name))
    }
}

/// Reads variables. An empty one counts as absent, as in the specification.
struct Variables<F>(F, Signal);

impl<F: Fn(&str) -> Option<OsString>> Variables<F> {
    fn text(&self, name: &str) -> Result<Option<String>, OtlpError> {
        let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let value = value.into_string().map_err(|_| OtlpError::variable(name, "the value is not valid UTF-8"))?;
        Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty()))
    }

    /// Parses a variable; `expected` describes the valid values.
    fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>, expected: &str) -> Result<Option<T>, OtlpError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => {
                let problem = format!("invalid value \"{}\", expected {expected}", text.escape_debug());
                Err(OtlpError::variable(name, problem))
            }
        }
    }

    /// Returns name and value of the signal's variable, as in `OTEL_EXPORTER_OTLP_TRACES_…`, or else of
    /// `OTEL_EXPORTER_OTLP_…`.
    fn exporter(&self, name: &str) -> Result<Option<(String, String)>, OtlpError> {
        for variable in [format!("{}_{name}", self.1.prefix()), format!("OTEL_EXPORTER_OTLP_{name}")] {
            if let Some(value) = self.text(&variable)? {
                return Ok(Some((variable, value)));
            }
        }
        Ok(None)
    }

    fn millis(&self, name: &str) -> Result<Option<Duration>, OtlpError> {
        let millis = |text: &str| text.parse().ok().filter(|millis| *millis > 0).map(Duration::from_millis);
        self.parsed(name, millis, "whole milliseconds, above zero")
    }

    fn count(&self, name: &str) -> Result<Option<usize>, OtlpError> {
        let count = |text: &str| text.parse().ok().filter(|count| (1..=MAX_QUEUE_SIZE).contains(count));
        self.parsed(name, count, "a whole number from 1 to 1000000")
    }
}

/// Reads variables into `settings`. `endpoint` and `protocol` override them.
pub(super) fn read(
    mut settings: Settings,
    signal: Signal,
    endpoint: Option<&str>,
    protocol: Option<Protocol>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Settings, OtlpError> {
    let variables = Variables(variable, signal);
    let yes = |text: &str| bool::from_str(&text.to_ascii_lowercase()).ok();
    settings.disabled = variables.parsed("OTEL_SDK_DISABLED", yes, "true or false")?.unwrap_or_default();
    address(&mut settings, &variables, endpoint, protocol)?;
    transport(&mut settings, &variables)?;
    tls(&mut settings, &variables)?;
    resource(&mut settings, &variables)?;
    match signal {
        Signal::Traces => {
            if let Some(sampling) = sampling(&variables)? {
                settings.sampling = sampling;
            }
            batches(&mut settings, &variables)?;
        }
        Signal::Metrics => {
            settings.delay = variables.millis("OTEL_METRIC_EXPORT_INTERVAL")?.unwrap_or(METRICS_INTERVAL);
            // The shorter timeout applies.
            if let Some(limit) = variables.millis("OTEL_METRIC_EXPORT_TIMEOUT")? {
                settings.timeout = settings.timeout.min(limit);
            }
        }
    }
    Ok(settings)
}

/// Reads the endpoint: the flag's, or else the environment's unless the exporter is `none`. Without any, it is the local
/// one if the exporter is `otlp`.
fn address<F: Fn(&str) -> Option<OsString>>(
    settings: &mut Settings,
    variables: &Variables<F>,
    flag: Option<&str>,
    protocol: Option<Protocol>,
) -> Result<(), OtlpError> {
    let signal = variables.1;
    let is_enabled = variables.parsed(signal.exporter(), exporter, "otlp or none")?;
    let found = match flag {
        Some(url) => Some((ENDPOINT_FLAG.to_owned(), url.to_owned())),
        None => {
            variables.exporter("ENDPOINT")?.map(|(variable, url)| (format!("environment variable {variable}"), url))
        }
    };
    let endpoint = match &found {
        Some((origin, url)) => {
            let problem = |problem: &str| OtlpError::Setting { origin: origin.clone(), problem: problem.to_owned() };
            Some((parse(url).map_err(problem)?, !origin.contains(signal.prefix())))
        }
        None => None,
    };
    settings.protocol = match (protocol, variables.exporter("PROTOCOL")?) {
        (Some(protocol), _) => protocol,
        (None, Some((variable, text))) => text.parse().map_err(|problem| OtlpError::variable(&variable, problem))?,
        // The port of gRPC, which does not accept HTTP.
        (None, None) if endpoint.as_ref().is_some_and(|(uri, _)| uri.port_u16() == Some(4317)) => Protocol::Grpc,
        (None, None) => settings.protocol,
    };
    match (endpoint, is_enabled) {
        (_, Some(false)) if flag.is_none() => {}
        (Some((uri, is_base)), _) => settings.endpoint = Some(endpoint_url(&uri, is_base, settings.protocol, signal)),
        (None, Some(true)) => settings.endpoint = Some(settings.protocol.local_endpoint(signal)),
        (None, _) => {}
    }
    Ok(())
}

/// Parses whether the signal is exported.
fn exporter(text: &str) -> Option<bool> {
    match text {
        "otlp" => Some(true),
        "none" => Some(false),
        _ => None,
    }
}

/// Parses a URL. The error does not contain it, because it may have a secret.
fn parse(url: &str) -> Result<http::Uri, &'static str> {
    const INVALID: &str = "invalid URL, expected http://host:port or https://host:port";
    let uri: http::Uri = url.parse().map_err(|_| INVALID)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(INVALID);
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("the URL contains a user or a password; use OTEL_EXPORTER_OTLP_HEADERS instead");
    }
    Ok(uri)
}

/// Returns the URL of the endpoint. HTTP adds the path of the signal to a base URL.
fn endpoint_url(uri: &http::Uri, is_base: bool, protocol: Protocol, signal: Signal) -> String {
    let url = uri.to_string();
    match protocol {
        Protocol::HttpProtobuf if is_base => format!("{}{}", url.trim_end_matches('/'), signal.path()),
        Protocol::HttpProtobuf | Protocol::Grpc => url,
    }
}

fn transport<F: Fn(&str) -> Option<OsString>>(
    settings: &mut Settings,
    variables: &Variables<F>,
) -> Result<(), OtlpError> {
    for name in ["OTEL_EXPORTER_OTLP_TIMEOUT", &format!("{}_TIMEOUT", variables.1.prefix())] {
        settings.timeout = variables.millis(name)?.unwrap_or(settings.timeout);
    }
    if let Some((variable, text)) = variables.exporter("COMPRESSION")? {
        settings.gzip = match &*text {
            "gzip" => true,
            "none" => false,
            _ => {
                let problem = format!("invalid value \"{}\", expected gzip or none", text.escape_debug());
                return Err(OtlpError::variable(&variable, problem));
            }
        };
    }
    if let Some((variable, text)) = variables.exporter("HEADERS")? {
        settings.headers = pairs(&text).map_err(|problem| OtlpError::variable(&variable, problem))?;
        for (position, (name, value)) in settings.headers.iter().enumerate() {
            if http::HeaderName::from_str(name).is_err() || http::HeaderValue::from_str(value).is_err() {
                let problem =
                    format!("entry {} is not a valid header, expected key=value, percent-encoded", position + 1);
                return Err(OtlpError::variable(&variable, problem));
            }
        }
    }
    Ok(())
}

/// Reads the files for TLS now, so that errors have the name of the variable.
fn tls<F: Fn(&str) -> Option<OsString>>(settings: &mut Settings, variables: &Variables<F>) -> Result<(), OtlpError> {
    let file = |name: &str, is_valid: fn(&[u8]) -> bool, expected: &str| {
        let Some((variable, path)) = variables.exporter(name)? else {
            return Ok(None);
        };
        match crate::files::read(path.as_ref()) {
            Ok(pem) if is_valid(&pem) => Ok(Some(pem)),
            Ok(_) => Err(OtlpError::variable(&variable, format!("invalid file {path}, expected {expected}"))),
            Err(error) => Err(OtlpError::variable(&variable, format!("cannot read {path}: {error}"))),
        }
    };
    settings.certificate = file("CERTIFICATE", has_certificates, "certificates in PEM format")?;
    let certificate = file("CLIENT_CERTIFICATE", has_certificates, "certificates in PEM format")?;
    let key = file("CLIENT_KEY", has_key, "a private key in PEM format")?;
    settings.client_certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            let problem = "it requires OTEL_EXPORTER_OTLP_CLIENT_KEY and vice versa; set both or neither";
            return Err(OtlpError::variable("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", problem));
        }
    };
    Ok(())
}

fn has_certificates(pem: &[u8]) -> bool {
    let mut certificates = CertificateDer::pem_slice_iter(pem).peekable();
    certificates.peek().is_some() && certificates.all(|certificate| certificate.is_ok())
}

fn has_key(pem: &[u8]) -> bool {
    PrivateKeyDer::from_pem_slice(pem).is_ok()
}

fn resource<F: Fn(&str) -> Option<OsString>>(
    settings: &mut Settings,
    variables: &Variables<F>,
) -> Result<(), OtlpError> {
    const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
    if let Some(text) = variables.text(ATTRIBUTES)? {
        settings.resource = pairs(&text).map_err(|problem| OtlpError::variable(ATTRIBUTES, problem))?;
        if let Some(at) = settings.resource.iter().position(|(key, _)| key == "service.name") {
            settings.service_name = settings.resource.remove(at).1;
        }
    }
    if let Some(name) = variables.text("OTEL_SERVICE_NAME")? {
        settings.service_name = name;
    }
    Ok(())
}

/// Parses `key=value,key=value`, percent-encoded. The error contains no value.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let entries = text.split(',').map(str::trim).enumerate().filter(|(_, entry)| !entry.is_empty());
    entries
        .map(|(index, entry)| {
            let (key, value) = entry.split_once('=').map(|(key, value)| (key.trim(), value.trim())).unwrap_or_default();
            let value = percent_decode_str(value).decode_utf8();
            match value {
                Ok(value) if !key.is_empty() => Ok((key.to_owned(), value.into_owned())),
                _ => Err(format!("entry {} is invalid, expected key=value,key=value, percent-encoded", index + 1)),
            }
        })
        .collect()
}

fn sampling<F: Fn(&str) -> Option<OsString>>(variables: &Variables<F>) -> Result<Option<Sampling>, OtlpError> {
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let known = |text: &str| {
        let (parent_based, name) = text.strip_prefix("parentbased_").map_or((false, text), |name| (true, name));
        let ratio = match name {
            "always_on" => Some(1.0),
            "always_off" => Some(0.0),
            "traceidratio" => None,
            _ => return None,
        };
        Some((parent_based, ratio))
    };
    let expected = "always_on, always_off, traceidratio, or one of them with the prefix parentbased_";
    let Some((parent_based, ratio)) = variables.parsed("OTEL_TRACES_SAMPLER", known, expected)? else {
        return Ok(None);
    };
    let parse_ratio = |text: &str| text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    let argument = || variables.parsed(ARGUMENT, parse_ratio, "the ratio of sampled traces, from 0.0 to 1.0");
    let ratio = match ratio {
        Some(ratio) => ratio,
        None => argument()?.unwrap_or(1.0),
    };
    Ok(Some(Sampling { ratio, parent_based }))
}

fn batches<F: Fn(&str) -> Option<OsString>>(
    settings: &mut Settings,
    variables: &Variables<F>,
) -> Result<(), OtlpError> {
    const BATCH: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
    settings.queue_size = variables.count("OTEL_BSP_MAX_QUEUE_SIZE")?.unwrap_or(settings.queue_size);
    match variables.count(BATCH)? {
        Some(size) if size > settings.queue_size => {
            let problem = format!("{size} is above OTEL_BSP_MAX_QUEUE_SIZE ({})", settings.queue_size);
            return Err(OtlpError::variable(BATCH, problem));
        }
        Some(size) => settings.batch_size = size,
        None => settings.batch_size = settings.batch_size.min(settings.queue_size),
    }
    settings.delay = variables.millis("OTEL_BSP_SCHEDULE_DELAY")?.unwrap_or(settings.delay);
    // The shorter timeout applies.
    if let Some(limit) = variables.millis("OTEL_BSP_EXPORT_TIMEOUT")? {
        settings.timeout = settings.timeout.min(limit);
    }
    Ok(())
}

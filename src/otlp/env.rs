//! The settings that the environment has, by OpenTelemetry's names.
//!
//! The SDK and its exporter would read most of these themselves, and ignore what they cannot read. Here each is read
//! once, and what cannot be is an error.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::OtlpError;
use super::settings::{Protocol, Sampling, Settings};

/// How the flag is called that has an endpoint.
const ENDPOINT_FLAG: &str = "--otlp.endpoint";

/// Reads variables. One that is empty counts as one that is not there, as the specification has it.
struct Variables<F>(F);

impl<F: Fn(&str) -> Option<OsString>> Variables<F> {
    fn text(&self, name: &str) -> Result<Option<String>, OtlpError> {
        let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let value =
            value.into_string().map_err(|_| OtlpError::variable(name, "the value is not Unicode: give it in UTF-8"))?;
        Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty()))
    }

    /// A value of some kind; `expected` is what would do.
    fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>, expected: &str) -> Result<Option<T>, OtlpError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => {
                let problem = format!("\"{}\" cannot be: give {expected}", text.escape_debug());
                Err(OtlpError::variable(name, problem))
            }
        }
    }

    /// A value of `OTEL_EXPORTER_OTLP_TRACES_…`, or else of `OTEL_EXPORTER_OTLP_…`, and its variable's name.
    fn exporter(&self, name: &str) -> Result<Option<(String, String)>, OtlpError> {
        for prefix in ["OTEL_EXPORTER_OTLP_TRACES", "OTEL_EXPORTER_OTLP"] {
            let variable = format!("{prefix}_{name}");
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
        let count = |text: &str| text.parse().ok().filter(|count| (1..=MOST).contains(count));
        self.parsed(name, count, "a whole number from 1 to 1000000")
    }
}

/// More spans than that may not wait.
const MOST: usize = 1_000_000;

/// Reads what `variable` has into `settings`; `endpoint` and `protocol` win over it.
pub(super) fn read(
    mut settings: Settings,
    endpoint: Option<&str>,
    protocol: Option<Protocol>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Settings, OtlpError> {
    let variables = Variables(variable);
    let yes = |text: &str| bool::from_str(&text.to_ascii_lowercase()).ok();
    settings.disabled = variables.parsed("OTEL_SDK_DISABLED", yes, "true or false")?.unwrap_or_default();
    address(&mut settings, &variables, endpoint, protocol)?;
    transport(&mut settings, &variables)?;
    tls(&mut settings, &variables)?;
    resource(&mut settings, &variables)?;
    if let Some(sampling) = sampling(&variables)? {
        settings.sampling = sampling;
    }
    batches(&mut settings, &variables)?;
    Ok(settings)
}

/// Where spans go: `--otlp.endpoint`, or else the environment's endpoint unless its exporter is `none`; without an
/// endpoint nowhere, unless the exporter is said to be `otlp`.
fn address<F: Fn(&str) -> Option<OsString>>(
    settings: &mut Settings,
    variables: &Variables<F>,
    flag: Option<&str>,
    protocol: Option<Protocol>,
) -> Result<(), OtlpError> {
    let wanted = variables.parsed("OTEL_TRACES_EXPORTER", exporter, "otlp or none")?;
    let found = match flag {
        Some(url) => Some((ENDPOINT_FLAG.to_owned(), url.to_owned())),
        None => {
            variables.exporter("ENDPOINT")?.map(|(variable, url)| (format!("environment variable {variable}"), url))
        }
    };
    let endpoint = match &found {
        Some((origin, url)) => {
            let problem = |problem: &str| OtlpError::Setting { origin: origin.clone(), problem: problem.to_owned() };
            Some((parse(url).map_err(problem)?, !origin.contains("_TRACES_")))
        }
        None => None,
    };
    settings.protocol = match (protocol, variables.exporter("PROTOCOL")?) {
        (Some(protocol), _) => protocol,
        (None, Some((variable, text))) => text.parse().map_err(|problem| OtlpError::variable(&variable, problem))?,
        // 4317 is gRPC's port, and nothing but gRPC is understood there.
        (None, None) if endpoint.as_ref().is_some_and(|(uri, _)| uri.port_u16() == Some(4317)) => Protocol::Grpc,
        (None, None) => settings.protocol,
    };
    match (endpoint, wanted) {
        (_, Some(false)) if flag.is_none() => {}
        (Some((uri, is_base)), _) => settings.endpoint = Some(whole(&uri, is_base, settings.protocol)),
        (None, Some(true)) => settings.send_to_this_machine(),
        (None, _) => {}
    }
    Ok(())
}

/// Whether spans are to be exported.
fn exporter(text: &str) -> Option<bool> {
    match text {
        "otlp" => Some(true),
        "none" => Some(false),
        _ => None,
    }
}

/// What is wrong is said without the URL, which may hold a secret.
fn parse(url: &str) -> Result<http::Uri, &'static str> {
    const UNREADABLE: &str = "not a URL to send to: give http://host:port or https://host:port";
    let uri: http::Uri = url.parse().map_err(|_| UNREADABLE)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(UNREADABLE);
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("a URL with a user or a password: give such things in OTEL_EXPORTER_OTLP_HEADERS");
    }
    Ok(uri)
}

/// The URL to send to; to a base URL HTTP adds the path of traces.
fn whole(uri: &http::Uri, is_base: bool, protocol: Protocol) -> String {
    let url = uri.to_string();
    match protocol {
        Protocol::HttpProtobuf if is_base => format!("{}/v1/traces", url.trim_end_matches('/')),
        Protocol::HttpProtobuf | Protocol::Grpc => url,
    }
}

fn transport<F: Fn(&str) -> Option<OsString>>(
    settings: &mut Settings,
    variables: &Variables<F>,
) -> Result<(), OtlpError> {
    for name in ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"] {
        settings.timeout = variables.millis(name)?.unwrap_or(settings.timeout);
    }
    if let Some((variable, text)) = variables.exporter("COMPRESSION")? {
        settings.gzip = match &*text {
            "gzip" => true,
            "none" => false,
            _ => {
                let problem = format!("\"{}\" cannot be: give gzip or none", text.escape_debug());
                return Err(OtlpError::variable(&variable, problem));
            }
        };
    }
    if let Some((variable, text)) = variables.exporter("HEADERS")? {
        settings.headers = pairs(&text).map_err(|problem| OtlpError::variable(&variable, problem))?;
        for (position, (name, value)) in settings.headers.iter().enumerate() {
            if http::HeaderName::from_str(name).is_err() || http::HeaderValue::from_str(value).is_err() {
                let problem = format!("entry {} cannot be a header: give key=value, percent-encoded", position + 1);
                return Err(OtlpError::variable(&variable, problem));
            }
        }
    }
    Ok(())
}

/// The files that TLS needs. They are read at once, so that what cannot be read is known by its variable.
fn tls<F: Fn(&str) -> Option<OsString>>(settings: &mut Settings, variables: &Variables<F>) -> Result<(), OtlpError> {
    let file = |name: &str, is_it: fn(&[u8]) -> bool, expected: &str| {
        let Some((variable, path)) = variables.exporter(name)? else {
            return Ok(None);
        };
        match std::fs::read(&path) {
            Ok(pem) if is_it(&pem) => Ok(Some(pem)),
            Ok(_) => Err(OtlpError::variable(&variable, format!("{path} is no such file: give {expected}"))),
            Err(error) => Err(OtlpError::variable(&variable, format!("{path}: {error}: give {expected}"))),
        }
    };
    settings.certificate = file("CERTIFICATE", has_certificates, "a file of certificates, as PEM")?;
    let certificate = file("CLIENT_CERTIFICATE", has_certificates, "a file of certificates, as PEM")?;
    let key = file("CLIENT_KEY", has_key, "a file of a private key, as PEM")?;
    settings.client_certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            let problem = "it needs OTEL_EXPORTER_OTLP_CLIENT_KEY, and that needs it: give both or none";
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

/// `key=value,key=value`, percent-encoded. What is wrong is said without any value.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let entries = text.split(',').map(str::trim).enumerate().filter(|(_, entry)| !entry.is_empty());
    entries
        .map(|(index, entry)| {
            let (key, value) = entry.split_once('=').map(|(key, value)| (key.trim(), value.trim())).unwrap_or_default();
            let value = percent_decode_str(value).decode_utf8();
            match value {
                Ok(value) if !key.is_empty() => Ok((key.to_owned(), value.into_owned())),
                _ => Err(format!("entry {} cannot be read: give key=value,key=value, percent-encoded", index + 1)),
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
    let expected = "always_on, always_off, traceidratio, or one of them with parentbased_ before it";
    let Some((parent_based, ratio)) = variables.parsed("OTEL_TRACES_SAMPLER", known, expected)? else {
        return Ok(None);
    };
    let share = |text: &str| text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    let argument = || variables.parsed(ARGUMENT, share, "the share of traces to keep, from 0.0 to 1.0");
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
    // A batch has one limit, whichever of the two is shorter.
    if let Some(limit) = variables.millis("OTEL_BSP_EXPORT_TIMEOUT")? {
        settings.timeout = settings.timeout.min(limit);
    }
    Ok(())
}

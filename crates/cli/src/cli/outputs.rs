//! The flags for traces and the log.

use clap::Args;
use poolscope::otlp::{OtlpError, Pipeline, Protocol, Settings};

use super::log::LogFormat;

#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Export traces to this OpenTelemetry collector, such as http://localhost:4317
    ///
    /// The scheme is http or https. With the protocol http/protobuf, `/v1/traces` is appended. Without the flag and without
    /// OTEL_EXPORTER_OTLP_ENDPOINT, traces are not exported.
    #[arg(long = "otlp.endpoint", value_name = "URL")]
    otlp_endpoint: Option<String>,

    /// Export with grpc or http/protobuf; the default is grpc for port 4317, and http/protobuf for other ports
    #[arg(long = "otlp.protocol", value_name = "PROTOCOL", value_parser = str::parse::<Protocol>)]
    otlp_protocol: Option<Protocol>,

    /// The format of the log
    #[arg(
        long = "log.format",
        value_name = "FORMAT",
        env = "POOLSCOPE_LOG_FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub(super) log_format: LogFormat,
}

impl OutputArgs {
    /// Returns the export settings, from the flags and the environment. Flags take precedence. `service` is the default
    /// service name.
    pub(super) fn trace_settings(&self, service: &str) -> Result<Settings, OtlpError> {
        Settings::from_env_with(service, self.otlp_endpoint.as_deref(), self.otlp_protocol)
    }

    /// Starts the export of spans, if an endpoint is configured.
    pub(super) fn start_traces(&self, service: &str) -> Result<Option<Pipeline>, OtlpError> {
        let settings = self.trace_settings(service)?;
        let is_exported = settings.destination().is_some() && !settings.disabled;
        is_exported.then(|| Pipeline::start(&settings)).transpose()
    }
}

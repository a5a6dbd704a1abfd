//! The flags that say where a command's traces and its log go.

use clap::Args;
use poolscope::otlp::{OtlpError, Protocol, Settings};

use super::log::LogFormat;

#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Send traces to this OpenTelemetry collector, as http://localhost:4317
    ///
    /// It may be https. Over HTTP, `/v1/traces` is added. Without it, and without OTEL_EXPORTER_OTLP_ENDPOINT, nothing
    /// is sent anywhere.
    #[arg(long = "otlp.endpoint", value_name = "URL")]
    otlp_endpoint: Option<String>,

    /// How to send them: grpc or http/protobuf; by default grpc to port 4317, and http/protobuf to others
    #[arg(long = "otlp.protocol", value_name = "PROTOCOL", value_parser = str::parse::<Protocol>)]
    otlp_protocol: Option<Protocol>,

    /// How lines of the log are written
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
    /// How traces are sent of what is called `service`, unless the environment has another name: by the flags, and the environment
    /// beneath them.
    pub(super) fn traces(&self, service: &str) -> Result<Settings, OtlpError> {
        Settings::from_env_with(service, self.otlp_endpoint.as_deref(), self.otlp_protocol)
    }
}

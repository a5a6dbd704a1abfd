//! The flags of commands that serve an exporter, named as in the Prometheus exporters.

use std::ffi::OsString;

use crate::service::{WebError, WebSettings};
use clap::Args;
use clap::builder::OsStringValueParser;
use poolscope::exporter::{DEFAULT_ADDRESS, WebConfig};

#[derive(Debug, Args)]
pub(super) struct WebArgs {
    /// Serve the live page, /metrics, the API below /api/v1/, /-/healthy and /-/ready at HOST:PORT; `:9719` is all
    /// interfaces, port 0 is a free port
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS",
        env = "POOLSCOPE_WEB_LISTEN_ADDRESS",
        default_value = DEFAULT_ADDRESS
    )]
    listen_address: String,

    #[command(flatten)]
    config: WebConfigArgs,

    /// Link traces on the live page to this URL, in which {trace_id} is replaced
    #[arg(long, value_name = "URL", env = "POOLSCOPE_TRACE_URL", value_parser = trace_url)]
    trace_url: Option<String>,

    /// Serve on the socket that systemd passes, instead of --web.listen-address
    #[arg(long = "web.systemd-socket")]
    systemd_socket: bool,
}

#[derive(Debug, Args)]
pub(super) struct WebConfigArgs {
    /// Enable TLS, basic authentication or response headers with this file
    ///
    /// The format is that of the Prometheus exporters; see docs/web-config.md. It is reloaded when it changes.
    #[arg(
        long = "web.config.file",
        value_name = "FILE",
        env = "POOLSCOPE_WEB_CONFIG_FILE",
        value_parser = OsStringValueParser::new()
    )]
    config_file: Option<OsString>,
}

impl WebConfigArgs {
    /// Reads the file, if one is given.
    pub(super) fn read(&self) -> Result<Option<WebConfig>, WebError> {
        // An empty value counts as unset, as in the Prometheus exporters.
        let file = self.config_file.as_deref().filter(|file| !file.is_empty());
        file.map(WebConfig::read).transpose().map_err(WebError::ConfigFile)
    }
}

impl WebArgs {
    /// Reads the file and takes the socket. Must be called before the process has threads.
    pub(super) fn settings(&self) -> Result<WebSettings, WebError> {
        let settings = WebSettings::new(self.listen_address.clone(), self.config.read()?, self.systemd_socket)?;
        // An empty value counts as unset.
        Ok(settings.with_trace_url(self.trace_url.clone().filter(|url| !url.is_empty())))
    }
}

/// Checks the template of links to traces.
fn trace_url(template: &str) -> Result<String, &'static str> {
    let is_web = ["http://", "https://"].iter().any(|scheme| template.starts_with(scheme));
    if template.is_empty() || is_web && template.contains("{trace_id}") {
        Ok(template.to_owned())
    } else {
        Err("give an http or https URL with {trace_id}, as in https://jaeger.example.com/trace/{trace_id}")
    }
}

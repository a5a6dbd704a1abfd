//! The flags of whatever serves an exporter, named as Prometheus' own exporters have them.

use std::ffi::OsString;

use clap::Args;
use clap::builder::OsStringValueParser;
use poolscope::exporter::{DEFAULT_ADDRESS, WebConfig};
use poolscope_cli::service::{WebError, WebSettings};

#[derive(Debug, Args)]
pub(super) struct WebArgs {
    /// Serve /metrics, /api/v1/pools, /-/healthy, /-/ready and a landing page at HOST:PORT; `:9719` for all interfaces, port 0 for
    /// a free one
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS",
        env = "POOLSCOPE_WEB_LISTEN_ADDRESS",
        default_value = DEFAULT_ADDRESS
    )]
    listen_address: String,

    #[command(flatten)]
    config: WebConfigArgs,

    /// Serve them at the socket that systemd passes, in place of --web.listen-address
    #[arg(long = "web.systemd-socket")]
    systemd_socket: bool,
}

#[derive(Debug, Args)]
pub(super) struct WebConfigArgs {
    /// Serve them by TLS, or to those with a password only, as this file says
    ///
    /// It is what Prometheus' own exporters take; docs/web-config.md has the keys. It is read anew when it changes.
    #[arg(
        long = "web.config.file",
        value_name = "FILE",
        env = "POOLSCOPE_WEB_CONFIG_FILE",
        value_parser = OsStringValueParser::new()
    )]
    config_file: Option<OsString>,
}

impl WebConfigArgs {
    /// Reads the file, if one is named.
    pub(super) fn read(&self) -> Result<Option<WebConfig>, WebError> {
        // An empty name is none, as for Prometheus' own exporters: a variable can be unset so.
        let file = self.config_file.as_deref().filter(|file| !file.is_empty());
        file.map(WebConfig::read).transpose().map_err(WebError::ConfigFile)
    }
}

impl WebArgs {
    /// Reads the file and takes the socket. To be called before there are threads.
    pub(super) fn settings(&self) -> Result<WebSettings, WebError> {
        WebSettings::new(self.listen_address.clone(), self.config.read()?, self.systemd_socket)
    }
}

//! `poolscope healthy`: queries an exporter's health, for container health checks.
//!
//! A container image without a shell has no other HTTP client. It runs often, so it starts no threads.

use std::io;

use clap::Args;
use poolscope::text::printable;
use thiserror::Error;

use super::client::{ClientArgs, ClientError, HttpClient, RequestError, Response, Target, block_on};
use crate::output;

/// The path unless the URL has one.
const DEFAULT_PATH: &str = "/-/healthy";

/// How many bytes of a response are read. Those of the exporter have one line.
const MAX_RESPONSE_BYTES: usize = 16 * 1024;

#[derive(Debug, Args)]
pub(super) struct HealthyArgs {
    /// The exporter's URL, such as http://127.0.0.1:9719 or https://shop:9719/-/ready
    ///
    /// The default path is /-/healthy. The default URL is that of --web.listen-address.
    #[arg(value_name = "URL")]
    url: Option<Target>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Why the exporter is not healthy.
#[derive(Debug, Error)]
pub(super) enum HealthyError {
    /// It responded with a status other than 200.
    #[error("{target} responded {status}{reason}")]
    Unhealthy {
        target: String,
        status: u16,
        /// The first line of the body, after a colon.
        reason: String,
    },
    /// It did not respond in time.
    #[error("no response from {target}")]
    NoResponse {
        target: String,
        #[source]
        error: RequestError,
    },
    /// A file or a setting of the client is unusable.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The operating system refused what a runtime needs.
    #[error("cannot start the async runtime")]
    Runtime(#[source] io::Error),
    /// Standard output failed.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

/// Queries the exporter, and prints its response if it is healthy.
pub(super) fn query(args: HealthyArgs) -> Result<(), HealthyError> {
    let target = args.url.unwrap_or_else(|| args.client.listen_address.clone()).or_path(DEFAULT_PATH);
    let client = HttpClient::new(&args.client, std::slice::from_ref(&target))?;
    let response = block_on(client.get(&target, "text/plain", MAX_RESPONSE_BYTES)).map_err(HealthyError::Runtime)?;
    let Response { status, body } =
        response.map_err(|error| HealthyError::NoResponse { target: target.to_string(), error })?;
    let line = printable(body.lines().next().unwrap_or_default());
    let reason = if line.is_empty() { String::new() } else { format!(": {line}") };
    if status != 200 {
        return Err(HealthyError::Unhealthy { target: target.to_string(), status, reason });
    }
    Ok(output::print(&format!("{target} responded {status}{reason}\n"))?)
}

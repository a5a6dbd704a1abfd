//! `poolscope top`: shows the pools of exporters in a terminal.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use tokio::runtime::Builder;

use super::client::{ClientArgs, ClientError, HttpClient, Target};
use super::duration::duration;
use super::exit::fail;
use crate::output::{is_dumb_terminal, is_utf8};
use crate::pool_listing::{MAX_BYTES, PATH, pools};
use crate::top::{self, Options, Source};

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// The URLs of exporters, such as http://127.0.0.1:9719 or https://shop:9719
    ///
    /// The default path is /api/v1/pools; a pool is selected with /api/v1/pools?pool=NAME. The default URL is that of
    /// --web.listen-address. Several exporters are shown side by side.
    #[arg(value_name = "URL")]
    urls: Vec<Target>,

    /// Print the pools as plain text, which is the default if standard output is not a terminal
    #[arg(short, long)]
    batch: bool,

    /// The time between two queries
    #[arg(short, long, value_name = "TIME", value_parser = duration, default_value = "1s")]
    delay: Duration,

    /// End after this many updates; the default is one with --batch, and none otherwise
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Shows the pools until a key or a signal ends it, or prints them.
pub(super) fn run(args: TopArgs) -> ExitCode {
    let TopArgs { mut urls, batch, delay, iterations, client } = args;
    if urls.is_empty() {
        urls.push(client.listen_address.clone());
    }
    let targets: Vec<_> = urls.into_iter().map(|target| target.or_path(PATH)).collect();
    let sources: Result<_, _> = targets.into_iter().map(|target| source(&client, target)).collect();
    let sources = match sources {
        Ok(sources) => sources,
        Err(SourceError::Client(error)) => return fail(&error, true),
        Err(SourceError::Runtime(error)) => return fail(&error, false),
    };
    let options = Options {
        delay,
        iterations,
        is_color: anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
        is_utf8: is_utf8(),
    };
    let is_screen = !batch && io::stdout().is_terminal() && !is_dumb_terminal();
    let result = if is_screen { top::run(sources, options) } else { top::print(sources, options) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, false),
    }
}

/// Why an exporter cannot be queried.
#[derive(Debug, Error)]
enum SourceError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Runtime(#[from] io::Error),
}

/// Returns an exporter that is queried on the thread that calls it.
fn source(args: &ClientArgs, target: Target) -> Result<Source, SourceError> {
    let client = HttpClient::new(args, std::slice::from_ref(&target))?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let url = target.to_string();
    let url = url.strip_suffix(PATH).unwrap_or(&url).to_owned();
    let query = move || {
        let listing = runtime.block_on(client.get_json(&target, MAX_BYTES));
        listing.map_err(|error| error.to_string()).and_then(pools)
    };
    Ok(Source { url, query: Box::new(query) })
}

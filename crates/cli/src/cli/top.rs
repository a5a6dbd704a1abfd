//! `poolscope top`: shows the pools of exporters in a terminal.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use poolscope::recording::ReadError;
use poolscope::text::Printable;
use thiserror::Error;

use super::client::{ClientArgs, ClientError, HttpClient, Target, runtime};
use super::duration::duration;
use super::exit::{FAILURE, fail, print_error};
use super::subject::Subject;
use crate::output::{is_dumb_terminal, is_utf8};
use crate::pool_listing::{MAX_BYTES, PATH, pools};
use crate::recorded::{Playback, Recorded};
use crate::top::{self, Options, Source};

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// The URLs of exporters, such as http://127.0.0.1:9719 or https://shop:9719
    ///
    /// The default path is /api/v1/pools; a pool is selected with /api/v1/pools?pool=NAME. The default URL is that of
    /// --web.listen-address. Several exporters are shown side by side. The file of a recording is played from the beginning
    /// of its problem; as plain text, its worst moment is printed.
    #[arg(value_name = "URL|FILE")]
    subjects: Vec<Subject>,

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
    let TopArgs { mut subjects, batch, delay, iterations, client } = args;
    if subjects.is_empty() {
        subjects.push(Subject::Exporter(client.listen_address.clone()));
    }
    let is_screen = !batch && io::stdout().is_terminal() && !is_dumb_terminal();
    let sources: Result<_, _> = subjects
        .into_iter()
        .map(|subject| match subject {
            Subject::Exporter(target) => source(&client, target.or_path(PATH)),
            Subject::Recording(file) => recorded_source(&file, is_screen),
        })
        .collect();
    let sources = match sources {
        Ok(sources) => sources,
        Err(error) => return fail(&error, matches!(error, SourceError::Client(_))),
    };
    let options = Options {
        delay,
        iterations,
        is_color: anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
        is_utf8: is_utf8(),
    };
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
    #[error("cannot show {file}")]
    Recording {
        file: String,
        #[source]
        error: ReadError,
    },
}

/// Returns a recording that is played from the beginning of its problem, or of which the worst moment is printed.
fn recorded_source(file: &Path, is_played: bool) -> Result<Source, SourceError> {
    let shown = Printable(file.display()).to_string();
    let opened = Recorded::open(file);
    let recorded = opened.map_err(|error| SourceError::Recording { file: shown.clone(), error })?;
    if let Some(problem) = recorded.problem() {
        // It is shown as far as it is readable.
        print_error(&format!("{shown}: {problem}"), FAILURE);
    }
    let playback = Arc::new(Playback::new(if is_played { recorded.begin() } else { recorded.worst() }));
    let position = Arc::clone(&playback);
    let query = move || Ok(recorded.next(&position).into_iter().collect());
    Ok(Source { url: shown, query: Box::new(query), playback: Some(playback) })
}

/// Returns an exporter that is queried on the thread that calls it.
fn source(args: &ClientArgs, target: Target) -> Result<Source, SourceError> {
    let client = HttpClient::new(args, std::slice::from_ref(&target))?;
    let runtime = runtime()?;
    let url = target.to_string();
    let url = url.strip_suffix(PATH).unwrap_or(&url).to_owned();
    let query = move || {
        let listing = runtime.block_on(client.get_json(&target, MAX_BYTES));
        listing.map_err(|error| error.to_string()).and_then(pools)
    };
    Ok(Source { url, query: Box::new(query), playback: None })
}

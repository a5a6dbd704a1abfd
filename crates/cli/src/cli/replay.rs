//! `poolscope replay`: shows a recording on the live page.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use poolscope::Collector;
use poolscope::exporter::Exporter;
use poolscope::recording::{ReadError, Recording};
use poolscope::text::{ErrorChain, Printable};
use thiserror::Error;
use tokio::runtime::Builder;
use tokio::sync::watch;

use super::exit::{FAILURE, end, exit_code, fail, print_error};
use super::web::WebConfigArgs;
use crate::output::Console;
use crate::service::{ExporterTask, NotAPath, ServiceError, WebSettings, shutdown_requested, watch_signals};

/// After which time from the first signal the process exits. Longer than the exporter waits for requests.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(7);

const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The recording, such as an incident file
    file: PathBuf,

    /// Serve the page at HOST:PORT; `:9719` is all interfaces, port 0 is a free port
    #[arg(long = "web.listen-address", value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen_address: String,

    #[command(flatten)]
    config: WebConfigArgs,
}

/// Why a recording cannot be shown.
#[derive(Debug, Error)]
enum ReplayError {
    #[error(transparent)]
    NotAPath(#[from] NotAPath),
    #[error("cannot show {file}")]
    Read {
        file: String,
        #[source]
        error: ReadError,
    },
    #[error("cannot show {file}: {reason}")]
    Empty { file: String, reason: String },
}

/// Serves the page until a signal arrives.
pub(super) fn run(args: ReplayArgs) -> ExitCode {
    let ReplayArgs { file, listen_address, config } = args;
    let recording = match read(&file) {
        Ok(recording) => recording,
        Err(error) => return fail(&error, matches!(error, ReplayError::NotAPath(_))),
    };
    let web = match config.read().and_then(|config| WebSettings::new(listen_address, config, false)) {
        Ok(web) => web,
        Err(error) => return fail(&error, error.is_usage()),
    };
    if let Some(truncation) = &recording.truncation {
        // It is shown as far as it is readable.
        print_error(&format!("{}: {truncation}", Printable(file.display())), FAILURE);
    }
    let console = match Console::start() {
        Ok(console) => console,
        Err(error) => return fail(&error, false),
    };
    let result = serve(recording, web, &console);
    end(console, result.map_err(|error| (ErrorChain(&error).to_string(), exit_code(error.is_usage()))))
}

fn read(file: &Path) -> Result<Recording, ReplayError> {
    NotAPath::check(file, "poolscope replay", "`poolscope top` shows an exporter")?;
    let shown = || Printable(file.display()).to_string();
    let recording = Recording::open(file).map_err(|error| ReplayError::Read { file: shown(), error })?;
    if recording.seconds.is_empty() {
        let reason = recording.truncation.as_ref();
        let reason = reason.map_or_else(|| "the recording has no seconds".to_owned(), ToString::to_string);
        return Err(ReplayError::Empty { file: shown(), reason });
    }
    Ok(recording)
}

fn serve(recording: Recording, web: WebSettings, console: &Console) -> Result<(), ServiceError> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(ServiceError::system)?;
    let served = runtime.block_on(async {
        let (request_shutdown, mut shutdown) = watch::channel(None);
        watch_signals(request_shutdown.clone(), SHUTDOWN_TIMEOUT)?;
        let (pool, started) = (recording.header.pool.clone(), recording.header.started.clone());
        let seconds = recording.seconds.len();
        // It has no pools.
        let exporter = Exporter::new(Collector::new()).recording(recording);
        let exporter = ExporterTask::start(web, exporter, request_shutdown).await?;
        console.print(format!(
            "Live page: {}/\nPool {}, {seconds} seconds since {}. Stop with Ctrl-C.\n",
            exporter.url(),
            Printable(pool),
            Printable(started),
        ));
        shutdown_requested(&mut shutdown).await;
        exporter.stop().await
    });
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    served
}

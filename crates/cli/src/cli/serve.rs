//! `poolscope serve` and `poolscope check`: the standalone exporter, and what it is told.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use clap::builder::OsStringValueParser;
use poolscope::otlp::{OtlpError, Pipeline};
use poolscope_cli::serve::{self, Config, KEYS, SERVICE_NAME, Serve, ServeError};

use super::log::log_to;
use super::outputs::OutputArgs;
use super::web::{WebArgs, WebConfigArgs};
use super::{FAILURE, USAGE, complain, refuse};

/// What is logged unless the environment says so.
const LOGGED: &str = "poolscope=info,warn";

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,

    #[command(flatten)]
    web: WebArgs,

    #[command(flatten)]
    outputs: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,

    #[command(flatten)]
    web: WebConfigArgs,

    /// Connect to each database, too, and ask its server for its view
    #[arg(long)]
    connect: bool,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The file that names the databases, in TOML
    ///
    /// Without it there is one database, as POOLSCOPE_DATABASE_URL and the other settings in the environment say.
    #[arg(long, value_name = "FILE", env = "POOLSCOPE_CONFIG_FILE", value_parser = OsStringValueParser::new())]
    config: Option<OsString>,
}

impl ConfigArgs {
    fn read(&self) -> Result<Config, ServeError> {
        // An empty name is none: a variable can be unset so.
        match self.config.as_deref().filter(|file| !file.is_empty()) {
            Some(file) => Config::from_file(Path::new(file)),
            None => Config::from_env(),
        }
    }
}

/// Serves until a signal comes.
pub(super) fn serve(args: &ServeArgs) -> ExitCode {
    let config = match args.config.read() {
        Ok(config) => config,
        Err(error) => return refuse(&error, error.is_usage()),
    };
    // Before there are threads.
    let web = match args.web.settings() {
        Ok(web) => web,
        Err(error) => return refuse(&error, error.is_usage()),
    };
    let traces = match traces(args) {
        Ok(traces) => traces,
        Err(error) => return refuse(&error, error.is_usage()),
    };
    let layer = traces.as_ref().and_then(Pipeline::layer);
    if let Err(problem) = log_to(io::stderr, args.outputs.log_format, LOGGED, layer) {
        return complain(&problem, USAGE);
    }
    let serve = Serve { config, web, traces };
    match serve.run(say) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error, error.is_usage()),
    }
}

/// Says what a configuration comes to.
pub(super) fn check(args: &CheckArgs) -> ExitCode {
    if let Err(error) = args.web.read() {
        return refuse(&error, error.is_usage());
    }
    let checked =
        args.config.read().and_then(|config| serve::check(&config, args.connect, |line| say(&format!("{line}\n"))));
    match checked {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => complain("not every database can be had", FAILURE),
        Err(error) => refuse(&error, error.is_usage()),
    }
}

/// What takes spans to a collector, if there is one.
fn traces(args: &ServeArgs) -> Result<Option<Pipeline>, OtlpError> {
    let settings = args.outputs.traces(SERVICE_NAME)?;
    let wanted = settings.destination().is_some() && !settings.disabled;
    wanted.then(|| Pipeline::start(&settings)).transpose()
}

/// If nobody reads it, there is nobody to tell.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What the help says after the flags.
pub(super) fn help() -> String {
    let mut help = String::from(
        "The file names databases, each under the name of its pool:\n\
         \x20 [databases.shop]\n\
         \x20 database_url = \"postgres://poolscope@db.example/shop\"\n\
         \n\
         Each takes any setting of a pool (docs/settings.md), and:\n",
    );
    for key in KEYS {
        help += &format!("  {:<20} {}, default {}\n", key.name(), key.range(), key.default_text());
    }
    help.push_str(
        "Under [defaults] settings stand for all of them. docs/serve.md has the rest.\n\
         \n\
         Environment variables: POOLSCOPE_DATABASE_URL and the other settings where there\n\
         is no file; OTEL_... for OpenTelemetry; RUST_LOG for what to log to stderr,\n\
         default poolscope=info,warn; NO_COLOR for no colours.\n\
         \n\
         Exit codes: 0 all went well; 1 a failure; 2 a wrong flag, file, URL or variable.",
    );
    help
}

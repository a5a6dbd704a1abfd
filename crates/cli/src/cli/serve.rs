//! `poolscope serve` and `poolscope check`: the standalone exporter and its configuration.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::output::{Console, print};
use crate::serve::{self, Config, KEYS, SERVICE_NAME, Serve, ServeError};
use clap::Args;
use clap::builder::OsStringValueParser;
use poolscope::otlp::Pipeline;
use poolscope::text::ErrorChain;

use super::exit::{FAILURE, USAGE, end, exit_code, fail, print_error, printed};
use super::log;
use super::outputs::OutputArgs;
use super::record::RecordArgs;
use super::web::{WebArgs, WebConfigArgs};

/// The filter of the log unless the environment has one.
const LOG_FILTER: &str = "poolscope=info,warn";

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,

    #[command(flatten)]
    web: WebArgs,

    #[command(flatten)]
    record: RecordArgs,

    #[command(flatten)]
    outputs: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,

    #[command(flatten)]
    web: WebConfigArgs,

    /// Also connect to each database and query its server
    #[arg(long)]
    connect: bool,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file, in TOML
    ///
    /// Without it, one database is configured by POOLSCOPE_DATABASE_URL and the other settings in the environment.
    #[arg(long, value_name = "FILE", env = "POOLSCOPE_CONFIG_FILE", value_parser = OsStringValueParser::new())]
    config: Option<OsString>,
}

impl ConfigArgs {
    fn read(&self) -> Result<Config, ServeError> {
        // An empty value counts as unset.
        match self.config.as_deref().filter(|file| !file.is_empty()) {
            Some(file) => Config::from_file(Path::new(file)),
            None => Config::from_env(),
        }
    }
}

/// Runs the standalone exporter until a signal arrives.
pub(super) fn serve(args: &ServeArgs) -> ExitCode {
    let config = match args.config.read() {
        Ok(config) => config,
        Err(error) => return fail(&error, error.is_usage()),
    };
    // Before the process has threads.
    let web = match args.web.settings() {
        Ok(web) => web,
        Err(error) => return fail(&error, error.is_usage()),
    };
    let traces = match args.outputs.start_traces(SERVICE_NAME) {
        Ok(traces) => traces,
        Err(error) => return fail(&error, error.is_usage()),
    };
    let layer = traces.as_ref().and_then(Pipeline::layer);
    let console = match Console::start() {
        Ok(console) => console,
        Err(error) => return fail(&error, false),
    };
    if let Err(problem) = log::init(console.log(), args.outputs.log_format, LOG_FILTER, layer) {
        return print_error(&problem, USAGE);
    }
    let serve = Serve { config, web, record: args.record.settings(), traces };
    let result = serve.run(&console);
    end(console, result.map_err(|error| (ErrorChain(&error).to_string(), exit_code(error.is_usage()))))
}

/// Prints the configuration as it applies.
pub(super) fn check(args: &CheckArgs) -> ExitCode {
    if let Err(error) = args.web.read() {
        return fail(&error, error.is_usage());
    }
    let mut output = Ok(());
    let print = |line: &str| {
        if output.is_ok() {
            output = print(&format!("{line}\n"));
        }
    };
    let checked = args.config.read().and_then(|config| serve::check(&config, args.connect, print));
    match checked {
        Ok(_) if output.is_err() => printed(output),
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => print_error("at least one database is unreachable", FAILURE),
        Err(error) => fail(&error, error.is_usage()),
    }
}

/// Returns the part of the help after the flags.
pub(super) fn help() -> String {
    let mut help = String::from(
        "The file has a table for each database, with the name of its pool:\n\
         \x20 [databases.shop]\n\
         \x20 database_url = \"postgres://poolscope@db.example/shop\"\n\
         \n\
         Keys are the pool settings (docs/settings.md), and:\n",
    );
    for key in KEYS {
        help += &format!("  {:<20} {}, default {}\n", key.name(), key.range(), key.default_text());
    }
    help.push_str(
        "The table [defaults] sets defaults for all databases. See docs/serve.md.\n\
         \n\
         Environment variables:\n\
         \x20 POOLSCOPE_...   pool settings, without a configuration file\n\
         \x20 OTEL_...        settings of OpenTelemetry\n\
         \x20 RUST_LOG        filter of the log on stderr, default poolscope=info,warn\n\
         \x20 NO_COLOR        disables colors\n\
         \n\
         Exit codes: 0 success; 1 failure; 2 invalid flag, file, URL or variable.",
    );
    help
}

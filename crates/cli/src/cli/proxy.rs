//! `poolscope proxy`: the transparent proxy.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::output::Console;
use crate::proxy::{self, Flags, KEYS, ProxyCommand, SERVICE_NAME};
use clap::Args;
use clap::builder::OsStringValueParser;
use poolscope::otlp::Pipeline;
use poolscope::text::ErrorChain;

use super::exit::{USAGE, end, exit_code, fail, print_error};
use super::log;
use super::outputs::OutputArgs;
use super::record::RecordArgs;
use super::web::WebArgs;

/// The filter of the log unless the environment has one.
const LOG_FILTER: &str = "poolscope=info,warn";

#[derive(Debug, Args)]
pub(super) struct ProxyArgs {
    /// Where clients connect: HOST:PORT, `:PORT` for all interfaces, or the path of a Unix socket; may be repeated
    ///
    /// The default is 127.0.0.1:6432. Port 0 is a free port.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,

    /// The server, such as postgres://db.example:5432?sslmode=verify-full
    ///
    /// Users, passwords and databases are those that the clients send.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,

    /// The configuration file, in TOML
    #[arg(long, value_name = "FILE", env = "POOLSCOPE_CONFIG_FILE", value_parser = OsStringValueParser::new())]
    config: Option<OsString>,

    #[command(flatten)]
    web: WebArgs,

    #[command(flatten)]
    record: RecordArgs,

    #[command(flatten)]
    outputs: OutputArgs,
}

/// Runs the proxy until a signal arrives.
pub(super) fn run(args: &ProxyArgs) -> ExitCode {
    let config = args.config.as_deref().filter(|file| !file.is_empty()).map(Path::new);
    let flags = Flags { listen: &args.listen, upstream: args.upstream.as_deref(), config };
    let settings = match proxy::settings(flags) {
        Ok(settings) => settings,
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
    let command = ProxyCommand { settings, web, record: args.record.settings(), traces };
    let result = command.run(&console);
    end(console, result.map_err(|error| (ErrorChain(&error).to_string(), exit_code(error.is_usage()))))
}

/// Returns the part of the help after the flags.
pub(super) fn help() -> String {
    let mut help = String::from("Keys of the configuration file (docs/proxy.md):\n");
    for key in &KEYS {
        help += &format!("  {:<21} default {}\n", key.name, key.default);
    }
    help.push_str(
        "\n\
         Example:\n\
         \x20 poolscope proxy --listen 127.0.0.1:6432 --upstream postgres://db:5432\n\
         \n\
         SIGTERM ends sessions as soon as they are outside a transaction.\n\
         \n\
         Exit codes: 0 success; 1 failure; 2 invalid flag, file, URL or variable.",
    );
    help
}

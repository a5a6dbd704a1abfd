//! `poolscope demo`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use poolscope::config::{read_file, settings};
use poolscope::otlp::OtlpError;

use super::duration::duration;
use super::exit::{USAGE, end, exit_code, fail, print_error};
use super::log;
use super::outputs::OutputArgs;
use super::record::RecordArgs;
use super::web::WebArgs;
use crate::demo::{self, DEFAULT_FAULT_DELAY, Demo, DemoError, Scenario, ScenarioPlan, Timing, Traces};
use crate::output::Console;
use crate::service::{NotAPath, without_line_break};
use poolscope::text::{ErrorChain, Printable};

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    #[command(flatten)]
    web: WebArgs,

    /// Serve the shop at HOST:PORT; port 0 is a free port
    #[arg(
        long = "shop.listen-address",
        value_name = "ADDRESS",
        env = "POOLSCOPE_SHOP_LISTEN_ADDRESS",
        default_value = "127.0.0.1:0"
    )]
    shop_address: String,

    /// Run a scenario that injects a fault; the default is a mixed load without one
    #[arg(long, value_name = "NAME", value_parser = scenarios(), hide_possible_values = true, default_value = "shop")]
    pub(super) scenario: String,

    /// Inject the fault after this time of normal load
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = DEFAULT_FAULT_DELAY)]
    pub(super) scenario_after: Duration,

    /// Remove the fault after this time, and continue with normal load; the default depends on the scenario, and is mostly
    /// the end of the demo
    #[arg(long, value_name = "TIME", value_parser = duration)]
    scenario_for: Option<Duration>,

    /// Read products through a cache in a private Redis server, which needs redis-server; docs/cache.md
    #[arg(long)]
    cache: bool,

    /// Use the database from a client in this language too, through a proxy, and inject the fault there; docs/proxy.md
    ///
    /// `python` needs Python 3 with SQLAlchemy 2 and psycopg 3; POOLSCOPE_PYTHON names the interpreter, by default `python3`.
    #[arg(long, value_name = "LANGUAGE", value_parser = PossibleValuesParser::new(["python"]))]
    client: Option<String>,

    /// Stop after this time, such as 30s or 5m; by default the demo runs until Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Use this server instead of a private one: postgres://user:password@host:5432/database
    ///
    /// The query may contain any pool setting, as in `?pool_size=3`. The demo creates the schema `poolscope_demo`, and drops
    /// it at the end. POOLSCOPE_DATABASE_URL does the same without showing a password in the process list.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,

    /// Read that URL from this file, such as a systemd credential or a mounted secret
    #[arg(long, value_name = "FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,

    #[command(flatten)]
    record: RecordArgs,

    #[command(flatten)]
    outputs: OutputArgs,

    /// Serve the Jaeger UI with the latest traces at HOST:PORT; port 0 is a free port
    #[cfg(feature = "jaeger")]
    #[arg(
        long = "traces.listen-address",
        value_name = "ADDRESS",
        env = "POOLSCOPE_TRACES_LISTEN_ADDRESS",
        default_value = "127.0.0.1:0"
    )]
    traces_address: String,
}

/// Returns the parser of scenario names.
fn scenarios() -> PossibleValuesParser {
    PossibleValuesParser::new(Scenario::all().iter().map(Scenario::name))
}

/// Runs the demo until it ends.
pub(super) fn run(args: DemoArgs) -> ExitCode {
    // Before the process has threads.
    let web = match args.web.settings() {
        Ok(web) => web,
        Err(error) => return fail(&error, error.is_usage()),
    };
    let console = match Console::start() {
        Ok(console) => console,
        Err(error) => return fail(&error, false),
    };
    let traces = match traces(&args) {
        Ok(traces) => traces,
        Err(error) => return fail(&error, error.is_usage()),
    };
    if let Err(problem) = log::init(console.log(), args.outputs.log_format, "warn", traces.layer()) {
        return print_error(&problem, USAGE);
    }
    // The parser accepts no other names.
    let scenario = Scenario::named(&args.scenario).unwrap_or(&Scenario::all()[0]);
    let timing = Timing { after: args.scenario_after, lasts: args.scenario_for };
    let is_from_file = args.database_url_file.is_some();
    if let Some(file) = &args.database_url_file
        && let Err(error) = NotAPath::check(file, "--database-url-file", "give it as --database-url")
    {
        return fail(&error, true);
    }
    let database_url = match args.database_url_file.map(|file| (read_file(&file), file)) {
        None => args.database_url,
        Some((Ok(url), _)) => Some(without_line_break(&url).to_owned()),
        Some((Err(error), file)) => {
            return print_error(
                &format!("cannot read --database-url-file {}: {error}", Printable(file.display())),
                USAGE,
            );
        }
    };
    let demo = Demo {
        database_url,
        web,
        shop_address: args.shop_address,
        plan: ScenarioPlan { scenario, timing },
        cache: args.cache,
        python_client: args.client.is_some(),
        duration: args.duration,
        record: args.record.settings(),
        traces,
        #[cfg(feature = "jaeger")]
        traces_address: args.traces_address,
    };
    let result = demo.run(&console).map_err(|error| match error {
        DemoError::DatabaseUrl(error) if is_from_file => {
            (format!("invalid --database-url-file: {}", ErrorChain(&error)), USAGE)
        }
        error => (ErrorChain(&error).to_string(), exit_code(error.is_usage())),
    });
    end(console, result)
}

fn traces(args: &DemoArgs) -> Result<Traces, OtlpError> {
    Traces::start(&args.outputs.trace_settings(demo::SERVICE_NAME)?)
}

/// The width of the help, and the indentation of its second column.
const WIDTH: usize = 80;
const INDENT: &str = "                       ";

/// Wraps the text of the help's second column.
fn wrapped(text: &str) -> String {
    let mut width = INDENT.len();
    text.split(' ').fold(String::new(), |mut lines, word| {
        width += word.chars().count() + 1;
        if width > WIDTH {
            let _ = write!(lines, "\n{INDENT}");
            width = INDENT.len() + word.chars().count() + 1;
        } else if !lines.is_empty() {
            lines.push(' ');
        }
        lines + word
    })
}

/// Returns the part of the help after the flags.
pub(super) fn help() -> String {
    let defaults = demo::defaults();
    let mut help = String::from("Scenarios:\n");
    for scenario in Scenario::all() {
        let _ = writeln!(help, "  {:<20} {}", scenario.name(), wrapped(scenario.about()));
    }
    help.push_str("\nPool settings, from the environment or, by name, from the query of the URL:\n");
    let _ = writeln!(help, "  {:<27} {:<17} range", "variable", "default");
    for setting in settings() {
        let value = defaults.get(setting.name()).unwrap_or_default();
        let default = match setting.name() {
            "database_url" => "a private server".to_owned(),
            _ if value.is_empty() => setting.default(),
            _ => value,
        };
        let _ = writeln!(help, "  {:<27} {default:<17} {}", setting.environment_variable(), setting.range());
    }
    help.push_str(
        "\n\
         A URL on the command line takes precedence over the environment, and both\n\
         over the defaults.\n\
         \n\
         Other environment variables:\n\
         \x20 POOLSCOPE_PG_BIN   the directory of PostgreSQL's initdb and postgres\n\
         \x20 POOLSCOPE_PYTHON   the Python of --client python; default python3\n\
         \x20 POOLSCOPE_REDIS_SERVER   the program of the server for --cache, such as\n\
         \x20                    valkey-server; default redis-server\n\
         \x20 OTEL_...           settings of OpenTelemetry, such as\n\
         \x20                    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS,\n\
         \x20                    OTEL_SERVICE_NAME and OTEL_TRACES_SAMPLER\n\
         \x20 RUST_LOG           filter of the log on stderr, such as poolscope=debug;\n\
         \x20                    default warn\n\
         \x20 NO_COLOR           disables colors\n\
         \n\
         Examples:\n\
         \x20 poolscope demo\n\
         \x20 poolscope demo --duration 30s --web.listen-address 127.0.0.1:0\n\
         \x20 POOLSCOPE_POOL_SIZE=2 POOLSCOPE_MAX_OVERFLOW=0 poolscope demo\n\
         \x20 poolscope demo --otlp.endpoint http://localhost:4317\n\
         \x20 poolscope demo --database-url 'postgres://me@localhost/test?pool_size=20'\n\
         \x20 curl -s http://127.0.0.1:9719/metrics\n\
         \x20 poolscope demo --scenario slow_queries --scenario-after 1m --scenario-for 5m\n\
         \x20 poolscope demo --client python --scenario leak\n\
         \x20 poolscope demo --shop.listen-address 127.0.0.1:8080\n\
         \n\
         Ctrl-C and SIGTERM stop the demo gracefully; a second one exits at once.\n\
         Exit codes: 0 success; 1 failure; 2 invalid flag, URL or variable.",
    );
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_setting() {
        let help = help();
        for setting in settings() {
            assert!(help.contains(&setting.environment_variable()), "{}", setting.name());
        }
        assert!(help.contains("POOLSCOPE_POOL_SIZE         5                 1 to 10000"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
}

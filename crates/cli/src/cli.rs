//! The command line: what it takes, and what it answers with.
//!
//! Exit codes: 0 when all went well, 1 for a failure, 2 for a flag, a URL or an environment variable that cannot be.

mod healthy;
mod log;
mod outputs;
mod rules;
mod serve;
mod web;

use std::env;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use poolscope::config::settings;
use poolscope::otlp::OtlpError;
use poolscope_cli::demo::{self, Demo, DemoError, Play, Scenario, Screen, Timing, Traces};
use poolscope_cli::service::NotAPath;

use self::healthy::HealthyArgs;
use self::outputs::OutputArgs;
use self::rules::RulesArgs;
use self::serve::{CheckArgs, ServeArgs};
use self::web::WebArgs;

const FAILURE: u8 = 1;
const USAGE: u8 = 2;

/// See who holds a PostgreSQL connection pool, and why it is out.
#[derive(Debug, Parser)]
#[command(
    name = "poolscope",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "`poolscope demo` shows what it does, and `poolscope demo --help` all that can be set."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a private PostgreSQL, a workload that looks like a web shop, and the exporter
    ///
    /// Nothing else is needed than PostgreSQL's server programs (12 or later). The server lives in a temporary
    /// directory named `poolscope-…`; it and its directory are gone when the demo ends, however it ends.
    ///
    /// The shop is an HTTP service of its own, and its customers are HTTP clients, of whom some leave before they have
    /// their answer. Several operations share one pool, each with its own rate and its own way of holding a connection.
    /// Now and then a rush comes that reaches into the pool's overflow; every third one is so large that checkouts time
    /// out.
    Demo(DemoArgs),

    /// Watch the databases that a file names, as an exporter of its own
    ///
    /// For each there is an instrumented pool that is probed, and what its server says of itself: backends by application
    /// and state, slots left, who waits for locks. It is for databases whose clients cannot embed poolscope, and beside
    /// those that do.
    #[command(after_long_help = serve::help())]
    Serve(ServeArgs),

    /// Validate what `serve` is told, and say what it comes to
    ///
    /// It connects to nothing unless it is told to.
    #[command(after_help = "Example:\n  poolscope check --config poolscope.toml --connect")]
    Check(CheckArgs),

    /// Print recording and alerting rules for Prometheus
    ///
    /// All of them as one file, for `rule_files` in Prometheus' configuration. docs/alerts.md has each alert with its
    /// thresholds, and the exporter serves the runbooks at /runbooks/.
    #[command(after_help = "Example:\n  poolscope rules > /etc/prometheus/rules/poolscope.yml")]
    Rules(RulesArgs),

    /// Ask an exporter whether it is healthy, for a health check
    ///
    /// It prints what the exporter says, and ends with 0 if that was 200, else with 1 and the reason.
    #[command(after_help = "Examples:\n  poolscope healthy\n  poolscope healthy http://127.0.0.1:9719/-/ready")]
    Healthy(HealthyArgs),
}

#[derive(Debug, Args)]
struct DemoArgs {
    #[command(flatten)]
    web: WebArgs,

    /// Open the shop at HOST:PORT, for a look at its answers; port 0 for a free one
    #[arg(
        long = "shop.listen-address",
        value_name = "ADDRESS",
        env = "POOLSCOPE_SHOP_LISTEN_ADDRESS",
        default_value = "127.0.0.1:0"
    )]
    shop_address: String,

    /// Bring about what makes a pool run out; without it the shop is as they are, a little of everything
    #[arg(long, value_name = "NAME", value_parser = scenarios(), hide_possible_values = true, default_value = "shop")]
    scenario: String,

    /// Have a calm load for this time before the scenario's fault, if it has one
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    scenario_after: Duration,

    /// End the scenario's fault after this time, and have a calm load again; by default as the scenario has it, which
    /// mostly is at the end of the demo
    #[arg(long, value_name = "TIME", value_parser = duration)]
    scenario_for: Option<Duration>,

    /// End after this time, such as 30s or 5m; without it the demo runs until Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Use this server instead of a private one: postgres://user:password@host:5432/database
    ///
    /// Any pool setting may stand in its query, as in `?pool_size=3`. The schema `poolscope_demo` is created there
    /// at the start and dropped at the end. POOLSCOPE_DATABASE_URL means the same, and keeps a password out of the
    /// list of processes.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,

    /// Read that URL from this file, such as a credential of systemd's or a mounted secret
    #[arg(long, value_name = "FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,

    #[command(flatten)]
    outputs: OutputArgs,

    /// Show the latest traces in Jaeger's page at HOST:PORT; port 0 for a free one
    #[cfg(feature = "jaeger")]
    #[arg(
        long = "traces.listen-address",
        value_name = "ADDRESS",
        env = "POOLSCOPE_TRACES_LISTEN_ADDRESS",
        default_value = "127.0.0.1:0"
    )]
    traces_address: String,
}

/// Does what the command line asks for.
pub(crate) fn run() -> ExitCode {
    let cli = match parse(&env::args_os().collect::<Vec<_>>()) {
        Ok(cli) => cli,
        Err(error) => {
            // If nobody reads it, there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    match cli.command {
        Command::Demo(args) => demo(args),
        Command::Serve(args) => serve::serve(&args),
        Command::Check(args) => serve::check(&args),
        Command::Healthy(args) => match healthy::ask(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, FAILURE),
        },
        Command::Rules(args) => match rules::print(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, FAILURE),
        },
    }
}

fn demo(args: DemoArgs) -> ExitCode {
    // Before there are threads.
    let web = match args.web.settings() {
        Ok(web) => web,
        Err(error) => return refuse(&error, error.is_usage()),
    };
    let screen = match Screen::start() {
        Ok(screen) => screen,
        Err(error) => return fail(&error, FAILURE),
    };
    let traces = match traces(&args) {
        Ok(traces) => traces,
        Err(error) => return refuse(&error, error.is_usage()),
    };
    if let Err(problem) = log::log_to(screen.log(), args.outputs.log_format, "warn", traces.layer()) {
        return complain(&problem, USAGE);
    }
    // The parser takes no other names.
    let scenario = Scenario::named(&args.scenario).unwrap_or(&Scenario::all()[0]);
    let timing = Timing { after: args.scenario_after, lasts: args.scenario_for };
    let from_file = args.database_url_file.is_some();
    if let Some(file) = &args.database_url_file
        && let Err(error) = NotAPath::check(file, "--database-url-file", "give it as --database-url")
    {
        return fail(&error, USAGE);
    }
    let database_url = match args.database_url_file.map(|file| (fs::read_to_string(&file), file)) {
        None => args.database_url,
        Some((Ok(url), _)) => Some(url.trim_end().to_owned()),
        Some((Err(error), file)) => {
            return complain(&format!("--database-url-file cannot be read: {}: {error}", file.display()), USAGE);
        }
    };
    let demo = Demo {
        database_url,
        web,
        shop_address: args.shop_address,
        play: Play { scenario, timing },
        duration: args.duration,
        traces,
        #[cfg(feature = "jaeger")]
        traces_address: args.traces_address,
    };
    let result = demo.run(&screen);
    // What was printed so far comes before the error.
    screen.finish();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(DemoError::DatabaseUrl(error)) if from_file => {
            complain(&chain("--database-url-file cannot be used", Some(&error)), USAGE)
        }
        Err(error) => refuse(&error, error.is_usage()),
    }
}

fn traces(args: &DemoArgs) -> Result<Traces, OtlpError> {
    Traces::start(&args.outputs.traces(demo::SERVICE_NAME)?)
}

/// Parses the command line. An error shows no secret: its text is made from arguments without any.
fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let parse = |arguments: &[OsString]| {
        let mut command = Cli::command();
        command = command.mut_subcommand("demo", |demo| demo.after_long_help(demo_help()));
        Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)
    };
    parse(arguments).or_else(|error| {
        let masked: Vec<_> = arguments.iter().map(|argument| masked(argument)).collect();
        // What is masked is opaque to the parser, so that it fails again, and in the same way.
        parse(&masked).and(Err(error))
    })
}

/// The argument; of one that may hold a password only the flag, if it has one.
fn masked(argument: &OsStr) -> OsString {
    let text = argument.to_string_lossy();
    if !["://", "@", "password"].iter().any(|mark| text.contains(mark)) {
        return argument.to_owned();
    }
    match text.split_once('=') {
        Some((flag, _)) if flag.starts_with("--") && !flag.contains([':', '@']) => format!("{flag}=***").into(),
        _ => "***".into(),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("give a time with its unit, above zero, such as 30s, 5m or 1h30m".to_owned()),
    }
}

/// The names of scenarios.
fn scenarios() -> PossibleValuesParser {
    PossibleValuesParser::new(Scenario::all().iter().map(Scenario::name))
}

/// A phrase of the help's second column, on as many lines as it needs.
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

/// How wide the help is, and where its second column begins.
const WIDTH: usize = 80;
const INDENT: &str = "                       ";

/// What the demo's help says after the flags.
fn demo_help() -> String {
    let defaults = demo::defaults();
    let mut help = String::from("Scenarios:\n");
    for scenario in Scenario::all() {
        let _ = writeln!(help, "  {:<20} {}", scenario.name(), wrapped(scenario.about()));
    }
    help.push_str("\nPool settings, from the environment or, by their names, from the URL's query:\n");
    let _ = writeln!(help, "  {:<27} {:<17} range", "variable", "default");
    for setting in settings() {
        let value = defaults.get(setting.name()).unwrap_or_default();
        let default = match (setting.name(), value.is_empty()) {
            ("database_url", _) => "a private server".to_owned(),
            (_, true) => setting.default(),
            (_, false) => value,
        };
        let _ = writeln!(help, "  {:<27} {default:<17} {}", setting.environment_variable(), setting.range());
    }
    help.push_str(
        "\n\
         A URL on the command line wins over the environment, and both over the defaults.\n\
         \n\
         Other environment variables:\n\
         \x20 POOLSCOPE_PG_BIN   the directory of PostgreSQL's initdb and postgres\n\
         \x20 OTEL_...           OpenTelemetry's own: OTEL_EXPORTER_OTLP_ENDPOINT,\n\
         \x20                    OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME,\n\
         \x20                    OTEL_TRACES_SAMPLER and their kin\n\
         \x20 RUST_LOG           what to log to stderr: poolscope=debug, say; default warn\n\
         \x20 NO_COLOR           no colours\n\
         \n\
         Examples:\n\
         \x20 poolscope demo\n\
         \x20 poolscope demo --duration 30s --web.listen-address 127.0.0.1:0\n\
         \x20 POOLSCOPE_POOL_SIZE=2 POOLSCOPE_MAX_OVERFLOW=0 poolscope demo\n\
         \x20 poolscope demo --otlp.endpoint http://localhost:4317\n\
         \x20 poolscope demo --database-url 'postgres://me@localhost/test?pool_size=20'\n\
         \x20 curl -s http://127.0.0.1:9719/metrics\n\
         \x20 poolscope demo --scenario slow_queries --scenario-after 1m --scenario-for 5m\n\
         \x20 poolscope demo --shop.listen-address 127.0.0.1:8080\n\
         \n\
         Ctrl-C and SIGTERM end the demo in good order, a second one at once.\n\
         Exit codes: 0 all went well; 1 a failure; 2 a wrong flag, URL or variable.",
    );
    help
}

/// Says what is wrong; `usage` says whether whoever called is to blame.
fn refuse(error: &dyn Error, usage: bool) -> ExitCode {
    fail(error, if usage { USAGE } else { FAILURE })
}

fn fail(error: &dyn Error, code: u8) -> ExitCode {
    complain(&chain(&error.to_string(), error.source()), code)
}

/// What happened, and all that it came from.
fn chain(what: &str, mut source: Option<&dyn Error>) -> String {
    let mut line = what.to_owned();
    while let Some(cause) = source {
        let _ = write!(line, ": {cause}");
        source = cause.source();
    }
    line
}

fn complain(problem: &str, code: u8) -> ExitCode {
    let style = Cli::command().get_styles().get_error().to_owned();
    // If nobody reads it, there is nobody to tell.
    let _ = writeln!(anstream::stderr(), "{style}error:{style:#} {problem}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(arguments: &[&str]) -> String {
        let arguments: Vec<_> = ["poolscope"].iter().chain(arguments).map(OsString::from).collect();
        parse(&arguments).expect_err("arguments that cannot be").render().to_string()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_error_shows_a_password_wherever_a_url_stands() {
        let url = "postgres://app:hunter2@db/shop";
        for arguments in [
            &[url][..],
            &["demo", url],
            &["demo", "--duration", url],
            &["demo", &format!("--duration={url}")],
            &["demo", &format!("--database_url={url}")],
            &["demo", "--database-url", url, "--database-url", url],
            &["demo", "--database-url", url, url],
            &["demo", &format!("--database-url{url}")],
            &["demo", &format!("-{url}")],
            &["demo", "host=db password=hunter2"],
        ] {
            let message = message(arguments);
            assert!(!message.contains("hunter2") && message.starts_with("error: "), "{arguments:?}: {message}");
        }
    }

    #[test]
    fn an_error_shows_what_holds_no_secret() {
        assert!(message(&["demo", "--duration", "30"]).contains("invalid value '30' for '--duration <TIME>': give a"));
        assert!(message(&["demo", "--database_url=x://y"]).contains("'--database-url'"));
    }

    #[test]
    fn a_scenario_has_its_defaults() {
        let Ok(Cli { command: Command::Demo(args) }) = parse(&["poolscope", "demo"].map(OsString::from)) else {
            panic!("no demo");
        };
        assert_eq!((&*args.scenario, args.scenario_after), (Scenario::all()[0].name(), demo::CALM_FOR));
    }

    #[test]
    fn the_help_of_serve_names_what_a_database_takes() {
        let help = serve::help();
        assert!(help.contains("  server_view          on or off, default on\n"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }

    #[test]
    fn the_help_names_every_setting() {
        let help = demo_help();
        for setting in settings() {
            assert!(help.contains(&setting.environment_variable()), "{}", setting.name());
        }
        assert!(help.contains("POOLSCOPE_POOL_SIZE         5                 1 to 10000"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
}

//! The command line.
//!
//! Exit codes: 0 for success, 1 for a failure, 2 for an invalid flag, URL, file of settings or environment variable. Those
//! of `healthy` and `diagnose` answer a question; their help lists them.

mod client;
mod demo;
mod diagnose;
mod duration;
mod exit;
mod healthy;
mod log;
mod outputs;
mod proxy;
mod record;
mod replay;
mod rules;
mod serve;
mod subject;
mod top;
mod web;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::demo::DemoArgs;
use self::diagnose::DiagnoseArgs;
use self::exit::{USAGE, fail, printed};
use self::healthy::HealthyArgs;
use self::proxy::ProxyArgs;
use self::replay::ReplayArgs;
use self::rules::RulesArgs;
use self::serve::{CheckArgs, ServeArgs};
use self::top::TopArgs;

/// Observability for PostgreSQL connection pools.
#[derive(Debug, Parser)]
#[command(
    name = "poolscope",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Start with `poolscope demo`; `poolscope demo --help` lists its settings."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a private PostgreSQL server, a simulated web shop, and the exporter
    ///
    /// This requires PostgreSQL's server programs (version 12 or later). The server runs in a temporary directory named
    /// `poolscope-…`, which is removed when the demo ends, even if it is killed.
    ///
    /// The shop is an HTTP service, and its customers are HTTP clients, some of which disconnect before they have their
    /// response. Several operations share one pool; each has its own rate and holds connections in its own way. Bursts of
    /// requests use the pool's overflow; in every third burst, checkouts time out.
    Demo(DemoArgs),

    /// Watch the databases of a configuration file, as a standalone exporter
    ///
    /// Each database has an instrumented pool that is probed, and metrics of its server: backends by application and
    /// state, free slots, lock waits. Use it for databases whose clients cannot embed poolscope, or in addition to those
    /// that do.
    #[command(after_long_help = serve::help())]
    Serve(ServeArgs),

    /// Observe the connection pools of clients in any language, as a transparent proxy in front of a server
    ///
    /// Each client connection is one connection to the server, and what passes is not changed. Clients are grouped into pools
    /// by application name, user and database, with the metrics, the diagnosis and the page that poolscope's own pools have.
    /// docs/proxy.md describes what a proxy sees and what it cannot.
    #[command(after_long_help = proxy::help())]
    Proxy(ProxyArgs),

    /// Validate the configuration of `serve`, and print it as it applies
    ///
    /// It does not connect to the databases without --connect.
    #[command(after_help = "Example:\n  poolscope check --config poolscope.toml --connect")]
    Check(CheckArgs),

    /// Print recording and alerting rules for Prometheus
    ///
    /// The output is one file for `rule_files` in the Prometheus configuration. docs/alerts.md lists the alerts with their
    /// thresholds.
    #[command(
        after_help = "Example:\n  poolscope rules --server-connections 200 --grafana-url https://grafana.shop.net \\\n    > \
                            /etc/prometheus/rules/poolscope.yml"
    )]
    Rules(RulesArgs),

    /// Query an exporter's health, for health checks
    ///
    /// It prints the response. The exit code is 0 if the status is 200, and 1 otherwise.
    #[command(after_help = "Examples:\n  poolscope healthy\n  poolscope healthy http://127.0.0.1:9719/-/ready")]
    Healthy(HealthyArgs),

    /// Print the verdict about each pool of one or more exporters, or those of recordings: cause, evidence and advice
    ///
    /// The exit code is 0 if all pools are healthy, 1 if one is not, and 2 if that is unknown: an exporter does not
    /// answer, has no pools, or has observed them for too short a time. docs/diagnosis.md lists the causes.
    #[command(
        after_help = "Examples:\n  poolscope diagnose\n  poolscope diagnose https://shop-1:9719 https://shop-2:9719 --cacert ca.pem --user admin"
    )]
    Diagnose(DiagnoseArgs),

    /// Show the pools of one or more exporters, or recordings, in the terminal: verdicts, holders and waiters, every second
    ///
    /// The keys are those of `top` and `htop`; `?` lists them. If standard output is not a terminal, the pools are printed
    /// once, as plain text.
    #[command(
        after_help = "Examples:\n  poolscope top\n  poolscope top http://shop-1:9719 http://shop-2:9719\n  poolscope top --batch | head"
    )]
    Top(TopArgs),

    /// Show a recording on the live page, at any of its moments
    ///
    /// It prints the page's address, and serves until Ctrl-C. A truncated recording is shown as far as it is readable.
    /// docs/recording.md describes recordings.
    #[command(after_help = "Example:\n  poolscope replay incidents/poolscope-shop-20261201T210000Z-leak.jsonl.gz")]
    Replay(ReplayArgs),
}

/// Runs the command that the arguments of this process name, and returns its exit code.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match parse(&env::args_os().collect::<Vec<_>>()) {
        Ok(cli) => cli,
        Err(error) => {
            // The help and the version are output, other messages errors.
            let is_output = !error.use_stderr();
            return match error.print().and_then(|()| io::stdout().flush()) {
                Err(failure) if is_output && failure.kind() != io::ErrorKind::BrokenPipe => printed(Err(failure)),
                _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE)),
            };
        }
    };
    match cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Serve(args) => serve::serve(&args),
        Command::Proxy(args) => proxy::run(&args),
        Command::Check(args) => serve::check(&args),
        Command::Healthy(args) => match healthy::query(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, false),
        },
        Command::Diagnose(args) => diagnose::run(args),
        Command::Top(args) => top::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Rules(args) => match rules::print(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, error.is_usage()),
        },
    }
}

/// Parses the arguments. An error contains no password, because it is made from masked arguments.
fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let parse = |arguments: &[OsString]| {
        let mut command = Cli::command();
        command = command.mut_subcommand("demo", |demo| demo.after_long_help(demo::help()));
        Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)
    };
    parse(arguments).or_else(|error| {
        let masked: Vec<_> = arguments.iter().map(|argument| masked(argument)).collect();
        // The parser treats masked values as opaque too, so that it returns the same error.
        parse(&masked).and(Err(error))
    })
}

/// Returns the argument; only its flag if the value may contain a password.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::demo::Scenario;

    fn message(arguments: &[&str]) -> String {
        let arguments: Vec<_> = ["poolscope"].iter().chain(arguments).map(OsString::from).collect();
        parse(&arguments).expect_err("invalid arguments").render().to_string()
    }

    #[test]
    fn command_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn errors_never_contain_a_password() {
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
    fn errors_contain_arguments_without_a_secret() {
        assert!(message(&["demo", "--duration", "30"]).contains("invalid value '30' for '--duration <TIME>': give a"));
        assert!(message(&["demo", "--database_url=x://y"]).contains("'--database-url'"));
    }

    #[test]
    fn scenario_has_defaults() {
        let Ok(Cli { command: Command::Demo(args) }) = parse(&["poolscope", "demo"].map(OsString::from)) else {
            panic!("no demo");
        };
        assert_eq!((&*args.scenario, args.scenario_after), (Scenario::all()[0].name(), Duration::from_secs(10)));
    }

    #[test]
    fn help_of_serve_lists_every_key() {
        let help = serve::help();
        assert!(help.contains("  server_view          on or off, default on\n"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
}

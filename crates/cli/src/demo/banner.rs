//! The texts that the demo prints when it starts and stops.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use humantime::format_duration;
use poolscope::Settings;
use poolscope_testing::server::Server;

use super::client::{POOL_NAME, PORT};
use super::environment::Remains;
use super::scenario::{Phase, ScenarioPlan};
use super::schema::SCHEMA;
use super::screen::clock;
use crate::service::ShutdownReason;

/// The addresses of the demo's components.
pub(super) struct Addresses<'a> {
    /// The exporter's URL.
    pub(super) exporter: &'a str,
    /// The shop's URL.
    pub(super) shop: &'a str,
    /// The URL of the Jaeger UI.
    pub(super) jaeger: Option<&'a str>,
    /// The collector's endpoint and protocol.
    pub(super) collector: Option<&'a str>,
    /// The private server; `None` with a server that the user named.
    pub(super) server: Option<&'a Server>,
    /// The directory of the private Redis server, with `--cache`.
    pub(super) cache: Option<&'a Path>,
    /// The directory of the socket of the client's proxy, with `--client`.
    pub(super) client: Option<&'a Path>,
}

/// Returns the line for the start or end of the fault.
pub(super) fn phase_notice(plan: &ScenarioPlan, phase: Phase, elapsed: Duration) -> String {
    let event = match phase {
        Phase::Normal => return String::new(),
        Phase::Fault => format!("fault injected: {}", plan.scenario.about()),
        Phase::Recovered => "fault removed".to_owned(),
    };
    format!("{} {event}\n", clock(elapsed))
}

/// Returns the text that is printed once everything runs: the addresses, and how to stop.
pub(super) fn banner(
    pool: &str,
    settings: &Settings,
    addresses: &Addresses<'_>,
    plan: &ScenarioPlan,
    duration: Option<Duration>,
) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "poolscope {}: pool {pool}, {} + {} connections, checkout timeout {}\n",
        env!("CARGO_PKG_VERSION"),
        settings.pool_size,
        settings.max_overflow,
        format_duration(settings.checkout_timeout),
    );
    let _ = writeln!(text, "  metrics  {}/metrics", addresses.exporter);
    let _ = writeln!(text, "  shop     {}/products/7", addresses.shop);
    for traces in [addresses.jaeger, addresses.collector].into_iter().flatten() {
        let _ = writeln!(text, "  traces   {traces}");
    }
    let database = match (addresses.server, &settings.database_url) {
        (Some(server), _) => {
            let sockets = shell_quoted(&server.dir().join("run"));
            format!("psql -h {sockets} -p {} -U postgres postgres", server.port())
        }
        (None, Some(url)) => format!("{url}, schema {SCHEMA}"),
        (None, None) => String::new(),
    };
    let _ = writeln!(text, "  server   {database}");
    if let Some(directory) = addresses.cache {
        let _ = writeln!(text, "  cache    redis-cli -s {}", shell_quoted(&directory.join("redis.sock")));
    }
    if let Some(directory) = addresses.client {
        let sockets = shell_quoted(directory);
        let _ = writeln!(text, "  client   SQLAlchemy in Python, through a proxy: pool {POOL_NAME}");
        let _ = writeln!(text, "  proxy    psql -h {sockets} -p {PORT} -U postgres postgres");
    }
    let _ = writeln!(text, "  scenario {}", scenario(plan));
    // The symptoms are those of the shop's pool.
    if addresses.client.is_none() {
        let _ = writeln!(text, "  watch    {}", plan.scenario.symptoms().replace('`', ""));
    }
    let after = duration.map(|duration| format!("after {}, or with ", format_duration(duration)));
    let _ = writeln!(text, "  stop     {}Ctrl-C or `kill {}`\n", after.unwrap_or_default(), std::process::id());
    text
}

/// Describes the scenario, and when its fault is injected.
fn scenario(plan: &ScenarioPlan) -> String {
    let scenario = plan.scenario;
    let timing = plan.fault_timing().map(|(after, lasts)| {
        let lasts = lasts.map(|time| format!(", for {}", format_duration(time))).unwrap_or_default();
        format!(" (after {}{lasts})", format_duration(after))
    });
    format!("{}: {}{}", scenario.name(), scenario.about(), timing.unwrap_or_default())
}

/// Returns the line for the start of the shutdown.
pub(super) fn shutdown_notice(reason: ShutdownReason, server: Option<&Server>) -> String {
    let reason = match reason {
        ShutdownReason::Signal(name) => name,
        ShutdownReason::DurationElapsed => "Duration elapsed",
        ShutdownReason::OutputClosed => "Standard output closed",
        ShutdownReason::Failure => "Failure",
    };
    let schema = if server.is_some() { String::new() } else { format!(" without dropping the schema {SCHEMA}") };
    format!("{reason}: completing requests in flight. Press Ctrl-C again to exit at once{schema}.\n")
}

/// Returns the line about the removal of the server or the schema.
pub(super) fn remains_notice(remains: &Remains) -> String {
    match remains {
        Remains::Nothing => "The private server was stopped, and its directory removed.\n".to_owned(),
        Remains::DroppedSchema => format!("The schema {SCHEMA} was dropped.\n"),
        Remains::Server | Remains::Schema => String::new(),
    }
}

/// Quotes a path for a shell, if necessary.
fn shell_quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_quoted_if_necessary() {
        assert_eq!(shell_quoted(Path::new("/tmp/poolscope-aB3/run")), "/tmp/poolscope-aB3/run");
        assert_eq!(shell_quoted(Path::new("/my tmp/it's")), r"'/my tmp/it'\''s'");
    }
}

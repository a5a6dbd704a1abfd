//! What the demo says at its beginning and at its end.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use humantime::format_duration;

use super::scenario::{Phase, Play};
use super::schema::SCHEMA;
use super::screen::clock;
use crate::service::Ending;
use poolscope::Settings;
use poolscope_testing::server::Server;

/// Where to look.
pub(super) struct Places<'a> {
    /// The exporter's URL.
    pub(super) metrics: &'a str,
    /// The shop's URL.
    pub(super) shop: &'a str,
    /// The URL of Jaeger's page.
    pub(super) page: Option<&'a str>,
    /// Where spans are sent.
    pub(super) collector: Option<&'a str>,
    /// `None` where the server is somebody's own.
    pub(super) server: Option<&'a Server>,
}

/// What goes on from now on, where something is to go wrong.
pub(super) fn turn(play: &Play, phase: Phase, elapsed: Duration) -> String {
    let what = match phase {
        Phase::Calm => return String::new(),
        Phase::Fault => format!("the fault begins: {}", play.scenario.about()),
        Phase::Over => "the fault is over".to_owned(),
    };
    format!("{} {what}\n", clock(elapsed))
}

/// What runs, where to look, and how to end it.
pub(super) fn banner(
    pool: &str,
    settings: &Settings,
    places: &Places<'_>,
    play: &Play,
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
    let _ = writeln!(text, "  metrics  {}/metrics", places.metrics);
    let _ = writeln!(text, "  shop     {}/products/7", places.shop);
    for traces in [places.page, places.collector].into_iter().flatten() {
        let _ = writeln!(text, "  traces   {traces}");
    }
    let database = match (places.server, &settings.database_url) {
        (Some(server), _) => {
            let sockets = quoted(&server.dir().join("run"));
            format!("psql -h {sockets} -p {} -U postgres postgres", server.port())
        }
        (None, Some(url)) => format!("{url}, schema {SCHEMA}"),
        (None, None) => String::new(),
    };
    let _ = writeln!(text, "  server   {database}");
    let _ = writeln!(text, "  plays    {}", plays(play));
    let _ = writeln!(text, "  watch    {}", play.scenario.shows().replace('`', ""));
    let by_itself = duration.map(|duration| format!("by itself after {}, or by ", format_duration(duration)));
    let _ = writeln!(text, "  ends     {}Ctrl-C or `kill {}`\n", by_itself.unwrap_or_default(), std::process::id());
    text
}

/// The scenario, and when its fault is there.
fn plays(play: &Play) -> String {
    let scenario = play.scenario;
    let when = play.fault().map(|(after, lasts)| {
        let lasts = lasts.map(|time| format!(", for {}", format_duration(time))).unwrap_or_default();
        format!(" (after {}{lasts})", format_duration(after))
    });
    format!("{}: {}{}", scenario.name(), scenario.about(), when.unwrap_or_default())
}

/// That the demo ends, why, and what another signal would do.
pub(super) fn stopping(why: Ending, server: Option<&Server>) -> String {
    let why = match why {
        Ending::Signal(name) => name,
        Ending::Time => "Time is up",
        Ending::Unread => "Nobody reads this",
        Ending::Failure => "Something failed",
    };
    let left = if server.is_some() { String::new() } else { format!(", and leaves schema {SCHEMA} behind") };
    format!("{why}: what is under way may end. Ctrl-C once more ends at once{left}.\n")
}

/// What became of the database. `gone` says whether the directory of a private server is.
pub(super) fn left(directory: Option<(&Path, bool)>, is_dropped: bool) -> String {
    match directory {
        Some((_, true)) => "The private server and its directory are gone.\n".to_owned(),
        Some((directory, false)) => format!("The private server is still at work in {}.\n", directory.display()),
        None if is_dropped => format!("Schema {SCHEMA} is dropped.\n"),
        None => String::new(),
    }
}

/// The path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_where_a_shell_would_part_it() {
        assert_eq!(quoted(Path::new("/tmp/poolscope-aB3/run")), "/tmp/poolscope-aB3/run");
        assert_eq!(quoted(Path::new("/my tmp/it's")), r"'/my tmp/it'\''s'");
    }
}

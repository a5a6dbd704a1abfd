//! The status of the pool on one line.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use poolscope::labels::{ErrorCode, ErrorPhase, Outcome, PoolKind};
use poolscope::telemetry::{ConnectionErrors, Connections, Holder, OperationTotals, PoolSnapshot};

use crate::output::StatusLine;

/// The characters of the bar.
#[derive(Debug)]
struct Glyphs {
    used: char,
    creating: char,
    idle: char,
    free: char,
}

/// Unicode characters.
const BLOCKS: Glyphs = Glyphs { used: '█', creating: '▓', idle: '▒', free: '·' };
/// ASCII characters.
const ASCII: Glyphs = Glyphs { used: '#', creating: '%', idle: '=', free: '.' };

/// The maximum number of cells of the bar.
const MAX_CELLS: usize = 20;

const NORMAL: Style = AnsiColor::Green.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default();
const CRITICAL: Style = AnsiColor::Red.on_default().bold();
const NAME: Style = AnsiColor::Cyan.on_default();
const DIM: Style = Style::new().dimmed();
const PLAIN: Style = Style::new();

/// The figures of the status line.
#[derive(Debug, Clone)]
pub(in crate::demo) struct Status {
    elapsed: Duration,
    size: usize,
    max: usize,
    connections: Connections,
    /// Whether it is the pool of a client behind a proxy, which sees no checkouts.
    is_proxied: bool,
    waiting: usize,
    /// Checkouts started per second since the last status.
    rate: f64,
    timeouts: u64,
    errors: u64,
    /// The most frequent causes of the errors.
    error_causes: Option<String>,
    /// Whether checkouts timed out since the last status.
    has_new_timeouts: bool,
    /// The operation that holds the most connections, with their number.
    top_holder: Option<(Arc<str>, usize)>,
    /// The cause that the pool is diagnosed with, unless it is healthy, and the operation responsible.
    diagnosis: Option<(&'static str, Option<Arc<str>>)>,
}

impl Status {
    /// Computes the status from a snapshot and the one before, which was taken `interval` earlier.
    pub(in crate::demo) fn new(
        now: &PoolSnapshot,
        before: &PoolSnapshot,
        interval: Duration,
        elapsed: Duration,
    ) -> Self {
        let started = |pool: &PoolSnapshot| pool.operations.iter().map(|operation| operation.started).sum::<u64>();
        let new = u32::try_from(started(now).saturating_sub(started(before))).unwrap_or(u32::MAX);
        let errors = now.operations.iter().map(errors).sum();
        Self {
            elapsed,
            size: now.limits.pool_size,
            max: now.limits.max(),
            connections: now.connections,
            is_proxied: now.kind == PoolKind::Proxy,
            waiting: now.queued,
            rate: f64::from(new) / interval.as_secs_f64().max(1e-3),
            timeouts: timeouts(now),
            errors,
            error_causes: causes_text(&error_causes(now), 2),
            has_new_timeouts: timeouts(now) > timeouts(before),
            top_holder: top_holder(&now.holders),
            diagnosis: now
                .diagnosis
                .as_ref()
                .filter(|verdict| verdict.is_problem())
                .map(|verdict| (verdict.cause.as_str(), verdict.operation.clone())),
        }
    }

    /// Returns the line for a terminal. Omits the least important parts if they exceed `width` columns.
    fn line(&self, width: usize, glyphs: &Glyphs, ansi: bool) -> String {
        let Connections { used, idle, .. } = self.connections;
        let load = match used {
            used if used >= self.max => CRITICAL,
            used if used > self.size => WARNING,
            _ => NORMAL,
        };
        let timeouts = if self.has_new_timeouts { CRITICAL } else { warning_if(self.timeouts > 0) };
        // Each with its rank: the highest is omitted first.
        let mut parts: Vec<(u8, Vec<Piece>)> = vec![
            (1, vec![Piece(DIM, clock(self.elapsed))]),
            (3, self.bar(glyphs)),
            (0, vec![Piece(load, format!("{used}/{} used", self.max))]),
            (7, vec![Piece(PLAIN, format!("{idle} idle"))]),
        ];
        if !self.is_proxied {
            parts.extend([
                (1, vec![Piece(warning_if(self.waiting > 0), format!("{} waiting", self.waiting))]),
                (5, vec![Piece(PLAIN, format!("{:.0}/s", self.rate))]),
                (2, vec![Piece(timeouts, counted(self.timeouts, "timeout"))]),
                (6, vec![Piece(DIM, counted(self.errors, "error"))]),
            ]);
        }
        if let Some(causes) = &self.error_causes {
            parts.push((8, vec![Piece(DIM, format!("({causes})"))]));
        }
        if let Some((operation, held)) = &self.top_holder {
            parts.push((4, vec![Piece(NAME, operation.to_string()), Piece(PLAIN, format!(" holds {held}"))]));
        }
        if let Some((cause, operation)) = &self.diagnosis {
            let by = operation.as_ref().map_or_else(String::new, |operation| format!(" by {operation}"));
            parts.push((1, vec![Piece(CRITICAL, (*cause).to_owned()), Piece(PLAIN, by)]));
        }
        while parts.len() > 1 && columns(&parts) > width {
            let least_important = parts.iter().enumerate().max_by_key(|(_, (rank, _))| *rank).map(|(index, _)| index);
            parts.remove(least_important.unwrap_or_default());
        }
        let mut line = String::new();
        let mut columns_left = width;
        for (index, (_, pieces)) in parts.iter().enumerate() {
            let gap = Piece(PLAIN, " ".repeat(if index == 0 { INDENT } else { GAP }));
            for Piece(style, text) in std::iter::once(&gap).chain(pieces) {
                let text: String = text.chars().take(columns_left).collect();
                columns_left -= text.chars().count();
                let style = if ansi { *style } else { PLAIN };
                // Writing to a string does not fail.
                let _ = write!(line, "{style}{text}{style:#}");
            }
        }
        line
    }

    /// Returns the line for anything but a terminal, without the bar.
    fn plain(&self) -> String {
        let Connections { used, idle, creating, .. } = self.connections;
        let mut line =
            format!("{} {used}/{} used, {idle} idle, {creating} being created", clock(self.elapsed), self.max,);
        if !self.is_proxied {
            let _ = write!(
                line,
                ", {} waiting, {:.1} checkouts/s, {}, {}",
                self.waiting,
                self.rate,
                counted(self.timeouts, "timeout"),
                counted(self.errors, "error"),
            );
        }
        if let Some(causes) = &self.error_causes {
            let _ = write!(line, " ({causes})");
        }
        if let Some((operation, held)) = &self.top_holder {
            let _ = write!(line, ", {operation} holds {held}");
        }
        if let Some((cause, operation)) = &self.diagnosis {
            let _ = write!(line, "; diagnosis: {cause}");
            if let Some(operation) = operation {
                let _ = write!(line, " by {operation}");
            }
        }
        line
    }

    /// Returns the bar, with a cell for each connection, or for several if there are many.
    fn bar(&self, glyphs: &Glyphs) -> Vec<Piece> {
        let cells = self.max.clamp(1, MAX_CELLS);
        let cell = |connections: usize| (connections * cells).div_ceil(self.max.max(1)).min(cells);
        let Connections { used, idle, creating, .. } = self.connections;
        let (size, used_end) = (cell(self.size), cell(used));
        let (creating_end, idle_end) = (cell(used + creating), cell(used + creating + idle));
        let piece = |style, glyph: char, from: usize, to: usize| {
            Piece(style, std::iter::repeat_n(glyph, to.saturating_sub(from)).collect())
        };
        vec![
            piece(NORMAL, glyphs.used, 0, used_end.min(size)),
            piece(WARNING, glyphs.used, size, used_end),
            piece(WARNING, glyphs.creating, used_end, creating_end),
            piece(DIM, glyphs.idle, creating_end, idle_end),
            piece(DIM, glyphs.free, idle_end, cells),
        ]
    }

    #[cfg(test)]
    pub(super) fn example() -> Self {
        let mut connections = Connections::default();
        (connections.used, connections.idle, connections.creating) = (6, 2, 1);
        Self {
            elapsed: Duration::from_secs(3672),
            size: 5,
            max: 10,
            connections,
            is_proxied: false,
            waiting: 3,
            rate: 41.26,
            timeouts: 1,
            errors: 17,
            error_causes: Some("12 io, 3 57P01".to_owned()),
            has_new_timeouts: true,
            top_holder: Some(("place_order".into(), 3)),
            diagnosis: None,
        }
    }
}

/// A text with its style.
#[derive(Debug)]
struct Piece(Style, String);

/// The number of spaces before the first part, and between two parts.
const INDENT: usize = 1;
const GAP: usize = 2;

impl StatusLine for Status {
    fn line(&self, width: usize, is_utf8: bool, ansi: bool) -> String {
        self.line(width, if is_utf8 { &BLOCKS } else { &ASCII }, ansi)
    }

    fn plain(&self) -> String {
        self.plain()
    }
}

fn columns(parts: &[(u8, Vec<Piece>)]) -> usize {
    let texts = parts.iter().flat_map(|(_, pieces)| pieces).map(|Piece(_, text)| text.chars().count());
    INDENT + texts.sum::<usize>() + GAP * (parts.len() - 1)
}

const fn warning_if(condition: bool) -> Style {
    if condition { WARNING } else { PLAIN }
}

/// Formats the time since the start, as in `1:05` or `1:00:05`.
pub(in crate::demo) fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Formats a count with its noun.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn timeouts(pool: &PoolSnapshot) -> u64 {
    pool.operations.iter().map(|operation| operation.outcomes[Outcome::Timeout.index()]).sum()
}

/// Returns how often an operation failed: its checkouts, or its work if that is known.
pub(super) fn errors(operation: &OperationTotals) -> u64 {
    let error = Outcome::Error.index();
    operation.durations[error].count().max(operation.outcomes[error])
}

/// Returns the codes of the errors that were not retried, the most frequent first: of queries, of connecting, and of
/// checkouts that did not connect because connecting fails.
pub(super) fn error_causes(pool: &PoolSnapshot) -> Vec<(ErrorCode, u64)> {
    // Checkouts that gave up on their attempt are no errors: they timed out or were cancelled.
    let is_error = |errors: &&ConnectionErrors| {
        matches!(errors.phase, ErrorPhase::Connect | ErrorPhase::Query | ErrorPhase::Checkout)
            && ![ErrorCode::TOO_SLOW, ErrorCode::DROPPED].contains(&errors.code)
    };
    let mut by_code = BTreeMap::<ErrorCode, u64>::new();
    for errors in pool.errors.iter().filter(is_error) {
        *by_code.entry(errors.code).or_default() += errors.count;
    }
    for retries in &pool.retries {
        if let Some(count) = by_code.get_mut(&retries.code) {
            *count = count.saturating_sub(retries.count);
        }
    }
    // An attempt to connect may fail without an operation that does.
    let all = pool.operations.iter().map(errors).sum();
    let mut causes: Vec<_> =
        by_code.into_iter().map(|(code, count)| (code, count.min(all))).filter(|(_, count)| *count > 0).collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    causes
}

/// Formats the first causes, as in `12 io, 3 57P01`; `None` without any.
pub(super) fn causes_text(causes: &[(ErrorCode, u64)], most: usize) -> Option<String> {
    let causes: Vec<_> = causes.iter().take(most).map(|(code, count)| format!("{count} {}", code.as_str())).collect();
    (!causes.is_empty()).then(|| causes.join(", "))
}

fn top_holder(holders: &[Holder]) -> Option<(Arc<str>, usize)> {
    let held = |name: &str| holders.iter().filter(|holder| *holder.operation == *name).count();
    // Of several with the same number, returns that of the oldest holder, which is the first.
    let holder = holders.iter().rev().max_by_key(|holder| held(&holder.operation))?;
    Some((holder.operation.clone(), held(&holder.operation)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(width: usize) -> String {
        Status::example().line(width, &BLOCKS, false)
    }

    #[test]
    fn wide_line_has_every_part() {
        assert_eq!(
            line(200),
            " 1:01:12  ██████▓▒▒·  6/10 used  2 idle  3 waiting  41/s  1 timeout  17 errors  (12 io, 3 57P01)  \
             place_order holds 3"
        );
        assert_eq!(
            Status::example().plain(),
            "1:01:12 6/10 used, 2 idle, 1 being created, 3 waiting, 41.3 checkouts/s, 1 timeout, 17 errors \
             (12 io, 3 57P01), place_order holds 3"
        );
    }

    #[test]
    fn proxied_pool_has_no_checkouts() {
        let status = Status { is_proxied: true, error_causes: None, ..Status::example() };
        assert_eq!(status.line(200, &BLOCKS, false), " 1:01:12  ██████▓▒▒·  6/10 used  2 idle  place_order holds 3");
        assert_eq!(status.plain(), "1:01:12 6/10 used, 2 idle, 1 being created, place_order holds 3");
    }

    #[test]
    fn line_fits_the_terminal() {
        for width in 0..120 {
            assert!(line(width).chars().count() <= width, "{width}: {}", line(width));
        }
        assert_eq!(line(79), " 1:01:12  ██████▓▒▒·  6/10 used  3 waiting  1 timeout  place_order holds 3");
        assert_eq!(line(60), " 1:01:12  ██████▓▒▒·  6/10 used  3 waiting  1 timeout");
        assert_eq!(line(30), " 1:01:12  6/10 used  3 waiting");
        assert_eq!(line(5), " 6/10");
    }

    #[test]
    fn colors_only_add_escapes() {
        let colored = Status::example().line(200, &BLOCKS, true);
        assert!(colored.contains("\x1b["));
        assert_eq!(anstream::adapter::strip_str(&colored).to_string(), line(200));
    }

    #[test]
    fn cells_of_the_bar_are_bounded() {
        let mut status = Status::example();
        (status.size, status.max) = (60, 100);
        (status.connections.used, status.connections.creating, status.connections.idle) = (70, 0, 1);
        let bar: String = status.bar(&ASCII).into_iter().map(|Piece(_, text)| text).collect();
        assert_eq!(bar, "##############=.....");
        status.connections.used = 100;
        let bar: String = status.bar(&ASCII).into_iter().map(|Piece(_, text)| text).collect();
        assert_eq!(bar, "####################");
    }
}

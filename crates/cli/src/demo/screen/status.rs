//! The pool's state on one line.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use poolscope::labels::Outcome;
use poolscope::telemetry::{Connections, Holder, OperationTotals, PoolSnapshot};

/// What the bar is made of.
#[derive(Debug)]
pub(in crate::demo) struct Glyphs {
    used: char,
    creating: char,
    idle: char,
    free: char,
}

/// For terminals that show more than ASCII.
pub(super) const BLOCKS: Glyphs = Glyphs { used: '█', creating: '▓', idle: '▒', free: '·' };
/// For others.
pub(super) const ASCII: Glyphs = Glyphs { used: '#', creating: '%', idle: '=', free: '.' };

/// How many cells the bar has at most.
const CELLS: usize = 20;

const GOOD: Style = AnsiColor::Green.on_default();
const BUSY: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const WHO: Style = AnsiColor::Cyan.on_default();
const DIM: Style = Style::new().dimmed();
const PLAIN: Style = Style::new();

/// What the line tells.
#[derive(Debug, Clone)]
pub(in crate::demo) struct Status {
    elapsed: Duration,
    size: usize,
    max: usize,
    connections: Connections,
    waiting: usize,
    /// Checkouts begun, per second, since the last status.
    rate: f64,
    timeouts: u64,
    errors: u64,
    /// Whether there were timeouts since the last status.
    timing_out: bool,
    /// The operation that holds most, and how many.
    top: Option<(Arc<str>, usize)>,
}

impl Status {
    /// What a snapshot shows, and how it differs from the one before.
    pub(in crate::demo) fn new(now: &PoolSnapshot, before: &PoolSnapshot, apart: Duration, elapsed: Duration) -> Self {
        let started = |pool: &PoolSnapshot| pool.operations.iter().map(|operation| operation.started).sum::<u64>();
        let began = u32::try_from(started(now).saturating_sub(started(before))).unwrap_or(u32::MAX);
        Self {
            elapsed,
            size: now.limits.pool_size,
            max: now.limits.max(),
            connections: now.connections,
            waiting: now.queued,
            rate: f64::from(began) / apart.as_secs_f64().max(1e-3),
            timeouts: timeouts(now),
            errors: now.operations.iter().map(errors).sum(),
            timing_out: timeouts(now) > timeouts(before),
            top: top(&now.holders),
        }
    }

    /// The line for a terminal, at most so many columns wide: what matters least goes first where there is no room.
    pub(super) fn line(&self, width: usize, glyphs: &Glyphs, colours: bool) -> String {
        let Connections { used, idle, .. } = self.connections;
        let load = match used {
            used if used >= self.max => BAD,
            used if used > self.size => BUSY,
            _ => GOOD,
        };
        let timeouts = if self.timing_out { BAD } else { noticed(self.timeouts > 0) };
        let mut parts: Vec<(u8, Vec<Piece>)> = vec![
            (1, vec![Piece(DIM, clock(self.elapsed))]),
            (3, self.bar(glyphs)),
            (0, vec![Piece(load, format!("{used}/{} used", self.max))]),
            (7, vec![Piece(PLAIN, format!("{idle} idle"))]),
            (1, vec![Piece(noticed(self.waiting > 0), format!("{} waiting", self.waiting))]),
            (5, vec![Piece(PLAIN, format!("{:.0}/s", self.rate))]),
            (2, vec![Piece(timeouts, counted(self.timeouts, "timeout"))]),
            (6, vec![Piece(DIM, counted(self.errors, "error"))]),
        ];
        if let Some((operation, held)) = &self.top {
            parts.push((4, vec![Piece(WHO, operation.to_string()), Piece(PLAIN, format!(" holds {held}"))]));
        }
        while parts.len() > 1 && columns(&parts) > width {
            let least = parts.iter().enumerate().max_by_key(|(_, (rank, _))| *rank).map(|(index, _)| index);
            parts.remove(least.unwrap_or_default());
        }
        let mut line = String::new();
        let mut left = width;
        for (index, (_, pieces)) in parts.iter().enumerate() {
            let gap = Piece(PLAIN, " ".repeat(if index == 0 { INDENT } else { GAP }));
            for Piece(style, text) in std::iter::once(&gap).chain(pieces) {
                let text: String = text.chars().take(left).collect();
                left -= text.chars().count();
                let style = if colours { *style } else { PLAIN };
                // Writing to a string does not fail.
                let _ = write!(line, "{style}{text}{style:#}");
            }
        }
        line
    }

    /// The same without a bar, for where lines stay.
    pub(super) fn plain(&self) -> String {
        let Connections { used, idle, creating, .. } = self.connections;
        let mut line = format!(
            "{} {used}/{} used, {idle} idle, {creating} being created, {} waiting, {:.1} checkouts/s, {}, {}",
            clock(self.elapsed),
            self.max,
            self.waiting,
            self.rate,
            counted(self.timeouts, "timeout"),
            counted(self.errors, "error"),
        );
        if let Some((operation, held)) = &self.top {
            let _ = write!(line, ", {operation} holds {held}");
        }
        line
    }

    /// A cell for each connection; for many, a cell for several.
    fn bar(&self, glyphs: &Glyphs) -> Vec<Piece> {
        let cells = self.max.clamp(1, CELLS);
        let cell = |connections: usize| (connections * cells).div_ceil(self.max.max(1)).min(cells);
        let Connections { used, idle, creating, .. } = self.connections;
        let (size, busy) = (cell(self.size), cell(used));
        let (making, kept) = (cell(used + creating), cell(used + creating + idle));
        let piece = |style, glyph: char, from: usize, to: usize| {
            Piece(style, std::iter::repeat_n(glyph, to.saturating_sub(from)).collect())
        };
        vec![
            piece(GOOD, glyphs.used, 0, busy.min(size)),
            piece(BUSY, glyphs.used, size, busy),
            piece(BUSY, glyphs.creating, busy, making),
            piece(DIM, glyphs.idle, making, kept),
            piece(DIM, glyphs.free, kept, cells),
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
            waiting: 3,
            rate: 41.26,
            timeouts: 1,
            errors: 17,
            timing_out: true,
            top: Some(("place_order".into(), 3)),
        }
    }
}

/// Text in one style.
#[derive(Debug)]
struct Piece(Style, String);

/// Spaces before the first part, and between two.
const INDENT: usize = 1;
const GAP: usize = 2;

fn columns(parts: &[(u8, Vec<Piece>)]) -> usize {
    let texts = parts.iter().flat_map(|(_, pieces)| pieces).map(|Piece(_, text)| text.chars().count());
    INDENT + texts.sum::<usize>() + GAP * (parts.len() - 1)
}

const fn noticed(is: bool) -> Style {
    if is { BUSY } else { PLAIN }
}

/// The time since the beginning.
pub(in crate::demo) fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn timeouts(pool: &PoolSnapshot) -> u64 {
    pool.operations.iter().map(|operation| operation.outcomes[Outcome::Timeout.index()]).sum()
}

/// How often an operation failed: its checkout, or its work where that is known.
pub(super) fn errors(operation: &OperationTotals) -> u64 {
    let error = Outcome::Error.index();
    operation.durations[error].count().max(operation.outcomes[error])
}

fn top(holders: &[Holder]) -> Option<(Arc<str>, usize)> {
    let held = |name: &str| holders.iter().filter(|holder| *holder.operation == *name).count();
    // The oldest comes first; of several that hold as many, it is to be named.
    let top = holders.iter().rev().max_by_key(|holder| held(&holder.operation))?;
    Some((top.operation.clone(), held(&top.operation)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(width: usize) -> String {
        Status::example().line(width, &BLOCKS, false)
    }

    #[test]
    fn a_status_tells_everything_where_there_is_room() {
        assert_eq!(
            line(200),
            " 1:01:12  ██████▓▒▒·  6/10 used  2 idle  3 waiting  41/s  1 timeout  17 errors  place_order holds 3"
        );
        assert_eq!(
            Status::example().plain(),
            "1:01:12 6/10 used, 2 idle, 1 being created, 3 waiting, 41.3 checkouts/s, 1 timeout, 17 errors, \
             place_order holds 3"
        );
    }

    #[test]
    fn a_status_is_never_wider_than_the_terminal() {
        for width in 0..120 {
            assert!(line(width).chars().count() <= width, "{width}: {}", line(width));
        }
        assert_eq!(line(79), " 1:01:12  ██████▓▒▒·  6/10 used  3 waiting  1 timeout  place_order holds 3");
        assert_eq!(line(60), " 1:01:12  ██████▓▒▒·  6/10 used  3 waiting  1 timeout");
        assert_eq!(line(30), " 1:01:12  6/10 used  3 waiting");
        assert_eq!(line(5), " 6/10");
    }

    #[test]
    fn colours_add_nothing_but_escapes() {
        let coloured = Status::example().line(200, &BLOCKS, true);
        assert!(coloured.contains("\x1b["));
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), line(200));
    }

    #[test]
    fn a_bar_has_one_cell_for_several_of_many_connections() {
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

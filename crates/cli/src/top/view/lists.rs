//! The holders of a pool's connections, and the checkouts that wait.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table};

use super::text::cut;
use super::theme::Theme;
use crate::top::app::{App, Focus};
use crate::top::list::ListControl;
use crate::top::model::{Holder, Pool, Waiter, duration};

/// The widths from which a list has more columns.
const WIDE: u16 = 110;
const WITH_TRACE: u16 = 150;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, pool: &Pool, theme: Theme) {
    let (holders, waiters) = (app.listed_holders(pool), app.listed_waiters(pool));
    // A title and a header each. The focused list has more, and the rest goes to where it is needed.
    let rows = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).saturating_add(2);
    let (for_holders, for_waiters) = (rows(holders.len()), rows(waiters.len()));
    let half = match app.focus {
        Focus::Holders => area.height * 3 / 4,
        Focus::Waiters => area.height / 4,
        Focus::Pools => area.height / 2,
    };
    let upper = match pool.is_proxied {
        true => area.height,
        false => for_holders.min(half.max(area.height.saturating_sub(for_waiters))),
    };
    let [upper, lower] = Layout::vertical([Constraint::Length(upper), Constraint::Fill(1)]).areas(area);
    let list = List { app, theme };
    list.draw(
        frame,
        upper,
        Focus::Holders,
        &app.holders,
        ("Holders", pool.holders.len(), pool.holders_omitted),
        &holders,
    );
    if pool.is_proxied {
        return;
    }
    list.draw(
        frame,
        lower,
        Focus::Waiters,
        &app.waiters,
        ("Waiters", pool.waiters.len(), pool.waiters_omitted),
        &waiters,
    );
}

/// An entry that has columns.
trait Columns {
    /// Returns titles and widths for a terminal of this width.
    fn columns(width: u16) -> Vec<(&'static str, Constraint)>;

    /// Returns the cell of each column.
    fn cells(&self, width: u16, theme: Theme) -> Vec<Cell<'_>>;
}

impl Columns for Holder {
    fn columns(width: u16) -> Vec<(&'static str, Constraint)> {
        let mut columns = vec![
            ("    AGE", Constraint::Length(7)),
            ("", Constraint::Length(2)),
            ("ACTIVITY", Constraint::Length(19)),
            ("    PID", Constraint::Length(7)),
        ];
        if width >= WIDE {
            columns.extend([(" SILENT", Constraint::Length(7)), ("QUERIES", Constraint::Length(7))]);
        }
        columns.extend([("OPERATION", Constraint::Fill(1)), ("CALL SITE", Constraint::Fill(1))]);
        if width >= WITH_TRACE {
            columns.push(("TRACE", Constraint::Length(32)));
        }
        columns
    }

    fn cells(&self, width: u16, theme: Theme) -> Vec<Cell<'_>> {
        let pid = self.backend_pid.map(|pid| pid.to_string()).unwrap_or_default();
        let mut cells = vec![
            Cell::from(format!("{:>7}", duration(self.age))),
            Cell::from(Span::styled(&*self.flags, theme.waiting())),
            Cell::from(&*self.activity),
            Cell::from(format!("{pid:>7}")),
        ];
        if width >= WIDE {
            cells.push(Cell::from(format!("{:>7}", duration(self.silent))));
            cells.push(Cell::from(format!("{:>7}", self.queries)));
        }
        cells.extend([Cell::from(&*self.operation), Cell::from(&*self.call_site)]);
        if width >= WITH_TRACE {
            cells.push(Cell::from(&*self.trace));
        }
        cells
    }
}

impl Columns for Waiter {
    fn columns(width: u16) -> Vec<(&'static str, Constraint)> {
        let mut columns = vec![
            ("    AGE", Constraint::Length(7)),
            ("", Constraint::Length(2)),
            ("PHASE", Constraint::Length(8)),
            ("OPERATION", Constraint::Fill(1)),
            ("CALL SITE", Constraint::Fill(1)),
        ];
        if width >= WIDE {
            columns.push(("HOLDS", Constraint::Fill(1)));
        }
        if width >= WITH_TRACE {
            columns.push(("TRACE", Constraint::Length(32)));
        }
        columns
    }

    fn cells(&self, width: u16, theme: Theme) -> Vec<Cell<'_>> {
        let flag = if self.holds.is_empty() { "" } else { "W" };
        let phase = Span::raw(&*self.phase);
        let phase = if self.phase == "connect" { phase.style(theme.creating()) } else { phase };
        let mut cells = vec![
            Cell::from(format!("{:>7}", duration(self.age))),
            Cell::from(Span::styled(flag, theme.waiting())),
            Cell::from(phase),
            Cell::from(&*self.operation),
            Cell::from(&*self.call_site),
        ];
        if width >= WIDE {
            cells.push(Cell::from(&*self.holds));
        }
        if width >= WITH_TRACE {
            cells.push(Cell::from(&*self.trace));
        }
        cells
    }
}

struct List<'a> {
    app: &'a App,
    theme: Theme,
}

impl List<'_> {
    /// `counted`: the list's name, the number of entries without a filter, and that of entries that are not listed.
    fn draw<T: Columns>(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        focus: Focus,
        control: &ListControl,
        counted: (&str, usize, u64),
        entries: &[&T],
    ) {
        let (name, count, omitted) = counted;
        let Some(title) = area.rows().next() else { return };
        let listed = if entries.len() == count { String::new() } else { format!("{} of ", entries.len()) };
        let omitted = if omitted > 0 { format!(" and {omitted} more") } else { String::new() };
        // Short of the end, so that there is always something to see.
        let first = control.first.min(entries.len().saturating_sub(1));
        let from = if first > 0 { format!(", from {}", first + 1) } else { String::new() };
        let text = format!("{name}: {listed}{count}{omitted}{}{from}", control.describe());
        let text = format!("{:<width$}", cut(&text, title.width.into()), width = usize::from(title.width));
        frame.render_widget(Line::styled(text, self.theme.title(self.app.focus == focus)), title);
        if entries.is_empty() {
            return;
        }
        let table = Rect { y: area.y + 1, height: area.height - 1, ..area };
        let columns = T::columns(area.width);
        let shown = entries.iter().skip(first).take(table.height.into());
        let rows = shown.map(|entry| Row::new(entry.cells(area.width, self.theme)));
        let header = Row::new(columns.iter().map(|(title, _)| *title)).style(self.theme.header());
        frame.render_widget(Table::new(rows, columns.iter().map(|(_, width)| *width)).header(header), table);
    }
}

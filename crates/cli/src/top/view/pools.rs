//! The pools of each exporter, in columns side by side.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table, TableState};

use super::text::{cut, spread};
use super::theme::Theme;
use crate::top::app::{App, Exporter, Focus};
use crate::top::history::bars;
use crate::top::model::{Pool, duration};

/// The width of a column that still shows a pool's verdict.
const MIN_COLUMN: u16 = 38;

/// The widths from which a column has more.
const WITH_SINCE: u16 = 56;
const WITH_SPARKLINE: u16 = 76;

/// Returns how many rows show all pools: a title, a header, and the pools.
pub(super) fn rows(app: &App) -> u16 {
    let pools = app.exporters.iter().map(|exporter| exporter.pools.len() + usize::from(exporter.error.is_some()));
    u16::try_from(pools.max().unwrap_or(0).max(1)).unwrap_or(u16::MAX).saturating_add(2)
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    // As many exporters as fit, among them the selected one.
    let fitting = usize::from((area.width / MIN_COLUMN).max(1)).min(app.exporters.len());
    let first = app.exporter.saturating_sub(fitting.saturating_sub(1));
    let shown = app.exporters.iter().enumerate().skip(first).take(fitting);
    let columns = Layout::horizontal(vec![Constraint::Fill(1); fitting]).spacing(1).split(area);
    for ((index, exporter), area) in shown.zip(columns.iter()) {
        draw_exporter(frame, *area, app, index, exporter, theme);
    }
}

fn draw_exporter(frame: &mut Frame<'_>, area: Rect, app: &App, index: usize, exporter: &Exporter, theme: Theme) {
    let is_selected = index == app.exporter;
    let [title, notice, table] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(u16::from(exporter.error.is_some() || exporter.pools.is_empty())),
        Constraint::Fill(1),
    ])
    .areas(area);
    let position = match (index, app.exporters.len()) {
        (_, 1) => String::new(),
        (index, count) => format!("{}/{count}", index + 1),
    };
    let name = format!("{}{}", exporter.url, if is_selected { app.pools.describe() } else { String::new() });
    let style = theme.title(is_selected && app.focus == Focus::Pools);
    frame.render_widget(Line::styled(spread(&name, &position, title.width.into()), style), title);
    match &exporter.error {
        Some(error) => {
            let text = cut(&format!("no answer: {error}"), notice.width.into());
            frame.render_widget(Line::styled(text, theme.waiting()), notice);
        }
        None if !exporter.has_answered => frame.render_widget("querying ...", notice),
        None if exporter.pools.is_empty() => frame.render_widget("no pools", notice),
        None => {}
    }
    let pools = app.listed_pools(exporter);
    let selected = app.selected(exporter).and_then(|pool| pools.iter().position(|listed| listed.name == pool.name));
    draw_table(frame, table, exporter, &pools, selected.filter(|_| is_selected), theme);
}

fn draw_table(
    frame: &mut Frame<'_>,
    area: Rect,
    exporter: &Exporter,
    pools: &[&Pool],
    selected: Option<usize>,
    theme: Theme,
) {
    if pools.is_empty() {
        return;
    }
    let width = area.width;
    let name = match width {
        0..WITH_SINCE => Constraint::Fill(2),
        _ => Constraint::Max(30),
    };
    let mut columns = vec![
        (name, "POOL"),
        (if width < WITH_SINCE { Constraint::Fill(3) } else { Constraint::Length(19) }, "VERDICT"),
        (Constraint::Length(9), "     USED"),
        (Constraint::Length(5), " WAIT"),
    ];
    if width >= WITH_SINCE {
        columns.insert(2, (Constraint::Length(7), "  SINCE"));
    }
    let sparkline = usize::from(width.saturating_sub(WITH_SPARKLINE)).min(60) + 8;
    let with_sparkline = width >= WITH_SPARKLINE;
    if with_sparkline {
        columns.push((Constraint::Length(u16::try_from(sparkline).unwrap_or(8)), "used"));
    }
    let table = pools.iter().map(|pool| {
        let (state, verdict) = (pool.state, &pool.verdict);
        let waiting = Span::raw(format!("{:>5}", pool.waiting()));
        let waiting = if state.waiting > 0 { waiting.style(theme.waiting()) } else { waiting };
        let mut cells = vec![
            Cell::from(&*pool.name),
            Cell::from(Span::styled(&*verdict.cause, theme.severity(verdict.severity()))),
            Cell::from(format!("{:>9}", format!("{}/{}", state.used, state.max))),
            Cell::from(waiting),
        ];
        if width >= WITH_SINCE {
            cells.insert(2, Cell::from(format!("{:>7}", verdict.since.map(duration).unwrap_or_default())));
        }
        if with_sparkline {
            let values = exporter.history(&pool.name).map(|history| history.last(sparkline, |state| state.used));
            let bars = bars(&values.unwrap_or_default(), state.max, sparkline, 1, theme.is_utf8);
            cells.push(Cell::from(Line::styled(bars.concat(), theme.used())));
        }
        Row::new(cells)
    });
    let header = Row::new(columns.iter().map(|(_, title)| *title)).style(theme.header());
    let table =
        Table::new(table, columns.iter().map(|(width, _)| *width)).header(header).row_highlight_style(theme.selected());
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(selected));
}

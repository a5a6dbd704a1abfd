//! Draws the state.

mod detail;
mod help;
mod lists;
mod pools;
mod text;
mod theme;

use std::time::SystemTime;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};

pub(crate) use self::text::clock;
use self::text::spread;
pub(crate) use self::theme::Theme;
use super::app::{App, Focus};

/// The smallest terminal that is drawn on.
const MIN_WIDTH: u16 = 40;
const MIN_HEIGHT: u16 = 10;

/// Draws one frame.
pub(crate) fn draw(frame: &mut Frame<'_>, app: &App, theme: Theme, now: SystemTime) {
    let area = frame.area();
    if area.width < MIN_WIDTH || area.height < MIN_HEIGHT {
        frame.render_widget(format!("{MIN_WIDTH}x{MIN_HEIGHT} needed"), area);
    } else if app.is_help {
        help::draw(frame, area, theme);
    } else {
        draw_lists(frame, area, app, theme, now);
    }
    if !theme.is_utf8 {
        replace_other_than_ascii(frame);
    }
}

fn draw_lists(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme, now: SystemTime) {
    let rows = pools::rows(app);
    let has_current = app.current().is_some();
    // Half of the lists' part goes to the focused list.
    let detail = if has_current { detail::height(app, area) } else { 0 };
    let free = area.height.saturating_sub(2 + detail);
    let pools = match app.focus {
        _ if !has_current => free,
        Focus::Pools => rows.min(free / 2),
        Focus::Holders | Focus::Waiters => rows.min(free / 4),
    };
    let [head, pools, detail, lists, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(pools.max(3)),
        Constraint::Length(detail),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(header(app, theme, head.width, now), head);
    pools::draw(frame, pools, app, theme);
    if let Some((exporter, pool)) = app.current() {
        detail::draw(frame, detail, exporter, pool, theme);
        lists::draw(frame, lists, app, pool, theme);
    }
    frame.render_widget(footer(app, theme, foot.width), foot);
}

fn header(app: &App, theme: Theme, width: u16, now: SystemTime) -> Line<'static> {
    let (answering, pools, problems) = app.totals();
    let exporters = app.exporters.len();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let mut left = format!("poolscope top  {pools} pool{}, {problems} with a problem", plural(pools));
    if exporters > 1 || answering < exporters {
        left += &format!(", {answering} of {exporters} exporter{} answering", plural(exporters));
    }
    let recorded = app.current().map(|(_, pool)| &*pool.recorded_at).filter(|time| !time.is_empty());
    let time = recorded.map_or_else(|| clock(now), str::to_owned);
    let right = match (app.is_frozen, recorded) {
        (true, Some(_)) => format!("PAUSED {time}"),
        (true, None) => "FROZEN".to_owned(),
        (false, _) => time,
    };
    Line::styled(spread(&left, &right, width.into()), theme.strong())
}

fn footer(app: &App, theme: Theme, width: u16) -> Line<'static> {
    if app.is_filtering {
        let filter = match app.focus {
            Focus::Pools => &app.pools.filter,
            Focus::Holders => &app.holders.filter,
            Focus::Waiters => &app.waiters.filter,
        };
        let shown = poolscope::text::printable(filter).into_owned();
        return Line::from(vec![Span::styled("Filter: ", theme.strong()), Span::raw(shown), Span::raw("_")]);
    }
    let mut keys = vec!["? help", "Tab list", "/ filter", "> sort", "I invert", "Z freeze", "q quit"];
    if app.exporters.len() > 1 {
        keys.insert(2, "Left/Right exporter");
    }
    if app.current().is_some_and(|(_, pool)| !pool.recorded_at.is_empty()) {
        keys.insert(1, "[ ] { } time");
    }
    Line::styled(spread(&keys.join("  "), "", width.into()), theme.header())
}

/// Replaces what a terminal cannot show whose locale is not UTF-8.
fn replace_other_than_ascii(frame: &mut Frame<'_>) {
    for cell in &mut frame.buffer_mut().content {
        if !cell.symbol().is_ascii() {
            cell.set_symbol("?");
        }
    }
}

#[cfg(test)]
mod tests;

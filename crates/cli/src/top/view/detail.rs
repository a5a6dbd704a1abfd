//! The verdict and the recent states of one pool.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::text::{cut, width, wrap};
use super::theme::Theme;
use crate::top::app::{App, Exporter};
use crate::top::history::bars;
use crate::top::model::{Pool, State, duration};

/// The number of rows of a sparkline in a terminal of this height.
const fn bar_height(terminal: u16) -> u16 {
    match terminal {
        0..40 => 1,
        40..60 => 3,
        _ => 5,
    }
}

/// Returns the width of the text beside a sparkline.
const fn label_width(columns: u16) -> usize {
    if columns < 100 { 26 } else { 44 }
}

/// Returns the height, within the limits of the terminal.
pub(super) fn height(app: &App, terminal: Rect) -> u16 {
    let Some((_, pool)) = app.current() else { return 0 };
    let texts = u16::try_from(verdict(pool, terminal.width.into(), usize::MAX).len()).unwrap_or(u16::MAX);
    (1 + texts + charts(pool) * bar_height(terminal.height)).min(terminal.height / 2)
}

/// Returns the number of sparklines: of used connections, and of waiting checkouts if they are known.
const fn charts(pool: &Pool) -> u16 {
    if pool.is_proxied { 1 } else { 2 }
}

/// Returns the verdict in words, in at most `rows` lines.
fn verdict(pool: &Pool, columns: usize, rows: usize) -> Vec<String> {
    let verdict = &pool.verdict;
    let mut lines = Vec::new();
    // The advice precedes the evidence, which is cut first.
    for (lead, text) in [
        ("", &verdict.finding),
        ("at ", &verdict.call_site),
        ("advice: ", &verdict.advice),
        ("evidence: ", &verdict.evidence),
        ("consequences: ", &verdict.consequences),
        ("size: ", &pool.size),
    ] {
        if !text.is_empty() {
            lines.extend(wrap(&format!("{lead}{text}"), columns));
        }
    }
    if lines.len() > rows {
        lines.truncate(rows);
        if let Some(last) = lines.last_mut() {
            *last = cut(&format!("{last} ~"), columns);
        }
    }
    lines
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, exporter: &Exporter, pool: &Pool, theme: Theme) {
    if area.height < 3 {
        return;
    }
    let bar_rows = bar_height(frame.area().height).min((area.height - 1) / charts(pool));
    let mut lines = vec![title(pool, area.width.into(), theme)];
    let texts = usize::from(area.height - 1 - charts(pool) * bar_rows);
    lines.extend(verdict(pool, area.width.into(), texts).into_iter().map(Line::from));
    let state = pool.state;
    let others = format!("idle {}, creating {}, closing {}", state.idle, state.creating, state.closing);
    let mut chart = |label: String, max: u64, of: fn(&State) -> u64, style: Style| {
        let label_width = label_width(area.width);
        let columns = usize::from(area.width).saturating_sub(label_width + 1);
        let values = exporter.history(&pool.name).map(|history| history.last(columns, of)).unwrap_or_default();
        let rows = bars(&values, max, columns, bar_rows.into(), theme.is_utf8);
        for (index, row) in rows.into_iter().enumerate() {
            let lead = match index {
                0 => label.clone(),
                1 if max == state.max => others.clone(),
                _ => String::new(),
            };
            let lead = cut(&lead, label_width);
            let gap = " ".repeat(label_width + 1 - width(&lead));
            lines.push(Line::from(vec![Span::raw(lead), Span::raw(gap), Span::styled(row, style)]));
        }
    };
    chart(format!("used {} of {}", state.used, state.max), state.max, |state| state.used, theme.used());
    if !pool.is_proxied {
        let waiting = exporter.history(&pool.name).map(|history| history.last(usize::MAX, |state| state.waiting));
        // Zero would be equal to the limit of a pool that has none.
        let peak = waiting.iter().flatten().flatten().copied().max().unwrap_or(0).max(1);
        chart(format!("waiting {}, peak {peak}", state.waiting), peak, |state| state.waiting, theme.waiting());
    }
    for (row, line) in area.rows().zip(lines) {
        frame.render_widget(line, row);
    }
}

fn title<'a>(pool: &'a Pool, columns: usize, theme: Theme) -> Line<'a> {
    let verdict = &pool.verdict;
    let since = verdict.since.map(|since| format!(" for {}", duration(since))).unwrap_or_default();
    let name = cut(&pool.name, columns.saturating_sub(width(&verdict.cause) + since.len() + 2).max(8));
    Line::from(vec![
        Span::styled(name, theme.strong()),
        Span::raw(": "),
        Span::styled(&*verdict.cause, theme.severity(verdict.severity())),
        Span::raw(since),
    ])
}

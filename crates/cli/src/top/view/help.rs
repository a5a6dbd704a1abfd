//! The list of keys.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::theme::Theme;

/// The keys and what they do.
const KEYS: [(&str, &str); 19] = [
    ("q F10 Ctrl-C", "quit"),
    ("? h F1", "this help; any key leaves it"),
    ("Up Down k j", "select a pool, or scroll the list"),
    ("PgUp PgDn", "ten rows"),
    ("Home End g G", "to the first, to the last"),
    ("Left Right", "select an exporter"),
    ("Tab Shift-Tab", "next list: pools, holders, waiters"),
    ("/ F3 F4", "filter the list; Enter keeps it, Esc removes it"),
    ("> < F6", "sort by the next or previous column"),
    ("I", "invert the order"),
    ("N T", "sort by name, by age"),
    ("U W", "sort pools by use, by waiting checkouts"),
    ("P", "sort holders by backend pid"),
    ("Z", "freeze the lists, or pause a recording; and continue"),
    ("[ ] { }", "in a recording, 10 seconds or a minute back or on"),
    ("Space Ctrl-L", "query now"),
    ("Ctrl-Z", "suspend"),
    ("flag L", "suspected leak"),
    ("flags W M", "the task waits for the same pool; maintenance by the pool"),
];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, theme: Theme) {
    let title = Line::styled("Keys of poolscope top", theme.strong());
    let keys = KEYS
        .iter()
        .map(|(keys, text)| Line::from(vec![Span::styled(format!("  {keys:<15}"), theme.strong()), Span::raw(*text)]));
    for (row, line) in area.rows().zip([title, Line::default()].into_iter().chain(keys)) {
        frame.render_widget(line, row);
    }
}

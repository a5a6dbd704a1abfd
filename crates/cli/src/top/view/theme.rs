//! Styles: with colors, those of the dashboards; without, bold, dim and reversed text.

use ratatui::style::{Color, Modifier, Style};

use crate::top::model::Severity;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    pub(crate) is_color: bool,
    /// Whether the terminal shows characters other than ASCII.
    pub(crate) is_utf8: bool,
}

impl Theme {
    fn color(self, color: Color) -> Style {
        if self.is_color { Style::new().fg(color) } else { Style::new() }
    }

    pub(super) fn severity(self, severity: Severity) -> Style {
        match severity {
            Severity::Problem => self.color(Color::Red).add_modifier(Modifier::BOLD),
            Severity::Unknown => self.color(Color::Yellow),
            Severity::Healthy => self.color(Color::Green),
        }
    }

    /// The style of a used connection.
    pub(super) fn used(self) -> Style {
        self.color(Color::Blue)
    }

    pub(super) fn waiting(self) -> Style {
        self.color(Color::Red)
    }

    pub(super) fn creating(self) -> Style {
        self.color(Color::Magenta)
    }

    pub(super) fn header(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// The style of a section's title. That of the focused section is reversed.
    pub(super) fn title(self, is_focused: bool) -> Style {
        let modifier = if is_focused { Modifier::REVERSED } else { Modifier::UNDERLINED };
        Style::new().add_modifier(modifier)
    }

    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }
}

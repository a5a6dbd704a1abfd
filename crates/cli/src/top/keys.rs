//! How keys change what is shown.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::{App, Focus};
use super::list::{ListControl, Sort};

/// How many rows Page Up and Page Down move.
const PAGE: isize = 10;

/// How many seconds `[`, `]`, `{` and `}` move in a recording.
const SEEK: isize = 10;
const SEEK_FAR: isize = 60;

/// The length of a filter in characters.
const MAX_FILTER: usize = 80;

/// What the caller does after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    None,
    /// Query the exporters now.
    Refresh,
    /// Move in recordings by this many seconds.
    Seek(isize),
    /// Suspend the process, as Ctrl-Z does.
    Suspend,
    Quit,
}

impl App {
    /// Returns the controls of the focused list.
    pub(crate) fn control(&mut self) -> &mut ListControl {
        match self.focus {
            Focus::Pools => &mut self.pools,
            Focus::Holders => &mut self.holders,
            Focus::Waiters => &mut self.waiters,
        }
    }

    /// Handles a key.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Action {
        let action = self.handle(key);
        self.leave_hidden_list();
        action
    }

    fn handle(&mut self, key: KeyEvent) -> Action {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Action::Quit,
            KeyCode::Char('z') if is_control => return Action::Suspend,
            _ if self.is_filtering => self.edit_filter(key.code, is_control),
            // Any other key leaves the help.
            KeyCode::Char('q') | KeyCode::F(10) if !self.is_help => return Action::Quit,
            _ if self.is_help => self.is_help = false,
            KeyCode::Char('l') if is_control => return Action::Refresh,
            _ if is_control => {}
            code => return self.command(code),
        }
        Action::None
    }

    fn command(&mut self, code: KeyCode) -> Action {
        match code {
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.is_help = true,
            KeyCode::Char(' ') => return Action::Refresh,
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::PageUp => self.move_by(-PAGE),
            KeyCode::PageDown => self.move_by(PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.move_by(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.move_by(isize::MAX),
            KeyCode::Left => self.exporter = self.exporter.saturating_sub(1),
            KeyCode::Right => self.exporter = (self.exporter + 1).min(self.exporters.len().saturating_sub(1)),
            KeyCode::Tab => self.focus_next(false),
            KeyCode::BackTab => self.focus_next(true),
            KeyCode::Char('/') | KeyCode::F(3 | 4) => self.is_filtering = true,
            KeyCode::Esc => self.control().filter.clear(),
            KeyCode::Char('>') | KeyCode::F(6) => self.control().sort_by_next(true),
            KeyCode::Char('<') => self.control().sort_by_next(false),
            KeyCode::Char('I') => self.control().is_inverted ^= true,
            KeyCode::Char('N') => self.control().sort_by(Sort::Name),
            KeyCode::Char('T') => self.control().sort_by(Sort::Age),
            KeyCode::Char('U') => self.control().sort_by(Sort::Used),
            KeyCode::Char('W') => self.control().sort_by(Sort::Waiting),
            KeyCode::Char('P') => self.control().sort_by(Sort::Pid),
            KeyCode::Char('Z') => self.is_frozen ^= true,
            KeyCode::Char('[') => return Action::Seek(-SEEK),
            KeyCode::Char(']') => return Action::Seek(SEEK),
            KeyCode::Char('{') => return Action::Seek(-SEEK_FAR),
            KeyCode::Char('}') => return Action::Seek(SEEK_FAR),
            _ => {}
        }
        Action::None
    }

    fn edit_filter(&mut self, code: KeyCode, is_control: bool) {
        let filter = &mut self.control().filter;
        match code {
            KeyCode::Char('u') if is_control => filter.clear(),
            KeyCode::Char(character) if !is_control && filter.chars().count() < MAX_FILTER => filter.push(character),
            KeyCode::Backspace => drop(filter.pop()),
            KeyCode::Enter => self.is_filtering = false,
            KeyCode::Esc => {
                filter.clear();
                self.is_filtering = false;
            }
            _ => {}
        }
    }

    fn focus_next(&mut self, is_backwards: bool) {
        const ORDER: [Focus; 3] = [Focus::Pools, Focus::Holders, Focus::Waiters];
        let order = if self.has_waiters() { &ORDER[..] } else { &ORDER[..2] };
        let index = order.iter().position(|focus| *focus == self.focus).unwrap_or_default();
        let steps = if is_backwards { order.len() - 1 } else { 1 };
        self.focus = order[(index + steps) % order.len()];
    }

    /// Moves the selection, or scrolls a list.
    fn move_by(&mut self, rows: isize) {
        let moved = |index: usize, length: usize| index.saturating_add_signed(rows).min(length.saturating_sub(1));
        match self.focus {
            Focus::Pools => {
                let Some((exporter, pool)) = self.current() else { return };
                let pools = self.listed_pools(exporter);
                let index = pools.iter().position(|listed| listed.name == pool.name).unwrap_or_default();
                let name = pools[moved(index, pools.len())].name.clone();
                self.exporters[self.exporter].selected = Some(name);
                (self.holders.first, self.waiters.first) = (0, 0);
            }
            Focus::Holders | Focus::Waiters => {
                let length = self.current().map_or(0, |(_, pool)| match self.focus {
                    Focus::Holders => self.listed_holders(pool).len(),
                    _ => self.listed_waiters(pool).len(),
                });
                let control = self.control();
                control.first = moved(control.first, length);
            }
        }
    }
}

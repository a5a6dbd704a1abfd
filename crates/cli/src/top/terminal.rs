//! The terminal: raw mode and the alternate screen, restored however the process ends short of SIGKILL.

use std::io;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ratatui::{DefaultTerminal, Frame};
use tokio::runtime::Builder;

use super::Event;
use crate::service::Signals;

/// How long the drawing thread has to end after a signal, before the process is ended without it. It may be blocked by a
/// terminal that does not read.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// A terminal in raw mode that shows the alternate screen.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    is_open: bool,
}

impl Screen {
    /// Sets the terminal up, and a panic hook that restores it.
    pub(super) fn open() -> io::Result<Self> {
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
        Ok(Self { terminal, is_open: true })
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// Restores the terminal.
    fn close(&mut self) {
        if std::mem::take(&mut self.is_open) {
            // A terminal that is gone cannot be restored.
            let _ = self.terminal.show_cursor();
            let _ = ratatui::try_restore();
        }
    }

    /// Leaves the terminal as the panic hook has restored it. Leaving the alternate screen again would move the cursor to
    /// before what was printed since.
    pub(super) fn abandon(&mut self) {
        self.is_open = false;
    }

    /// Restores the terminal, stops the process as a shell expects it, and sets the terminal up when it continues.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        self.close();
        // The process group, as the terminal does at Ctrl-Z outside raw mode: a script that runs this stops, too.
        kill(Pid::from_raw(0), Signal::SIGTSTP)?;
        crossterm::terminal::enable_raw_mode()?;
        crossterm::execute!(io::stdout(), crossterm::terminal::EnterAlternateScreen)?;
        self.is_open = true;
        // Draws everything again. `clear` would query the position of the cursor, and the answer is read as keys.
        let size = self.terminal.size()?;
        self.terminal.resize(size.into())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.close();
        }
    }
}

/// Sends the keys and sizes of the terminal from a thread.
pub(super) fn read_events(events: Sender<Event>) -> io::Result<()> {
    let read = move || {
        loop {
            let event = crossterm::event::read().map_or_else(Event::TerminalFailed, Event::Terminal);
            let is_failed = matches!(event, Event::TerminalFailed(_));
            if events.send(event).is_err() || is_failed {
                return;
            }
        }
    };
    thread::Builder::new().name("poolscope-keys".to_owned()).spawn(read).map(drop)
}

/// Sends the end at a signal from a thread. At the second one, or after a second, it restores the mode of the terminal and
/// exits.
pub(super) fn watch_signals(events: Sender<Event>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _entered = runtime.enter();
        Signals::listen()?
    };
    let handle = async move {
        let (_, mut code) = signals.next().await;
        let _ = events.send(Event::End);
        tokio::select! {
            (_, second) = signals.next() => code = second,
            () = tokio::time::sleep(END_TIMEOUT) => {}
        }
        // Leaving the alternate screen would block, too.
        let _ = crossterm::terminal::disable_raw_mode();
        std::process::exit(code);
    };
    thread::Builder::new().name("poolscope-signals".to_owned()).spawn(move || runtime.block_on(handle)).map(drop)
}

#[cfg(test)]
mod tests;
